import { DatabaseSync } from 'node:sqlite'
import t, { type Test } from 'tap'
import type { Model } from '../../src/domain/policy.ts'
import { anyItems, submitBatch } from '../helpers/batches.ts'
import { crankedGateway } from '../helpers/cranked-gateway.ts'
import { fileServer, taskWith, whole } from '../helpers/file-server.ts'
import { adminToken, startGateway, taskMs, type TestGateway, type TestGatewayOptions } from '../helpers/gateway.ts'
import { redisServer } from '../helpers/redis-server.ts'
import { storeFile } from '../helpers/store-file.ts'
import { until } from '../helpers/until.ts'

/** Every page from the first to the last. */
async function pages ({ call }: Pick<TestGateway, 'call'>, token: string, limit: number): Promise<any[][]> {
  const found = []
  for (let next: string | null = ''; next !== null;) {
    const { status, json }: { status: number, json: any } = await call(
      `/gateway/tasks?limit=${limit}${next === '' ? '' : `&cursor=${encodeURIComponent(next)}`}`,
      { token }
    )
    if (status !== 200) throw new Error(JSON.stringify(json))
    found.push(json.tasks)
    next = json.next
  }
  return found
}

t.test('a caller finds its tasks, the newest first, with what became of them', async t => {
  const { call, mint, submit, status, time } = await startGateway(t, {
    config: 'plans: { default: { credits: 100 } }\nprices: { suno: 2.5 }'
  })
  const token = await mint('alice')
  const start = new Date(time.now()).toISOString()
  const ids: string[] = []
  for (const [prompt, model] of [
    ['x', 'suno'],
    ['sandbox:failed', 'suno'],
    ['sandbox:forever', 'nano-banana']
  ] as const) {
    ids.push((await submit(token, prompt, model)).json.data.taskId)
    time.advance(1000)
  }
  await submit(token, 'sandbox:drop-after', 'sora-2')
  await submit(token, 'sandbox:http-400')
  await submit(token, 'sandbox:http-500')
  time.advance(taskMs)
  const end = new Date(time.now()).toISOString()
  for (const taskId of ids.slice(0, 2)) await status(token, taskId, 'suno')
  const { json, headers } = await call('/gateway/tasks', { token })
  t.equal(headers.get('cache-control'), 'no-store')
  const at = (seconds: number) => new Date(Date.parse(start) + seconds * 1000).toISOString()
  t.same(json, {
    tasks: [
      {
        taskId: null,
        model: 'sora-2',
        state: 'unknown',
        credits: 1,
        refunded: false,
        createdAt: at(3),
        endedAt: at(3),
        abandonedAt: null,
        results: []
      },
      {
        taskId: ids[2],
        model: 'nano-banana',
        state: 'running',
        credits: 1,
        refunded: false,
        createdAt: at(2),
        endedAt: null,
        abandonedAt: null,
        results: []
      },
      {
        taskId: ids[1],
        model: 'suno',
        state: 'failed',
        credits: 2.5,
        refunded: true,
        createdAt: at(1),
        endedAt: end,
        abandonedAt: null,
        results: []
      },
      {
        taskId: ids[0],
        model: 'suno',
        state: 'success',
        credits: 2.5,
        refunded: false,
        createdAt: start,
        endedAt: end,
        abandonedAt: null,
        results: json.tasks[3].results
      }
    ],
    next: null
  })
  t.match(json.tasks[3].results, [/^\/gateway\/results\/./])
  t.equal((await call(json.tasks[3].results[0])).status, 200, 'without a header')
  t.same(
    (await call('/gateway/tasks', { token: await mint('alice', { scopes: ['tasks:read'] }) })).json,
    json,
    'in each of its sessions'
  )
  t.same((await call('/gateway/tasks', { token: await mint('bob') })).json, { tasks: [], next: null })
})

