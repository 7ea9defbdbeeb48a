import { setTimeout as wait } from 'node:timers/promises'
import t from 'tap'
import { crankedGateway, intervalMs, statesOf } from '../helpers/cranked-gateway.ts'
import { taskMs } from '../helpers/gateway.ts'
import { until } from '../helpers/until.ts'

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
  await wait(50)
  pass(intervalMs)
  await until('it was asked again', () => polls() === 2)
  t.strictSame(stream.events, [])
  t.notOk(stream.isOver)
})
