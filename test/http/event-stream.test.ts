import Fastify from 'fastify'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import t, { type Test } from 'tap'
import { gatewayError } from '../../src/errors.ts'
import type { RequestContext } from '../../src/http/context.ts'
import { type EventStream, eventStreams, heartbeatMs, sessionCheckMs } from '../../src/http/sse.ts'
import { clock } from '../helpers/clock.ts'
import { openEvents } from '../helpers/event-source.ts'
import { rawSocket } from '../helpers/raw-http.ts'
import { crankedTimers } from '../helpers/timers.ts'
import { until } from '../helpers/until.ts'

/** A server whose every answer is a stream; it opens when the test lets it. */
async function streaming (t: Test, wait: () => Promise<unknown> = async () => {}) {
  const time = clock()
  const timers = crankedTimers(time)
  const store = { isDown: false }
  const isRevoked = async () => {
    if (store.isDown) throw gatewayError('GW_STORE_DOWN')
    return false
  }
  const streams = eventStreams({ streamsPerSubject: 2, revocations: { isRevoked } as never, timers, now: time.now })
  const opened: EventStream[] = []
  let closed = 0
  const app = Fastify()
  app.get('/', async (request, reply) => {
    await wait()
    const call = { session: { id: 'one', subject: 'app:alice', expiresAt: time.now() + 60_000 } }
    opened.push(streams.open({ request, reply, call } as unknown as RequestContext, { closed: () => { closed++ } }))
    return reply
  })
  await app.listen({ host: '127.0.0.1', port: 0 })
  t.teardown(() => app.close())
  const { port } = app.server.address() as AddressInfo
  return { streams, opened, origin: `http://127.0.0.1:${port}`, time, timers, store, get closed () { return closed } }
}

t.test('a caller who has gone before its stream begins is no stream', async t => {
  const gate = Promise.withResolvers<void>()
  const it = await streaming(t, () => gate.promise)
  const socket = await rawSocket(t, it.origin)
  socket.write('GET / HTTP/1.1\r\nhost: x\r\n\r\n')
  await new Promise(resolve => { setTimeout(resolve, 50) })
  socket.destroy()
  await once(socket, 'close')
  await new Promise(resolve => { setTimeout(resolve, 50) })
  gate.resolve()
  await until('it is closed', () => it.closed === 1)
  t.equal(it.streams.count, 0)
  it.opened[0]!.send({ type: 'state', id: '1', data: 'x' })
  it.opened[0]!.end()
  t.equal(it.timers.waiting, 0, 'and nothing is left to look after it')
})

t.test('streams are counted, and one that has ended says nothing more', async t => {
  const it = await streaming(t)
  const [first, second] = [await openEvents(t, it.origin), await openEvents(t, it.origin)]
  t.equal(it.streams.count, 2)
  t.equal((await openEvents(t, it.origin)).status, 429)
  it.opened[0]!.end()
  it.opened[0]!.send({ type: 'state', id: '1', data: 'x' })
  it.opened[0]!.end()
  await first.over()
  t.strictSame([first.events.length, first.isCut], [0, false])
  await until('it is counted', () => it.streams.count === 1 && it.closed === 1)
  t.notOk(second.isOver)
})

t.test('after a stop there are no new ones', async t => {
  const it = await streaming(t)
  const first = await openEvents(t, it.origin)
  it.streams.close()
  await first.over()
  t.equal((await openEvents(t, it.origin)).status, 503)
})

t.test('while the store is down only time ends a session', async t => {
  const it = await streaming(t)
  const stream = await openEvents(t, it.origin)
  it.store.isDown = true
  for (let count = 0; count < 3; count++) {
    await until('it looks', () => it.timers.waiting === 1)
    it.time.advance(sessionCheckMs)
    it.timers.run()
  }
  await until('it lives', () => /^retry: \d+\n:\n$/.test(stream.text))
  it.time.advance(60_000)
  await until('it looks', () => it.timers.waiting === 1)
  it.timers.run()
  await stream.over()
  t.notOk(stream.isCut)
})

t.test('a slow reader is told when there is room, and a sign of life does not cost it its stream', async t => {
  const it = await streaming(t)
  const stream = await openEvents(t, it.origin)
  stream.pause()
  const large = (index: number) => ({ type: 'state', id: String(index), data: 'x'.repeat(1_000_000) })
  let room: Promise<void> | null = null
  let sent = 0
  for (; room === null; sent++) {
    it.opened[0]!.send(large(sent))
    room = it.opened[0]!.room()
  }
  for (let count = 0; count < heartbeatMs / sessionCheckMs; count++) {
    await until('it looks', () => it.timers.waiting === 1)
    it.time.advance(sessionCheckMs)
    it.timers.run()
  }
  stream.resume()
  await room
  t.equal(it.opened[0]!.room(), null)
  it.opened[0]!.send({ type: 'state', id: 'last', data: 'x' })
  await stream.heard(sent + 1)
  t.notOk(stream.isOver)
})

t.test('whoever waits for room in a stream whose reader has gone waits no longer', async t => {
  const it = await streaming(t)
  const stream = await openEvents(t, it.origin)
  stream.pause()
  let room: Promise<void> | null = null
  while (room === null) {
    it.opened[0]!.send({ type: 'state', id: '1', data: 'x'.repeat(1_000_000) })
    room = it.opened[0]!.room()
  }
  stream.close()
  await room
  it.opened[0]!.send({ type: 'state', id: '2', data: 'x' })
  t.equal(it.opened[0]!.room(), null)
})
