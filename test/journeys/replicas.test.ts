import t from 'tap'
import { patienceWithCallersMs } from '../../src/domain/maintenance.ts'
import { type RedisServer, redisServer } from '../helpers/redis-server.ts'
import { startReplicas } from '../helpers/replicas.ts'

/** Sees to it that a test begins with nothing. */
async function emptied (server: RedisServer): Promise<string> {
  await server.admin.flushall()
  return server.url
}

t.test('three replicas on one Redis are one gateway', async t => {
  const server = await redisServer(t)

  for (const { what, limits, code } of [
    { what: 'credit for one', limits: 'credits: 1, concurrentTasks: 1000', code: 'GW_CREDITS_EXHAUSTED' },
    { what: 'one slot', limits: 'concurrentTasks: 1', code: 'GW_TOO_MANY_TASKS' }
  ]) {
    await t.test(`of 200 parallel submits with ${what}, one reaches the upstream`, async t => {
      const replicas = await startReplicas(t, 3, await emptied(server), {
        config: `plans: { default: { requestsPerMinute: 1000, ${limits} } }`
      })
      const token = await replicas[0]!.mint('alice')
      const all = await Promise.all(Array.from({ length: 200 }, (_, index) => replicas[index % 3]!.submit(token)))
      t.equal(all.filter(({ status }) => status === 200).length, 1)
      t.equal(all.filter(({ error }) => error === code).length, 199)
      t.equal(replicas[0]!.sandbox.submits.length, 1)
    })
  }

  await t.test('a submit that is repeated with its key at another replica is made once', async t => {
    const replicas = await startReplicas(t, 3, await emptied(server))
    const token = await replicas[0]!.mint('alice')
    const headers = { 'idempotency-key': 'order-1' }
    const all = await Promise.all(
      Array.from({ length: 30 }, (_, index) => replicas[index % 3]!.submit(token, 'a cube', 'nano-banana', { headers }))
    )
    t.equal(replicas[0]!.sandbox.submits.length, 1)
    const { text } = all.find(({ status }) => status === 200)!
    for (const replica of replicas) {
      t.match(await replica.submit(token, 'a cube', 'nano-banana', { headers }), { status: 200, text })
    }
  })

  await t.test('requests are counted together, and each budget by itself', async t => {
    const replicas = await startReplicas(t, 3, await emptied(server), {
      config: 'plans: { default: { requestsPerMinute: 10, pollsPerMinute: 7, concurrentTasks: 100 } }'
    })
    const token = await replicas[0]!.mint('alice')
    const submits = await Promise.all(Array.from({ length: 30 }, (_, index) => replicas[index % 3]!.submit(token)))
    t.equal(submits.filter(({ status }) => status === 200).length, 10)
    t.equal(submits.filter(({ error }) => error === 'GW_RATE_LIMITED').length, 20)
    const { taskId } = submits.find(({ status }) => status === 200)!.json.data
    const polls = await Promise.all(
      Array.from({ length: 21 }, (_, index) => replicas[index % 3]!.status(token, taskId))
    )
    t.equal(polls.filter(({ error }) => error === 'GW_RATE_LIMITED').length, 14)
    const other = await replicas[1]!.mint('bob')
    t.equal((await replicas[2]!.submit(other)).status, 200, 'another subject has its own')
  })

  await t.test("a task, a session's end and what is left are the same everywhere", async t => {
    const [one, two, three] = await startReplicas(t, 3, await emptied(server), {
      config: 'plans: { default: { credits: 10 } }'
    })
    const token = await one!.mint('alice')
    const { json: { data: { taskId } } } = await one!.submit(token)
    t.match((await two!.status(token, taskId)).json, { data: { taskId } })
    t.match((await three!.call('/api/v1/apikeys/current-balance', { token })).json, { data: 9 })
    t.match((await two!.call('/gateway/tasks', { token })).json, { tasks: [{ taskId, state: 'running' }] })
    t.equal((await two!.call('/gateway/session', { token, method: 'DELETE' })).status, 204)
    for (const replica of [one!, two!, three!]) {
      t.match(await replica.call('/gateway/session', { token }), { error: 'GW_BAD_SESSION' })
    }
  })

  await t.test('one of them asks about the tasks that nobody polls', async t => {
    const replicas = await startReplicas(t, 3, await emptied(server))
    const token = await replicas[0]!.mint('alice')
    await replicas[0]!.submit(token)
    const { sandbox, time } = replicas[0]!
    const before = sandbox.calls.length
    time.advance(patienceWithCallersMs)
    await Promise.all(replicas.map(({ gateway }) => gateway.tidy()))
    t.equal(sandbox.calls.length - before, 1)
    t.match((await replicas[1]!.call('/gateway/tasks', { token })).json, { tasks: [{ state: 'success' }] })
  })
})
