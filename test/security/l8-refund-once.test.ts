import t from 'tap'
import { startGateway, taskMs } from '../helpers/gateway.ts'

const day = 86_400_000
const plan = (credits: number) =>
  `plans: { default: { credits: ${credits}, concurrentTasks: 1000, requestsPerMinute: 10000, pollsPerMinute: 10000 } }`

/** How many submits of one credit are let through until there is none left. */
async function left (submit: () => Promise<{ error: string | null }>): Promise<number> {
  for (let count = 0; ; count++) if ((await submit()).error === 'GW_CREDITS_EXHAUSTED') return count
}

t.test('a failed task gives its credits back once, however often and at once its end is heard of', async t => {
  const { submit, status, mint, time } = await startGateway(t, { config: plan(3) })
  const token = await mint('alice')
  const { taskId } = (await submit(token, 'sandbox:failed')).json.data
  time.advance(taskMs)
  const replies = await Promise.all(Array.from({ length: 30 }, () => status(token, taskId)))
  t.ok(replies.every(reply => reply.json.data.state === 'failed'))
  for (let round = 0; round < 3; round++) await status(token, taskId)
  t.equal(await left(() => submit(token)), 3)
})

t.test('a task that succeeds keeps its price, and is not asked about again', async t => {
  const { submit, status, mint, time, sandbox } = await startGateway(t, { config: plan(3) })
  const token = await mint('alice')
  const { taskId } = (await submit(token)).json.data
  time.advance(taskMs)
  const done = await status(token, taskId)
  t.equal(done.json.data.state, 'success')
  const calls = sandbox.calls.length
  for (let round = 0; round < 5; round++) t.equal((await status(token, taskId)).text, done.text)
  t.equal(sandbox.calls.length, calls, 'the upstream is not asked again')
  t.equal(await left(() => submit(token)), 2)
})

t.test('a status answer about another task, or with an error code, ends nothing', async t => {
  const { submit, status, mint, sandbox, time } = await startGateway(t, { config: plan(2) })
  const token = await mint('alice')
  const { taskId } = (await submit(token)).json.data
  const answers = [
    { code: 200, data: { taskId: 'another-task', state: 'failed' } },
    { code: 500, data: { taskId, state: 'failed' } },
    { code: 200, data: { taskId, state: 'FAILED' } },
    { code: 200, data: { taskId, state: 'failed ' } },
    { code: 200, data: { taskId, state: ['failed'] } },
    { code: 200, data: { taskId, failCode: 'X' } }
  ]
  for (const answer of answers) {
    time.advance(20_000) // past the least time between two status calls upstream
    sandbox.next((_request, response) => {
      response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(answer))
    })
    await status(token, taskId)
  }
  t.equal(sandbox.calls.length, 1 + answers.length, 'each answer was heard')
  t.equal(await left(() => submit(token)), 1)
})

t.test('refunds end at refundsPerPeriod: past it a failed task stays charged, until the next period', async t => {
  const { submit, status, mint, time } = await startGateway(t, {
    config: `${plan(4)}\nlimits: { refundsPerPeriod: 2 }`
  })
  const token = await mint('alice', { ttlSeconds: 200_000 })
  const fail = async () => {
    const { taskId } = (await submit(token, 'sandbox:failed')).json.data
    time.advance(taskMs)
    t.equal((await status(token, taskId)).json.data.state, 'failed')
  }
  for (let round = 0; round < 4; round++) await fail()
  t.equal(await left(() => submit(token)), 2, 'two of four were given back')
  time.advance(day)
  await fail()
  t.equal(await left(() => submit(token)), 4, 'a new day, a new count')
})

t.test('the limit holds when many tasks fail in the same moment', async t => {
  const { submit, status, mint, time } = await startGateway(t, {
    config: `${plan(20)}\nlimits: { refundsPerPeriod: 5 }`
  })
  const token = await mint('alice')
  const tasks = await Promise.all(
    Array.from({ length: 20 }, async () => (await submit(token, 'sandbox:failed')).json.data.taskId)
  )
  time.advance(taskMs)
  await Promise.all(tasks.flatMap(taskId => [status(token, taskId), status(token, taskId)]))
  t.equal(await left(() => submit(token)), 5)
})

t.test('a refund goes to the day that paid, not to the day it is heard of', async t => {
  const { submit, status, mint, time } = await startGateway(t, { config: plan(2) })
  const token = await mint('alice', { ttlSeconds: 200_000 })
  const { taskId } = (await submit(token, 'sandbox:failed')).json.data
  time.advance(day)
  t.equal((await status(token, taskId)).json.data.state, 'failed')
  t.equal(await left(() => submit(token)), 2, 'today has what a day has')
})

t.test('an operator may keep the price of failed tasks', async t => {
  const { submit, status, mint, time } = await startGateway(t, {
    config: `${plan(2)}\nprices: { "nano-*": { credits: 1, onFailed: charge } }`
  })
  const token = await mint('alice')
  const { taskId } = (await submit(token, 'sandbox:failed')).json.data
  time.advance(taskMs)
  await status(token, taskId)
  t.equal(await left(() => submit(token)), 1)
})

t.test("one subject's refunds are not another's", async t => {
  const { submit, status, mint, time } = await startGateway(t, {
    config: `${plan(2)}\nlimits: { refundsPerPeriod: 1 }`
  })
  const [alice, bob] = [await mint('alice'), await mint('bob')]
  for (const token of [alice, alice, bob]) {
    const { taskId } = (await submit(token, 'sandbox:failed')).json.data
    time.advance(taskMs)
    await status(token, taskId)
  }
  t.equal(await left(() => submit(alice)), 1)
  t.equal(await left(() => submit(bob)), 2)
})
