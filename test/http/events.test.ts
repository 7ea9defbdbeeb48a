import Fastify from 'fastify'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { setTimeout as wait } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { plans } from '../../src/domain/policy.ts'
import { type Session, unscoped } from '../../src/domain/session.ts'
import { sliceMs } from '../../src/domain/time.ts'
import { gatewayError } from '../../src/errors.ts'
import {
  eventFields, type EventStream, eventStreams, heartbeatMs, sessionCheckMs
} from '../../src/features/events/sse.ts'
import { anyItems, batchesConfig, submitBatch } from '../helpers/batches.ts'
import { clock } from '../helpers/clock.ts'
import { crankedGateway, intervalMs, statesOf } from '../helpers/cranked-gateway.ts'
import { openEvents } from '../helpers/event-source.ts'
import { taskMs } from '../helpers/gateway.ts'
import { rawSocket } from '../helpers/raw-http.ts'
import { crankedTimers } from '../helpers/timers.ts'
import { until } from '../helpers/until.ts'
import { wholeCall, wholeRevocations } from '../helpers/whole.ts'

t.test("a task's stream tells each change once, with the envelope as its data, and ends after the last", async t => {
  const { mint, made, listenTo, pass, call, polls, lines } = await crankedGateway(t)
  const token = await mint('alice')
  const taskId = await made(token)
  const stream = await listenTo(taskId, { token, headers: { 'accept-encoding': 'gzip, br' } })
  t.equal(stream.status, 200)
  t.match(stream.headers, {
    'content-type': 'text/event-stream',
    'cache-control': 'no-store, no-transform',
    'content-encoding': 'identity',
    'x-accel-buffering': 'no',
    'x-content-type-options': 'nosniff'
  })
  t.ok(stream.headers['x-request-id'])
  await stream.heard(1)
  pass(intervalMs)
  await stream.heard(2)
  pass(intervalMs)
  await stream.over()
  t.notOk(stream.isCut)
  t.strictSame(
    stream.events.map(({ type, id }) => [type, id]),
    [
      ['state', 'pending'],
      ['state', 'processing'],
      ['state', 'success']
    ]
  )
  t.strictSame(statesOf(stream.events), ['pending', 'processing', 'success'])
  const { text } = await call(`/api/v1/statusTask/nano-banana?taskId=${taskId}`, { token })
  t.equal(stream.events.at(-1)!.data, text, 'byte for byte')
  t.strictSame(
    stream.results.map(({ id }) => id),
    ['success']
  )
  const { taskId: about, results } = JSON.parse(stream.results[0]!.data)
  t.equal(about, taskId)
  t.equal(results.length, 1)
  t.match(await call(results[0]), { status: 200, text: /PNG/ }, 'and its result, without a header')
  t.equal(polls(), 3, 'and the ledger has it now')
  await until('its line is written', () => lines().some(({ operation }) => operation === 'taskEvents'))
  t.match(
    lines().find(({ operation }) => operation === 'taskEvents'),
    { status: 200, code: 'OK', granted: true, taskId, model: 'nano-banana', subject: 'app:alice' }
  )
})

t.test('whoever comes back gets what is new, and after the last event nothing for good', async t => {
  const { mint, made, listenTo, pass } = await crankedGateway(t)
  const token = await mint('alice')
  const taskId = await made(token)
  const first = await listenTo(taskId, { token })
  const [{ id } = { id: '' }] = await first.heard(1)
  first.close()
  const again = await listenTo(taskId, { token, lastEventId: id })
  await wait(50)
  t.strictSame(again.events, [], 'it has heard that')
  pass(intervalMs)
  await again.heard(1)
  again.close()
  pass(intervalMs)
  const late = await listenTo(taskId, { token, lastEventId: again.events[0]!.id })
  await late.over()
  t.strictSame(statesOf(late.events), ['success'])
  t.equal((await listenTo(taskId, { token, lastEventId: late.events[0]!.id })).status, 204)
  const fresh = await listenTo(taskId, { token })
  await fresh.over()
  t.strictSame(statesOf(fresh.events), ['success'], 'who has not heard it hears it')
})

t.test(
  'a state that was heard in the middle of the way back is not told twice, and an end is told to who did not hear it',
  async t => {
    const { mint, made, listenTo, pass } = await crankedGateway(t)
    const token = await mint('alice')
    const taskId = await made(token)
    const first = await listenTo(taskId, { token })
    await first.heard(1)
    const second = await listenTo(taskId, { token, lastEventId: 'success' })
    await second.heard(1)
    pass(taskMs)
    await Promise.all([first.over(), second.over()])
    t.strictSame(statesOf(second.events), ['pending', 'success'])
  }
)

