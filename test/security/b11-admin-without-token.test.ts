import t from 'tap'
import { adminToken, apiKey, issuerToken, sessionSecret, startGateway, type TestGateway } from '../helpers/gateway.ts'
import { rawHttp, rawRequest } from '../helpers/raw-http.ts'

const env = { GATEWAY_ADMIN_TOKEN: adminToken }
const config = 'plans: { default: {} }\nlimits: { addressFailuresPerMinute: 10000 }'
const routes = [
  ['GET', '/gateway/admin/usage'],
  ['POST', '/gateway/admin/credits'],
  ['GET', '/gateway/admin/unknown'],
  ['POST', '/gateway/admin/unknown/1/release'],
  ['GET', '/gateway/admin/audit'],
  ['POST', '/gateway/admin/revocations'],
  ['GET', '/metrics']
] as const

/** The same calls on the admin port. */
function adminPort ({ gateway }: TestGateway) {
  const origin = gateway.adminApp!.listeningOrigin
  return (path: string, token?: string, method = 'GET', body?: object) =>
    fetch(origin + path, {
      method,
      headers: {
        ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
        ...(body === undefined ? {} : { 'content-type': 'application/json' })
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) })
    })
}

t.test('nobody but the operator gets past the door, whatever token they have', async t => {
  const { call, mint, lines } = await startGateway(t, { env, config })
  const session = await mint('alice')
  for (const [method, path] of routes) {
    t.match(await call(path, { method }), { status: 401, error: 'GW_NO_SESSION' }, `${path} without a token`)
    for (const token of [
      session,
      issuerToken,
      sessionSecret,
      apiKey,
      `${adminToken}x`,
      adminToken.slice(0, -1),
      adminToken.toUpperCase(),
      'undefined',
      'null'
    ]) {
      const refused = await call(path, { method, token })
      t.match(refused, { status: 401, error: 'GW_BAD_SESSION' }, path)
      t.equal(refused.headers.get('www-authenticate'), 'Bearer realm="apixo-gateway"')
    }
  }
  t.ok(
    lines()
      .slice(1)
      .every(({ stage, granted, subject }) => stage === 'authenticate' && !granted && subject === null)
  )
})

t.test('the admin token counts as a bearer, once, and nowhere else', async t => {
  const { call, origin } = await startGateway(t, { env, config })
  for (const [method, path] of routes) {
    for (const headers of [
      { 'x-api-key': adminToken },
      { 'x-goog-api-key': adminToken },
      { cookie: `token=${adminToken}` },
      { 'x-admin-token': adminToken }
    ]) {
      t.match(await call(path, { method, headers }), { status: 401, error: 'GW_NO_SESSION' }, JSON.stringify(headers))
    }
    for (const headers of [{ authorization: adminToken }, { authorization: `Basic ${btoa(`admin:${adminToken}`)}` }]) {
      t.equal((await call(path, { method, headers })).status, 401)
    }
    for (const name of ['key', 'access_token', 'token', 'admin_token']) {
      t.match(await call(`${path}?${name}=${adminToken}`, { method }), { status: 401, error: 'GW_NO_SESSION' }, name)
    }
    const twice = [`authorization: Bearer ${adminToken}`, 'authorization: Bearer another']
    t.match(await rawHttp(t, origin, rawRequest(`${method} ${path}`, twice)), { status: 400, error: 'GW_BAD_REQUEST' })
  }
})

t.test('the admin token is no session and mints none', async t => {
  const { call, submit } = await startGateway(t, { env, config })
  t.equal((await submit(adminToken)).error, 'GW_BAD_SESSION')
  t.equal((await call('/gateway/session', { token: adminToken })).error, 'GW_BAD_SESSION')
  t.equal((await call('/gateway/sessions', { token: adminToken, body: { subject: 'a' } })).error, 'GW_BAD_SESSION')
})

t.test('no body is read, and nothing is done, before the operator is known', async t => {
  const { call } = await startGateway(t, { env, config })
  for (const body of ['{', { subject: 'app:alice', credits: 1 }, 'x'.repeat(100_000)]) {
    t.match(await call('/gateway/admin/credits', { body, token: 'guess' }), { status: 401 })
  }
  t.same(
    (await call('/gateway/admin/audit', { token: adminToken })).json.items.map(({ kind }: any) => kind),
    ['settings']
  )
})

