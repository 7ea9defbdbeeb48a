import t from 'tap'
import { cookieIn, cookieNameAt, fromOwnPage, swap } from '../helpers/cookies.ts'
import { adminToken, startGateway } from '../helpers/gateway.ts'
import { identityProvider } from '../helpers/identity-provider.ts'
import { rawHttp } from '../helpers/raw-http.ts'

const path = '/gateway/sessions/cookie'
const day = 86_400
const longLived =
  'plans: { default: { models: ["nano-*"] } }\nsessions: { cookieMaxAgeSeconds: 604800, maxTtlSeconds: 7776000 }\nlimits: { addressFailuresPerMinute: 1000 }'

t.test('a token is swapped for a cookie that no script can read and no other site can send', async t => {
  const gateway = await startGateway(t, { config: longLived })
  const { call, mint, time } = gateway
  const reply = await call(path, {
    method: 'POST',
    token: await mint('alice', { ttlSeconds: 3600, models: ['nano-banana'], scopes: ['tasks:read'] })
  })
  t.equal(reply.status, 201)
  t.same(
    reply.json,
    { subject: 'app:alice', expiresAt: new Date(time.now() + 3_600_000).toISOString() },
    'and no token'
  )
  const cookie = cookieIn(reply)!
  t.same([...cookie.attributes].sort(), ['HttpOnly', 'Max-Age=3600', 'Path=/', 'SameSite=Strict', 'Secure'])
  t.match(await call('/gateway/session', fromOwnPage(cookie)), {
    status: 200,
    json: {
      subject: 'app:alice',
      plan: 'default',
      models: ['nano-banana'],
      scopes: ['tasks:read'],
      expiresAt: new Date(time.now() + 3_600_000).toISOString()
    }
  })
})

t.test('a page works with the cookie alone: it submits, polls and lists', async t => {
  const gateway = await startGateway(t, { config: longLived })
  const { call, mint } = gateway
  const cookie = await swap(gateway, await mint('alice'))
  const submitted = await call('/api/v1/generateTask/nano-banana', {
    body: { input: { prompt: 'x' } },
    ...fromOwnPage(cookie)
  })
  t.equal(submitted.status, 200)
  const { taskId } = submitted.json.data
  t.equal((await call(`/api/v1/statusTask/nano-banana?taskId=${taskId}`, fromOwnPage(cookie))).status, 200)
  t.match((await call('/gateway/tasks', fromOwnPage(cookie))).json.tasks, [{ taskId }])
  t.equal(cookieIn(submitted), null, 'a young cookie is left as it is')
})

t.test('with the cookie the token is worth nothing any more, and a cookie is never swapped', async t => {
  const gateway = await startGateway(t, { config: longLived })
  const { call, mint } = gateway
  const token = await mint('alice')
  const cookie = await swap(gateway, token)
  t.match(await call('/gateway/session', { token }), { status: 401, error: 'GW_BAD_SESSION' })
  t.match(await call(path, { method: 'POST', token }), { status: 401, error: 'GW_BAD_SESSION' })
  t.match(await call(path, { method: 'POST', ...fromOwnPage(cookie) }), {
    status: 400,
    error: 'GW_BAD_REQUEST',
    json: { message: /Authorization: Bearer/ }
  })
  t.match(await call(path, { method: 'POST' }), { status: 401, error: 'GW_NO_SESSION' })
})

t.test('a swap takes no body', async t => {
  const { call, mint } = await startGateway(t, { config: longLived })
  const token = await mint('alice')
  for (const body of [{ subject: 'bob' }, [], { ttlSeconds: 1 }]) {
    t.match(await call(path, { token, body }), { status: 400, error: 'GW_BAD_REQUEST' })
  }
  t.equal(
    (await call(path, { token, method: 'POST', headers: { 'content-type': 'application/json' } })).status,
    201,
    'an empty one is none'
  )
})

