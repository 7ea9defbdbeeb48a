import t from 'tap'
import { anyItems, submitBatch } from '../helpers/batches.ts'
import { crankedGateway } from '../helpers/cranked-gateway.ts'
import { startGateway, taskMs } from '../helpers/gateway.ts'
import { redisServer } from '../helpers/redis-server.ts'
import { until } from '../helpers/until.ts'

const config = `
plans: { default: { concurrentTasks: 5, requestsPerMinute: 100000, credits: unlimited } }
batches: { enabled: true }`
const models = [
  { id: 'nano-banana', category: 'image' },
  { id: 'sora-2', category: 'video' }
] as const
const polls = (calls: ReadonlyArray<{ url: string }>): number =>
  calls.filter(({ url }) => url.includes('/statusTask/')).length

for (const kind of ['SQLite', 'Redis']) {
  t.test(`${kind}: finished tasks that nobody has asked about take no slot from the next submit`, async t => {
    const env = kind === 'Redis' ? { GATEWAY_STORE: (await redisServer(t)).url } : {}
    const { mint, submit, call, sandbox, time } = await startGateway(t, { config, models, env })
    const token = await mint('alice')
    for (let count = 0; count < 5; count++) t.equal((await submit(token)).status, 200)
    const refused = await submit(token)
    t.match(refused, { status: 429, error: 'GW_TOO_MANY_TASKS' })
    t.equal(refused.headers.get('retry-after'), '3', 'they may be asked about again by then')
    t.equal(polls(sandbox.calls), 5)
    time.advance(taskMs)
    t.equal((await submit(token)).status, 200)
    t.equal(polls(sandbox.calls), 10)
    t.equal((await call('/gateway/session', { token })).json.tasks.unfinished, 1, 'all five have ended')
  })
}

t.test(
  'however often a subject is refused, its tasks are asked about within their intervals, and the shortest of these is told',
  async t => {
    const { mint, submit, sandbox, time } = await startGateway(t, { config, models })
    const [token, bob] = [await mint('alice'), await mint('bob')]
    for (const model of ['sora-2', 'sora-2', 'sora-2', 'sora-2', 'nano-banana']) {
      t.equal((await submit(token, 'sandbox:forever', model)).status, 200)
    }
    t.equal((await submit(bob)).status, 200)
    const refuse = async (count: number, retryAfter: string) => {
      for (const refused of await Promise.all(Array.from({ length: count }, () => submit(token)))) {
        t.match(refused, { status: 429, error: 'GW_TOO_MANY_TASKS' })
        t.equal(refused.headers.get('retry-after'), retryAfter)
      }
    }
    await refuse(20, '3')
    await refuse(5, '3')
    t.equal(polls(sandbox.calls), 5, "nor is another subject's task")
    time.advance(2500)
    await refuse(5, '1')
    t.equal(polls(sandbox.calls), 5)
    time.advance(500)
    await refuse(20, '3')
    t.equal(polls(sandbox.calls), 6, 'the picture alone')
    time.advance(12_000)
    await refuse(5, '3')
    t.equal(polls(sandbox.calls), 11, 'and the videos')
  }
)

t.test(
  'an upstream that is slow to say holds a submit up for a few seconds only, and is heard all the same',
  async t => {
    const { mint, submit, sandbox, pass, timers } = await crankedGateway(t, { config, models })
    const token = await mint('alice')
    for (let count = 0; count < 5; count++) await submit(token)
    pass(taskMs)
    const held: Array<() => void> = []
    for (let count = 0; count < 5; count++) {
      sandbox.next(({ url }, response) => {
        const taskId = new URL(String(url), 'http://sandbox').searchParams.get('taskId')
        held.push(() =>
          response
            .writeHead(200, { 'content-type': 'application/json' })
            .end(
              JSON.stringify({ code: 200, message: 'success', data: { taskId, state: 'success', resultJson: '{}' } })
            )
        )
      })
    }
    const answer = submit(token)
    await until('all are asked about', () => held.length === 5)
    await until('it waits', () => timers.waiting > 0)
    pass(3000)
    const refused = await answer
    t.match(refused, { status: 429, error: 'GW_TOO_MANY_TASKS' })
    t.equal(refused.headers.get('retry-after'), '1')
    for (const release of held) release()
    await until('the answers came', async () => (await submit(token)).status === 200)
    t.equal(polls(sandbox.calls), 5)
  }
)

t.test('a submit whose own answer is still out is nothing to ask about', async t => {
  const { mint, submit, sandbox } = await startGateway(t, { config: 'plans: { default: { concurrentTasks: 1 } }' })
  const token = await mint('alice')
  const first = submit(token, 'sandbox:slow-headers')
  await until('it is under way', () => sandbox.submits.length === 1)
  const refused = await submit(token)
  t.match(refused, { status: 429, error: 'GW_TOO_MANY_TASKS' })
  t.equal(refused.headers.get('retry-after'), '5')
  t.equal(polls(sandbox.calls), 0)
  sandbox.release()
  t.equal((await first).status, 200)
})

t.test('a batch gets the slots of finished tasks too, all that it needs or none', async t => {
  const gateway = await startGateway(t, { config, models })
  const { mint, submit, time, call } = gateway
  const token = await mint('alice')
  for (const prompt of ['a', 'b', 'sandbox:forever', 'sandbox:forever', 'sandbox:forever']) await submit(token, prompt)
  time.advance(taskMs)
  t.match(await submitBatch(gateway, token, anyItems(3)), { status: 429, error: 'GW_TOO_MANY_TASKS' })
  t.equal((await call('/gateway/session', { token })).json.tasks.unfinished, 3)
  t.equal((await submitBatch(gateway, token, anyItems(2))).status, 200)
})
