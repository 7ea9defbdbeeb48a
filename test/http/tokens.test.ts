import t, { type Test } from 'tap'
import { adminToken, startGateway, type TestGatewayOptions } from '../helpers/gateway.ts'
import { holdPage } from '../helpers/served-page.ts'
import { until } from '../helpers/until.ts'

const env = { GATEWAY_ADMIN_TOKEN: adminToken, GATEWAY_PUBLIC_URL: 'https://ai.example' }
const config = 'plans: { default: { credits: 2 }, team: { credits: 5, models: ["nano*", "suno"], period: month } }'
const day = 86_400_000

async function start (t: Test, options: TestGatewayOptions = {}) {
  const gateway = await startGateway(t, { env, config, ...options })
  const admin = (path: string, more: Parameters<typeof gateway.call>[1] = {}) =>
    gateway.call(`/gateway/admin${path}`, { token: adminToken, ...more })
  const create = async (more: object = {}) =>
    (await admin('/tokens', { body: { subject: 'alice', plan: 'team', ...more } })).json
  const session = (token: string) => gateway.call('/gateway/session', { token })
  return { ...gateway, admin, create, session }
}

t.test('a token is a session of its plan, for as long as it was made for', async t => {
  const { admin, session, submit, time } = await start(t)
  const created = await admin('/tokens', {
    body: { subject: 'alice', plan: 'team', ttlSeconds: 86_400, models: ['nano-banana'], scopes: ['tasks:write'] }
  })
  t.equal(created.status, 201)
  const { id, token } = created.json
  const expiresAt = new Date(time.now() + day).toISOString()
  t.strictSame(created.json, { id, token, subject: 'token:alice', plan: 'team', expiresAt })
  t.match(token, new RegExp(`^apx_${id}_[0-9A-Za-z]{49}$`))
  t.match((await session(token)).json, {
    subject: 'token:alice',
    plan: 'team',
    models: ['nano-banana'],
    scopes: ['tasks:write'],
    expiresAt,
    credits: { limit: 5 }
  })
  t.equal((await submit(token)).status, 200)
  t.equal((await submit(token, 'x', 'suno')).error, 'GW_MODEL_DENIED')
  for (const header of ['x-api-key', 'x-goog-api-key']) {
    t.equal(
      (await submit('', 'x', 'nano-banana', { headers: { [header]: token, authorization: `Bearer ${token}` } })).status,
      200,
      header
    )
  }
  time.advance(day)
  t.match(await session(token), { status: 401, error: 'GW_BAD_SESSION' })
})

t.test('what is wrong with a wish is said, and nothing is made', async t => {
  const { admin } = await start(t)
  for (const [body, why] of [
    [{}, /subject/],
    [{ subject: 'alice', plan: 'gold' }, 'There is no plan "gold"'],
    [{ subject: 'token:alice' }, /"alice"/],
    [{ subject: 'a', ttlSeconds: 1e9 }, /90 days/],
    [{ subject: 'a', ttlSeconds: '90d' }, /ttlSeconds must be number/],
    [{ subject: 'a', models: 'x' }, /models must be array/],
    [{ subject: 'a', scopes: ['root'] }, /scopes/],
    [{ subject: 'a', uses: 3 }, /"uses"/],
    [{ subject: 'a', id: 'mine' }, /"id"/]
  ] as const) {
    for (const path of ['/tokens', '/invitations']) {
      t.match(
        await admin(path, { body }),
        { status: 400, error: 'GW_BAD_REQUEST', json: { message: why } },
        JSON.stringify(body)
      )
    }
  }
  t.match(await admin('/invitations', { body: { subject: 'a', validSeconds: 1 } }), {
    status: 400,
    json: { message: /^valid must/ }
  })
  t.match(await admin('/tokens', { body: { subject: 'a', validSeconds: 100 } }), { status: 400 })
  t.same((await admin('/tokens')).json, { items: [], next: null })
})

