import type { Page } from 'playwright-core'
import t, { type Test } from 'tap'
import { chromium, openPage, pictureOf } from '../helpers/chromium.ts'
import { startGateway, taskMs } from '../helpers/gateway.ts'
import { pageServer } from '../helpers/page-server.ts'

/** A plan whose second submit in a minute is one too many. */
const config = 'plans: { default: { requestsPerMinute: 1, pollsPerMinute: 100 } }'
const html = `<!doctype html><title>A page</title><style>body { margin: 24px; font: 16px sans-serif }</style>
<h1>A page of somebody's app</h1><p></p><img alt="">`

/**
 * The page's own code, run in the browser. Each call gives what a page can see of it: a network error has no more to
 * show.
 */
interface PageCall {
  readonly gateway: string
  readonly path: string
  readonly token: string
  readonly method?: string
  readonly body?: string
}
interface Seen {
  readonly failure?: string
  readonly status?: number
  readonly headers?: Record<string, string>
  readonly json?: any
}

async function callFromPage ({ gateway, path, token, method = 'GET', body }: PageCall): Promise<Seen> {
  try {
    const response = await fetch(gateway + path, {
      method,
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
      ...(body === undefined ? {} : { body })
    })
    const text = await response.text()
    return {
      status: response.status,
      headers: Object.fromEntries(response.headers),
      json: text === '' ? null : JSON.parse(text)
    }
  } catch (error) {
    return { failure: String(error) }
  }
}

const browser = await chromium(t)

async function open (t: Test, origin: string): Promise<Page> {
  return (await openPage(t, browser, origin, { viewport: { width: 640, height: 720 } })).page
}

const submitBody = JSON.stringify({
  request_type: 'async',
  input: { mode: 'text-to-image', prompt: 'a lighthouse at dusk' }
})

t.test('a page of a listed origin submits, polls, and shows the picture', async t => {
  const pageOrigin = await pageServer(t, html, 'localhost')
  const {
    origin: gateway,
    mint,
    time,
    lines
  } = await startGateway(t, { env: { GATEWAY_ALLOWED_ORIGINS: pageOrigin }, config })
  const [page, token] = [await open(t, pageOrigin), await mint('alice')]
  const call = (path: string, more: { method?: string, body?: string } = {}) =>
    page.evaluate(callFromPage, { gateway, path, token, ...more })

  const submitted = await call('/api/v1/generateTask/nano-banana', { method: 'POST', body: submitBody })
  t.equal(submitted.status, 200)
  t.equal(submitted.headers!['ratelimit-remaining'], '0', 'the page reads what is left')
  t.match(submitted.headers!['x-request-id'], /^[\w-]+$/)
  const { taskId } = submitted.json.data
  const status = () => call(`/api/v1/statusTask/nano-banana?taskId=${taskId}`)
  t.equal((await status()).json.data.state, 'pending')
  time.advance(taskMs)
  const done = await status()
  t.equal(done.json.data.state, 'success')

  const [resultUrl] = JSON.parse(done.json.data.resultJson).resultUrls
  const size = await page.evaluate(async ({ url, text }) => {
    const image = document.querySelector('img')!
    document.querySelector('p')!.textContent = text
    image.src = url
    await image.decode()
    return [image.naturalWidth, image.naturalHeight]
  }, { url: resultUrl, text: `state: ${done.json.data.state}` })
  t.strictSame(size, [512, 512])
  const picture = await pictureOf(page, 'page')
  t.ok(picture.length > 20_000, 'a picture is on the page')

  // What the gateway refuses, the page can read as well.
  const limited = await call('/api/v1/generateTask/nano-banana', { method: 'POST', body: submitBody })
  t.equal(limited.status, 429)
  t.equal(limited.headers!['x-gateway-error'], 'GW_RATE_LIMITED')
  t.match(limited.headers!['retry-after'], /^\d+$/)
  t.equal(limited.headers!['ratelimit-remaining'], '0')
  const preflights = lines().filter(({ method }) => method === 'OPTIONS')
  t.not(preflights.length, 0, 'the browser has asked first')
  t.strictSame(preflights.filter(({ status }) => status !== 204), [])
})

t.test('a page of a listed origin may log out', async t => {
  const pageOrigin = await pageServer(t, html, 'localhost')
  const { origin: gateway, mint } = await startGateway(t, {
    env: { GATEWAY_ALLOWED_ORIGINS: `https://app.test,${pageOrigin}` }
  })
  const [page, token] = [await open(t, pageOrigin), await mint('alice')]
  const call = (method: string) => page.evaluate(callFromPage, { gateway, path: '/gateway/session', token, method })
  t.equal((await call('GET')).json.subject, 'app:alice')
  t.equal((await call('DELETE')).status, 204, 'the preflight allows DELETE')
  const after = await call('GET')
  t.equal(after.status, 401)
  t.equal(after.headers!['x-gateway-error'], 'GW_BAD_SESSION')
  t.match(await call('PUT'), { failure: 'Failed to fetch' }, 'and no other method')
})

t.test('a page of an origin that is not listed sees a network error, and nothing is made', async t => {
  const pageOrigin = await pageServer(t, html, 'localhost')
  const {
    origin: gateway,
    mint,
    sandbox
  } = await startGateway(t, { env: { GATEWAY_ALLOWED_ORIGINS: 'https://app.test' } })
  const [page, token] = [await open(t, pageOrigin), await mint('alice')]
  const call = (path: string, more: { method?: string, body?: string } = {}) =>
    page.evaluate(callFromPage, { gateway, path, token, ...more })
  t.strictSame(await call('/api/v1/generateTask/nano-banana', { method: 'POST', body: submitBody }), {
    failure: 'TypeError: Failed to fetch'
  })
  t.strictSame(await call('/gateway/session'), { failure: 'TypeError: Failed to fetch' })
  t.strictSame(sandbox.calls, [])
})

t.test('a page can not mint, not even with the issuer token', async t => {
  const pageOrigin = await pageServer(t, html, 'localhost')
  const { origin: gateway, settings, lines } = await startGateway(t, { env: { GATEWAY_ALLOWED_ORIGINS: pageOrigin } })
  const page = await open(t, pageOrigin)
  const token = settings.issuerToken!.reveal()
  const minted = await page.evaluate(callFromPage, {
    gateway,
    path: '/gateway/sessions',
    token,
    method: 'POST',
    body: '{"subject":"alice"}'
  })
  t.equal(minted.headers!['x-gateway-error'], 'GW_ORIGIN_DENIED')
  t.equal(lines().filter(({ status }) => status === 201).length, 0)
})