t.test('a cookie in use is printed anew when half of its time is over, and is the same session', async t => {
  const gateway = await startGateway(t, { config: longLived })
  const { call, mint, time, log } = gateway
  const first = await swap(gateway, await mint('alice', { ttlSeconds: 30 * day }))
  t.equal(first.maxAge, 7 * day)
  const use = async (cookie = first) => cookieIn(await call('/gateway/session', fromOwnPage(cookie)))
  time.advance(3.5 * day * 1000)
  t.equal(await use(), null)
  time.advance(1000)
  const second = (await use())!
  t.equal(second.maxAge, 7 * day)
  t.not(second.value, first.value)
  t.equal(
    (await call('/gateway/session', fromOwnPage(first))).status,
    200,
    'a request with the older one may be under way'
  )
  t.equal((await call('/gateway/session', { method: 'DELETE', ...fromOwnPage(second) })).status, 204)
  for (const cookie of [first, second]) t.match(await call('/gateway/session', fromOwnPage(cookie)), { status: 401 })
  t.notOk(JSON.stringify(log).includes(second.value))
})

t.test('a cookie that is used all the time ends when the session that was minted would have ended', async t => {
  const gateway = await startGateway(t, { config: longLived })
  const { call, mint, time } = gateway
  const end = time.now() + 20 * day * 1000
  let cookie = await swap(gateway, await mint('alice', { ttlSeconds: 20 * day }))
  let prints = 0
  for (; time.now() < end; time.advance(day * 1000)) {
    const reply = await call('/gateway/session', fromOwnPage(cookie))
    t.equal(reply.status, 200)
    const next = cookieIn(reply)
    if (next === null) continue
    prints++
    cookie = next
    t.ok(time.now() + cookie.maxAge * 1000 <= end, `not beyond it at day ${20 - (end - time.now()) / day / 1000}`)
  }
  t.equal(prints, 4)
  t.match(await call('/gateway/session', fromOwnPage(cookie)), { status: 401, error: 'GW_BAD_SESSION' })
})

t.test('a cookie that nobody uses ends with its window', async t => {
  const gateway = await startGateway(t, { config: longLived })
  const { call, mint, time } = gateway
  const cookie = await swap(gateway, await mint('alice', { ttlSeconds: 30 * day }))
  time.advance(7 * day * 1000)
  t.match(await call('/gateway/session', fromOwnPage(cookie)), { status: 401, error: 'GW_BAD_SESSION' })
})

t.test('logging out clears the cookie and ends the session for good', async t => {
  const gateway = await startGateway(t, { config: longLived })
  const { call, mint, time } = gateway
  const cookie = await swap(gateway, await mint('alice', { ttlSeconds: 30 * day }))
  time.advance(4 * day * 1000)
  const ended = await call('/gateway/session', { method: 'DELETE', ...fromOwnPage(cookie) })
  t.equal(ended.status, 204)
  t.same([cookieIn(ended)?.value, cookieIn(ended)?.maxAge], ['', 0], 'although half of its time is over')
  t.same([...cookieIn(ended)!.attributes].sort(), ['HttpOnly', 'Max-Age=0', 'Path=/', 'SameSite=Strict', 'Secure'])
  time.advance(3 * day * 1000 - 1000)
  t.match(await call('/gateway/session', fromOwnPage(cookie)), { status: 401, error: 'GW_BAD_SESSION' })
})

t.test('logging out with a token says nothing about cookies', async t => {
  const { call, mint } = await startGateway(t, { config: longLived })
  t.equal(cookieIn(await call('/gateway/session', { method: 'DELETE', token: await mint('alice') })), null)
})

t.test(
  'logging out everywhere ends every session of the subject, in cookies and out of them, and no later one',
  async t => {
    const gateway = await startGateway(t, { config: longLived })
    const { call, mint, time } = gateway
    const [one, other, bob] = [await mint('alice'), await mint('alice'), await mint('bob')]
    const cookie = await swap(gateway, await mint('alice', { ttlSeconds: 30 * day }))
    const ended = await call('/gateway/session?everywhere=true', { method: 'DELETE', token: one })
    t.equal(ended.status, 204)
    for (const token of [one, other]) {
      t.match(await call('/gateway/session', { token }), { status: 401, error: 'GW_BAD_SESSION' })
    }
    const refused = await call('/gateway/session', fromOwnPage(cookie))
    t.equal(refused.status, 401)
    t.equal(cookieIn(refused)?.value, '', 'the cookie is cleared')
    t.equal((await call('/gateway/session', { token: bob })).status, 200)
    time.advance(1)
    t.equal((await call('/gateway/session', { token: await mint('alice') })).status, 200)
  }
)

