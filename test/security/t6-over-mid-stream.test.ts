import { setTimeout as wait } from 'node:timers/promises'
import t from 'tap'
import { heartbeatMs, sessionCheckMs } from '../../src/features/events/sse.ts'
import { crankedGateway } from '../helpers/cranked-gateway.ts'
import { until } from '../helpers/until.ts'

t.test('a stream says that it lives, and a session that is over loses its streams', async t => {
  const { mint, made, listenTo, listen, pass, call, time } = await crankedGateway(t)
  const [revoked, short, other] = [await mint('alice'), await mint('alice', { ttlSeconds: 60 }), await mint('alice')]
  const taskId = await made(other, 'sandbox:forever')
  const streams = await Promise.all([revoked, short, other].map(token => listenTo(taskId, { token })))
  const all = await listen('/gateway/events', { token: revoked })
  for (let passed = 0; passed < heartbeatMs; passed += sessionCheckMs) {
    pass(sessionCheckMs)
    await wait(20)
  }
  await until('they live', () => streams.every(({ text }) => text.endsWith('\n\n:\n')))
  t.equal((await call('/gateway/session', { method: 'DELETE', token: revoked })).status, 204)
  pass(sessionCheckMs)
  await Promise.all([streams[0]!.over(), all.over()])
  t.notOk(streams[0]!.isCut)
  t.strictSame(streams.map(({ isOver }) => isOver), [true, false, false])
  time.advance(60_000)
  pass(sessionCheckMs)
  await streams[1]!.over()
  t.notOk(streams[2]!.isOver)
  t.equal((await listenTo(taskId, { token: revoked })).status, 401)
})
