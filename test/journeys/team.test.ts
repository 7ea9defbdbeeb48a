import t from 'tap'
import { adminToken } from '../helpers/gateway.ts'
import { redisServer } from '../helpers/redis-server.ts'
import { startReplicas } from '../helpers/replicas.ts'
import { until } from '../helpers/until.ts'

const env = { GATEWAY_ADMIN_TOKEN: adminToken, GATEWAY_PUBLIC_URL: 'https://ai.example' }
const config = 'plans: { default: {}, team: { credits: 5 } }'

t.test('three replicas share the tokens of a team', async t => {
  const server = await redisServer(t)
  const replicas = await startReplicas(t, 3, server.url, { env, config })
  const [one, two, three] = replicas
  const { time } = one!
  const admin = (path: string, more: object = {}) => one!.call(`/gateway/admin${path}`, { token: adminToken, ...more })
  const statuses = async (token: string) =>
    await Promise.all(replicas.map(async ({ call }) => (await call('/gateway/session', { token })).status))

  const { link } = (await admin('/invitations', { body: { subject: 'bob', plan: 'team' } })).json
  const invitation = link.split('#')[1]
  const accepts = await Promise.all(
    Array.from({ length: 30 }, (_, index) =>
      replicas[index % 3]!.call('/gateway/invitations/accept', { body: { invitation } })
    )
  )
  const [winner, ...more] = accepts.filter(({ status }) => status === 201)
  t.same(more, [], 'one of thirty accepts, wherever they come in')
  const { token, id } = winner!.json
  t.same(await statuses(token), [200, 200, 200])

  t.equal((await two!.submit(token)).status, 200)
  await until('its use is written', async () => (await admin('/tokens')).json.items[0].usedAt !== null)
  t.match((await three!.call('/gateway/admin/tokens', { token: adminToken })).json.items, [
    { id, subject: 'token:bob', state: 'active', spent: 1 }
  ])

  const rotated = (
    await two!.call(`/gateway/admin/tokens/${id}/rotate`, { token: adminToken, body: { graceSeconds: 60 } })
  ).json.token
  time.advance(1000)
  t.same([await statuses(token), await statuses(rotated)], [[200, 200, 200], [200, 200, 200]])
  time.advance(59_000)
  t.same([await statuses(token), await statuses(rotated)], [[401, 401, 401], [200, 200, 200]])

  t.equal((await three!.call(`/gateway/admin/tokens/${id}`, { token: adminToken, method: 'DELETE' })).status, 204)
  time.advance(1000)
  t.same(await statuses(rotated), [401, 401, 401], 'within a second')

  const other = (await admin('/tokens', { body: { subject: 'alice' } })).json.token
  await server.kill()
  t.match(
    await two!.call('/gateway/session', { token: other }),
    { status: 503, error: 'GW_STORE_DOWN' },
    'and without its store nobody is let in'
  )
  await server.start()
})