t.test('the list shows who has what, when it was used and what was spent, and no secret', async t => {
  const { admin, create, submit, session, time } = await start(t)
  const { token, id } = await create()
  await admin('/invitations', { body: { subject: 'bob' } })
  await submit(token)
  await submit(token)
  await create({ plan: 'default' })
  await until('its use is written', async () => (await admin('/tokens')).json.items.at(-1).usedAt !== null)
  const { json, text } = await admin('/tokens')
  const now = new Date(time.now()).toISOString()
  t.strictSame(json.items.at(-1), {
    id,
    subject: 'token:alice',
    state: 'active',
    plan: 'team',
    pool: null,
    models: ['*'],
    scopes: ['tasks:write', 'tasks:read', 'llm'],
    createdAt: now,
    expiresAt: new Date(time.now() + 90 * day).toISOString(),
    usedAt: now,
    spent: 2
  })
  t.match(json, {
    items: [
      { subject: 'token:alice', plan: 'default', usedAt: null, spent: 2 },
      { subject: 'token:bob', state: 'invited', spent: 0 },
      {}
    ],
    next: null
  })
  t.notOk(text.includes(token.slice(-49)))
  t.notMatch(text, /hash/i)
  const page = (await admin('/tokens?limit=2')).json
  t.equal(page.items.length, 2)
  t.match((await admin(`/tokens?limit=2&cursor=${encodeURIComponent(page.next)}`)).json, {
    items: [{ id }],
    next: null
  })
  for (const query of ['cursor=made-up', 'limit=0', 'limit=501', 'limit=x', 'page=2']) {
    t.match(await admin(`/tokens?${query}`), { status: 400, error: 'GW_BAD_REQUEST' }, query)
  }
  t.equal((await session(token)).status, 200)
})

t.test('a revoked token is of no use within a second, at every door, and stays in the list', async t => {
  const { admin, create, call, submit, time } = await start(t)
  const { token, id } = await create()
  const taskId = (await submit(token)).json.data.taskId
  t.equal((await admin(`/tokens/${id}`, { method: 'DELETE' })).status, 204)
  time.advance(1000)
  for (const path of ['/gateway/session', '/gateway/tasks', `/gateway/tasks/${taskId}/events`, '/gateway/models']) {
    t.match(await call(path, { token }), { status: 401, error: 'GW_BAD_SESSION' }, path)
  }
  t.match(await submit(token), { status: 401, error: 'GW_BAD_SESSION' })
  t.equal((await admin(`/tokens/${id}`, { method: 'DELETE' })).status, 204, 'twice is once')
  t.match((await admin('/tokens')).json.items, [{ id, state: 'revoked', spent: 1 }])
  t.match(await admin('/tokens/nobody', { method: 'DELETE' }), { status: 404, error: 'GW_NOT_FOUND' })
  t.match(await admin(`/tokens/${id}/rotate`, { method: 'POST' }), { status: 404 })
})

t.test('a rotated token has a new secret, the same subject and tasks, and the old one has its grace', async t => {
  const { admin, create, session, submit, status, time } = await start(t)
  const { token, id } = await create()
  const { taskId } = (await submit(token)).json.data
  const rotated = await admin(`/tokens/${id}/rotate`, { method: 'POST' })
  t.equal(rotated.status, 200)
  t.match(rotated.json, {
    id,
    subject: 'token:alice',
    plan: 'team',
    previousUntil: new Date(time.now() + day).toISOString()
  })
  t.not(rotated.json.token, token)
  time.advance(1000)
  t.same([(await session(token)).status, (await session(rotated.json.token)).status], [200, 200])
  t.equal((await status(rotated.json.token, taskId)).status, 200)
  time.advance(day - 1000)
  t.same([(await session(token)).status, (await session(rotated.json.token)).status], [401, 200])
  const leaked = rotated.json.token
  const again = await admin(`/tokens/${id}/rotate`, { body: { graceSeconds: 0 } })
  time.advance(1000)
  t.same(
    [(await session(leaked)).status, (await session(again.json.token)).status],
    [401, 200],
    'no grace for what has leaked'
  )
  for (const body of [{ graceSeconds: -1 }, { graceSeconds: '24h' }, { grace: 0 }]) {
    t.match(await admin(`/tokens/${id}/rotate`, { body }), { status: 400 }, JSON.stringify(body))
  }
})

t.test('whoever holds a token can end it, and a token mints nothing', async t => {
  const { create, session, call, time, admin } = await start(t)
  const { token, id } = await create()
  t.match(await call('/gateway/sessions', { token, body: { subject: 'x' } }), { status: 403, error: 'GW_SCOPE_DENIED' })
  t.match(await call('/gateway/admin/tokens', { token }), { status: 401, error: 'GW_BAD_SESSION' })
  t.equal((await call('/gateway/session', { token, method: 'DELETE' })).status, 204)
  time.advance(1000)
  t.equal((await session(token)).status, 401)
  t.match((await admin('/tokens')).json.items, [{ id, state: 'revoked' }])
})

