import { DatabaseSync } from 'node:sqlite'
import t, { type Test } from 'tap'
import {
  adminToken,
  apiKey,
  issuerToken,
  sessionSecret,
  startGateway,
  type TestGatewayOptions
} from '../helpers/gateway.ts'
import { holdStore, storeFile } from '../helpers/store-file.ts'
import { until } from '../helpers/until.ts'

const env = { GATEWAY_ADMIN_TOKEN: adminToken }

async function start (test: Test, options: TestGatewayOptions = {}) {
  const gateway = await startGateway(test, { env, ...options })
  const entries = async (kind?: string): Promise<any[]> => {
    const { json } = await gateway.call('/gateway/admin/audit?limit=500', { token: adminToken })
    return json.items.filter((entry: any) => kind === undefined || entry.kind === kind)
  }
  return { ...gateway, entries }
}

t.test('minting and logging out are in the audit trail', async t => {
  const { mint, call, entries, time } = await start(t)
  const token = await mint('alice', { ttlSeconds: 60, models: ['sora-2', 'suno'], scopes: ['tasks:read'] })
  await call('/gateway/session', { token, method: 'DELETE' })
  const at = new Date(time.now()).toISOString()
  const [revoked, minted] = await entries()
  t.strictSame(minted, {
    at,
    kind: 'mint',
    actor: 'issuer',
    subject: 'app:alice',
    detail: { session: minted.detail.session, plan: 'default', ttlSeconds: 60, models: 2, scopes: 'tasks:read' }
  })
  t.match(minted.detail.session, /^[0-9a-f-]{36}$/)
  t.strictSame(revoked, {
    at,
    kind: 'revoke',
    actor: 'app:alice',
    subject: 'app:alice',
    detail: { session: minted.detail.session }
  })
})

t.test('what the operator does is in the audit trail, and what was not done is not', async t => {
  const { mint, call, entries, submit } = await start(t)
  await submit(await mint('alice'), 'sandbox:drop-after')
  const admin = (path: string, body?: object) =>
    call(`/gateway/admin${path}`, { token: adminToken, method: 'POST', body })
  await admin('/credits', { subject: 'app:alice', credits: 12.5 })
  await admin('/credits', { subject: 'alice', credits: 12.5 })
  const [{ id }] = (await call('/gateway/admin/unknown', { token: adminToken })).json.items
  await admin(`/unknown/${id}/release`)
  await admin(`/unknown/${id}/release`)
  await admin('/unknown/none/release')
  const [released, granted, ...more] = await entries()
  t.match(granted, { kind: 'grant', actor: 'admin', subject: 'app:alice', detail: { credits: 12.5 } })
  t.match(released, {
    kind: 'release',
    actor: 'admin',
    subject: 'app:alice',
    detail: { id, taskId: null, model: 'nano-banana', credits: 1 }
  })
  t.same(
    more.map(({ kind }) => kind),
    ['mint', 'settings']
  )
})

t.test('refusals are counted, and written once a round', async t => {
  const { mint, call, entries, submit, gateway } = await start(t)
  const token = await mint('alice', { models: ['suno'] })
  for (let count = 0; count < 3; count++) await submit(token)
  await call('/gateway/session', { token: 'forged.token.x' })
  await call('/gateway/session', { token: '' })
  await call('/gateway/session')
  await call('/nowhere')
  await submit(token, 'x', 'suno')
  t.same(await entries('refusals'), [])
  await until('a round has written them', async () => {
    await gateway.tidy()
    return (await entries('refusals')).length >= 4
  })
  const refusals = (await entries('refusals'))
    .map(({ actor, subject, detail }) => ({ actor, subject, ...detail }))
    .sort((a, b) => (a.code < b.code ? -1 : 1))
  t.strictSame(refusals, [
    { actor: 'gateway', subject: null, code: 'GW_BAD_SESSION', count: 2, authenticate: 2 },
    { actor: 'gateway', subject: 'app:alice', code: 'GW_MODEL_DENIED', count: 3, authorize: 3 },
    { actor: 'gateway', subject: null, code: 'GW_NOT_FOUND', count: 1, receive: 1 },
    { actor: 'gateway', subject: null, code: 'GW_NO_SESSION', count: 1, authenticate: 1 }
  ])
  await gateway.tidy()
  t.equal((await entries('refusals')).length, 4, 'and not again')
})

