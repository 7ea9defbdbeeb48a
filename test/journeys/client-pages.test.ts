import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import t, { type Test } from 'tap'
import { startDemo } from '../../src/demo.ts'
import { createGateway } from '../../src/gateway.ts'
import { builtClient } from '../helpers/built-client.ts'
import { chromium, openPage } from '../helpers/chromium.ts'
import { isStream, isSubmit, seen } from '../helpers/client.ts'
import { crankedGateway } from '../helpers/cranked-gateway.ts'
import { type Fault, type FaultyProxy, faultyProxy } from '../helpers/faulty-proxy.ts'
import { callerOf } from '../helpers/http-caller.ts'
import { pageServer } from '../helpers/page-server.ts'
import { root } from '../helpers/program.ts'
import { until } from '../helpers/until.ts'

const example = readFileSync(join(root, 'config/examples/page.md'), 'utf8')
/** The page, as the example has it. */
const lines = /^```html\n(.*?)^```$/ms.exec(example)![1]!
const head = '<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><title>A page</title>'

await builtClient()
const browser = await chromium(t)

/** The gateway serves the page; a proxy, which plays the app's backend as well, stands before it. */
async function setUp (t: Test, files: Readonly<Record<string, string>> = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'client-page-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  for (const [name, text] of Object.entries({ 'index.html': head + lines, ...files })) writeFileSync(join(folder, name), text)
  const store = join(mkdtempSync(join(tmpdir(), 'client-store-')), 'gateway.db')
  const gateway = await crankedGateway(t, { store, env: { GATEWAY_STATIC_DIR: folder }, sandbox: { taskMs: 30_000 } })
  const proxy = await faultyProxy(t, gateway.origin)
  const tokens = [await gateway.mint('alice', { ttlSeconds: 12 }), await gateway.mint('alice')]
  const asked = { tokens: 0 }
  const backend = (): Fault =>
    ({ kind: 'answer', status: 200, headers: {}, body: tokens[Math.min(asked.tokens++, tokens.length - 1)]! })
  const breakBy = (fault: FaultyProxy['fault']): void => {
    proxy.fault = (request, count) => request.url === '/session' ? backend() : fault(request, count)
  }
  breakBy(() => ({ kind: 'none' }))
  return { ...gateway, proxy, asked, breakBy }
}

type SetUp = Awaited<ReturnType<typeof setUp>>

interface Row {
  readonly what: string
  readonly fault?: FaultyProxy['fault']
  /** Done when the page waits for its task. */
  readonly meanwhile?: (
    t: Test, setUp: SetUp, page: { setOffline: (isOffline: boolean) => Promise<void> }
  ) => Promise<void>
  readonly presses?: number
  /** In place of the example's. */
  readonly prompt?: string
  /** What the page says at the end; a picture when absent. */
  readonly says?: RegExp
  readonly check?: (t: Test, setUp: SetUp) => void
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
  const code = lines.split('\n').filter(line => line.trim() !== '')
  t.ok(code.length <= 8, `${code.length}`)
})

for (const { what, fault, meanwhile, presses = 1, prompt, says, check } of rows) {
  t.test(`${what}: the page bears it, and one task is made`, async t => {
    const files = prompt === undefined ? {} : { 'index.html': head + lines.replace('a lighthouse at dusk', prompt) }
    const setup = await setUp(t, files)
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

const worker = `import { createClient } from '/gateway/client.js'
onmessage = async ({ data: token }) => {
  const { generate } = createClient({ token })
  const states = []
  const { results } = await generate('nano-banana', { mode: 'text-to-image', prompt: 'a lighthouse at dusk' }, {
    onState: ({ state }) => states.push(state)
  })
  postMessage({ states, link: results[0] })
}`

t.test('in a worker it does the same', async t => {
  const { proxy, pass, mint, breakBy, sandbox } = await setUp(t, { 'worker.js': worker })
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
  const other = await pageServer(t, head, 'localhost')
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
  const other = await pageServer(t, head, 'localhost')
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
