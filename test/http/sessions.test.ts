import { SignJWT } from 'jose'
import t, { type Test } from 'tap'
import { isBlameless } from '../../src/http/receive.ts'
import { clock } from '../helpers/clock.ts'
import { openEvents } from '../helpers/event-source.ts'
import { adminToken, issuerToken, startGateway, taskMs } from '../helpers/gateway.ts'
import { identityProvider, type Misbehaviour } from '../helpers/identity-provider.ts'
import { secretFiles } from '../helpers/secret-files.ts'
import { until } from '../helpers/until.ts'

t.test('a minted session says who it is and how long it lasts', async t => {
  const { call, time } = await startGateway(t, {
    config: 'plans: { default: {}, team: { models: ["sora-2*", "suno"] } }'
  })
  const minted = await call('/gateway/sessions', {
    token: issuerToken,
    body: { subject: 'alice', ttlSeconds: 60, models: ['sora-2', 'flux-2'], plan: 'team', scopes: ['tasks:read'] }
  })
  t.equal(minted.status, 201)
  t.same(Object.keys(minted.json).sort(), ['expiresAt', 'subject', 'token'])
  t.match(minted.json, { subject: 'app:alice', expiresAt: new Date(time.now() + 60_000).toISOString() })
  t.same((await call('/gateway/session', { token: minted.json.token })).json, {
    subject: 'app:alice',
    plan: 'team',
    models: ['sora-2', 'flux-2'],
    scopes: ['tasks:read'],
    origins: null,
    addressPrefix: null,
    issuedAt: new Date(time.now()).toISOString(),
    expiresAt: new Date(time.now() + 60_000).toISOString(),
    credits: { limit: 100, used: 0, granted: 0, left: 100, resetsAt: '2026-01-16T00:00:00.000Z', session: null },
    uses: null,
    tasks: { unfinished: 0, limit: 5 },
    requests: { perMinute: 60 },
    polls: { perMinute: 600 }
  })
})

t.test('a session is minted with limits of its own, and shows them and what is left of them', async t => {
  const { call, mint, submit } = await startGateway(t, {
    config: 'plans: { default: {} }',
    env: { GATEWAY_ADMIN_TOKEN: adminToken }
  })
  const limits = { origins: ['https://app.example'], addressPrefix: '127.0.0.9/8', uses: 3, credits: 2.000001 }
  const token = await mint('alice', limits)
  const headers = { origin: 'https://app.example' }
  const shown = async () => (await call('/gateway/session', { token, headers })).json
  t.match(await shown(), {
    origins: limits.origins,
    addressPrefix: '127.0.0.0/8',
    uses: { limit: 3, left: 3 },
    credits: { session: { limit: 2.000001, used: 0, left: 2.000001 } }
  })
  t.equal((await submit(token, 'x', 'nano-banana', { headers })).status, 200)
  t.match(await shown(), {
    uses: { limit: 3, left: 2 },
    credits: { used: 1, left: 99, session: { limit: 2.000001, used: 1, left: 1.000001 } }
  })
  const { items } = (await call('/gateway/admin/audit', { token: adminToken })).json
  t.match(items[0].detail, { origins: 1, addressPrefix: '127.0.0.0/8', uses: 3, credits: 2.000001 })
})

t.test('a session says what is left of credits and slots', async t => {
  const { call, mint, submit, status, time } = await startGateway(t, {
    config:
      'plans: { default: { credits: 2.5, period: hour, concurrentTasks: 3, requestsPerMinute: 7, pollsPerMinute: 9 } }\nprices: { "*": 0.7 }'
  })
  const [token, other] = [await mint('alice'), await mint('alice')]
  const left = async () => (await call('/gateway/session', { token })).json
  const { taskId } = (await submit(token)).json.data
  await submit(other, 'sandbox:failed')
  t.match(await left(), {
    credits: { limit: 2.5, used: 1.4, granted: 0, left: 1.1, resetsAt: '2026-01-15T13:00:00.000Z' },
    tasks: { unfinished: 2, limit: 3 },
    requests: { perMinute: 7 },
    polls: { perMinute: 9 }
  })
  time.advance(taskMs)
  await status(token, taskId)
  t.match(
    await left(),
    { credits: { used: 1.4, left: 1.1 }, tasks: { unfinished: 1 } },
    'a task that has ended frees its slot'
  )
  t.match((await call('/gateway/session', { token: await mint('bob') })).json, {
    credits: { used: 0, left: 2.5 },
    tasks: { unfinished: 0 }
  })
  time.advance(3_600_000 - taskMs)
  t.match((await call('/gateway/session', { token: await mint('alice') })).json, {
    credits: { used: 0, left: 2.5, resetsAt: '2026-01-15T14:00:00.000Z' }
  })
})