t.test('guesses at the admin token are throttled like all others', async t => {
  const { call } = await startGateway(t, {
    env,
    config: 'plans: { default: {} }\nlimits: { addressFailuresPerMinute: 5 }'
  })
  for (let guess = 0; guess < 5; guess++) {
    t.equal((await call(routes.at((guess % 2) - 1)![1], { token: `guess-${guess}` })).status, 401)
  }
  for (const [method, path] of routes) {
    t.match(await call(path, { method, token: adminToken }), { status: 429, error: 'GW_THROTTLED' })
  }
})

t.test('with an admin port, the main port knows nothing of it', async t => {
  const gateway = await startGateway(t, { env: { ...env, GATEWAY_ADMIN_PORT: '0' }, config })
  for (const [method, path] of routes) {
    for (const token of [adminToken, undefined, 'guess']) {
      const { status, error, text, headers } = await gateway.call(path, {
        method,
        ...(token === undefined ? {} : { token })
      })
      const nowhere = await gateway.call('/gateway/nowhere', { method })
      t.match({ status, error }, { status: 404, error: 'GW_NOT_FOUND' }, path)
      t.equal(
        text.replace(/"requestId":"[^"]+"/, ''),
        nowhere.text.replace(/"requestId":"[^"]+"/, ''),
        'it looks like any route that is not there'
      )
      t.equal(headers.get('allow'), null)
    }
  }
  const admin = adminPort(gateway)
  t.equal((await admin('/metrics')).status, 200, 'there the network decides who may look')
  for (const [method, path] of routes.slice(0, -1)) {
    t.equal((await admin(path, undefined, method)).status, 401, path)
    t.equal((await admin(path, issuerToken, method)).status, 401, path)
  }
  t.equal((await admin('/gateway/admin/usage', adminToken)).status, 200)
  t.equal((await admin('/gateway/admin/credits', adminToken, 'POST', { subject: 'app:alice', credits: 1 })).status, 201)
})

t.test('the admin port has nothing that is for callers', async t => {
  const gateway = await startGateway(t, {
    env: { ...env, GATEWAY_ADMIN_PORT: '0', GATEWAY_ALLOWED_ORIGINS: 'https://app.example' },
    config
  })
  const admin = adminPort(gateway)
  const token = await gateway.mint('alice')
  for (const [method, path, by] of [
    ['POST', '/gateway/sessions', issuerToken],
    ['GET', '/gateway/session', token],
    ['POST', '/api/v1/generateTask/nano-banana', token]
  ] as const) {
    t.equal((await admin(path, by, method)).status, 404, path)
  }
  for (const path of ['/livez', '/readyz']) t.equal((await admin(path)).status, 200, path)
  const foreign = await fetch(`${gateway.gateway.adminApp!.listeningOrigin}/metrics`, {
    headers: { origin: 'https://app.example' }
  })
  t.equal(foreign.headers.get('access-control-allow-origin'), null)
  t.equal(foreign.headers.get('cache-control'), 'no-store')
  t.equal(foreign.headers.get('content-security-policy'), "default-src 'none'; sandbox")
})

t.test('an admin port without an admin token has metrics and no admin API', async t => {
  const gateway = await startGateway(t, { env: { GATEWAY_ADMIN_PORT: '0' }, config })
  const admin = adminPort(gateway)
  t.equal((await admin('/metrics')).status, 200)
  for (const [method, path] of routes.slice(0, -1)) t.equal((await admin(path, adminToken, method)).status, 404, path)
})

t.test('both ports are closed when the gateway stops', async t => {
  const gateway = await startGateway(t, { env: { ...env, GATEWAY_ADMIN_PORT: '0' }, config })
  const admin = adminPort(gateway)
  t.equal((await admin('/livez')).status, 200)
  await gateway.gateway.close()
  await t.rejects(admin('/livez'))
  await t.rejects(gateway.call('/livez'))
})

t.test('a page of our own may call the admin API; a foreign one gets no CORS headers', async t => {
  const { call, origin } = await startGateway(t, { env, config })
  t.equal(
    (await call('/gateway/admin/usage', { token: adminToken, headers: { origin, 'sec-fetch-site': 'same-origin' } }))
      .status,
    200
  )
  const foreign = await call('/gateway/admin/usage', { token: adminToken, headers: { origin: 'https://evil.test' } })
  t.equal(foreign.headers.get('access-control-allow-origin'), null)
})
