import { DatabaseSync } from 'node:sqlite'
import t, { type Test } from 'tap'
import { items, submitBatch } from '../helpers/batches.ts'
import { startGateway, taskMs, type TestGatewayOptions } from '../helpers/gateway.ts'
import { redisServer } from '../helpers/redis-server.ts'
import { storeFile } from '../helpers/store-file.ts'

const config = `
plans: { default: { requestsPerMinute: 1000, pollsPerMinute: 1000, concurrentTasks: 2, credits: 100 } }
prices: { "*": 2.5 }
batches: { enabled: true }
`
const notice = 'The upstream has no cancel, so the task runs on and its charge stays: credits come back only if it ' +
  'fails. Its slot is free.'

/** A gateway whose callers have two slots each, and alice. */
async function scene (t: Test, more: TestGatewayOptions & { readonly ttlSeconds?: number } = {}) {
  const { ttlSeconds = 86_400, ...options } = more
  const gateway = await startGateway(t, { config, ...options })
  const token = await gateway.mint('alice', { ttlSeconds })
  return {
    ...gateway,
    token,
    submitted: async (prompt = 'sandbox:forever', by = token): Promise<string> => {
      const { json, text } = await gateway.submit(by, prompt)
      if (json.data === null) throw new Error(text)
      return json.data.taskId
    },
    giveUp: (taskId: string, by = token) =>
      gateway.call(`/gateway/tasks/${encodeURIComponent(taskId)}`, { method: 'DELETE', token: by })
  }
}

const stores = {
  SQLite: async () => ({}),
  Redis: async (t: Test) => ({ env: { GATEWAY_STORE: (await redisServer(t)).url } })
}

for (const [name, options] of Object.entries(stores)) {
  t.test(`a task that is given up frees its slot, stays charged, and is followed to its end (${name})`, async t => {
    const gateway = await scene(t, await options(t))
    const { token, submit, submitted, giveUp, status, call, time, lines } = gateway
    const taskId = await submitted('a red cube')
    await submitted()
    t.equal((await submit(token)).error, 'GW_TOO_MANY_TASKS')
    const { json, status: code } = await giveUp(taskId)
    t.equal(code, 200)
    const abandonedAt = new Date(time.now()).toISOString()
    t.same(json, { taskId, model: 'nano-banana', state: 'running', credits: 2.5, abandonedAt, notice })
    t.match(lines().at(-1), { operation: 'abandonTask', stage: 'reply', granted: true, subject: 'app:alice', taskId })
    t.equal((await submit(token, 'sandbox:forever')).status, 200, 'its slot is free')
    t.equal((await submit(token)).error, 'GW_TOO_MANY_TASKS', 'and no other')
    const left = async () => (await call('/gateway/session', { token })).json.credits.left
    t.equal(await left(), 92.5)
    const listed = async () =>
      (await call('/gateway/tasks', { token })).json.tasks.find((task: any) => task.taskId === taskId)
    t.match(await listed(), { state: 'running', abandonedAt, endedAt: null })

    time.advance(taskMs)
    t.same((await giveUp(taskId)).json, json, 'once more changes nothing')
    t.equal((await status(token, taskId)).json.data.state, 'success', 'its result is its owner\'s')
    t.match(await listed(), { state: 'success', abandonedAt })
    t.equal((await submit(token)).error, 'GW_TOO_MANY_TASKS', 'its end frees no second slot')
    t.equal(await left(), 92.5)
    t.same((await giveUp(taskId)).json, { taskId, model: 'nano-banana', state: 'success', credits: 2.5 })
  })
}

t.test('credits come back when it fails, once', async t => {
  const { token, submitted, giveUp, status, call, time } = await scene(t)
  const taskId = await submitted('sandbox:failed')
  await giveUp(taskId)
  time.advance(taskMs)
  await Promise.all([status(token, taskId), giveUp(taskId), status(token, taskId)])
  t.equal((await call('/gateway/session', { token })).json.credits.left, 100)
  t.match((await giveUp(taskId)).json, { state: 'failed' })
})

t.test('nobody polls it any more: the gateway itself finds out how it ends', async t => {
  const { token, submitted, giveUp, call, gateway, time } = await scene(t)
  const taskId = await submitted('sandbox:failed')
  await giveUp(taskId)
  time.advance(taskMs + 120_000)
  await gateway.tidy()
  t.match((await call('/gateway/tasks', { token })).json.tasks, [{ taskId, state: 'failed', refunded: true }])
})

t.test('a search for a slot asks for those that take one, and not for what was given up', async t => {
  const { token, submit, submitted, giveUp, sandbox, time } = await scene(t)
  const given = await submitted()
  await giveUp(given)
  const [one] = [await submitted('a red cube'), await submitted()]
  time.advance(taskMs)
  t.equal((await submit(token)).status, 200, `the slot of ${one}`)
  const asked = sandbox.calls.map(({ url }) => url).filter(url => url.includes('statusTask'))
  t.equal(asked.some(url => url.includes(given)), false)
  t.equal(asked.some(url => url.includes(one)), true)
})

