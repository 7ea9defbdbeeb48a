import t, { type Test } from 'tap'
import { anyItems, items, submitBatch } from '../helpers/batches.ts'
import { type Reply, startGateway, taskMs } from '../helpers/gateway.ts'

const size = 10
const count = 20

function countOf (replies: readonly Reply[]) {
  const outcomes = replies.map(reply => reply.error ?? String(reply.status))
  return Object.fromEntries(
    [...new Set(outcomes)].sort().map(outcome => [outcome, outcomes.filter(other => other === outcome).length])
  )
}

async function burst (t: Test, plan: string, list = () => anyItems(size)) {
  const gateway = await startGateway(t, {
    config: `plans: { default: { requestsPerMinute: 1000, pollsPerMinute: 1000, ${plan} } }\nbatches: { enabled: true }`,
    store: t.testdirName + '/ledger.db'
  })
  const token = await gateway.mint('alice')
  const replies = await Promise.all(Array.from({ length: count }, () => submitBatch(gateway, token, list())))
  return { ...gateway, it: gateway, replies, token }
}

t.test('of 20 parallel batches of ten with credits for ten, one is made, and nothing leaks', async t => {
  const { it, replies, sandbox, token, submit, call } = await burst(t, 'concurrentTasks: 1000, credits: 13')
  t.same(countOf(replies), { 200: 1, GW_CREDITS_EXHAUSTED: count - 1 })
  t.equal(sandbox.submits.length, 1)
  t.equal(sandbox.tasks.size, size)
  t.equal((await call('/api/v1/apikeys/current-balance', { token })).json.data, 3)
  t.equal((await submitBatch(it, token, anyItems(2))).status, 200)
  t.equal((await submit(token)).status, 200)
  t.equal((await submit(token)).error, 'GW_CREDITS_EXHAUSTED')
})

t.test('of 20 parallel batches of ten with ten slots, one is made, and all slots come back with its end', async t => {
  const { it, replies, sandbox, token, status, time } = await burst(t, 'concurrentTasks: 10, credits: unlimited')
  t.same(countOf(replies), { 200: 1, GW_TOO_MANY_TASKS: count - 1 })
  t.equal(sandbox.tasks.size, size)
  time.advance(taskMs)
  for (const taskId of sandbox.tasks.keys()) await status(token, taskId)
  t.equal((await submitBatch(it, token, anyItems(size))).status, 200)
  t.equal((await submitBatch(it, token, anyItems(1))).error, 'GW_TOO_MANY_TASKS')
})

t.test('20 parallel batches that are refused upstream give everything back', async t => {
  const { it, replies, sandbox, token } = await burst(t, 'concurrentTasks: 200, credits: 200', () =>
    items('sandbox:http-500', ...Array.from({ length: size - 1 }, () => 'x'))
  )
  t.ok(
    replies.every(reply => reply.status === 500 || reply.error === 'GW_TOO_MANY_TASKS'),
    JSON.stringify(countOf(replies))
  )
  t.equal(sandbox.tasks.size, 0)
  for (let round = 0; round < 20; round++) t.equal((await submitBatch(it, token, anyItems(size))).status, 200)
  t.equal((await submitBatch(it, token, anyItems(1))).error, 'GW_TOO_MANY_TASKS')
})

t.test('batches and submits at a time share one budget', async t => {
  const gateway = await startGateway(t, {
    config:
      'plans: { default: { requestsPerMinute: 1000, concurrentTasks: 1000, credits: 25 } }\nbatches: { enabled: true }',
    store: t.testdirName + '/ledger.db'
  })
  const token = await gateway.mint('alice')
  const replies = await Promise.all([
    ...Array.from({ length: 10 }, () => submitBatch(gateway, token, anyItems(4))),
    ...Array.from({ length: 30 }, () => gateway.submit(token))
  ])
  t.ok(replies.every(reply => reply.status === 200 || reply.error === 'GW_CREDITS_EXHAUSTED'))
  t.equal(gateway.sandbox.tasks.size, 25)
})

t.test('the request rate counts every item, also in parallel', async t => {
  const gateway = await startGateway(t, {
    config:
      'plans: { default: { requestsPerMinute: 25, concurrentTasks: 1000, credits: unlimited } }\nbatches: { enabled: true }'
  })
  const token = await gateway.mint('alice')
  const replies = await Promise.all(Array.from({ length: count }, () => submitBatch(gateway, token, anyItems(5))))
  t.ok(
    replies.every(reply => reply.status === 200 || reply.error === 'GW_RATE_LIMITED'),
    JSON.stringify(countOf(replies))
  )
  t.ok(gateway.sandbox.tasks.size <= 25)
  t.equal((await gateway.submit(token)).error, 'GW_RATE_LIMITED')
})