t.test('without our own origin there are no invitations, and it says which setting that is', async t => {
  const { admin } = await start(t, { env: { GATEWAY_ADMIN_TOKEN: adminToken } })
  t.match(await admin('/invitations', { body: { subject: 'bob' } }), {
    status: 400,
    error: 'GW_BAD_REQUEST',
    json: { message: /GATEWAY_PUBLIC_URL/ }
  })
  t.same((await admin('/tokens')).json.items, [])
})

t.test('who did what with a token is in the audit trail', async t => {
  const { admin, create, time } = await start(t)
  const { id } = await create({ ttlSeconds: 60 })
  await admin(`/tokens/${id}/rotate`, { method: 'POST' })
  await admin(`/tokens/${id}`, { method: 'DELETE' })
  const { items } = (await admin('/audit')).json
  t.strictSame(
    items.filter(({ kind }: any) => kind !== 'settings'),
    [
      {
        at: new Date(time.now()).toISOString(),
        kind: 'revoke',
        actor: 'admin',
        subject: 'token:alice',
        detail: { token: id }
      },
      {
        at: new Date(time.now()).toISOString(),
        kind: 'rotate',
        actor: 'admin',
        subject: 'token:alice',
        detail: { token: id, graceSeconds: 86_400 }
      },
      {
        at: new Date(time.now()).toISOString(),
        kind: 'create',
        actor: 'admin',
        subject: 'token:alice',
        detail: { token: id, plan: 'team', ttlSeconds: 60, models: 1, scopes: 'tasks:write tasks:read llm' }
      }
    ]
  )
})

const teamPlan = 'plans: { default: {}, team: { credits: 5 } }'

async function startWithInvitations (t: Test, options: TestGatewayOptions = {}) {
  const gateway = await startGateway(t, { env, config: teamPlan, ...options })
  const admin = (path: string, more: Parameters<typeof gateway.call>[1] = {}) =>
    gateway.call(`/gateway/admin${path}`, { token: adminToken, ...more })
  const invite = async (more: object = {}) =>
    (await admin('/invitations', { body: { subject: 'bob', plan: 'team', ...more } })).json
  const accept = (link: string) =>
    gateway.call('/gateway/invitations/accept', { body: { invitation: link.split('#')[1] ?? link } })
  return { ...gateway, admin, invite, accept }
}

t.test('an invitation is a link whose secret no server is sent, and becomes a token once', async t => {
  const { invite, accept, call, time, admin } = await startWithInvitations(t)
  const { id, link, ...more } = await invite({ ttlSeconds: 3600, models: ['suno'], scopes: ['llm'] })
  t.match(link, new RegExp(`^https://ai\\.example/gateway/invitation#apxi_${id}_[0-9A-Za-z]{49}$`))
  t.strictSame(more, { subject: 'token:bob', plan: 'team', expiresAt: new Date(time.now() + 7 * day).toISOString() })
  t.match(await call('/gateway/session', { token: link.split('#')[1] }), { status: 401 }, 'it is no token')
  time.advance(day)
  const accepted = await accept(link)
  const { token } = accepted.json
  t.equal(accepted.status, 201)
  t.equal(accepted.headers.get('cache-control'), 'no-store')
  t.strictSame(
    accepted.json,
    { id, token, subject: 'token:bob', plan: 'team', expiresAt: new Date(time.now() + 3_600_000).toISOString() },
    'its time begins now'
  )
  t.match((await call('/gateway/session', { token })).json, {
    subject: 'token:bob',
    plan: 'team',
    models: ['suno'],
    scopes: ['llm']
  })
  t.match(await accept(link), { status: 404, error: 'GW_NOT_FOUND' })
  t.match((await admin('/tokens')).json.items, [{ id, state: 'active' }])
})

t.test('of parallel accepts one wins', async t => {
  const { invite, accept, call } = await startWithInvitations(t)
  const { link } = await invite()
  const all = await Promise.all(Array.from({ length: 30 }, () => accept(link)))
  const [winner, ...more] = all.filter(({ status }) => status === 201)
  t.same(more, [])
  t.equal(all.filter(({ error }) => error === 'GW_NOT_FOUND').length, 29)
  t.equal((await call('/gateway/session', { token: winner!.json.token })).status, 200)
})