t.test('a cookie that was printed after logging out everywhere, for a session from before, is none', async t => {
  const gateway = await startGateway(t, { config: longLived })
  const { call, mint, time } = gateway
  const cookie = await swap(gateway, await mint('alice', { ttlSeconds: 30 * day }))
  time.advance(4 * day * 1000)
  const slid = cookieIn(await call('/gateway/session', fromOwnPage(cookie)))!
  await call('/gateway/session?everywhere=true', { method: 'DELETE', token: await mint('alice') })
  for (const each of [cookie, slid]) t.equal((await call('/gateway/session', fromOwnPage(each))).status, 401)
})

t.test('a log-out says exactly what it ends', async t => {
  const { call, mint } = await startGateway(t, { config: longLived })
  const token = await mint('alice')
  for (const query of [
    'everywhere=1',
    'everywhere=',
    'everywhere=TRUE',
    'everywhere=true&everywhere=true',
    'all=true'
  ]) {
    t.match(
      await call(`/gateway/session?${query}`, { method: 'DELETE', token }),
      { status: 400, error: 'GW_BAD_REQUEST' },
      query
    )
  }
  t.equal((await call('/gateway/session', { token })).status, 200)
  t.equal((await call('/gateway/session?everywhere=false', { method: 'DELETE', token })).status, 204)
})

t.test('uses and credits of a session count on in its cookie', async t => {
  const gateway = await startGateway(t)
  const { call, mint, submit } = gateway
  const token = await mint('alice', { uses: 2, credits: 5 })
  t.equal((await submit(token)).status, 200)
  const cookie = await swap(gateway, token)
  const send = () =>
    call('/api/v1/generateTask/nano-banana', { body: { input: { prompt: 'x' } }, ...fromOwnPage(cookie) })
  t.equal((await send()).status, 200)
  const spent = await send()
  t.match(spent, { status: 402, error: 'GW_SESSION_SPENT' })
  t.equal(cookieIn(spent), null, 'its tasks can still be asked for')
  t.match((await call('/gateway/session', fromOwnPage(cookie))).json, {
    uses: { limit: 2, left: 0 },
    credits: { session: { limit: 5, used: 2, left: 3 } }
  })
})

t.test('without https a page is told why it gets no cookie, and its token stays good', async t => {
  const { origin, call, mint } = await startGateway(t, { config: longLived })
  const token = await mint('alice')
  const swapAt = (host: string, token: string, ...more: string[]) =>
    rawHttp(
      t,
      origin,
      [
        `POST ${path} HTTP/1.1`,
        `host: ${host}`,
        'connection: close',
        `authorization: Bearer ${token}`,
        'content-length: 0',
        ...more,
        '',
        ''
      ].join('\r\n')
    )
  for (const host of ['gateway.example', 'localhost.example', '10.0.0.1', '[2001:db8::1]:8080', '%']) {
    const reply = await swapAt(host, token)
    t.match(reply, { status: 400, error: 'GW_BAD_REQUEST', text: /needs https/ }, host)
    t.notMatch(reply.text, /set-cookie/i)
  }
  t.match(await swapAt('gateway.example', token, 'x-forwarded-proto: https'), { status: 400 }, 'not on anybody\'s word')
  t.equal((await call('/gateway/session', { token })).status, 200)
  for (const host of ['localhost:8080', 'app.localhost', '127.0.0.1', '[::1]:8080']) {
    t.match(await swapAt(host, await mint('alice')), { status: 201, text: /^set-cookie: .*; Secure/m }, host)
  }
})

t.test('behind a trusted proxy, or with a public URL, https is what callers see', async t => {
  const proxied = await startGateway(t, { config: longLived, env: { GATEWAY_TRUST_PROXY: 'loopback' } })
  const forwarded = { 'x-forwarded-proto': 'https', 'x-forwarded-host': 'gateway.example' }
  t.ok(await swap(proxied, await proxied.mint('alice'), { ...forwarded, origin: 'https://gateway.example' }))
  t.equal(
    (
      await proxied.call(path, {
        method: 'POST',
        token: await proxied.mint('alice'),
        headers: { 'x-forwarded-proto': 'http', 'x-forwarded-host': 'gateway.example' }
      })
    ).status,
    400
  )
  const named = await startGateway(t, { config: longLived, env: { GATEWAY_PUBLIC_URL: 'https://gateway.example' } })
  t.ok(await swap(named, await named.mint('alice'), { origin: 'https://gateway.example' }))
  t.match(
    await named.call(path, { method: 'POST', token: await named.mint('alice'), headers: { origin: named.origin } }),
    { status: 403 },
    'and nothing else is our own'
  )
})