t.test('an answer of several lines is several lines of data', async t => {
  const { mint, made, listenTo, sandbox } = await crankedGateway(t)
  const token = await mint('alice')
  const taskId = await made(token)
  const body = `{\n  "code": 200,\n\n  "data": { "taskId": "${taskId}", "state": "a state: ä" }\n}\n`
  sandbox.next((_request, response) => {
    response.writeHead(200, { 'content-type': 'application/json' }).end(body)
  })
  const stream = await listenTo(taskId, { token })
  const [event] = await stream.heard(1)
  t.equal(event!.data, body)
  t.equal(event!.id, 'a_state___')
})

t.test(
  'a stream says when to come back, a little later or sooner than the next; an id is the last line of its event',
  async t => {
    const { mint, made, listenTo, pass } = await crankedGateway(t)
    const token = await mint('alice')
    const taskId = await made(token)
    const streams = await Promise.all(Array.from({ length: 12 }, () => listenTo(taskId, { token })))
    const waits = await Promise.all(
      streams.map(async stream => {
        await stream.heard(1)
        return Number(/^retry: (\d+)\n/.exec(stream.text)?.[1])
      })
    )
    t.ok(
      waits.every(wait => wait >= 1000 && wait <= 5000),
      String(waits)
    )
    t.ok(new Set(waits).size > 2, 'streams that are ended together do not come back together')
    pass(taskMs)
    for (const stream of streams) {
      await stream.over()
      const blocks = stream.text.split('\n\n').filter(block => block.includes('data:'))
      t.equal(blocks.length, 3)
      for (const block of blocks) t.match(block, /\nid: [^\n]+$/)
      t.equal(stream.text.split('\n\n').length, 4, 'and nothing else is a block')
    }
  }
)

t.test('a subject has so many streams and no more, and one that is closed makes room', async t => {
  const { mint, made, listenTo, listen, call } = await crankedGateway(t, {
    config: 'plans: { default: {} }\nlimits: { streamsPerSubject: 2 }'
  })
  const [token, bob] = [await mint('alice'), await mint('bob')]
  const taskId = await made(token, 'sandbox:forever')
  const [first] = [await listenTo(taskId, { token }), await listen('/gateway/events', { token: await mint('alice') })]
  const refused = await call('/gateway/events', { token })
  t.match(refused, { status: 429, error: 'GW_RATE_LIMITED' })
  t.ok(Number(refused.headers.get('retry-after')) >= 1)
  t.equal((await listen('/gateway/events', { token: bob })).status, 200)
  first!.close()
  await until('there is room', async () => (await listen('/gateway/events', { token })).status === 200)
})

t.test('pages of an allowed origin may read a stream', async t => {
  const { mint, listen } = await crankedGateway(t, { env: { GATEWAY_ALLOWED_ORIGINS: 'https://app.example' } })
  const token = await mint('alice')
  t.match((await listen('/gateway/events', { token, headers: { origin: 'https://app.example' } })).headers, {
    'access-control-allow-origin': 'https://app.example',
    vary: /origin/i
  })
  t.equal(
    (await listen('/gateway/events', { token, headers: { origin: 'https://other.example' } })).headers[
      'access-control-allow-origin'
    ],
    undefined
  )
})

t.test('a stop ends the streams and does not wait for them', async t => {
  const { mint, made, listenTo, listen, gateway } = await crankedGateway(t)
  const token = await mint('alice')
  const streams = [
    await listenTo(await made(token, 'sandbox:forever'), { token }),
    await listen('/gateway/events', { token })
  ]
  const start = performance.now()
  await gateway.close()
  t.ok(performance.now() - start < 5000)
  for (const stream of streams) {
    await stream.over()
    t.notOk(stream.isCut)
  }
})

t.test('trouble upstream is kept from the stream, and asked about again', async t => {
  const { mint, made, listenTo, pass, polls } = await crankedGateway(t)
  const token = await mint('alice')
  const taskId = await made(token, 'sandbox:status-http-500')
  const stream = await listenTo(taskId, { token })
  await until('it was asked', () => polls() === 1)
  await until('it was asked again', () => {
    pass(intervalMs)
    return polls() > 1
  })
  t.strictSame(stream.events, [])
  t.notOk(stream.isOver)
})

const plan = plans({
  default: { models: ['*'], requestsPerMinute: 1, pollsPerMinute: 1, concurrentTasks: 1, credits: 1, period: 'day' }
}).get('default')!