t.test('a long list comes in pages, each task once, whatever is added meanwhile', async t => {
  const gateway = await startGateway(t)
  const { call, mint, submit } = gateway
  const [token, other] = [await mint('alice'), await mint('bob')]
  const ids: string[] = []
  for (let count = 0; count < 25; count++) {
    ids.unshift((await submit(token)).json.data.taskId)
    await submit(other)
  }
  for (const limit of [1, 7, 25, 100]) {
    const found = await pages(gateway, token, limit)
    t.ok(found.every(page => page.length <= limit))
    t.same(found.flat().map(({ taskId }) => taskId), ids, `${limit} a page`)
  }
  const first = (await call('/gateway/tasks', { token })).json
  t.same(first.tasks.map(({ taskId }: { taskId: string }) => taskId), ids.slice(0, 20), 'twenty when it is not said')
  await submit(token)
  const second = (await call(`/gateway/tasks?cursor=${encodeURIComponent(first.next)}`, { token })).json
  t.same(second.tasks.map(({ taskId }: { taskId: string }) => taskId), ids.slice(20))
  t.equal(second.next, null)
})

t.test('rows that are no task of one submit are left out, and the pages go on behind them', async t => {
  const store = storeFile(t)
  const gateway = await startGateway(t, { store })
  const { mint, submit } = gateway
  const token = await mint('alice')
  const ids: string[] = []
  for (let count = 0; count < 6; count++) ids.unshift((await submit(token)).json.data.taskId)
  const db = new DatabaseSync(store)
  t.teardown(() => db.close())
  db.prepare("UPDATE tasks SET operation = 'batch' WHERE task_id IN (?, ?, ?)").run(ids[1]!, ids[2]!, ids[3]!)
  const found = await pages(gateway, token, 2)
  t.same(found.map(page => page.map(({ taskId }) => taskId)), [[ids[0]], [], [ids[4], ids[5]]])
})

t.test('what is wrong with a query is named', async t => {
  const { call, mint, submit } = await startGateway(t)
  const [alice, mallory] = [await mint('alice'), await mint('mallory')]
  for (let count = 0; count < 3; count++) {
    await submit(alice)
    await submit(mallory)
  }
  for (const limit of ['0', '101', '-1', '1.5', '1e1', 'x', '', '007', '%201', '1000']) {
    t.match(
      await call(`/gateway/tasks?limit=${limit}`, { token: alice }),
      { status: 400, error: 'GW_BAD_REQUEST', json: { message: /limit.* 1 to 100/ } },
      limit
    )
  }
  const { next } = (await call('/gateway/tasks?limit=1', { token: alice })).json
  t.type(next, 'string')
  for (const cursor of [
    '',
    'x',
    '0',
    '-1',
    '~',
    '1~',
    '~12345678',
    next.slice(0, -1),
    `${next}x`,
    `1${next}`,
    "' OR 1=1",
    '9'.repeat(400),
    '%00',
    '%'
  ]) {
    t.match(
      await call(`/gateway/tasks?cursor=${cursor === '%' ? '%25' : cursor}`, { token: alice }),
      { status: 400, error: 'GW_BAD_REQUEST', json: { message: /cursor/ } },
      cursor
    )
  }
  t.match(
    await call(`/gateway/tasks?cursor=${encodeURIComponent(next)}`, { token: mallory }),
    { status: 400, json: { message: /cursor/ } },
    "somebody else's"
  )
  for (const query of ['offset=1', 'Limit=1', 'subject=app:alice', '__proto__=1', 'limit%00=1']) {
    t.match(
      await call(`/gateway/tasks?${query}`, { token: mallory }),
      { status: 400, error: 'GW_BAD_REQUEST', json: { message: /not known/ } },
      query
    )
  }
  for (const query of ['limit=1&limit=2', `cursor=${encodeURIComponent(next)}&cursor=x`]) {
    t.match(
      await call(`/gateway/tasks?${query}`, { token: alice }),
      { status: 400, error: 'GW_BAD_REQUEST', json: { message: /twice/ } },
      query
    )
  }
})

