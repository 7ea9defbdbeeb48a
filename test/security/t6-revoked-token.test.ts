import t from 'tap'
import { sessionCheckMs } from '../../src/features/events/sse.ts'
import { crankedGateway } from '../helpers/cranked-gateway.ts'
import { adminToken } from '../helpers/gateway.ts'

t.test('a token that is revoked, or has leaked and was rotated, loses the streams that are open', async t => {
  const { call, made, listenTo, pass } = await crankedGateway(t, { env: { GATEWAY_ADMIN_TOKEN: adminToken } })
  const admin = (path: string, more: object = {}) =>
    call(`/gateway/admin/tokens${path}`, { token: adminToken, ...more })
  const [leaked, revoked, other] = await Promise.all(
    ['alice', 'bob', 'carol'].map(async subject => (await admin('', { body: { subject } })).json)
  )
  const streams = await Promise.all(
    [leaked, revoked, other].map(async ({ token }) => await listenTo(await made(token, 'sandbox:forever'), { token }))
  )
  const {
    json: { token }
  } = await admin(`/${leaked.id}/rotate`, { body: { graceSeconds: 0 } })
  await admin(`/${revoked.id}`, { method: 'DELETE' })
  pass(sessionCheckMs)
  await Promise.all([streams[0]!.over(), streams[1]!.over()])
  t.same(
    streams.map(({ isOver, isCut }) => [isOver, isCut]),
    [
      [true, false],
      [true, false],
      [false, false]
    ]
  )
  t.same(
    [
      (await call('/gateway/session', { token: leaked.token })).status,
      (await call('/gateway/session', { token })).status
    ],
    [401, 200]
  )
})

t.test(
  'a stream of the secret before a rotation ends with its grace, whatever else is open with that token',
  async t => {
    const { call, listen, pass, time } = await crankedGateway(t, { env: { GATEWAY_ADMIN_TOKEN: adminToken } })
    const admin = (path: string, body: object) => call(`/gateway/admin/tokens${path}`, { token: adminToken, body })
    const before = (await admin('', { subject: 'alice' })).json
    const {
      json: { token }
    } = await admin(`/${before.id}/rotate`, { graceSeconds: 60 })
    time.advance(1000)
    const fresh = await listen('/gateway/events', { token })
    const old = await listen('/gateway/events', { token: before.token })
    time.advance(60_000)
    pass(sessionCheckMs)
    await old.over()
    t.same([fresh.isOver, old.isCut], [false, false])
  }
)

t.test('a token that has expired is refused on the next request', async t => {
  const { call, time } = await crankedGateway(t, { env: { GATEWAY_ADMIN_TOKEN: adminToken } })
  const { token } = (
    await call('/gateway/admin/tokens', { token: adminToken, body: { subject: 'alice', ttlSeconds: 60 } })
  ).json
  time.advance(59_999)
  t.equal((await call('/gateway/session', { token })).status, 200)
  time.advance(1)
  t.match(await call('/gateway/session', { token }), { status: 401, error: 'GW_BAD_SESSION' })
})