function sessionUntil (expiresAt: number): Session {
  const { name, models, permits } = plan
  return unscoped({ id: 'one', subject: 'app:alice', plan: name, models, permits, scopes: [], issuedAt: 0, expiresAt })
}

/** A server whose every answer is a stream; it opens when the test lets it. */
async function streaming (t: Test, wait: () => Promise<unknown> = async () => {}, beatMs = 0) {
  const time = clock()
  const timers = crankedTimers(time)
  const store = { isDown: false }
  const isRevoked = async () => {
    if (store.isDown) throw gatewayError('GW_STORE_DOWN')
    return false
  }
  const streams = eventStreams({ streamsPerSubject: 2, revocations: wholeRevocations({ isRevoked }), timers, ...time })
  const opened: EventStream[] = []
  const beats: number[] = []
  let closed = 0
  const app = Fastify()
  app.get('/', async (request, reply) => {
    await wait()
    const call = wholeCall(sessionUntil(time.now() + 60_000), plan)
    const index = opened.length
    const beat = (): void => {
      beats.push(index)
      time.advance(beatMs)
    }
    const ends = { closed: () => { closed++ }, beat }
    opened.push(streams.open({ request, reply, call }, ends))
    return reply
  })
  await app.listen({ host: '127.0.0.1', port: 0 })
  t.teardown(() => app.close())
  const { port } = app.server.address() as AddressInfo
  return { streams, opened, origin: `http://127.0.0.1:${port}`, time, timers, store, beats, get closed () { return closed } }
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
  it.opened[0]!.send({ fields: eventFields('state', 'x'), id: '1' })
  it.opened[0]!.end()
  t.equal(it.timers.waiting, 0, 'and nothing is left to look after it')
})

t.test('streams are counted, and one that has ended says nothing more', async t => {
  const it = await streaming(t)
  const [first, second] = [await openEvents(t, it.origin), await openEvents(t, it.origin)]
  t.equal(it.streams.count, 2)
  t.equal((await openEvents(t, it.origin)).status, 429)
  it.opened[0]!.end()
  it.opened[0]!.send({ fields: eventFields('state', 'x'), id: '1' })
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
  const large = (index: number) => ({ fields: eventFields('state', 'x'.repeat(1_000_000)), id: String(index) })
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
  it.opened[0]!.send({ fields: eventFields('state', 'x'), id: 'last' })
  await stream.heard(sent + 1)
  t.notOk(stream.isOver)
})

t.test('signs of life go out in slices, and not to a reader that has gone meanwhile', async t => {
  const it = await streaming(t, undefined, sliceMs)
  const [, second] = [await openEvents(t, it.origin), await openEvents(t, it.origin)]
  const passUntilBeat = async (): Promise<void> => {
    for (const before = it.beats.length; it.beats.length === before;) {
      it.time.advance(sessionCheckMs)
      it.timers.run()
      await until('it looks again', () => it.timers.waiting > 0)
    }
  }
  await passUntilBeat()
  t.strictSame(it.beats, [0])
  it.timers.run()
  t.strictSame(it.beats, [0, 1])
  await passUntilBeat()
  second!.close()
  await until('it has gone', () => it.streams.count === 1)
  it.timers.run()
  t.strictSame(it.beats, [0, 1, 0])
})

t.test('whoever waits for room in a stream whose reader has gone waits no longer', async t => {
  const it = await streaming(t)
  const stream = await openEvents(t, it.origin)
  stream.pause()
  let room: Promise<void> | null = null
  while (room === null) {
    it.opened[0]!.send({ fields: eventFields('state', 'x'.repeat(1_000_000)), id: '1' })
    room = it.opened[0]!.room()
  }
  stream.close()
  await room
  it.opened[0]!.send({ fields: eventFields('state', 'x'), id: '2' })
  t.equal(it.opened[0]!.room(), null)
})

const path = '/gateway/events'
const storiesOf = (events: ReadonlyArray<{ readonly data: string }>) => events.map(({ data }) => {
  const { taskId, state } = JSON.parse(data).data
  return `${taskId} ${state}`
})

t.test(
  'one stream tells of all unfinished tasks, of each change, and of tasks that are made while it is open',
  async t => {
    const { mint, made, listen, pass } = await crankedGateway(t)
    const [token, bob] = [await mint('alice'), await mint('bob')]
    const [one, two] = [await made(token), await made(token)]
    await made(bob)
    const stream = await listen(path, { token })
    await stream.heard(2)
    const three = await made(await mint('alice'))
    await stream.heard(3)
    pass(taskMs)
    await stream.heard(6)
    t.strictSame(
      new Set(storiesOf(stream.events)),
      new Set([one, two, three].flatMap(taskId => [`${taskId} pending`, `${taskId} success`]))
    )
    t.equal(stream.events.length, 6)
    t.notOk(stream.isOver, 'it goes on: there may be more tasks')
  }
)

