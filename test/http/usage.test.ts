import { DatabaseSync } from 'node:sqlite'
import t from 'tap'
import { oneAtATime } from '../../src/http/routes/account.ts'
import { adminToken, startGateway, taskMs } from '../helpers/gateway.ts'
import { storeFile } from '../helpers/store-file.ts'
import { until } from '../helpers/until.ts'

const config = 'plans: { default: { credits: 100 } }\nprices: { suno: 2.5, "*": 1 }'
const dayMs = 86_400_000

t.test('a caller sees its own usage by day, model and state, and nobody else\'s', async t => {
  const { call, mint, submit, status, time } = await startGateway(t, { config })
  const [token, other] = [await mint('alice'), await mint('bob')]
  const one = (await submit(token, 'x', 'suno')).json.data.taskId
  const failing = (await submit(token, 'sandbox:failed')).json.data.taskId
  await submit(token, 'sandbox:drop-after')
  await submit(other)
  time.advance(taskMs)
  await status(token, one, 'suno')
  await status(token, failing)
  time.advance(dayMs)
  const later = await mint('alice')
  await submit(later, 'sandbox:forever')
  const { json, headers } = await call('/gateway/usage', { token: later })
  t.equal(headers.get('cache-control'), 'no-store')
  t.strictSame(json, {
    from: '2026-01-01',
    to: '2026-01-16',
    by: ['day'],
    rows: [
      { day: '2026-01-15', tasks: 3, charged: 3.5, refunded: 1, setAside: 0 },
      { day: '2026-01-16', tasks: 1, charged: 0, refunded: 0, setAside: 1 }
    ],
    total: { tasks: 4, charged: 3.5, refunded: 1, setAside: 1 }
  })
  t.strictSame((await call('/gateway/usage?by=model,state&to=2026-01-15', { token: later })).json.rows, [
    { model: 'nano-banana', state: 'failed', tasks: 1, charged: 0, refunded: 1, setAside: 0 },
    { model: 'nano-banana', state: 'unknown', tasks: 1, charged: 1, refunded: 0, setAside: 0 },
    { model: 'suno', state: 'success', tasks: 1, charged: 2.5, refunded: 0, setAside: 0 }
  ])
})

t.test('usage is CSV for who asks for CSV, and costs a poll', async t => {
  const { call, mint, submit } = await startGateway(t, { config })
  const token = await mint('alice')
  await submit(token)
  const csv = 'state,tasks,charged,refunded,setAside\r\n"running",1,0,0,1\r\n'
  for (const [query, accept] of [['&format=csv', 'application/json'], ['', 'text/csv']] as const) {
    const { text, headers } = await call(`/gateway/usage?by=state${query}`, { token, headers: { accept } })
    t.equal(text, csv)
    t.equal(headers.get('content-type'), 'text/csv; charset=utf-8')
    t.equal(headers.get('content-disposition'), 'attachment; filename="usage-2026-01-01-2026-01-15.csv"')
  }
  const polls = async () => Number((await call('/gateway/usage', { token })).headers.get('ratelimit-remaining'))
  const left = await polls()
  t.equal(await polls(), left - 1)
})

t.test('what is wrong with a query for usage is named, and a session needs the scope', async t => {
  const { call, mint } = await startGateway(t, { config: `${config}\ntasks: { retentionDays: 7 }` })
  const token = await mint('alice')
  for (const [query, field] of [
    ['from=2026-01-08', /^from must be 2026-01-09 or later/],
    ['to=2026-02-30', /^to/],
    ['by=subject', /^by/],
    ['format=xml', /^format/],
    ['subject=app:bob', /"subject" is not known/],
    ['by=day&by=model', /"by" is given twice/]
  ] as const) {
    t.match(await call(`/gateway/usage?${query}`, { token }), {
      status: 400, error: 'GW_BAD_REQUEST', json: { message: field }
    }, query)
  }
  t.equal((await call('/gateway/usage')).error, 'GW_NO_SESSION')
  t.equal((await call('/gateway/usage', { token: await mint('alice', { scopes: ['tasks:write'] }) })).error,
    'GW_SCOPE_DENIED')
})

t.test('of one subject one report is made at a time, two wait, and more are refused', async t => {
  const inTurn = oneAtATime(2)
  const running: Array<PromiseWithResolvers<string>> = []
  const ask = (subject: string) => inTurn(subject, () => {
    running.push(Promise.withResolvers())
    return running.at(-1)!.promise
  })
  const asked = [ask('app:alice'), ask('app:alice'), ask('app:alice')]
  await t.rejects(ask('app:alice'), { code: 'GW_RATE_LIMITED', detail: { retryAfterSeconds: 1 } })
  const other = ask('app:bob')
  await until('both subjects have one made', () => running.length === 2)
  running[1]!.resolve('of bob')
  t.equal(await other, 'of bob')
  running[0]!.reject(new Error('the store is away'))
  await t.rejects(asked[0]!, { message: 'the store is away' })
  await until('the next begins', () => running.length === 3)
  const late = ask('app:alice')
  for (const index of [2, 3, 4]) {
    await until('the next begins', () => running.length > index)
    running[index]!.resolve(`report ${index}`)
  }
  t.same(await Promise.all([asked[1], asked[2], late]), ['report 2', 'report 3', 'report 4'])
})

