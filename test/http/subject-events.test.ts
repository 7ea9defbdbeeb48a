import { setTimeout as wait } from 'node:timers/promises'
import t from 'tap'
import { heartbeatMs, sessionCheckMs } from '../../src/http/sse.ts'
import { anyItems, batchesConfig, submitBatch } from '../helpers/batches.ts'
import { crankedGateway, intervalMs, statesOf } from '../helpers/cranked-gateway.ts'
import { taskMs } from '../helpers/gateway.ts'
import { until } from '../helpers/until.ts'

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