t.test('one whose end nobody knows takes no slot, and nothing changes', async t => {
  const { token, submitted, giveUp, submit, gateway, time } = await scene(t, { ttlSeconds: 200_000 })
  const taskId = await submitted()
  time.advance(86_400_001)
  await gateway.tidy()
  t.same((await giveUp(taskId)).json, { taskId, model: 'nano-banana', state: 'unknown', credits: 2.5 })
  for (let count = 0; count < 2; count++) t.equal((await submit(token, 'sandbox:forever')).status, 200)
  t.equal((await submit(token)).error, 'GW_TOO_MANY_TASKS')
})

t.test('an hour has as many as there are slots, and the answer says when there is another', async t => {
  const { submitted, giveUp, lines, time } = await scene(t)
  for (let count = 0; count < 2; count++) {
    await giveUp(await submitted())
    time.advance(60_000)
  }
  const third = await submitted()
  const refused = await giveUp(third)
  t.equal(refused.status, 429)
  t.equal(refused.error, 'GW_RATE_LIMITED')
  t.match(refused.json, {
    message: 'Within an hour, as many tasks can be given up as may run at a time.',
    error: { code: 'GW_RATE_LIMITED', retryAfterSeconds: 3480 }
  })
  t.match(lines().at(-1), { granted: false, stage: 'admit', code: 'GW_RATE_LIMITED' })
  time.advance(3_450_000)
  t.equal((await giveUp(third)).headers.get('retry-after'), '30')
  time.advance(30_000)
  t.equal((await giveUp(third)).status, 200)
})

t.test('a stranger\'s task and one that does not exist are the same 404, and a batch is no task', async t => {
  const gateway = await scene(t)
  const { mint, submitted, giveUp, submit, token } = gateway
  const taskId = await submitted()
  const bob = await mint('bob')
  const shape = ({ status, headers, json }: Awaited<ReturnType<typeof giveUp>>) => {
    const { error: { code }, ...body } = json
    return { status, names: [...headers.keys()].sort(), code, body }
  }
  const unknown = shape(await giveUp('no-such-task'))
  t.match(unknown, { status: 404, code: 'GW_TASK_NOT_FOUND' })
  t.same(shape(await giveUp(taskId, bob)), unknown)
  t.same(shape(await giveUp('x'.repeat(300))), unknown)
  const { batchId } = (await submitBatch(gateway, bob, items('a cube'))).json.data
  t.same(shape(await giveUp(batchId, bob)), unknown)
  await submitted()
  t.equal((await submit(token)).error, 'GW_TOO_MANY_TASKS', 'nobody has freed anything')
})

t.test('it needs the scope to write, the model of the task, and no query', async t => {
  const { mint, submitted, giveUp, call, token } = await scene(t)
  const taskId = await submitted()
  t.equal((await giveUp(taskId, await mint('alice', { scopes: ['tasks:read'] }))).error, 'GW_SCOPE_DENIED')
  t.equal((await giveUp(taskId, await mint('alice', { models: ['suno'] }))).error, 'GW_MODEL_DENIED')
  const asked = await call(`/gateway/tasks/${taskId}?force=1`, { method: 'DELETE', token })
  t.equal(asked.error, 'GW_BAD_REQUEST')
  t.equal((await call(`/gateway/tasks/${taskId}`, { method: 'DELETE' })).error, 'GW_NO_SESSION')
})

t.test('other methods are told that it takes DELETE, and a page may send it', async t => {
  const env = { GATEWAY_ALLOWED_ORIGINS: 'https://app.example' }
  const { submitted, call, token } = await scene(t, { env })
  const path = `/gateway/tasks/${await submitted()}`
  for (const method of ['GET', 'POST', 'PUT', 'PATCH']) {
    const { status, headers } = await call(path, { method, token })
    t.equal(status, 405, method)
    t.equal(headers.get('allow'), 'DELETE')
  }
  const headers = { origin: 'https://app.example' }
  const preflight = await call(path, {
    method: 'OPTIONS',
    headers: { ...headers, 'access-control-request-method': 'DELETE', 'access-control-request-headers': 'authorization' }
  })
  t.match(preflight.headers.get('access-control-allow-methods'), /\bDELETE\b/)
  const { status, headers: answered } = await call(path, { method: 'DELETE', token, headers })
  t.equal(status, 200)
  t.equal(answered.get('access-control-allow-origin'), 'https://app.example')
})

t.test('a restart knows what was given up', async t => {
  const store = storeFile(t)
  const { time, submit, mint } = await t.test('before', async t => {
    const gateway = await scene(t, { store })
    await gateway.giveUp(await gateway.submitted())
    await gateway.submitted()
    return gateway
  }).then(() => startGateway(t, { config, store }))
  const db = new DatabaseSync(store, { readOnly: true })
  t.teardown(() => db.close())
  t.match(db.prepare('SELECT count(*) AS given FROM tasks WHERE abandoned_at IS NOT NULL').get(), { given: 1 })
  const token = await mint('alice')
  time.advance(1000)
  t.equal((await submit(token, 'sandbox:forever')).status, 200)
  t.equal((await submit(token, 'sandbox:forever')).error, 'GW_TOO_MANY_TASKS')
})
