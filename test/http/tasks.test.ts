import { DatabaseSync } from 'node:sqlite'
import t from 'tap'
import { startGateway, taskMs, type TestGateway } from '../helpers/gateway.ts'
import { storeFile } from '../helpers/store-file.ts'

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
