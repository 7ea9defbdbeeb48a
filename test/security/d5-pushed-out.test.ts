import t, { type Test } from 'tap'
import { adminToken, issuerToken, startGateway } from '../helpers/gateway.ts'
import { redisServer } from '../helpers/redis-server.ts'

const config = 'plans: { default: {} }\nlimits: { addressFailuresPerMinute: 100000, addressRequestsPerMinute: 100000 }'
const perMinute = 120

async function start (t: Test, store: 'sqlite' | 'redis') {
  const env = store === 'sqlite' ? {} : { GATEWAY_STORE: (await redisServer(t)).url }
  const gateway = await startGateway(t, { config, env: { GATEWAY_ADMIN_TOKEN: adminToken, ...env } })
  const admin = (path: string, body?: object) =>
    gateway.call(`/gateway/admin${path}`, { token: adminToken, ...(body && { body }) })
  return { ...gateway, admin, audit: async () => (await admin('/audit?limit=500')).json.items }
}

for (const store of ['sqlite', 'redis'] as const) {
  t.test(
    `a person's token is swapped for so many cookies a minute, and the trail tells of no more: ${store}`,
    async t => {
      const { call, admin, audit, lines } = await start(t, store)
      const { token } = (await admin('/tokens', { subject: 'mallory' })).json
      const other = (await admin('/tokens', { subject: 'alice' })).json.token
      const swap = (token: string) =>
        call('/gateway/sessions/cookie', { method: 'POST', token, headers: { 'sec-fetch-site': 'same-origin' } })
      const statuses = []
      for (let round = 0; round < perMinute + 30; round++) statuses.push((await swap(token)).status)
      t.equal(statuses.filter(status => status === 201).length, perMinute)
      const refused = await swap(token)
      t.match(refused, { status: 429, error: 'GW_RATE_LIMITED' })
      t.match(refused.headers.get('retry-after'), /^(?:[1-9]|[1-5]\d)$/)
      t.match(lines().at(-1), { operation: 'swapSession', stage: 'admit' })
      t.equal((await swap(other)).status, 201, 'somebody else is not asked to wait')
      const kinds = (await audit()).map(({ kind }: { kind: string }) => kind)
      t.equal(kinds.filter((kind: string) => kind === 'mint').length, perMinute + 1)
      t.equal(kinds.filter((kind: string) => kind === 'create').length, 2, 'what the operator did is there')
    }
  )

  t.test(`so many sessions of a subject are minted a minute: ${store}`, async t => {
    const { call } = await start(t, store)
    const mint = (subject: string) => call('/gateway/sessions', { token: issuerToken, body: { subject } })
    for (let round = 0; round < perMinute; round++) t.equal((await mint('mallory')).status, 201)
    t.match(await mint('mallory'), { status: 429, error: 'GW_RATE_LIMITED' })
    t.equal((await mint('alice')).status, 201)
  })
}

t.test('refusals fill nothing: of each kind there is a row an hour, whoever asks and however often', async t => {
  const { call, audit, gateway, time, mint, submit } = await start(t, 'sqlite')
  const token = await mint('alice', { models: ['suno'] })
  const rows = async () => (await audit()).filter(({ kind }: { kind: string }) => kind === 'refusals')
  for (let round = 0; round < 30; round++) {
    for (let count = 0; count < 5; count++) await call(`/nowhere-${round}`, { token: `guess-${count}` })
    await submit(token)
    await gateway.tidy()
    time.advance(60_000)
  }
  t.same(
    (await rows()).map(({ subject, detail: { code, count } }: any) => [subject, code, count]).sort(),
    [
      [null, 'GW_NOT_FOUND', 5],
      ['app:alice', 'GW_MODEL_DENIED', 1]
    ].sort()
  )
  time.advance(30 * 60_000)
  await gateway.tidy()
  t.equal((await rows()).length, 4)
  t.equal((await rows()).reduce((sum: number, { detail }: any) => sum + detail.count, 0), 180, 'none is forgotten')
})