t.test('a session that browsers would drop for its length is not put into a cookie', async t => {
  const gateway = await startGateway(t, { config: longLived })
  const { call, mint } = gateway
  const models = Array.from({ length: 100 }, (_, index) => `${'x'.repeat(60)}${index}`)
  const token = await mint('alice', { models })
  t.match(await call(path, { method: 'POST', token }), {
    status: 400,
    error: 'GW_BAD_REQUEST',
    json: { message: /too long for a cookie/ }
  })
  t.equal((await call('/gateway/session', { token })).status, 200)
  const { header } = await swap(gateway, await mint('alice', { models: models.slice(0, 40) }))
  t.ok(header.length <= 4096)
})

t.test('of other cookies nothing is read', async t => {
  const gateway = await startGateway(t, { config: longLived })
  const { call, mint } = gateway
  const { value } = await swap(gateway, await mint('alice'))
  for (const cookie of [
    `apixo_session=${value}`,
    `__Host-apixo_session2=${value}`,
    `__host-apixo_session=${value}`,
    `x=${value}`,
    `${cookieNameAt(gateway.origin)}=`,
    cookieNameAt(gateway.origin),
    '=',
    ';;',
    ''
  ]) {
    t.match(
      await call('/gateway/session', { headers: { cookie, 'sec-fetch-site': 'same-origin' } }),
      { status: 401, error: 'GW_NO_SESSION' },
      cookie.slice(0, 30)
    )
  }
  t.equal(
    (
      await call('/gateway/session', {
        headers: { cookie: `a=1; ${cookieNameAt(gateway.origin)}=${value}; b=2`, 'sec-fetch-site': 'same-origin' }
      })
    ).status,
    200
  )
})

t.test('a caller that does not say where it calls has the cookie of the usual port', async t => {
  const { origin } = await startGateway(t, { config: longLived })
  const ask = (name: string) =>
    rawHttp(t, origin, `GET /gateway/session HTTP/1.1\r\nhost: ^\r\ncookie: ${name}=x\r\nconnection: close\r\n\r\n`)
  t.match((await ask('__Host-apixo_session')).text, /GW_BAD_SESSION/)
  t.match((await ask(cookieNameAt(origin))).text, /GW_NO_SESSION/)
})

t.test('a swap and a log-out everywhere are in the audit trail', async t => {
  const gateway = await startGateway(t, { config: longLived, env: { GATEWAY_ADMIN_TOKEN: adminToken } })
  const { call, mint } = gateway
  const cookie = await swap(gateway, await mint('alice'))
  await call('/gateway/session?everywhere=true', { method: 'DELETE', ...fromOwnPage(cookie) })
  const { items } = (await call('/gateway/admin/audit', { token: adminToken })).json
  const [revoked, swapped, minted] = items
  t.match(minted, { kind: 'mint', actor: 'issuer' })
  t.match(swapped, {
    kind: 'mint',
    actor: 'app:alice',
    subject: 'app:alice',
    detail: { insteadOf: minted.detail.session }
  })
  t.match(revoked, {
    kind: 'revoke',
    actor: 'app:alice',
    detail: { session: swapped.detail.session, everywhere: true }
  })
})