t.test('what has no limit has none to show', async t => {
  const { call, mint, submit } = await startGateway(t)
  const token = await mint('alice')
  await submit(token)
  t.match((await call('/gateway/session', { token })).json.credits, {
    limit: null,
    used: 1,
    granted: 0,
    left: null,
    resetsAt: '2026-01-16T00:00:00.000Z'
  })
})

t.test('a session may do what both its plan and its own list allow', async t => {
  const { mint, submit, status, sandbox } = await startGateway(t, {
    config: 'plans: { default: {}, team: { models: ["sora-2*", "suno"] } }'
  })
  const token = await mint('alice', { models: ['sora-2', 'flux-2'], plan: 'team' })
  t.equal((await submit(token, 'x', 'sora-2')).status, 200)
  for (const model of ['flux-2', 'suno', 'sora-2-pro', 'Sora-2']) {
    t.match(await submit(token, 'x', model), { status: 403, error: 'GW_MODEL_DENIED' }, model)
  }
  t.match(
    await submit(await mint('alice', { models: [] }), 'x', 'sora-2'),
    { error: 'GW_MODEL_DENIED' },
    'an empty list means none'
  )
  const reader = await mint('alice', { scopes: ['tasks:read'] })
  t.match(await submit(reader), { status: 403, error: 'GW_SCOPE_DENIED' })
  t.match(await status(await mint('alice', { scopes: [] }), 'x'), { status: 403, error: 'GW_SCOPE_DENIED' })
  t.equal(sandbox.calls.length, 1)
})

t.test('minting names what is wrong with a request', async t => {
  const { call } = await startGateway(t)
  const mint = (body: unknown) => call('/gateway/sessions', { token: issuerToken, body })
  for (const [body, message] of [
    [{}, /subject/],
    [{ subject: '' }, /subject/],
    [{ subject: 'a\nb' }, /subject/],
    ['{"subject":"a\\ud800"}', /subject/],
    [{ subject: 'x'.repeat(129) }, /subject/],
    [{ subject: 7 }, /subject/],
    [{ subject: 'a', ttlSeconds: 0 }, /ttlSeconds/],
    [{ subject: 'a', ttlSeconds: 1e9 }, /ttlSeconds/],
    [{ subject: 'a', ttlSeconds: '60' }, /ttlSeconds/],
    [{ subject: 'a', models: 'sora-2' }, /models/],
    [{ subject: 'a', models: ['a/b'] }, /models/],
    [{ subject: 'a', scopes: ['all'] }, /scopes/],
    [{ subject: 'a', plan: 'nobody' }, /no plan "nobody"/],
    [{ subject: 'a', admin: true }, /"admin"/],
    [{ subject: 'a', Subject: 'b' }, /"Subject"/],
    ['[]', /object/],
    ['{', /JSON/]
  ] as const) { t.match(await mint(body), { status: 400, error: 'GW_BAD_REQUEST', json: { message } }, JSON.stringify(body)) }
  t.match(await call('/gateway/sessions', { token: issuerToken, method: 'POST' }), { status: 400 }, 'no body at all')
})

t.test('minting is for who holds the issuer token, and off without one', async t => {
  const { call, mint } = await startGateway(t)
  const body = { subject: 'mallory' }
  t.match(await call('/gateway/sessions', { body }), { status: 401, error: 'GW_NO_SESSION' })
  t.match(await call('/gateway/sessions', { body, token: `${issuerToken}x` }), { status: 401, error: 'GW_BAD_SESSION' })
  t.match(await call('/gateway/sessions', { body, token: await mint('alice') }), {
    status: 403,
    error: 'GW_SCOPE_DENIED'
  })
  t.match(await call('/gateway/sessions', { body, token: issuerToken, headers: { origin: 'https://app.example' } }), {
    status: 403,
    error: 'GW_ORIGIN_DENIED'
  })
  t.match(await call('/gateway/sessions', { body, token: issuerToken, headers: { 'sec-fetch-site': 'same-origin' } }), {
    status: 403,
    error: 'GW_ORIGIN_DENIED'
  })
})

