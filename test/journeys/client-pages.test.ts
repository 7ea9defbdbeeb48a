import { PassThrough } from 'node:stream'
import t, { type Test } from 'tap'
import { startDemo } from '../../src/demo.ts'
import { createGateway } from '../../src/gateway.ts'
import { chromium, openPage } from '../helpers/chromium.ts'
import { pageHead, pageLines, type ServedPage, servedPage, workerScript } from '../helpers/client-page.ts'
import { isStream, isSubmit, seen } from '../helpers/client.ts'
import { crankedGateway } from '../helpers/cranked-gateway.ts'
import type { FaultyProxy } from '../helpers/faulty-proxy.ts'
import { callerOf } from '../helpers/http-caller.ts'
import { pageServer } from '../helpers/page-server.ts'
import { until } from '../helpers/until.ts'

const browser = await chromium(t)

interface Row {
  readonly what: string
  readonly fault?: FaultyProxy['fault']
  /** Done when the page waits for its task. */
  readonly meanwhile?: (
    t: Test, setUp: ServedPage, page: { setOffline: (isOffline: boolean) => Promise<void> }
  ) => Promise<void>
  readonly presses?: number
  /** In place of the example's. */
  readonly prompt?: string
  /** What the page says at the end; a picture when absent. */
  readonly says?: RegExp
  readonly check?: (t: Test, setUp: ServedPage) => void
}

const limited = {
  kind: 'answer',
  status: 429,
  headers: { 'x-gateway-error': 'GW_RATE_LIMITED', 'retry-after': '2' },
  body: '{"message":"Too many requests in this session."}'
} as const
const none = { kind: 'none' } as const

const rows: readonly Row[] = [
  { what: 'nothing happens' },
  {
    what: 'the session expires while the task runs',
    check: (t, { asked }) => t.equal(asked.tokens, 2)
  },
  { what: 'too many requests', fault: (request, count) => isSubmit(request) && count < 3 ? limited : none },
  {
    what: 'a proxy answers the stream with 502',
    fault: (request, count) => isStream(request) && count < 3 ? { kind: 'page', status: 502 } : none
  },
  {
    what: 'the stream is cut',
    fault: (request, count) => isStream(request) && count < 3 ? { kind: 'cut-stream', events: 1 } : none,
    check: (t, { proxy }) => t.ok(seen(proxy, isStream) >= 3)
  },
  {
    what: 'the gateway is started again',
    async meanwhile (t, { gateway, settings, time: { now, elapsed }, timers, proxy }) {
      await gateway.close()
      const again = await createGateway(settings, { now, elapsed, timers, logTo: new PassThrough() })
      t.teardown(() => again.close())
      proxy.to = await again.listen()
    }
  },
  {
    what: 'the device is offline, and back',
    async meanwhile (_t, { pass }, page) {
      await page.setOffline(true)
      pass(15_000)
      await page.setOffline(false)
    }
  },
  {
    what: 'the answer of the submit is lost',
    fault: (request, count) => isSubmit(request) && count < 3 ? { kind: 'lost' } : none,
    check: (t, { proxy }) => t.equal(seen(proxy, isSubmit), 3)
  },
  { what: 'the button is pressed twice', presses: 2, check: (t, { proxy }) => t.equal(seen(proxy, isSubmit), 2) },
  { what: 'the task fails', prompt: 'sandbox:failed', says: /^TASK_FAILED: \w/ },
  { what: 'the outcome is not known', prompt: 'sandbox:drop-after', says: /^GW_OUTCOME_UNKNOWN: / }
]

t.test('the page has eight lines', async t => {
  const code = pageLines.split('\n').filter(line => line.trim() !== '')
  t.ok(code.length <= 8, `${code.length}`)
})

