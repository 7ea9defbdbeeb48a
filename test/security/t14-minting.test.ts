import t from 'tap'
import { cookieNameAt, swap } from '../helpers/cookies.ts'
import { adminToken, issuerToken, sessionSecret, startGateway } from '../helpers/gateway.ts'
import { identityProvider } from '../helpers/identity-provider.ts'

const config =
  'plans: { default: {} }\nlimits: { addressFailuresPerMinute: 10000 }\nsessions: { maxTtlSeconds: 7200, defaultTtlSeconds: 600 }'
const path = '/gateway/sessions'
const body = { subject: 'alice' }

t.test('a browser does not mint, even with the issuer token', async t => {
  const { call } = await startGateway(t, { config, env: { GATEWAY_ALLOWED_ORIGINS: 'https://app.example' } })
  const browsers: ReadonlyArray<Readonly<Record<string, string>>> = [
    { origin: 'https://app.example' },
    { origin: 'https://evil.test' },
    { origin: 'null' },
    { origin: '' },
    { 'sec-fetch-site': 'same-origin' },
    { 'sec-fetch-site': 'cross-site' },
    { 'sec-fetch-site': 'none' },
    { 'sec-fetch-site': '' }
  ]
  for (const headers of browsers) {
    t.match(
      await call(path, { token: issuerToken, body, headers }),
      { status: 403, error: 'GW_ORIGIN_DENIED' },
      JSON.stringify(headers)
    )
  }
})

t.test('a session does not mint: not another, not a wider one, not itself again', async t => {
  const { call, mint } = await startGateway(t, { config })
  const token = await mint('alice', { scopes: ['tasks:read'], models: ['nano-banana'] })
  for (const request of [
    body,
    { subject: 'bob' },
    { subject: 'alice', scopes: ['tasks:write'] },
    { subject: 'alice', models: ['*'], ttlSeconds: 7200 }
  ]) {
    t.match(await call(path, { token, body: request }), { status: 403, error: 'GW_SCOPE_DENIED' })
  }
  for (const other of ['x.y.z', sessionSecret, `${issuerToken}x`]) {
    t.match(await call(path, { token: other, body }), { status: 401 })
  }
  t.match(await call(path, { body }), { status: 401, error: 'GW_NO_SESSION' })
})

t.test('the issuer token is no session', async t => {
  const { call, submit, status, sandbox } = await startGateway(t, { config })
  t.equal((await submit(issuerToken)).error, 'GW_BAD_SESSION')
  t.equal((await status(issuerToken, 'x')).error, 'GW_BAD_SESSION')
  t.equal((await call('/gateway/session', { token: issuerToken })).error, 'GW_BAD_SESSION')
  t.equal(sandbox.calls.length, 0)
})

t.test('a request beyond what may be asked for is a 400', async t => {
  const { call } = await startGateway(t, { config })
  const requests: readonly object[] = [
    {},
    { subject: '' },
    { subject: 'a', ttlSeconds: 7201 },
    { subject: 'a', ttlSeconds: 0 },
    { subject: 'a', ttlSeconds: -1 },
    { subject: 'a', ttlSeconds: 1.5 },
    { subject: 'a', ttlSeconds: '60' },
    { subject: 'a', ttlSeconds: null },
    { subject: 'a', plan: 'pro' },
    { subject: 'a', plan: '__proto__' },
    { subject: 'a', plan: 'constructor' },
    { subject: 'a', scopes: ['admin'] },
    { subject: 'a', scopes: 'tasks:write' },
    { subject: 'a', scopes: ['*'] },
    { subject: 'a', models: '*' },
    { subject: 'a', models: ['a b'] },
    { subject: 'a', models: ['../x'] },
    { subject: 'a', models: Array.from({ length: 101 }, () => 'x') },
    { subject: 'a', admin: true },
    { subject: 'a', sub: 'root' },
    { subject: 'a', credits: 1e9 },
    { subject: 'a', exp: 9e9 },
    { subject: ['a'] }
  ]
  for (const request of requests) {
    t.match(
      await call(path, { token: issuerToken, body: request }),
      { status: 400, error: 'GW_BAD_REQUEST' },
      JSON.stringify(request).slice(0, 60)
    )
  }
  for (const raw of ['', 'x', '[]', 'null', '"a"']) {
    t.match(await call(path, { token: issuerToken, body: raw, method: 'POST' }), { status: 400 }, raw)
  }
})