t.test(
  'the settings are written down at the first start, and then what has changed, with fingerprints for secrets',
  async t => {
    const store = storeFile(t)
    const other = 'another-issuer-token-0002'
    for (const more of [
      {},
      {},
      { LOG_LEVEL: 'fatal', GATEWAY_ISSUER_TOKEN: other },
      { LOG_LEVEL: 'fatal', GATEWAY_ISSUER_TOKEN: other }
    ]) {
      const { gateway } = await startGateway(t, {
        store,
        env: { ...env, ...more, GATEWAY_CONFIG: 'gateway.yaml', APIXO_BASE_URL: 'http://127.0.0.1:9' }
      })
      await gateway.close()
    }
    const { entries } = await start(t, {
      store,
      env: { ...env, LOG_LEVEL: 'fatal', GATEWAY_ISSUER_TOKEN: other, APIXO_BASE_URL: 'http://127.0.0.1:9' }
    })
    const [changed, first, ...more] = await entries('settings')
    t.same(more, [])
    t.match(first, { actor: 'gateway', subject: null, detail: { changed: null, digest: String, snapshot: String } })
    t.strictSame(Object.keys(changed.detail).sort(), [
      'GATEWAY_ISSUER_TOKEN',
      'LOG_LEVEL',
      'changed',
      'digest',
      'snapshot'
    ])
    t.match(changed.detail, {
      changed: 2,
      LOG_LEVEL: 'trace -> fatal',
      GATEWAY_ISSUER_TOKEN: /^sha256:[0-9a-f]{8} -> sha256:[0-9a-f]{8}$/
    })
  }
)

t.test('no session begins or ends, and no credits are given, while the audit trail can not be written', async t => {
  const store = storeFile(t)
  const { mint, call, entries, gateway, time } = await start(t, { store })
  const token = await mint('alice')
  const letGo = holdStore(t, store)
  const down = { status: 503, error: 'GW_STORE_DOWN' }
  t.equal((await call('/gateway/tasks?x=1', { token })).status, 400)
  t.match(await call('/gateway/sessions', { token: issuerToken, body: { subject: 'bob' } }), down)
  t.match(await call('/gateway/session', { token, method: 'DELETE' }), down)
  t.match(await call('/gateway/admin/credits', { token: adminToken, body: { subject: 'app:alice', credits: 1 } }), down)
  await t.rejects(gateway.tidy(), { code: 'GW_STORE_DOWN' })
  letGo()
  time.advance(1000) // it is asked once a second
  await until('the store is back', async () => (await call('/readyz')).status === 200)
  t.equal((await call('/gateway/session', { token })).status, 200, 'the session is still there')
  t.match(
    (await call('/gateway/admin/credits', { token: adminToken, body: { subject: 'app:alice', credits: 1 } })).json,
    { granted: 1 }
  )
  await gateway.tidy()
  t.strictSame((await entries('refusals')).map(({ subject, detail }) => ({ subject, ...detail })), [
    { subject: 'app:alice', code: 'GW_BAD_REQUEST', count: 1, authorize: 1 }
  ], 'what was refused meanwhile is not forgotten, and the outage is no refusal')
})

t.test('no token, secret or prompt is in the audit trail', async t => {
  const store = storeFile(t)
  const { mint, call, submit, gateway } = await start(t, { store, config: 'plans: { default: { credits: 1 } }' })
  const token = await mint('alice')
  await submit(token, 'a-very-private-prompt sandbox:drop-after')
  await submit(token, 'a-very-private-prompt')
  for (const path of ['/gateway/session?key=a-query-token', '/a-very-private-path', '/gateway/admin/usage']) {
    await call(path, { token })
  }
  await call('/gateway/session', { token: 'a-forged-token' })
  await call('/gateway/session', { token, method: 'DELETE' })
  await call('/gateway/session', { token })
  const [{ id }] = (await call('/gateway/admin/unknown', { token: adminToken })).json.items
  await call(`/gateway/admin/unknown/${id}/release`, { token: adminToken, method: 'POST' })
  await call('/gateway/admin/credits', { token: adminToken, body: { subject: 'app:alice', credits: 1 } })
  await gateway.tidy()
  await gateway.close()
  const db = new DatabaseSync(store)
  const rows = db.prepare('SELECT * FROM audit').all()
  db.close()
  const text = JSON.stringify(rows)
  t.ok(rows.length >= 9)
  for (const secret of [
    token,
    ...token.split('.').slice(1),
    adminToken,
    issuerToken,
    apiKey,
    sessionSecret,
    'private',
    'a-query-token',
    'a-forged-token'
  ]) {
    t.notOk(text.includes(secret), secret)
  }
})
