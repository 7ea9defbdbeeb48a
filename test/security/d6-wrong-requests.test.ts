import t, { type Test } from 'tap'
import { chromium, openPage } from '../helpers/chromium.ts'
import { fromOwnPage, swap } from '../helpers/cookies.ts'
import { adminToken, issuerToken, startGateway, type TestGateway } from '../helpers/gateway.ts'
import { pageServer } from '../helpers/page-server.ts'
import { rawHttp, rawRequest } from '../helpers/raw-http.ts'
import { until } from '../helpers/until.ts'

const limit = 20
const config = `plans: { default: {}, guest: {} }\nguests: { enabled: true }\nlimits: { addressFailuresPerMinute: ${limit} }`
const env = {
  GATEWAY_ADMIN_TOKEN: adminToken,
  GATEWAY_PUBLIC_URL: 'https://ai.example',
  GATEWAY_ALLOWED_ORIGINS: 'https://app.example'
}
const foreign = [
  { origin: 'https://evil.test' },
  { 'sec-fetch-site': 'cross-site' },
  { 'sec-fetch-site': 'same-site' },
  { origin: 'null', 'sec-fetch-site': 'cross-site' }
]
const wrong: ReadonlyArray<readonly [method: string, path: string]> = [
  ['GET', '/nowhere'],
  ['POST', '/gateway/nowhere'],
  ['GET', '/gateway/session'],
  ['GET', '/gateway/tasks'],
  ['POST', '/api/v1/generateTask/nano-banana'],
  ['GET', '/gateway/admin/usage'],
  ['GET', '/metrics'],
  ['OPTIONS', '/gateway/session'],
  ['GET', '/%zz'],
  ['GET', `/gateway/tasks/${'x'.repeat(2049)}/events`]
]

/** Whether somebody at that address who has done nothing wrong gets what everybody gets. */
async function isShutOut ({ call }: Pick<TestGateway, 'call'>): Promise<boolean> {
  const page = await call('/gateway/')
  return page.error === 'GW_THROTTLED'
}