t.test('a wrong token of the server\'s own is told as such, and nobody is sent for another session', async t => {
  const { call } = await startGateway(t, { env: { GATEWAY_ADMIN_TOKEN: adminToken } })
  for (const [path, name, right] of [
    ['/gateway/sessions', 'issuer', issuerToken],
    ['/gateway/admin/credits', 'admin', adminToken]
  ] as const) {
    const body = {}
    const wrong = `This is not the ${name} token: send what the gateway has as GATEWAY_${name.toUpperCase()}_TOKEN.`
    t.match(await call(path, { body, token: `${right}x` }), {
      status: 401,
      error: 'GW_BAD_SESSION',
      json: { message: wrong }
    })
    for (const authorization of ['Bearer ', 'Bearer', right, `Bearer ${right} ${right}`, 'Basic YTpi']) {
      t.match(
        await call(path, { body, headers: { authorization } }),
        { status: 401, error: 'GW_BAD_SESSION', json: { message: wrong } },
        authorization
      )
    }
    t.match(await call(path, { body }), {
      status: 401,
      error: 'GW_NO_SESSION',
      json: { message: `Send the ${name} token: Authorization: Bearer <token>.` }
    })
  }
  t.match(await call('/gateway/session', { token: 'x' }), { json: { message: /^The session token is malformed/ } })
})

t.test('without an issuer token there is no minting route', async t => {
  const { call } = await startGateway(t, { env: { GATEWAY_ISSUER_TOKEN: '' } })
  t.match(await call('/gateway/sessions', { body: { subject: 'a' }, token: issuerToken }), {
    status: 404,
    error: 'GW_NOT_FOUND'
  })
})

t.test('logging out ends a session at once, and only that one', async t => {
  const { call, mint, submit } = await startGateway(t)
  const [token, other] = [await mint('alice'), await mint('alice')]
  t.equal((await submit(token)).status, 200)
  const ended = await call('/gateway/session', { method: 'DELETE', token })
  t.equal(ended.status, 204)
  t.equal(ended.text, '')
  t.match(await submit(token), { status: 401, error: 'GW_BAD_SESSION' })
  t.match(await call('/gateway/session', { method: 'DELETE', token }), { status: 401 })
  t.equal((await submit(other)).status, 200)
})

t.test('a session ends when its time is up', async t => {
  const { mint, submit, time } = await startGateway(t)
  const token = await mint('alice', { ttlSeconds: 60 })
  t.equal((await submit(token)).status, 200)
  time.advance(60_000)
  t.match(await submit(token), { status: 401, error: 'GW_BAD_SESSION' })
})

t.test('a token is taken where stock SDKs put their key', async t => {
  const { call, mint } = await startGateway(t)
  const token = await mint('alice')
  for (const headers of [
    { authorization: `bearer ${token}` },
    { 'x-api-key': token },
    { 'x-goog-api-key': token },
    { 'x-api-key': token, authorization: `Bearer ${token}` }
  ]) {
    t.equal((await call('/gateway/session', { headers })).status, 200, Object.keys(headers).join())
  }
})

const shop = 'https://shop.example'
const secret = 'q7Zc0vT2mLx9RfWk4JbN8sHd1yUeGaPo-shared-with-the-shop'
const path = '/api/v1/generateTask/nano-banana'
const body = { input: { prompt: 'a red cube' } }

/** A gateway with two issuers: one that publishes keys, one that shares a secret. */
async function start (t: Test, how?: Misbehaviour) {
  const time = clock()
  const provider = await identityProvider(t)
  provider.misbehave(how)
  const secretFile = secretFiles(t, { shop: secret }).path('shop')
  const gateway = await startGateway(t, {
    time,
    config: `
plans:
  default: { models: ["nano-*"], credits: unlimited }
  gold: { credits: unlimited }
issuers:
  - { issuer: "${provider.origin}", audience: app, algorithms: [ES256], planClaim: app_metadata.plan }
  - { issuer: "${shop}", secretFile: "${secretFile}", audience: app, algorithms: [HS256], subjectPrefix: shop, scopesClaim: scope }
`
  })
  const claims = (iss: string, more: object) => ({
    iss,
    sub: 'alice',
    aud: 'app',
    iat: time.now() / 1000,
    exp: time.now() / 1000 + 600,
    ...more
  })
  return {
    ...gateway,
    provider,
    print: (more: object = {}) => provider.sign(claims(provider.origin, more)),
    printShop: (more: object = {}) =>
      new SignJWT(claims(shop, more)).setProtectedHeader({ alg: 'HS256' }).sign(Buffer.from(secret))
  }
}

