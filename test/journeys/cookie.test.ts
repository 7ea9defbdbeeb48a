import type { BrowserContext, Page } from 'playwright-core'
import t, { type Test } from 'tap'
import { chromium } from '../helpers/chromium.ts'
import { clock } from '../helpers/clock.ts'
import { cookieNameAt } from '../helpers/cookies.ts'
import { crankedGateway } from '../helpers/cranked-gateway.ts'
import type { TestGateway } from '../helpers/gateway.ts'
import { pageServer } from '../helpers/page-server.ts'
import { until } from '../helpers/until.ts'

const html = '<!doctype html><title>A page</title><h1>A page</h1>'
const submitPath = '/api/v1/generateTask/nano-banana'
const submitBody = '{"request_type":"async","input":{"mode":"text-to-image","prompt":"a lighthouse at dusk"}}'

const browser = await chromium(t)

async function newContext (t: Test): Promise<BrowserContext> {
  const context = await browser.newContext()
  t.teardown(() => context.close())
  return context
}

/** A page of that origin, which the browser takes from here and not from the server: a front end on the same origin. */
async function open (context: BrowserContext, origin: string): Promise<Page> {
  const page = await context.newPage()
  await page.route(`${origin}/page`, route => route.fulfill({ contentType: 'text/html', body: html }))
  await page.goto(`${origin}/page`)
  return page
}

interface PageCall {
  readonly url: string
  readonly method?: string
  readonly token?: string
  readonly body?: string
  readonly type?: string
  readonly mode?: 'cors' | 'no-cors'
}
interface Seen {
  readonly failure?: string
  readonly status?: number
  readonly error?: string | null
  readonly json?: any
}

async function callFromPage ({
  url,
  method = 'GET',
  token,
  body,
  type = 'application/json',
  mode = 'cors'
}: PageCall): Promise<Seen> {
  try {
    const response = await fetch(url, {
      method,
      mode,
      credentials: 'include',
      headers: {
        ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
        ...(body === undefined ? {} : { 'content-type': type })
      },
      ...(body === undefined ? {} : { body })
    })
    const text = await response.text()
    return {
      status: response.status,
      error: response.headers.get('x-gateway-error'),
      json: text === '' ? null : JSON.parse(text)
    }
  } catch (error) {
    return { failure: String(error) }
  }
}

const call = (page: Page, url: string, more: Omit<PageCall, 'url'> = {}): Promise<Seen> =>
  page.evaluate(callFromPage, { url, ...more })

async function logIn (page: Page, { mint }: Pick<TestGateway, 'mint'>, more: object = {}): Promise<Seen> {
  return await call(page, '/gateway/sessions/cookie', { method: 'POST', token: await mint('alice', more) })
}

/** Its time begins with the browser's, which reads Max-Age by its own. */
async function start (t: Test, env: Readonly<Record<string, string>> = {}) {
  return await crankedGateway(t, { time: clock(Date.now()), env })
}

t.test('a page logs in, works without a token, hears its task end by EventSource, and logs out', async t => {
  const gateway = await start(t)
  const context = await newContext(t)
  const page = await open(context, gateway.origin)
  t.equal((await call(page, '/gateway/session')).error, 'GW_NO_SESSION')
  t.match(await logIn(page, gateway), { status: 201, json: { subject: 'app:alice' } })
  t.equal(await page.evaluate(() => document.cookie), '', 'no script sees it')
  t.match(await context.cookies(), [
    { name: cookieNameAt(gateway.origin), httpOnly: true, secure: true, sameSite: 'Strict', path: '/' }
  ])

  const submitted = await call(page, submitPath, { method: 'POST', body: submitBody })
  t.equal(submitted.status, 200)
  const { taskId } = submitted.json.data
  await page.evaluate(taskId => {
    const events = new EventSource(`/gateway/tasks/${taskId}/events`)
    const states: string[] = []
    events.addEventListener('state', event => states.push(JSON.parse(event.data).data.state))
    Object.assign(window, { states, isOpen: () => events.readyState === EventSource.OPEN })
  }, taskId)
  const states = () => page.evaluate('states') as Promise<string[]>
  await until('the first state', async () => (await states()).length > 0)
  await gateway.passUntil('the last state', async () => (await states()).at(-1) === 'success')

  t.equal((await call(page, '/gateway/session', { method: 'DELETE' })).status, 204)
  t.same(await context.cookies(), [], 'the browser has let it go')
  t.equal((await call(page, '/gateway/tasks')).error, 'GW_NO_SESSION')
})