t.test('while a report of many tasks is made, others have their turn', async t => {
  const store = storeFile(t)
  const { call, mint, submit } = await startGateway(t, { config, store })
  const token = await mint('alice')
  await submit(token)
  const rows = 20_000
  const db = new DatabaseSync(store)
  t.teardown(() => db.close())
  db.exec(`WITH RECURSIVE numbers (id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM numbers WHERE id < ${rows})
    INSERT INTO tasks (id, subject, operation, model, key_id, stage, task_id, microcredits, refundable, period_start,
      created_at, lease_until, ended_at, state)
    SELECT numbers.id + 1, subject, operation, model, key_id, 'settled', 'task ' || numbers.id, microcredits, refundable,
      period_start, created_at, lease_until, created_at, 'success' FROM numbers, tasks WHERE tasks.id = 1`)
  let turns = 0
  const count = (): void => {
    turns++
    if (turns > 0) setImmediate(count)
  }
  count()
  const report = await call('/gateway/usage', { token })
  t.ok(turns >= rows / 250, `the event loop had ${turns} turns`)
  turns = -1
  t.match(report, { status: 200, json: { total: { tasks: rows + 1, charged: rows, setAside: 1 } } })
})

t.test('a caller\'s list is narrowed by state, model and day', async t => {
  const { call, mint, submit, status, time } = await startGateway(t, { config })
  const token = await mint('alice')
  const ids: string[] = []
  for (const model of ['suno', 'nano-banana', 'suno']) ids.push((await submit(token, 'x', model)).json.data.taskId)
  time.advance(taskMs)
  await status(token, ids[0]!, 'suno')
  time.advance(dayMs)
  const later = await mint('alice')
  ids.push((await submit(later, 'x', 'suno')).json.data.taskId)
  const listed = async (query: string) =>
    (await call(`/gateway/tasks?${query}`, { token: later })).json.tasks.map(
      ({ taskId }: { taskId: string }) => ids.indexOf(taskId))
  t.same(await listed('state=success'), [0])
  t.same(await listed('state=running'), [3, 2, 1])
  t.same(await listed('model=suno&state=running'), [3, 2])
  t.same(await listed('from=2026-01-16'), [3])
  t.same(await listed('to=2026-01-15&model=suno'), [2, 0])
  const first = (await call('/gateway/tasks?model=suno&limit=1', { token: later })).json
  t.same(await listed(`model=suno&limit=2&cursor=${encodeURIComponent(first.next)}`), [2, 0])
  for (const query of ['state=done', 'model=', 'from=yesterday', 'to=2026-01-15T00:00', 'from=2026-01-02&to=2026-01-01']) {
    const [field] = query.split('=')
    t.match(await call(`/gateway/tasks?${query}`, { token: later }), {
      status: 400, error: 'GW_BAD_REQUEST', json: { message: new RegExp(`^${field!}`) }
    }, query)
  }
})

t.test('the operator lists the tasks of all, what runs now, and sees one in full', async t => {
  const env = { GATEWAY_ADMIN_TOKEN: adminToken }
  const { call, mint, submit, status, time } = await startGateway(t, { config, env })
  const admin = (path: string) => call(`/gateway/admin${path}`, { token: adminToken })
  const [alice, bob] = [await mint('alice'), await mint('bob')]
  const ended = (await submit(alice, 'x', 'suno')).json.data.taskId
  time.advance(taskMs)
  const running = (await submit(bob)).json.data.taskId
  await status(alice, ended, 'suno')
  await submit(bob, 'sandbox:drop-after')
  const { json } = await admin('/tasks')
  t.match(json, {
    items: [
      { subject: 'app:bob', taskId: null, state: 'unknown' },
      { subject: 'app:bob', taskId: running, state: 'running', credits: 1, refunded: false, endedAt: null },
      { subject: 'app:alice', taskId: ended, state: 'success', model: 'suno', operation: 'generateTask', credits: 2.5 }
    ],
    next: null
  })
  const listed = async (query: string) =>
    (await admin(`/tasks?${query}`)).json.items.map(({ taskId }: { taskId: string }) => taskId)
  t.same(await listed('state=running'), [running])
  t.same(await listed('subject=app:bob'), [null, running])
  t.same(await listed('subject=app:bob&state=success'), [])
  t.same(await listed('model=suno'), [ended])
  t.same(await listed('to=2026-01-14'), [])
  const { next } = (await admin('/tasks?limit=1')).json
  t.same(await listed(`limit=1&cursor=${encodeURIComponent(next)}`), [running])
  t.match(await admin(`/tasks?subject=app:bob&cursor=${encodeURIComponent(next)}`), { status: 400 }, 'of another list')
  const full = {
    ...json.items[2],
    stage: 'settled',
    refundable: true,
    creditsFromGrants: 0,
    periodStart: '2026-01-15T00:00:00.000Z',
    session: null,
    givenUpAt: null,
    delivery: null
  }
  const found = (await admin(`/tasks/${ended}`)).json
  t.match(found, full)
  t.match(found.keyId, /^[0-9a-z]+/i)
  t.ok(found.answerBytes > 10)
  t.strictSame((await admin(`/tasks/${encodeURIComponent(json.items[2].id)}`)).json, found)
  t.match((await admin(`/tasks/${running}`)).json, { state: 'running', givenUpAt: /^2026-01-16T/, answerBytes: null })
  t.match((await admin(`/tasks/${json.items[0].id}`)).json, { state: 'unknown', taskId: null, delivery: null })
  t.match(await admin('/tasks/none'), { status: 404, error: 'GW_TASK_NOT_FOUND' })
  for (const [query, field] of [
    ['state=done', /^state/], ['subject=bob', /^subject .*app:bob/], ['limit=501', /limit/], ['cursor=x', /^cursor/],
    ['user=bob', /"user"/], ['from=x', /^from/]
  ] as const) {
    t.match(await admin(`/tasks?${query}`), { status: 400, error: 'GW_BAD_REQUEST', json: { message: field } }, query)
  }
})