t.test('no cookie outlasts the longest session of ours, however long the token of another issuer does', async t => {
  const provider = await identityProvider(t)
  const gateway = await startGateway(t, {
    config:
      'plans: { default: {} }\nsessions: { defaultTtlSeconds: 60, maxTtlSeconds: 3600, cookieMaxAgeSeconds: 1800 }\n' +
      `issuers: [{ issuer: "${provider.origin}", jwksUrl: "${provider.jwksUrl}", audience: app, algorithms: [ES256] }]`
  })
  const { call, time } = gateway
  const now = time.now() / 1000
  let cookie = await swap(
    gateway,
    await provider.sign({ iss: provider.origin, sub: 'alice', aud: 'app', iat: now, exp: now + 10 * 365 * 86_400 })
  )
  t.equal(cookie.maxAge, 1800)
  for (const [seconds, maxAge] of [[1000, 1800], [1500, 1100], [1099, null]] as const) {
    time.advance(seconds * 1000)
    const reply = await call('/gateway/session', fromOwnPage(cookie))
    const renewed = cookieIn(reply)
    t.same([reply.status, renewed?.maxAge ?? null], [200, maxAge])
    cookie = renewed ?? cookie
  }
  time.advance(1000)
  t.match(await call('/gateway/session', fromOwnPage(cookie)), { status: 401, error: 'GW_BAD_SESSION' })
})

t.test(
  "two gateways on one host, whose cookies a browser sends to both, do not put out each other's sessions",
  async t => {
    const [one, other] = [await startGateway(t), await startGateway(t)]
    const cookies = [await swap(one, await one.mint('alice')), await swap(other, await other.mint('bob'))]
    t.not(cookies[0]!.name, cookies[1]!.name)
    const both = {
      headers: { cookie: cookies.map(({ header }) => header).join('; '), 'sec-fetch-site': 'same-origin' }
    }
    t.equal((await one.call('/gateway/session', both)).json.subject, 'app:alice')
    t.equal((await other.call('/gateway/session', both)).json.subject, 'app:bob')
    const left = await one.call('/gateway/session', { method: 'DELETE', ...both })
    t.match(cookieIn(left), { name: cookies[0]!.name, maxAge: 0 })
    t.equal((await other.call('/gateway/session', both)).json.subject, 'app:bob')
  }
)

t.test(
  'the cookie has the name of the port that callers see, and at the usual ones the name that it has always had',
  async t => {
    const plain = '__Host-apixo_session'
    const nameOf = async (env: Readonly<Record<string, string>>, headers: Readonly<Record<string, string>> = {}) => {
      const gateway = await startGateway(t, { env })
      const named = (await swap(gateway, await gateway.mint('alice'), headers)).name
      t.equal(
        (
          await gateway.call('/gateway/session', {
            headers: { cookie: `${named}=x`, 'sec-fetch-site': 'same-origin', ...headers }
          })
        ).error,
        'GW_BAD_SESSION'
      )
      return named.replace(new URL(gateway.origin).port, 'PORT')
    }
    t.equal(await nameOf({}), `${plain}_PORT`, 'Host, where nobody says otherwise')
    t.equal(await nameOf({ GATEWAY_PUBLIC_URL: 'https://gateway.example' }), plain)
    t.equal(await nameOf({ GATEWAY_PUBLIC_URL: 'https://gateway.example:8443' }), `${plain}_8443`)
    const forwarded = { 'x-forwarded-proto': 'https', 'x-forwarded-host': 'gateway.example:8444' }
    t.equal(await nameOf({ GATEWAY_TRUST_PROXY: '127.0.0.1' }, forwarded), `${plain}_8444`)
    t.equal(
      await nameOf({ GATEWAY_TRUST_PROXY: '127.0.0.1' }, { ...forwarded, 'x-forwarded-host': 'gateway.example' }),
      plain
    )
  }
)

const preflight = (origin: string) => ({
  method: 'OPTIONS',
  headers: { origin, 'access-control-request-method': 'POST', 'access-control-request-headers': 'authorization' }
})
const extension = `chrome-extension://${'abcdefghijklmnop'.repeat(2)}`
const apps = [
  'capacitor://localhost', 'ionic://localhost', 'tauri://localhost', 'capacitor://my.app.example', extension,
  'moz-extension://0d2a5c1e-7b1f-4c55-9e64-1f0c1a1b2c3d', 'safari-web-extension://0D2A5C1E-7B1F-4C55-9E64-1F0C1A1B2C3D'
]

