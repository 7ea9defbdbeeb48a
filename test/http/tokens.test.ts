import t, { type Test } from 'tap'
import { adminToken, startGateway, type TestGatewayOptions } from '../helpers/gateway.ts'
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
