import { DatabaseSync } from 'node:sqlite'
import t, { type Test } from 'tap'
import { anyItems, submitBatch } from '../helpers/batches.ts'
import { crankedGateway } from '../helpers/cranked-gateway.ts'
import { fileServer, taskWith, whole } from '../helpers/file-server.ts'
import { adminToken, type TestGatewayOptions } from '../helpers/gateway.ts'
import { redisServer } from '../helpers/redis-server.ts'
import { storeFile } from '../helpers/store-file.ts'
import { until } from '../helpers/until.ts'

const config = `plans: { default: { pollsPerMinute: 100, credits: unlimited } }
limits: { addressFailuresPerMinute: 10000 }
results: { hosts: ["127.0.0.1"] }`

/** What reads for a session, by its operation: the path, and whether it needs a scope. */
const routes = {
  showSession: { path: () => '/gateway/session', isScoped: false },
  listModels: { path: () => '/gateway/models', isScoped: false },
  currentBalance: { path: () => '/api/v1/apikeys/current-balance', isScoped: false },
  listTasks: { path: () => '/gateway/tasks', isScoped: true },
  listDeliveries: { path: (taskId: string) => `/gateway/tasks/${taskId}/deliveries`, isScoped: true },
  listResults: { path: (taskId: string) => `/gateway/tasks/${taskId}/results`, isScoped: true },
  result: { path: (taskId: string) => `/gateway/tasks/${taskId}/results/0`, isScoped: true },
  taskEvents: { path: (taskId: string) => `/gateway/tasks/${taskId}/events`, isScoped: true },
  statusTask: { path: (taskId: string) => `/api/v1/statusTask/nano-banana?taskId=${taskId}`, isScoped: true }
} as const
const operations = Object.keys(routes) as Array<keyof typeof routes>
const named = operations.filter(operation => /tasks\/x/.test(routes[operation].path('x')))

/** A gateway, and a task of alice's that has ended. */
async function start (t: Test, options: TestGatewayOptions = {}) {
  const env = { GATEWAY_ADMIN_TOKEN: adminToken, ...options.env }
  const gateway = await crankedGateway(t, { config, ...options, env })
  const files = await fileServer(t, whole('a picture'))
  const token = await gateway.mint('alice')
  const taskId = await taskWith(gateway, token, { resultUrls: [files.origin] })
  const lineOf = async (operation: string) => {
    await until(`the line of ${operation}`, () => gateway.lines().some(line => line.operation === operation))
    return gateway.lines().filter(line => line.operation === operation).at(-1)
  }
  const refusals = async (): Promise<any[]> => {
    await gateway.gateway.tidy()
    const { json } = await gateway.call('/gateway/admin/audit?limit=500', { token: adminToken })
    return json.items.filter(({ kind }: { kind: string }) => kind === 'refusals')
  }
  return { ...gateway, token, taskId, lineOf, refusals }
}

t.test('each costs one poll, and says so; those who pass are granted', async t => {
  const { call, token, taskId, lineOf } = await start(t)
  let left = Number((await call(routes.showSession.path(), { token })).headers.get('ratelimit-remaining'))
  for (const operation of operations) {
    const { status, headers } = await call(routes[operation].path(taskId), { token })
    t.equal(status, 200, operation)
    t.equal(Number(headers.get('ratelimit-remaining')), --left, operation)
    t.match(await lineOf(operation), { granted: true, code: 'OK', stage: 'reply', subject: 'app:alice' })
  }
})

t.test('one poll too many is refused by each, in the same way', async t => {
  const { call, mint, taskId, lineOf } = await start(t, { config: config.replace('100', '2') })
  const token = await mint('alice')
  for (let count = 0; count < 2; count++) await call(routes.showSession.path(), { token })
  for (const operation of operations) {
    t.match(await call(routes[operation].path(taskId), { token }), { status: 429, error: 'GW_RATE_LIMITED' }, operation)
    t.match(await lineOf(operation), { granted: false, code: 'GW_RATE_LIMITED', stage: 'admit' })
  }
})

