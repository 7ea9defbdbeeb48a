import t from 'tap'
import { adminToken, issuerToken, startGateway, taskMs } from '../helpers/gateway.ts'

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