t.test('the list is for sessions that may read tasks, and takes no other method', async t => {
  const { call, mint, sandbox } = await startGateway(t)
  t.match(await call('/gateway/tasks'), { status: 401, error: 'GW_NO_SESSION' })
  const refused = await call('/gateway/tasks', { token: await mint('alice', { scopes: ['tasks:write'] }) })
  t.match(refused, { status: 403, error: 'GW_SCOPE_DENIED', json: { message: /tasks:read/ } })
  for (const method of ['POST', 'DELETE', 'PUT']) {
    t.match(await call('/gateway/tasks', { method, token: await mint('alice') }), { status: 405 })
  }
  t.equal(sandbox.calls.length, 0)
})

t.test('where the results of a task are is told by a plain call, for as long as a ticket lasts', async t => {
  const { call, mint, submit, status, time, settings } = await startGateway(t, {
    env: { GATEWAY_PUBLIC_URL: 'https://gateway.example' }
  })
  const token = await mint('alice')
  const { taskId } = (await submit(token)).json.data
  const path = `/gateway/tasks/${taskId}/results`
  t.same((await call(path, { token })).json, { taskId, results: [] }, 'while it runs there are none')
  time.advance(taskMs)
  await status(token, taskId)
  const { results } = (await call(path, { token })).json
  t.match(results, [/^https:\/\/gateway\.example\/gateway\/results\/./])
  t.same((await call('/gateway/tasks', { token })).json.tasks[0].results, results)
  t.same(
    (await call('/gateway/tasks', { token: await mint('alice', { models: ['sora-2'] }) })).json.tasks[0].results,
    [],
    'of models that the session may use'
  )
  const ticket = new URL(results[0]).pathname
  t.equal((await call(ticket)).status, 200)
  t.match(await call(`${ticket}?x=1`), { status: 400, json: { message: /"x" is not known here/ } })
  time.advance(settings.file.results.ticketSeconds * 1000)
  t.equal((await call(ticket)).error, 'GW_RESULT_EXPIRED')
  t.equal(
    (await call(new URL((await call(path, { token })).json.results[0]).pathname)).status,
    200,
    'and then there is another'
  )
  t.equal((await call(path, { token: await mint('bob') })).error, 'GW_TASK_NOT_FOUND')
})

t.test('a session sees the models that it may use, with their prices', async t => {
  const models: readonly Model[] = [
    { id: 'nano-banana', category: 'image', options: { modes: ['text-to-image'] } },
    { id: 'sora-2', category: 'video' },
    { id: 'gpt-5.4', category: 'text' }
  ]
  const { call, mint } = await startGateway(t, {
    models,
    config:
      'plans: { default: {}, small: { models: ["nano-*", "gpt-*"] } }\nprices: { "sora-*": { credits: 2, per: input.duration } }'
  })
  const listed = async (more: object) =>
    (await call('/gateway/models', { token: await mint('alice', more) })).json.models.map(
      ({ id }: { id: string }) => id
    )
  t.strictSame((await call('/gateway/models', { token: await mint('alice') })).json, {
    models: [
      { ...models[0], price: { credits: 1 } },
      { ...models[1], price: { credits: 2, per: 'input.duration' } },
      { ...models[2], price: null }
    ]
  })
  t.strictSame(await listed({ plan: 'small' }), ['nano-banana', 'gpt-5.4'])
  t.strictSame(await listed({ models: ['sora-2'] }), ['sora-2'])
  t.strictSame(await listed({ scopes: ['llm'] }), ['gpt-5.4'])
  t.strictSame(await listed({ scopes: ['tasks:read'] }), [])
  t.match(await call('/gateway/models?x=1', { token: await mint('alice') }), { status: 400, error: 'GW_BAD_REQUEST' })
  t.equal((await call('/gateway/models')).status, 401)
})

t.test("the interval between two status calls is that of the model's category", async t => {
  const { mint, submit, status, time, sandbox } = await startGateway(t, {
    models: [{ id: 'sora-2', category: 'video' }]
  })
  const token = await mint('alice')
  const { taskId } = (await submit(token, 'sandbox:forever', 'sora-2')).json.data
  const asked = async () => {
    const before = sandbox.calls.length
    await status(token, taskId, 'sora-2')
    return sandbox.calls.length > before
  }
  t.ok(await asked())
  time.advance(14_999)
  t.notOk(await asked())
  time.advance(1)
  t.ok(await asked())
})

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