t.test('an EventSource without a session ends, and does not try for ever', async t => {
  const { origin, lines } = await start(t)
  const page = await open(await newContext(t), origin)
  const state = await page.evaluate(() => new Promise(resolve => {
    const events = new EventSource('/gateway/events')
    events.onerror = () => resolve(events.readyState === EventSource.CLOSED)
  }))
  t.equal(state, true)
  t.equal(lines().filter(({ status }) => status === 401).length, 1)
})

t.test('a cookie that has ended leaves the browser with the first 401', async t => {
  const gateway = await start(t)
  const context = await newContext(t)
  const page = await open(context, gateway.origin)
  await logIn(page, gateway, { ttlSeconds: 60 })
  gateway.pass(60_000)
  t.equal((await call(page, '/gateway/session')).error, 'GW_BAD_SESSION')
  t.same(await context.cookies(), [])
  t.equal((await call(page, '/gateway/session')).error, 'GW_NO_SESSION')
})

t.test('a page of another origin, the same site to the browser, does nothing with the cookie', async t => {
  // Another port of this machine: another origin, and to the browser the same site.
  const other = await pageServer(t, html)
  const gateway = await start(t, { GATEWAY_ALLOWED_ORIGINS: other })
  const { origin, lines, sandbox } = gateway
  const context = await newContext(t)
  t.equal((await logIn(await open(context, origin), gateway)).status, 201)
  // Not a page of ours: browsers keep one that came from nowhere off this machine.
  const page = await context.newPage()
  await page.goto(other)

  for (const type of ['text/plain', 'application/x-www-form-urlencoded']) {
    await call(page, origin + submitPath, { method: 'POST', body: submitBody, type, mode: 'no-cors' })
    await call(page, origin + submitPath, { method: 'POST', body: submitBody, type })
  }
  await call(page, origin + submitPath, { method: 'POST', body: submitBody })
  await call(page, `${origin}/gateway/session?everywhere=true`, { method: 'DELETE' })
  for (const mode of ['cors', 'no-cors'] as const) await call(page, `${origin}/gateway/tasks`, { mode })
  await page.evaluate(async origin => {
    const image = new Image()
    image.src = `${origin}/gateway/session`
    await image.decode().catch(() => {})
    await new Promise(resolve => {
      new EventSource(`${origin}/gateway/events`, { withCredentials: true }).onerror = resolve
    })
  }, origin)
  await page.evaluate(action => {
    const form = Object.assign(document.createElement('form'), { action, method: 'POST', enctype: 'text/plain' })
    form.append(Object.assign(document.createElement('input'), { name: '{"input":{"prompt":"x', value: '"}}' }))
    document.body.append(form)
    form.submit()
  }, origin + submitPath)
  await page.waitForURL(url => url.origin === origin)

  const seen = lines().filter(
    ({ method, operation }) => method !== 'OPTIONS' && operation !== 'mintSession' && operation !== 'swapSession'
  )
  t.ok(seen.length >= 9, `${seen.length} came through`)
  t.same(
    new Set(seen.map(({ code }) => code)),
    new Set(['GW_ORIGIN_DENIED']),
    'each came with the cookie, and was refused'
  )
  t.equal(sandbox.calls.length, 0)
  t.equal((await call(await open(context, origin), '/gateway/session')).status, 200, 'and the session is as it was')
})
