import t from 'tap'
import { startGateway, taskMs } from '../helpers/gateway.ts'

t.test('failing prompts in a loop use up refunds and then credits, and the upstream is left alone', async t => {
  const { submit, status, mint, sandbox, time } = await startGateway(t, {
    config:
      'plans: { default: { credits: 10, concurrentTasks: 5, requestsPerMinute: 10000, pollsPerMinute: 10000 } }\nlimits: { refundsPerPeriod: 50 }'
  })
  const token = await mint('mallory')
  for (let round = 0; round < 200; round++) {
    const reply = await submit(token, 'sandbox:failed')
    if (reply.error === 'GW_CREDITS_EXHAUSTED') break
    time.advance(taskMs)
    await status(token, reply.json.data.taskId)
  }
  t.equal(sandbox.submits.length, 60, 'fifty refunds, then ten credits')
  const other = await mint('mallory')
  t.equal((await submit(other)).error, 'GW_CREDITS_EXHAUSTED', 'a new session is the same subject')
})

t.test(
  'failing tasks that are never asked about are asked about when their slots are wanted, and their refunds count',
  async t => {
    const { submit, mint, call, sandbox, time } = await startGateway(t, {
      config: 'plans: { default: { concurrentTasks: 3, credits: 100 } }\nlimits: { refundsPerPeriod: 4 }'
    })
    const token = await mint('mallory')
    for (let round = 0; round < 10; round++) {
      await submit(token, 'sandbox:failed')
      time.advance(taskMs)
    }
    t.equal(sandbox.submits.length, 10)
    t.match((await call('/gateway/session', { token })).json, { credits: { used: 6 }, tasks: { unfinished: 1 } })
  }
)

t.test('a task that never ends is given up after its time: charged, its slot freed', async t => {
  const { submit, mint, sandbox, time, gateway } = await startGateway(t, {
    config: 'plans: { default: { concurrentTasks: 1, credits: 2, period: month } }\ntasks: { giveUpMs: 3600000 }'
  })
  const token = await mint('mallory', { ttlSeconds: 100_000 })
  t.equal((await submit(token, 'sandbox:forever')).status, 200)
  time.advance(3_599_999)
  await gateway.tidy()
  t.equal((await submit(token)).error, 'GW_TOO_MANY_TASKS')
  time.advance(1)
  await gateway.tidy()
  t.equal((await submit(token)).status, 200)
  time.advance(3_600_000)
  await gateway.tidy()
  t.equal((await submit(token)).error, 'GW_CREDITS_EXHAUSTED')
  t.equal(sandbox.submits.length, 2)
})