t.test('pages inside of apps and extensions can be listed, and may call then', async t => {
  const { call, mint, submit } = await startGateway(t, {
    env: { GATEWAY_ALLOWED_ORIGINS: `https://app.example, ${apps.join(', ')}` }
  })
  const token = await mint('alice', { origins: apps })
  for (const origin of apps) {
    const asked = await call('/gateway/session', preflight(origin))
    t.match(
      { status: asked.status, allowed: asked.headers.get('access-control-allow-origin') },
      { status: 204, allowed: origin },
      origin
    )
    const sent = await submit(token, 'x', 'nano-banana', { headers: { origin } })
    t.match(
      { status: sent.status, allowed: sent.headers.get('access-control-allow-origin') },
      { status: 200, allowed: origin }
    )
  }
  t.match(await submit(token, 'x', 'nano-banana', { headers: { origin: 'capacitor://localhost.evil.test' } }), {
    status: 403,
    error: 'GW_ORIGIN_DENIED'
  })
  for (const other of [
    `${apps[0]}:8080`,
    'capacitor://LOCALHOST',
    'capacitor://localhost.evil.test',
    'ionic://other',
    `${extension.slice(0, -1)}a`
  ]) {
    t.equal((await call('/gateway/session', preflight(other))).status, 403, other)
  }
})

t.test('they are listed exactly, or the gateway does not start', async t => {
  const odd = [
    'capacitor://',
    'capacitor://*',
    'capacitor://localhost/',
    'capacitor://localhost:80',
    'capacitor:localhost',
    'Capacitor://localhost',
    'tauri://LOCALHOST',
    'ionic://a b',
    'chrome-extension://*',
    'chrome-extension://abc',
    `${extension}/`,
    `${extension}q`,
    'moz-extension://x',
    'file://',
    'data:',
    'app://localhost',
    'about:blank'
  ]
  for (const value of odd) {
    await t.rejects(
      startGateway(t, { env: { GATEWAY_ALLOWED_ORIGINS: value } }),
      { code: 'GW_SETTINGS', message: /GATEWAY_ALLOWED_ORIGINS/ },
      value
    )
  }
  const { call } = await startGateway(t)
  for (const origin of ['capacitor://localhost/', 'chrome-extension://*', 'tauri:']) {
    const { status } = await call('/gateway/sessions', {
      token: 'issuer-token-of-the-backend-0001',
      body: { subject: 'alice', origins: [origin] }
    })
    t.equal(status, 400, origin)
  }
})

t.test('a preflight of an origin that is not listed is told which one, and where to list it', async t => {
  const gateway = await startGateway(t, { env: { GATEWAY_ALLOWED_ORIGINS: 'https://app.example' } })
  for (const path of ['/gateway/session', '/api/v1/generateTask/nano-banana', '/nowhere']) {
    const refused = await gateway.call(path, preflight('https://other.example'))
    t.match(refused, {
      status: 403,
      error: 'GW_ORIGIN_DENIED',
      json: { message: 'The origin "https://other.example" is not listed in GATEWAY_ALLOWED_ORIGINS.' }
    })
    t.same(
      [...refused.headers.keys()].filter(name => name.startsWith('access-control')),
      []
    )
  }
  t.match(
    await gateway.call('/gateway/session', { method: 'OPTIONS', headers: { origin: 'https://other.example' } }),
    { status: 404 },
    'OPTIONS that is no preflight'
  )
  const warnings = () => gateway.log.filter(({ level, msg }) => level === 40 && /not listed/.test(msg))
  t.match(warnings(), [{ origin: 'https://other.example', setting: 'GATEWAY_ALLOWED_ORIGINS' }])
  t.equal(warnings().length, 1, 'once')
  for (let count = 0; count < 300; count++) {
    await gateway.call('/gateway/session', preflight(`https://${count}.${'x'.repeat(count * 4)}.example`))
  }
  t.equal(warnings().length, 100, 'nobody fills the log')
  t.ok(warnings().every(({ origin }) => origin.length <= 256))
})

t.test('the admin port names no setting that would not help', async t => {
  const { gateway } = await startGateway(t, {
    env: { GATEWAY_ADMIN_TOKEN: adminToken, GATEWAY_ADMIN_PORT: '0', GATEWAY_ALLOWED_ORIGINS: 'https://app.example' }
  })
  const { port } = gateway.adminApp!.server.address() as { port: number }
  const response = await fetch(`http://127.0.0.1:${port}/gateway/admin/usage`, preflight('https://app.example'))
  t.equal(response.status, 403)
  t.match(await response.json(), { message: 'This port is for no pages of other origins: "https://app.example".' })
})