t.test('without the scope, for a foreign task, a batch or another model each refuses in the same way', async t => {
  const { call, mint, token, taskId, lineOf } = await start(t, { config: `${config}\nbatches: { enabled: true }` })
  const [writer, bob] = [await mint('alice', { scopes: ['tasks:write'] }), await mint('bob')]
  const other = await mint('alice', { models: ['sora-2'] })
  for (const operation of operations.filter(operation => routes[operation].isScoped)) {
    const unscoped = await call(routes[operation].path(taskId), { token: writer })
    t.match(unscoped, { status: 403, error: 'GW_SCOPE_DENIED', text: /tasks:read/ }, operation)
    t.match(await lineOf(operation), { granted: false, stage: 'authorize' })
  }
  const { json: { data: { batchId } } } = await submitBatch({ call }, token, anyItems(1))
  t.ok(batchId)
  for (const operation of named) {
    const missing = await call(routes[operation].path('nobody'), { token })
    t.match(missing, { status: 404, error: 'GW_TASK_NOT_FOUND' })
    for (const [path, by] of [[taskId, bob], [batchId, token]] as const) {
      const { status, error } = await call(routes[operation].path(path), { token: by })
      t.same([status, error], [404, 'GW_TASK_NOT_FOUND'], operation)
      t.match(await lineOf(operation), { granted: false, taskId: null })
    }
    const path = routes[operation].path(taskId)
    t.match(await call(path, { token: other }), { status: 403, error: 'GW_MODEL_DENIED' }, operation)
    t.match(await call(`${path}?x=1`, { token }), { status: 400, error: 'GW_BAD_REQUEST' }, operation)
  }
})

t.test('what a handler still refuses is a refusal', async t => {
  const narrow = config.replace('limits: { ', 'limits: { streamsPerSubject: 1, ')
  const { call, listen, token, taskId, lineOf } = await start(t, { config: narrow })
  await listen('/gateway/events', { token })
  t.match(await call(routes.taskEvents.path(taskId), { token }), { status: 429, error: 'GW_RATE_LIMITED' })
  t.match(await lineOf('taskEvents'), { granted: false, stage: 'admit' })
  t.match(await call(`/gateway/tasks/${taskId}/results/7`, { token }), { status: 404, error: 'GW_TASK_NOT_FOUND' })
  t.match(await lineOf('result'), { granted: false, stage: 'admit' })
})

t.test('a ledger that can not be read is no refusal in the audit trail, on whatever route it shows', async t => {
  const store = storeFile(t)
  const { call, token, refusals, lineOf, mint } = await start(t, { store })
  const db = new DatabaseSync(store)
  t.teardown(() => db.close())
  db.exec('ALTER TABLE tasks RENAME TO gone')
  for (const operation of operations) {
    const { status, error } = await call(routes[operation].path('another'), { token })
    if (operation === 'listModels' || operation === 'showSession' || operation === 'currentBalance') continue
    t.same([status, error], [503, 'GW_STORE_DOWN'], operation)
  }
  t.match(await lineOf('listTasks'), { granted: true, code: 'GW_STORE_DOWN', stage: 'admit' })
  t.equal((await call('/gateway/tasks', { token: await mint('alice', { scopes: ['llm'] }) })).error, 'GW_SCOPE_DENIED')
  db.exec('ALTER TABLE gone RENAME TO tasks')
  t.match((await refusals()).map(({ subject, detail }) => [subject, detail.code]), [['app:alice', 'GW_SCOPE_DENIED']])
})

t.test('nor is a Redis that is away, for readers and for those who submit', async t => {
  const server = await redisServer(t, { appendonly: true })
  const { call, submit, token, taskId, refusals, time } = await start(t, { env: { GATEWAY_STORE: server.url } })
  await server.kill()
  for (const operation of operations) {
    t.equal((await call(routes[operation].path(taskId), { token })).error, 'GW_STORE_DOWN', operation)
  }
  t.equal((await submit(token)).error, 'GW_STORE_DOWN')
  await server.start()
  await until('it is back', async () => {
    time.advance(1000) // it is asked once a second
    return (await call('/readyz')).status === 200
  })
  t.same(await refusals(), [])
})