t.test('a limit that says nothing is a 400, and never no limit', async t => {
  const { call } = await startGateway(t, { config })
  const requests: ReadonlyArray<readonly [request: object | string, message: RegExp]> = [
    [{ origins: [] }, /origins/],
    [{ origins: 'https://app.example' }, /origins/],
    [{ origins: null }, /origins/],
    [{ origins: ['*'] }, /origins must be exact/],
    [{ origins: ['null'] }, /exact/],
    [{ origins: ['https://*.example'] }, /exact/],
    [{ origins: ['https://app.example/'] }, /exact/],
    [{ origins: ['http://app.example'] }, /https/],
    [{ origins: ['HTTPS://app.example'] }, /exact/],
    [{ origins: ['https://app.example:443'] }, /exact/],
    [{ origins: ['https://me@app.example'] }, /exact/],
    [{ origins: ['https://app.example', 'x'] }, /exact/],
    [{ origins: Array.from({ length: 21 }, (_, index) => `https://${index}.example`) }, /origins/],
    [{ addressPrefix: '' }, /addressPrefix/],
    [{ addressPrefix: '10.0.0.1' }, /network/],
    [{ addressPrefix: '10/8' }, /network/],
    [{ addressPrefix: '10.0.0.0/33' }, /network/],
    [{ addressPrefix: 'fe80::1%eth0/64' }, /network/],
    [{ addressPrefix: ['10.0.0.0/8'] }, /addressPrefix/],
    [{ addressPrefix: null }, /addressPrefix/],
    [{ uses: 0 }, /uses/],
    [{ uses: -1 }, /uses/],
    [{ uses: 1.5 }, /uses/],
    [{ uses: '1' }, /uses/],
    [{ uses: null }, /uses/],
    ['{"subject":"a","uses":1e400}', /./],
    [{ credits: 0 }, /credits/],
    [{ credits: -1 }, /credits/],
    [{ credits: '1' }, /credits/],
    [{ credits: null }, /credits/],
    [{ credits: 1e12 }, /credits/]
  ]
  for (const [request, message] of requests) {
    const given = typeof request === 'string' ? request : { ...body, ...request }
    t.match(
      await call(path, { token: issuerToken, body: given }),
      { status: 400, error: 'GW_BAD_REQUEST', json: { message } },
      JSON.stringify(request).slice(0, 60)
    )
  }
})

t.test('a cookie does not mint, and neither does what the issuer token was put into', async t => {
  const gateway = await startGateway(t, { config })
  const { call, mint } = gateway
  const cookie = await swap(gateway, await mint('alice'))
  t.match(await call(path, { body, headers: { cookie: cookie.header } }), { status: 401, error: 'GW_NO_SESSION' })
  t.match(await call(path, { body, headers: { cookie: `${cookieNameAt(gateway.origin)}=${issuerToken}` } }), {
    status: 401,
    error: 'GW_NO_SESSION'
  })
  t.match(await call(path, { body, token: cookie.value }), { status: 403, error: 'GW_SCOPE_DENIED' })
  t.match(await call('/gateway/sessions/cookie', { method: 'POST', token: issuerToken }), {
    status: 401,
    error: 'GW_BAD_SESSION'
  })
})

t.test('a token of a person, or of another issuer, does not mint', async t => {
  const provider = await identityProvider(t)
  const issuers = `issuers: [{ issuer: "${provider.origin}", jwksUrl: "${provider.jwksUrl}", audience: app, algorithms: [ES256] }]`
  const { call, time, lines } = await startGateway(t, {
    config: `${config}\n${issuers}`,
    env: { GATEWAY_ADMIN_TOKEN: adminToken }
  })
  const { json: person } = await call('/gateway/admin/tokens', { token: adminToken, body: { subject: 'alice' } })
  const now = time.now() / 1000
  const theirs = await provider.sign({ iss: provider.origin, sub: 'alice', aud: 'app', iat: now, exp: now + 600 })
  for (const token of [person.token, theirs]) {
    t.equal((await call('/gateway/session', { token })).status, 200)
    t.match(await call(path, { body, token }), {
      status: 403,
      error: 'GW_SCOPE_DENIED',
      json: { message: /issuer token/ }
    })
  }
  t.match(await call(path, { body, token: `${person.token}x` }), { status: 401, error: 'GW_BAD_SESSION' })
  t.equal(lines().filter(({ operation, granted }) => operation === 'mintSession' && granted).length, 0)
})

t.test('a minted session lasts as long as was asked for and starts with its own issuer\'s prefix', async t => {
  const { call, time } = await startGateway(t, { config })
  const { json } = await call(path, { token: issuerToken, body: { subject: 'guest:alice', ttlSeconds: 60 } })
  t.match(json, { subject: 'app:guest:alice', expiresAt: new Date(time.now() + 60_000).toISOString() })
})

t.test('the body of a minting, or of a log-out, is a small one', async t => {
  const { call, mint } = await startGateway(t, { config })
  const token = await mint('alice')
  const big = JSON.stringify({ subject: 'a', plan: 'x'.repeat(1_000_000) })
  t.match(await call(path, { token: issuerToken, body: big }), { status: 413, error: 'GW_TOO_LARGE' })
  t.match(await call('/gateway/session', { token, method: 'DELETE', body: big }), {
    status: 413,
    error: 'GW_TOO_LARGE'
  })
  t.equal((await call('/gateway/session', { token })).status, 200)
})