t.test('who has a token of a known issuer makes pictures with it, and sees what it is', async t => {
  const { call, print, submit, status, provider, sandbox, time, lines } = await start(t)
  const token = await print()
  const { status: code, json } = await call('/gateway/session', { token })
  t.equal(code, 200)
  t.match(json, {
    subject: `${provider.origin}:alice`,
    plan: 'default',
    models: ['*'],
    scopes: ['tasks:write', 'tasks:read', 'llm'],
    issuedAt: new Date(time.now()).toISOString(),
    expiresAt: new Date(time.now() + 600_000).toISOString()
  })
  const submitted = await submit(token)
  t.equal(submitted.status, 200)
  t.equal((await status(token, submitted.json.data.taskId)).status, 200)
  t.equal(lines().at(-1)?.subject, `${provider.origin}:alice`)
  t.equal(sandbox.calls.some(call => JSON.stringify(call).includes(token)), false, 'the token stays here')
  t.equal((await call('/api/v1/generateTask/suno', { token, body })).error, 'GW_MODEL_DENIED', 'the plan still holds')
})

t.test('subjects of the same name are different ones at each issuer, and their tasks are their own', async t => {
  const { print, printShop, mint, submit, status, call } = await start(t)
  const tokens = [await print(), await printShop({ scope: 'tasks:write tasks:read' }), await mint('alice')]
  const { json } = await submit(tokens[0]!)
  const subjects = await Promise.all(
    tokens.map(async token => (await call('/gateway/session', { token })).json.subject)
  )
  t.equal(new Set(subjects).size, 3)
  for (const token of tokens.slice(1)) t.equal((await status(token, json.data.taskId)).error, 'GW_TASK_NOT_FOUND')
  t.equal(
    (await status(await print({ jti: 'another session' }), json.data.taskId)).status,
    200,
    'the subject is what owns it'
  )
})

t.test('a token says which plan it has, and a plan that does not exist is no other plan', async t => {
  const { print, submit, call, sandbox } = await start(t)
  const gold = await print({ app_metadata: { plan: 'gold' } })
  t.equal((await call('/gateway/session', { token: gold })).json.plan, 'gold')
  t.equal((await submit(gold, 'x', 'nano-banana')).status, 200)
  const made = sandbox.calls.length
  for (const plan of ['silver', '', 'constructor', '__proto__', null, ['gold']]) {
    t.match(
      await call(path, { token: await print({ app_metadata: { plan } }), body }),
      { status: 401, error: 'GW_BAD_SESSION' },
      JSON.stringify(plan)
    )
  }
  t.equal(sandbox.calls.length, made)
})

t.test('a token with fewer scopes does less', async t => {
  const { printShop, call } = await start(t)
  t.match(await call(path, { token: await printShop({ scope: 'openid tasks:read' }), body }), {
    status: 403,
    error: 'GW_SCOPE_DENIED'
  })
  t.match(await call(path, { token: await printShop(), body }), { status: 403, error: 'GW_SCOPE_DENIED' })
  t.equal((await call(path, { token: await printShop({ scope: 'tasks:write' }), body })).status, 200)
})

t.test('a session of an issuer ends for good, with or without an id in its token', async t => {
  const { print, call, sandbox } = await start(t)
  for (const [token, other] of [
    [await print({ jti: 'one' }), await print({ jti: 'two' })],
    [await print(), await print({ sub: 'bob' })]
  ] as const) {
    t.equal((await call('/gateway/session', { token, method: 'DELETE' })).status, 204)
    t.equal((await call(path, { token, body })).error, 'GW_BAD_SESSION')
    t.equal((await call('/gateway/session', { token: other })).status, 200)
  }
  t.equal(sandbox.calls.length, 0)
})

