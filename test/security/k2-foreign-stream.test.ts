import { setTimeout as wait } from 'node:timers/promises'
import t from 'tap'
import { heartbeatMs, sessionCheckMs } from '../../src/features/events/sse.ts'
import { anyItems, batchesConfig, submitBatch } from '../helpers/batches.ts'
import { crankedGateway, statesOf } from '../helpers/cranked-gateway.ts'
import { taskMs } from '../helpers/gateway.ts'

t.test('a stream of somebody else\'s task is a task that does not exist', async t => {
  const { mint, made, call } = await crankedGateway(t)
  const [alice, mallory] = [await mint('alice'), await mint('mallory')]
  const taskId = await made(alice)
  const [foreign, none] = [
    await call(`/gateway/tasks/${taskId}/events`, { token: mallory }),
    await call('/gateway/tasks/nobody/events', { token: mallory })
  ]
  t.match(foreign, { status: 404, error: 'GW_TASK_NOT_FOUND' })
  const withoutId = (text: string) => text.replace(/"requestId":"[^"]+"/, '')
  t.equal(withoutId(foreign.text), withoutId(none.text))
  t.equal((await call(`/gateway/tasks/${taskId}/events`)).status, 401)
  t.match(await call(`/gateway/tasks/${taskId}/events`, { token: await mint('alice', { models: ['sora-*'] }) }), {
    error: 'GW_MODEL_DENIED'
  })
  t.match(await call('/gateway/events', { token: await mint('alice', { scopes: ['tasks:write'] }) }), {
    error: 'GW_SCOPE_DENIED'
  })
})

t.test('nothing of a task reaches a stream of another subject, or the answer to its status calls', async t => {
  const { mint, made, listen, listenTo, pass, status } = await crankedGateway(t)
  const [alice, mallory] = [await mint('alice'), await mint('mallory')]
  const theirs = await listen('/gateway/events', { token: mallory })
  const taskId = await made(alice)
  const own = await listenTo(taskId, { token: alice })
  await own.heard(1)
  t.match(
    await status(mallory, taskId),
    { status: 404, error: 'GW_TASK_NOT_FOUND' },
    'what was kept for its owner is for its owner'
  )
  pass(taskMs)
  await own.over()
  t.match(await status(mallory, taskId), { status: 404, error: 'GW_TASK_NOT_FOUND' })
  const again = await listen('/gateway/events', { token: mallory, lastEventId: `0-${taskId}` })
  await wait(50)
  t.strictSame([...theirs.events, ...again.events], [])
  t.equal((await listenTo(taskId, { token: mallory, lastEventId: 'success' })).status, 404)
})

t.test('a batch is no task to listen to, and its tasks are', async t => {
  const gateway = await crankedGateway(t, { config: batchesConfig })
  const { mint, listen, listenTo, pass } = gateway
  const token = await mint('alice')
  const all = await listen('/gateway/events', { token })
  const { batchId, items: made } = (await submitBatch(gateway, token, anyItems(2))).json.data
  t.equal((await listenTo(batchId, { token })).status, 404)
  for (let passedMs = 0; passedMs < heartbeatMs; passedMs += sessionCheckMs) {
    pass(sessionCheckMs)
    await wait(20)
  }
  await all.heard(2)
  const stream = await listenTo(made[0].taskId, { token })
  await stream.over()
  t.strictSame(statesOf(stream.events), ['success'])
  t.strictSame(
    new Set(all.events.map(({ data }) => JSON.parse(data).data.taskId)),
    new Set(made.map(({ taskId }: { taskId: string }) => taskId))
  )
})