t.test('the tasks of a batch are told of as soon as they are made', async t => {
  const { mint, listen, ...it } = await crankedGateway(t, { config: batchesConfig })
  const token = await mint('alice')
  const stream = await listen(path, { token })
  const { json: { data: { items } } } = await submitBatch(it, token, anyItems(3))
  await stream.heard(3)
  t.strictSame(
    new Set(storiesOf(stream.events)),
    new Set(items.map(({ taskId }: { taskId: string }) => `${taskId} pending`))
  )
})

t.test('whoever comes back hears of every end since, each once a connection', async t => {
  const { mint, made, listen, pass, status, time, call } = await crankedGateway(t)
  const token = await mint('alice')
  const ended = await made(token)
  time.advance(taskMs)
  await status(token, ended)
  time.advance(60_000)
  const [one, two] = [await made(token), await made(token, 'sandbox:failed')]
  const first = await listen(path, { token })
  await first.heard(2)
  first.close()
  const lastEventId = first.events.at(-1)!.id
  time.advance(taskMs)
  for (const taskId of [one, two]) await status(token, taskId)
  const three = await made(token)
  const again = await listen(path, { token, lastEventId })
  await again.heard(3)
  pass(heartbeatMs) // and it looks again
  await again.heard(4)
  await wait(50)
  t.strictSame(
    storiesOf(again.events).sort(),
    [`${one} success`, `${two} failed`, `${three} pending`, `${three} success`].sort()
  )
  const fresh = await listen(path, { token })
  const bad = await listen(path, { token, lastEventId: 'nonsense' })
  await wait(50)
  t.strictSame([...fresh.events, ...bad.events], [], 'who comes for the first time hears of no old ends')
  t.equal((await call(path, { token, method: 'POST' })).status, 405)
})

t.test('no end is missed, wherever the connection breaks', async t => {
  const { mint, made, listen, pass, status } = await crankedGateway(t)
  const token = await mint('alice')
  const heard = new Set<string>()
  const tasks: string[] = []
  let lastEventId: string | undefined
  for (let round = 0; round < 8; round++) {
    const stream = await listen(path, { token, ...(lastEventId === undefined ? {} : { lastEventId }) })
    tasks.push(await made(token), await made(token))
    await until('they are told of', () =>
      tasks.slice(-2).every(taskId => storiesOf(stream.events).includes(`${taskId} pending`))
    )
    pass(taskMs)
    if (round % 2 === 0) await until('one end is told', () => statesOf(stream.events).includes('success'))
    stream.close()
    for (const story of storiesOf(stream.events)) heard.add(story)
    lastEventId = stream.events.at(-1)?.id ?? lastEventId
    await Promise.all(tasks.slice(-2).map(taskId => status(token, taskId)))
  }
  const last = await listen(path, { token, ...(lastEventId === undefined ? {} : { lastEventId }) })
  await until('all ends are told', () => {
    for (const story of storiesOf(last.events)) heard.add(story)
    return tasks.every(taskId => heard.has(`${taskId} success`))
  })
})

t.test('a session hears only of the models that it may use', async t => {
  const { mint, made, listen, pass } = await crankedGateway(t)
  const token = await mint('alice')
  const [image, video] = [await made(token), await made(token, 'x', 'sora-2')]
  const stream = await listen(path, { token: await mint('alice', { models: ['sora-*'] }) })
  await stream.heard(1)
  const later = await made(token)
  pass(taskMs)
  await stream.heard(2)
  await wait(50)
  t.strictSame(storiesOf(stream.events), [`${video} pending`, `${video} success`], `neither ${image} nor ${later}`)
})

t.test('what no event has told is found in the ledger', async t => {
  const { mint, made, listen, pass, gateway, time } = await crankedGateway(t)
  const token = await mint('alice')
  const stream = await listen(path, { token })
  const taskId = await made(token)
  await stream.heard(1)
  t.ok(gateway)
  time.advance(0)
  for (let passed = 0; passed < heartbeatMs; passed += sessionCheckMs) {
    pass(sessionCheckMs)
    await wait(20)
  }
  await until('its end is told', () => storiesOf(stream.events).includes(`${taskId} success`))
  t.equal(storiesOf(stream.events).filter(story => story.endsWith('success')).length, 1)
  pass(intervalMs)
})