for (const headers of foreign) {
  t.test(`what a foreign page makes a browser ask for shuts nobody out: ${JSON.stringify(headers)}`, async t => {
    const gateway = await startGateway(t, { config, env })
    for (const [method, path] of wrong) {
      for (let count = 0; count < limit + 5; count++) {
        const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}`)
        const { error } = await rawHttp(t, gateway.origin, rawRequest(`${method} ${path}`, lines))
        t.not(error, 'GW_THROTTLED', `${method} ${path.slice(0, 40)}`)
      }
    }
    t.notOk(await isShutOut(gateway))
    t.equal((await gateway.call('/gateway/sessions', { token: issuerToken, body: { subject: 'alice' } })).status, 201)
    t.equal((await gateway.call('/metrics', { token: adminToken })).status, 200)
  })
}

t.test('such requests count as requests all the same', async t => {
  const { call } = await startGateway(t, { config: 'plans: { default: {} }\nlimits: { addressRequestsPerMinute: 10 }' })
  const statuses = []
  for (const path of Array.from({ length: 6 }, () => ['/nowhere', '/%zz']).flat()) {
    statuses.push((await call(path, { headers: { origin: 'https://evil.test' } })).status)
  }
  t.same(statuses, [404, 400, 404, 400, 404, 400, 404, 400, 404, 400, 429, 429])
})

async function openStranger (t: Test, target: string): Promise<() => Promise<void>> {
  const page = `<!doctype html><title>x</title><script>
    const target = ${JSON.stringify(target)}
    const ask = (path, options) => fetch(target + path, options).catch(() => {})
    async function attack () {
      for (let round = 0; round < 5; round++) {
        await Promise.all([
          ask('/nowhere', { mode: 'no-cors' }), ask('/gateway/session', { mode: 'no-cors', credentials: 'include' }), ask('/gateway/tasks', { credentials: 'include' }),
          ask('/gateway/sessions/guest', { method: 'POST', mode: 'no-cors', body: 'x' }), ask('/gateway/session', { headers: { authorization: 'Bearer x' } }),
          ask('/%zz', { mode: 'no-cors' }), ask('/gateway/session/challenge', { mode: 'no-cors' }),
          new Promise(done => { const image = new Image(); image.onload = image.onerror = done; image.src = target + '/gateway/tasks/x/results/0?' + round })
        ])
      }
      document.title = 'done'
    }
  </script>`
  const stranger = await pageServer(t, page, 'localhost')
  const browser = await chromium(t)
  const { page: tab } = await openPage(t, browser, stranger)
  return async () => {
    await tab.evaluate('attack()')
    await until('all is asked', async () => await tab.title() === 'done')
  }
}

t.test('a real browser on a stranger\'s page can not shut its address out', async t => {
  const gateway = await startGateway(t, { config })
  const token = await gateway.mint('alice')
  const attack = await openStranger(t, gateway.origin)
  await attack()
  const refused = gateway
    .lines()
    .filter(({ code }) => code === 'GW_NO_SESSION' || code === 'GW_NOT_FOUND' || code === 'GW_BAD_REQUEST')
  t.ok(refused.length > limit, `${refused.length} wrong requests have come`)
  t.notOk(await isShutOut(gateway))
  t.equal((await gateway.call('/gateway/session', { token })).status, 200)
})

const secrets: ReadonlyArray<
  readonly [title: string, path: string, options: { method?: string, body?: unknown, headers?: Record<string, string> }]
> = [
  ['a token', '/gateway/session', { headers: { authorization: 'Bearer guess' } }],
  ['a key', '/gateway/tasks', { headers: { 'x-api-key': 'guess' } }],
  ['a Google key', '/gateway/tasks', { headers: { 'x-goog-api-key': 'guess' } }],
  ['a cookie', '/gateway/session', { headers: { cookie: '__Host-apixo_session=guess' } }],
  ['an admin token', '/gateway/admin/usage', { headers: { authorization: 'Bearer guess' } }],
  ['a ticket', '/gateway/results/guess', {}],
  ['an invitation', '/gateway/invitations/accept', { body: { invitation: 'apxi_guess' } }],
  ['a proof', '/nowhere', { headers: { 'x-apixo-proof': 'guess' } }]
]
for (const [title, path, { headers = {}, ...options }] of secrets) {
  t.test(`whoever presents a secret is counted, wherever it says that it comes from: ${title}`, async t => {
    const { call } = await startGateway(t, { config, env })
    for (let count = 0; count < limit; count++) {
      const more = foreign[count % foreign.length]!
      t.match(await call(path, { ...options, headers: { ...headers, ...more } as Record<string, string> }), {
        status: /40[14]/
      })
    }
    t.equal((await call('/gateway/')).error, 'GW_THROTTLED')
  })
}

t.test('a page of ours, or of a listed origin on our site, is counted like a program', async t => {
  for (const headers of [
    { origin: 'https://app.example' },
    { origin: 'https://ai.example', 'sec-fetch-site': 'same-origin' },
    { 'sec-fetch-site': 'none' },
    {}
  ]) {
    const { call } = await startGateway(t, { config, env })
    for (let count = 0; count < limit; count++) {
      t.equal((await call('/nowhere', { headers: headers as Record<string, string> })).status, 404)
    }
    t.equal((await call('/gateway/')).error, 'GW_THROTTLED', JSON.stringify(headers))
  }
})

t.test('a visitor\'s cookie goes on, whatever a page of the same site has made its browser ask for', async t => {
  const gateway = await startGateway(t, { config })
  const cookie = await swap(gateway, await gateway.mint('alice'))
  const sibling = { cookie: cookie.header, origin: 'http://127.0.0.1:1', 'sec-fetch-site': 'same-site' }
  for (let count = 0; count < 65; count++) await gateway.call('/nowhere', { headers: sibling })
  t.equal((await gateway.call('/gateway/session', fromOwnPage(cookie))).status, 200)
  t.equal((await gateway.call('/gateway/', fromOwnPage(cookie))).status, 200)
  t.ok(await isShutOut(gateway), 'without it nobody can tell')
})
