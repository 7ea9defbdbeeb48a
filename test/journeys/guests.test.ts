import { readFileSync } from 'node:fs'
import type { RequestListener } from 'node:http'
import { join } from 'node:path'
import t from 'tap'
import { chromium, openPage } from '../helpers/chromium.ts'
import { startGateway, taskMs } from '../helpers/gateway.ts'
import { pageServer } from '../helpers/page-server.ts'

const config = 'plans: { default: {}, guest: { credits: 5 } }\nguests: { enabled: true }'
const html = '<!doctype html><title>A page</title><img alt="">'
const library = join(import.meta.dirname, '../../node_modules/altcha-lib/dist/esm/v2')

const browser = await chromium(t)

/** A page, and beside it what ALTCHA has for browsers, as it is. */
const pages: RequestListener = (request, response) => {
  const [, script] = request.url!.split('/altcha/')
  response.writeHead(200, { 'content-type': script === undefined ? 'text/html' : 'text/javascript' })
    .end(script === undefined ? html : readFileSync(join(library, script)))
}

interface Asked { readonly gateway: string, readonly token?: string, readonly body?: string }

/**
 * The page's own code: what is asked of a guest is solved first, by the library, with the browser's own cryptography.
 */
async function asGuest ({ gateway, token, body }: Asked): Promise<{ status?: number, json?: any, failure?: string }> {
  const [pow, pbkdf2] = ['/altcha/pow.js', '/altcha/algorithms/web/pbkdf2.js']
  const [{ solveChallenge }, { deriveKey }] = [await import(pow!), await import(pbkdf2!)]
  const headers: Record<string, string> = token === undefined ? {} : { authorization: `Bearer ${token}` }
  const paths = token === undefined
    ? ['/gateway/sessions/guest/challenge', '/gateway/sessions/guest']
    : ['/gateway/session/challenge', '/api/v1/generateTask/nano-banana']
  try {
    const challenge = await (await fetch(gateway + paths[0], { headers })).json()
    const solution = await solveChallenge({ challenge, deriveKey })
    headers['x-apixo-proof'] = btoa(JSON.stringify({ challenge, solution }))
    if (body !== undefined) headers['content-type'] = 'application/json'
    const response = await fetch(gateway + paths[1], { method: 'POST', headers, ...body === undefined ? {} : { body } })
    return { status: response.status, json: await response.json() }
  } catch (error) {
    return { failure: String(error) }
  }
}

t.test('a visitor without an account makes a picture', async t => {
  const pageOrigin = await pageServer(t, pages, 'localhost')
  const {
    origin: gateway,
    status,
    time
  } = await startGateway(t, { config, env: { GATEWAY_ALLOWED_ORIGINS: pageOrigin } })
  const { page } = await openPage(t, browser, pageOrigin)
  const entered = await page.evaluate(asGuest, { gateway })
  t.equal(entered.status, 201)
  const { token } = entered.json
  const body = JSON.stringify({ input: { mode: 'text-to-image', prompt: 'a lighthouse at dusk' } })
  const made = await page.evaluate(asGuest, { gateway, token, body })
  t.equal(made.status, 200)

  time.advance(taskMs)
  const done = await status(token, made.json.data.taskId)
  const [url] = JSON.parse(done.json.data.resultJson).resultUrls
  const width = await page.evaluate(async url => {
    const image = document.querySelector('img')!
    image.src = url
    await image.decode()
    return image.naturalWidth
  }, url)
  t.equal(width, 512)
})

t.test('the page of a stranger gets nowhere with its visitors', async t => {
  const pageOrigin = await pageServer(t, pages, 'localhost')
  const { origin: gateway, lines } = await startGateway(t, {
    config,
    env: { GATEWAY_ALLOWED_ORIGINS: 'https://app.example' }
  })
  const { page } = await openPage(t, browser, pageOrigin)
  t.match(await page.evaluate(asGuest, { gateway }), { failure: 'TypeError: Failed to fetch' })
  // It needs to read no answer to send such a request, and no challenge to try.
  await page.evaluate(
    async gateway =>
      await fetch(`${gateway}/gateway/sessions/guest`, { method: 'POST', mode: 'no-cors' }).then(() => {}),
    gateway
  )
  t.match(
    lines().filter(({ operation }) => operation === 'mintGuestSession'),
    [{ status: 403, code: 'GW_ORIGIN_DENIED' }]
  )
})