for (const { what, fault, meanwhile, presses = 1, prompt, says, check } of rows) {
  t.test(`${what}: the page bears it, and one task is made`, async t => {
    const files = prompt === undefined ? {} : { 'index.html': pageHead + pageLines.replace('a lighthouse at dusk', prompt) }
    const setup = await servedPage(t, files)
    const { proxy, sandbox, pass, breakBy } = setup
    if (fault !== undefined) breakBy(fault)
    const { page } = await openPage(t, browser, 'about:blank')
    await page.clock.install()
    await page.goto(proxy.origin)
    for (let press = 0; press < presses; press++) await page.click('button')
    if (meanwhile !== undefined) {
      await until('it waits', async () => await page.textContent('p') === 'pending')
      await meanwhile(t, setup, { setOffline: isOffline => page.context().setOffline(isOffline) })
    }
    const isOver = async (): Promise<boolean> => says === undefined
      ? await page.evaluate(() => document.querySelector('img')!.naturalWidth) === 512
      : says.test((await page.textContent('p'))!)
    await until('it is over', async () => {
      pass(1000)
      await page.clock.runFor(500)
      return await isOver()
    }, 20_000)
    t.equal(sandbox.submits.length, 1)
    check?.(t, setup)
  })
}

t.test('in a worker it does the same', async t => {
  const { proxy, pass, mint, breakBy, sandbox } = await servedPage(t, { 'worker.js': workerScript })
  breakBy((request, count) => isSubmit(request) && count === 1 ? { kind: 'lost' } : none)
  const { page } = await openPage(t, browser, proxy.origin)
  const said = page.evaluate(token => new Promise<{ states: string[], link: string }>((resolve, reject) => {
    const worker = new Worker('/worker.js', { type: 'module' })
    worker.onmessage = ({ data }) => resolve(data)
    worker.onerror = reject
    worker.postMessage(token)
  }), await mint('alice'))
  let isOver = false
  said.finally(() => { isOver = true }).catch(() => {})
  await until('it is over', () => {
    pass(500)
    return isOver
  })
  const { states, link } = await said
  t.equal(states[0], 'submitting')
  t.equal(states.at(-1), 'success')
  t.equal((await fetch(link)).status, 200)
  t.equal(sandbox.submits.length, 1)
})

t.test('a page of another origin that is listed imports it from the gateway', async t => {
  const other = await pageServer(t, pageHead, 'localhost')
  const { origin, mint } = await crankedGateway(t, { env: { GATEWAY_ALLOWED_ORIGINS: other } })
  const { page, complaints } = await openPage(t, browser, other)
  const askFromPage = async ({ origin, token }: { origin: string, token: string }) => {
    const { createClient } = await import(`${origin}/gateway/client.js`)
    const client = createClient({ baseUrl: origin, token })
    const failure = await client.request('/gateway/nothing').catch((error: unknown) => error)
    return { subject: (await client.session()).subject, code: failure.code, hasId: failure.requestId !== null }
  }
  const place = { origin, token: await mint('alice') }
  t.same(await page.evaluate(askFromPage, place), { subject: 'app:alice', code: 'GW_NOT_FOUND', hasId: true })
  t.same(complaints.filter(line => !line.startsWith('Failed to load resource')), [])
})

t.test('the lines that the demo prints for a page bring a picture into it, from another origin', async t => {
  const other = await pageServer(t, pageHead, 'localhost')
  const demo = await startDemo({ port: 0, logLevel: 'silent', allowedOrigins: other })
  t.teardown(demo.close)
  const [, origin, issuerToken] = /(http:\S+)\/gateway\/sessions .*Bearer (\S+?)'/.exec(demo.instructions)!
  const [, lines] = /^For a page.*\n((?:.+\n){5})Ctrl-C/m.exec(demo.instructions)!
  const minted = await callerOf(origin!).call('/gateway/sessions', { token: issuerToken!, body: { subject: 'alice' } })
  const { page } = await openPage(t, browser, other)
  // The sandbox draws for six seconds of real time.
  await page.addScriptTag({ type: 'module', content: lines!.replace('what step 1 has shown', minted.json.token) })
  await page.waitForFunction(() => document.querySelector('img')?.naturalWidth === 512, null, { timeout: 30_000 })
  t.ok((await page.getAttribute('img', 'src'))!.startsWith(`${origin}/gateway/results/`))
})
