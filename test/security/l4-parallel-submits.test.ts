import t, { type Test } from 'tap'
import { startGateway, taskMs, type Reply } from '../helpers/gateway.ts'

const count = 200

function countOf (replies: readonly Reply[]) {
  const outcomes = replies.map(reply => reply.error ?? String(reply.status))
  return Object.fromEntries(
    [...new Set(outcomes)].sort().map(outcome => [outcome, outcomes.filter(other => other === outcome).length])
  )
}

async function burst (t: Test, plan: string, { tokens = 1, prompt = 'a cube' } = {}) {
  const gateway = await startGateway(t, {
    config: `plans: { default: { requestsPerMinute: 1000, ${plan} } }`,
    store: t.testdirName + '/ledger.db'
  })
  const sessions = await Promise.all(Array.from({ length: tokens }, () => gateway.mint('alice')))
  const replies = await Promise.all(
    Array.from({ length: count }, (_, index) => gateway.submit(sessions[index % tokens]!, prompt))
  )
  return { ...gateway, replies, token: sessions[0]! }
}

t.test('of 200 parallel submits with credits for one, one is made', async t => {
  const { replies, sandbox } = await burst(t, 'concurrentTasks: 1000, credits: 1')
  t.same(countOf(replies), { 200: 1, GW_CREDITS_EXHAUSTED: count - 1 })
  t.equal(sandbox.submits.length, 1)
})

t.test('of 200 parallel submits with room for one task, one is made, and the slot comes back with its end', async t => {
  const { replies, sandbox, token, submit, status, time } = await burst(t, 'concurrentTasks: 1, credits: unlimited')
  t.same(countOf(replies), { 200: 1, GW_TOO_MANY_TASKS: count - 1 })
  t.equal(sandbox.submits.length, 1)
  t.ok(replies.filter(reply => reply.error !== null).every(reply => reply.headers.has('retry-after')))
  const { taskId } = replies.find(reply => reply.status === 200)!.json.data
  time.advance(taskMs)
  await status(token, taskId)
  t.equal((await submit(token)).status, 200)
})

t.test(
  'of 200 parallel submits, each with an idempotency key of its own, one is made, and the keys of the others stay free',
  async t => {
    for (const limit of ['concurrentTasks: 1000, credits: 1', 'concurrentTasks: 1, credits: 5']) {
      const { mint, submit, status, sandbox, time } = await startGateway(t, {
        config: `plans: { default: { requestsPerMinute: 1000, period: minute, ${limit} } }`
      })
      const token = await mint('alice')
      const send = (key: number) =>
        submit(token, 'a cube', 'nano-banana', { headers: { 'idempotency-key': `key-${key}` } })
      const replies = await Promise.all(Array.from({ length: count }, (_, key) => send(key)))
      const winner = replies.findIndex(reply => reply.status === 200)
      const lacking = limit.includes('credits: 1') ? 'GW_CREDITS_EXHAUSTED' : 'GW_TOO_MANY_TASKS'
      t.same(countOf(replies), { 200: 1, [lacking]: count - 1 })
      t.equal(sandbox.submits.length, 1)
      time.advance(60_000)
      await status(token, replies[winner]!.json.data.taskId)
      t.equal((await send(winner)).text, replies[winner]!.text)
      t.equal(sandbox.submits.length, 1, 'what was answered is answered again')
      t.equal((await send((winner + 1) % count)).status, 200)
      t.equal(sandbox.submits.length, 2)
    }
  }
)

t.test('twenty sessions of one subject share its credits', async t => {
  const { replies, sandbox } = await burst(t, 'concurrentTasks: 1000, credits: 7', { tokens: 20 })
  t.same(countOf(replies), { 200: 7, GW_CREDITS_EXHAUSTED: count - 7 })
  t.equal(sandbox.submits.length, 7)
})

t.test('credits given back in the middle of a burst are not given back twice', async t => {
  const { sandbox, replies, submit, token } = await burst(t, 'concurrentTasks: 1000, credits: 3', {
    prompt: 'sandbox:http-500'
  })
  t.same([...new Set(replies.map(reply => reply.error ?? reply.status))].sort(), [500, 'GW_CREDITS_EXHAUSTED'])
  t.equal(sandbox.tasks.size, 0)
  const after = await Promise.all(Array.from({ length: 20 }, () => submit(token)))
  t.same(countOf(after), { 200: 3, GW_CREDITS_EXHAUSTED: 17 })
})

t.test('a price in fractions does not add up to one task more', async t => {
  const { call, mint, sandbox } = await startGateway(t, {
    config: 'plans: { default: { requestsPerMinute: 1000, concurrentTasks: 1000, credits: 1 } }\nprices: { "*": 0.1 }'
  })
  const token = await mint('alice')
  const replies = await Promise.all(
    Array.from({ length: 50 }, () =>
      call('/api/v1/generateTask/nano-banana', { token, body: { input: { prompt: 'x' } } })
    )
  )
  t.same(countOf(replies), { 200: 10, GW_CREDITS_EXHAUSTED: 40 })
  t.equal(sandbox.submits.length, 10)
})