t.test('programs that preview the link take nothing', async t => {
  const { invite, accept, call } = await startWithInvitations(t)
  const { link } = await invite()
  for (let count = 0; count < 5; count++) t.equal((await call(`/gateway/invitation?from=mail&n=${count}`)).status, 200)
  t.equal((await call('/gateway/invitation', { method: 'HEAD' })).status, 200)
  t.match(await call('/gateway/invitations/accept'), { status: 405, error: 'GW_METHOD_NOT_ALLOWED' })
  t.equal((await accept(link)).status, 201)
})

t.test('wrong, expired, revoked and used invitations get one answer, like any address that is not there', async t => {
  const { invite, accept, call, time, admin } = await startWithInvitations(t)
  const [late, revoked, used] = [await invite({ validSeconds: 60 }), await invite(), await invite()]
  const token = (await accept(used.link)).json.token
  await admin(`/tokens/${revoked.id}`, { method: 'DELETE' })
  time.advance(60_000)
  const secret = used.link.split('#')[1]
  const { json: { error: { requestId, ...error }, ...body } } = await call('/nowhere')
  t.ok(requestId)
  for (const [title, link] of Object.entries({
    late: late.link,
    revoked: revoked.link,
    used: used.link,
    'a token': token,
    cut: secret.slice(0, -1),
    'of nobody': `apxi_${'0'.repeat(11)}_${'0'.repeat(49)}`,
    empty: '',
    odd: "'; DROP TABLE tokens; --"
  })) {
    const { status, json } = await accept(link)
    t.equal(status, 404, title)
    t.strictSame({ ...json, error: { code: json.error.code } }, { ...body, error }, title)
  }
})

t.test('guessing is throttled, also for who guesses right after that', async t => {
  const { invite, accept } = await startWithInvitations(t, { config: `${teamPlan}\nlimits: { addressFailuresPerMinute: 5 }` })
  const { link } = await invite()
  for (let count = 0; count < 5; count++) t.equal((await accept('apxi_guess')).status, 404)
  t.match(await accept(link), { status: 429, error: 'GW_THROTTLED' })
})

t.test('a body that is no invitation is refused without a look', async t => {
  const { call } = await startWithInvitations(t)
  for (const body of [
    '{',
    {},
    { invitation: 1 },
    { invitation: 'x'.repeat(257) },
    { invitation: 'x', more: 1 },
    [],
    '"x"'
  ]) {
    const { status, text } = await call('/gateway/invitations/accept', {
      body: typeof body === 'string' ? body : JSON.stringify(body)
    })
    t.equal(status, 400, JSON.stringify(body).slice(0, 40))
    t.notMatch(text, 'xxx')
  }
  t.equal(
    (
      await call('/gateway/invitations/accept', {
        method: 'POST',
        body: 'x',
        headers: { 'content-type': 'text/plain' }
      })
    ).status,
    415
  )
})

t.test('the page runs what is in it, and nothing else', async t => {
  const { call } = await startWithInvitations(t)
  const page = await call('/gateway/invitation')
  holdPage(t, page)
  t.notMatch(
    page.text,
    /https?:\/\/|\bon\w+=|style="|<(?:img|link|iframe|form)|innerHTML|eval/,
    'no third parties, and nothing that its policy would stop'
  )
})

t.test('an invitation is not in the log, nor is the token', async t => {
  const { invite, accept, log } = await startWithInvitations(t)
  const { link } = await invite()
  const { json: { token } } = await accept(link)
  await accept(link)
  const lines = JSON.stringify(log)
  for (const secret of [link, token]) t.notOk(lines.includes(secret.slice(-49)))
  t.match(
    log.filter(({ operation }) => operation === 'acceptInvitation'),
    [
      { status: 201, route: '/gateway/invitations/accept' },
      { status: 404, code: 'GW_NOT_FOUND', stage: 'authenticate' }
    ]
  )
})

t.test('with an admin port, invitations are made there and accepted on the main one', async t => {
  const { gateway, accept, call } = await startWithInvitations(t, { env: { ...env, GATEWAY_ADMIN_PORT: '0' } })
  t.match(await call('/gateway/admin/tokens', { token: adminToken }), { status: 404 })
  const admin = (path: string, body?: object) => fetch(`${gateway.adminApp!.listeningOrigin}${path}`, {
    headers: { authorization: `Bearer ${adminToken}`, 'content-type': 'application/json' },
    ...body === undefined ? {} : { method: 'POST', body: JSON.stringify(body) }
  })
  const { link } = await (await admin('/gateway/admin/invitations', { subject: 'bob' })).json() as { link: string }
  t.equal((await accept(link)).status, 201)
  t.equal((await admin('/gateway/invitation')).status, 404)
})