t.test('a token that is not good, or is nobody\'s, is a 401 that does not say why', async t => {
  const { print, provider, call, sandbox, time } = await start(t)
  const stranger = await identityProvider(t)
  const claims = { iss: provider.origin, sub: 'alice', aud: 'app', exp: time.now() / 1000 + 60 }
  const bad = {
    expired: await print({ exp: time.now() / 1000 }),
    'for another app': await print({ aud: 'other' }),
    'of an unknown key': await stranger.sign(claims),
    'of an unknown issuer': await stranger.sign({ ...claims, iss: stranger.origin })
  }
  for (const [what, token] of Object.entries(bad)) {
    const reply = await call(path, { token, body })
    t.match(reply, { status: 401, error: 'GW_BAD_SESSION' }, what)
    t.notMatch(reply.text, /JW|alg|aud|exp"|claim|127\.0\.0\.1/, what)
  }
  t.same(stranger.requests, [])
  t.equal(sandbox.calls.length, 0)
})

t.test(
  'a key that its issuer takes back closes the streams of sessions under it, and the next one is refused',
  async t => {
    const { call, origin, print, provider, time } = await start(t)
    const token = await print({ exp: time.now() / 1000 + 86_400 })
    const open = () => openEvents(t, `${origin}/gateway/events`, { token })
    const stream = await open()
    t.equal(stream.status, 200)
    await provider.addKey('ES256')
    provider.published.shift()
    time.advance(20 * 60_000)
    t.match(await call('/gateway/session', { token }), { status: 401, error: 'GW_BAD_SESSION' })
    await stream.over()
    t.notOk(stream.isCut)
    t.equal((await open()).status, 401)
    const fresh = await openEvents(t, `${origin}/gateway/events`, {
      token: await print({ exp: time.now() / 1000 + 86_400 })
    })
    time.advance(20 * 60_000)
    await call('/gateway/session', { token })
    t.notOk(fresh.isOver, 'keys that are the same close nothing')
  }
)

t.test('a session of an issuer mints no others', async t => {
  const { print, call } = await start(t)
  t.equal((await call('/gateway/sessions', { token: await print(), body: { subject: 'bob' } })).status, 403)
})

t.test('an issuer that is down at start stops nobody, is told of once, and is asked again', async t => {
  const { print, printShop, provider, call, log, mint, time } = await start(t, 'is down')
  await until('the operator is told', () => log.some(line => line.alarm === 'issuer-keys'))
  t.match(log.filter(line => line.alarm === 'issuer-keys'), [{ level: 40, issuer: provider.origin }])
  t.equal((await call('/gateway/session', { token: await mint('alice') })).status, 200)
  t.equal((await call('/gateway/session', { token: await printShop() })).status, 200)
  t.equal((await call('/gateway/session', { token: await print() })).error, 'GW_BAD_SESSION')
  provider.misbehave(undefined)
  time.advance(5000)
  t.equal((await call('/gateway/session', { token: await print() })).status, 200)
})

t.test('the same keys in another order, or one more of them, close no stream', async t => {
  const { call, origin, mint, print, provider, time } = await start(t)
  await provider.addKey('ES256')
  const stream = await openEvents(t, `${origin}/gateway/events`, { token: await mint('alice') })
  const readAgain = async (): Promise<void> => {
    const asked = provider.requests.length
    time.advance(20 * 60_000)
    t.equal((await call('/gateway/session', { token: await print() })).status, 200)
    t.ok(provider.requests.length > asked)
  }
  await readAgain()
  provider.published.reverse()
  await readAgain()
  await provider.addKey('ES256')
  await readAgain()
  t.notOk(stream.isOver)
})

t.test('a failure from a foreign page is nobody\'s, unless it presents a secret', async t => {
  const origin = 'https://evil.example'
  const isOurs = (other: string): boolean => other === 'https://app.example'
  const blameless = (headers: Record<string, string>, method = 'GET') =>
    isBlameless({ method, headers, opensWith: undefined }, isOurs)
  t.equal(blameless({ origin }), true)
  t.equal(blameless({ 'sec-fetch-site': 'cross-site' }), true)
  t.equal(blameless({ origin: 'https://app.example' }), false)
  t.equal(blameless({}), false, 'programs that are no browsers')
  t.equal(blameless({ origin, cookie: '__Host-apixo_session_8080=guess' }), false, 'a session cookie is a secret')
  t.equal(blameless({ origin, authorization: 'Bearer guess' }), false)
  t.equal(
    blameless({ origin: 'https://app.example', 'access-control-request-method': 'POST' }, 'OPTIONS'),
    true,
    'preflights'
  )
  t.equal(isBlameless({ method: 'GET', headers: { origin }, opensWith: 'ticket' }, isOurs), false)
})
