import t from 'tap'
import { adminToken, issuerToken, startGateway, taskMs, type TestGatewayOptions } from '../helpers/gateway.ts'

const env = { GATEWAY_ADMIN_TOKEN: adminToken }
const config = 'plans: { default: { credits: 2 } }\nprices: { "sora-2": { credits: 0.1 }, "*": { credits: 1 } }'

/** A gateway with an operator. Its clock stands in January 2026. */
async function start (test: Parameters<typeof startGateway>[0], options: TestGatewayOptions = {}) {
  const gateway = await startGateway(test, { env, config, ...options })
  const admin = (path: string, more: Parameters<typeof gateway.call>[1] = {}) =>
    gateway.call(`/gateway/admin${path}`, { token: adminToken, ...more })
  return { ...gateway, admin }
}

t.test('without an admin token there is no admin API and there are no metrics', async t => {
  const { call } = await startGateway(t)
  for (const path of ['/gateway/admin/usage', '/gateway/admin/unknown', '/gateway/admin/audit', '/metrics']) {
    for (const token of [adminToken, issuerToken]) {
      t.match(await call(path, { token }), { status: 404, error: 'GW_NOT_FOUND' }, path)
    }
  }
  t.match(await call('/gateway/admin/credits', { token: adminToken, body: { subject: 'app:a', credits: 1 } }), {
    status: 404,
    error: 'GW_NOT_FOUND'
  })
})

t.test('usage is summed by subject, this month up to today, when nothing else is asked for', async t => {
  const { admin, mint, submit, status, time } = await start(t)
  const [alice, bob] = [await mint('alice'), await mint('bob')]
  const { json } = await submit(alice)
  await submit(alice, 'x', 'sora-2')
  const failing = await submit(bob, 'sandbox:failed')
  await submit(bob)
  time.advance(taskMs)
  await status(alice, json.data.taskId)
  await status(bob, failing.json.data.taskId)
  t.same((await admin('/usage')).json, {
    from: '2026-01-01',
    to: '2026-01-15',
    by: ['subject'],
    rows: [
      { subject: 'app:alice', tasks: 2, succeeded: 1, failed: 0, unknown: 0, credits: 1.1 },
      { subject: 'app:bob', tasks: 2, succeeded: 0, failed: 1, unknown: 0, credits: 1 }
    ]
  })
  t.same((await admin('/usage?by=model,day&from=2026-01-15&to=2026-01-15')).json.rows, [
    { model: 'nano-banana', day: '2026-01-15', tasks: 3, succeeded: 1, failed: 1, unknown: 0, credits: 2 },
    { model: 'sora-2', day: '2026-01-15', tasks: 1, succeeded: 0, failed: 0, unknown: 0, credits: 0.1 }
  ])
  t.same(
    (await admin('/usage?to=2025-12-31')).json,
    { from: '2025-12-01', to: '2025-12-31', by: ['subject'], rows: [] },
    'an earlier month'
  )
})

t.test('usage is CSV for who asks for CSV', async t => {
  const { admin, mint, submit } = await start(t)
  await submit(await mint('a "quoted", name'))
  const csv = 'subject,tasks,succeeded,failed,unknown,credits\r\n"app:a ""quoted"", name",1,0,0,0,1\r\n'
  for (const [path, accept] of [
    ['/usage?format=csv', 'application/json'],
    ['/usage', 'text/csv'],
    ['/usage', 'text/csv;q=0.9, */*;q=0.1']
  ] as const) {
    const { status, text, headers } = await admin(path, { headers: { accept } })
    t.equal(status, 200)
    t.equal(headers.get('content-type'), 'text/csv; charset=utf-8')
    t.equal(headers.get('content-disposition'), 'attachment; filename="usage-2026-01-01-2026-01-15.csv"')
    t.equal(text, csv)
  }
  for (const [path, accept] of [
    ['/usage', '*/*'],
    ['/usage?format=json', 'text/csv'],
    ['/usage', 'application/json, text/csv']
  ] as const) {
    t.match((await admin(path, { headers: { accept } })).headers.get('content-type'), 'application/json', accept)
  }
})

t.test('a query that makes no sense is a 400 that names its field', async t => {
  const { admin } = await start(t)
  for (const [query, field] of [
    ['from=2026-02-30', /from/],
    ['from=1.1.2026', /from/],
    ['to=', /to must/],
    ['from=2026-01-02&to=2026-01-01', /from .* after to/],
    ['from=2020-01-01', /366 days/],
    ['by=', /by/],
    ['by=plan', /by/],
    ['by=subject,subject', /by/],
    ['by=__proto__', /by/],
    ['format=xml', /format/],
    ['user=alice', /"user"/],
    ['by=day&by=model', /by/],
    ['From=2026-01-01', /"From"/]
  ] as const) { t.match(await admin(`/usage?${query}`), { status: 400, error: 'GW_BAD_REQUEST', json: { message: field } }, query) }
  for (const path of ['/unknown', '/audit']) {
    for (const [query, field] of [
      ['limit=0', /limit/],
      ['limit=501', /limit/],
      ['limit=x', /limit/],
      ['limit=1e2', /limit/],
      ['cursor=made-up', /cursor/],
      ['cursor=', /cursor/],
      ['page=2', /"page"/]
    ] as const) {
      t.match(
        await admin(`${path}?${query}`),
        { status: 400, error: 'GW_BAD_REQUEST', json: { message: field } },
        path + query
      )
    }
  }
})

t.test('granted credits count at once, on top of the plan\'s, and last beyond the period', async t => {
  const { admin, mint, submit, time } = await start(t)
  const token = await mint('alice')
  for (let count = 0; count < 2; count++) t.equal((await submit(token)).status, 200)
  t.equal((await submit(token)).error, 'GW_CREDITS_EXHAUSTED')
  t.match(await admin('/credits', { body: { subject: 'app:alice', credits: 1.5 } }), {
    status: 201,
    json: { subject: 'app:alice', granted: 1.5 }
  })
  t.same((await admin('/credits', { body: { subject: 'app:alice', credits: 0.000001 } })).json, {
    subject: 'app:alice',
    granted: 1.500001
  })
  t.equal((await submit(token)).status, 200)
  t.equal((await submit(token)).error, 'GW_CREDITS_EXHAUSTED', 'half a credit is not enough')
  time.advance(24 * 3600 * 1000)
  const tomorrow = await mint('alice')
  t.equal((await submit(tomorrow)).status, 200)
  t.match((await admin('/credits', { body: { subject: 'app:alice', credits: 1 } })).json, { granted: 1.500001 })
})

t.test('a grant that makes no sense is a 400 that says what to change', async t => {
  const { admin } = await start(t)
  for (const [body, message] of [
    [{ subject: 'alice', credits: 1 }, /subject .*: app:alice\.$/],
    [{ subject: ':alice', credits: 1 }, /subject .*: app:alice\.$/],
    [{ subject: 'app:', credits: 1 }, /subject/],
    [{ subject: 'app:a\nb', credits: 1 }, /subject/],
    [{ subject: `app:${'x'.repeat(160)}`, credits: 1 }, /subject/],
    [{ subject: 7, credits: 1 }, /subject/],
    [{ credits: 1 }, /subject/],
    [{ subject: 'app:a', credits: 0 }, /credits/],
    [{ subject: 'app:a', credits: -1 }, /credits/],
    [{ subject: 'app:a', credits: '1' }, /credits/],
    [{ subject: 'app:a', credits: null }, /credits/],
    [{ subject: 'app:a', credits: 1e9 }, /credits/],
    [{ subject: 'app:a', credits: 0.0000001 }, /six decimals/],
    [{ subject: 'app:a' }, /credits/],
    ['{"subject":"app:a","credits":1e999}', /credits/],
    [{ subject: 'app:a', credits: 1, plan: 'pro' }, /"plan"/],
    ['{"subject":"app:a","credits":1,"credits":9}', /credits/]
  ] as const) {
    t.match(
      await admin('/credits', { body }),
      { status: 400, error: 'GW_BAD_REQUEST', json: { message } },
      JSON.stringify(body).slice(0, 60)
    )
  }
  t.match(await admin('/credits?subject=app:a', { body: { subject: 'app:a', credits: 1 } }), {
    status: 400,
    json: { message: /"subject"/ }
  })
  t.match(await admin('/credits', { method: 'POST' }), { status: 400 })
  t.same((await admin('/audit')).json.items.filter((entry: any) => entry.kind === 'grant'), [])
})

t.test('an unknown outcome is listed until the operator lets it go, once', async t => {
  const { admin, mint, submit, time } = await start(t)
  const token = await mint('alice')
  t.equal((await submit(token, 'sandbox:drop-after')).error, 'GW_OUTCOME_UNKNOWN')
  t.equal((await submit(token)).status, 200)
  t.equal((await submit(token)).error, 'GW_CREDITS_EXHAUSTED')
  const { items, next } = (await admin('/unknown')).json
  t.equal(next, null)
  const now = new Date(time.now()).toISOString()
  t.match(items, [
    {
      id: String,
      subject: 'app:alice',
      taskId: null,
      operation: 'generateTask',
      model: 'nano-banana',
      credits: 1,
      createdAt: now,
      endedAt: now
    }
  ])
  t.equal(Object.keys(items[0]).length, 8)
  const path = `/unknown/${encodeURIComponent(items[0].id)}/release`
  t.match(await admin(path, { body: { all: true } }), { status: 400 })
  t.match(await admin(`${path}?all=true`, { method: 'POST' }), { status: 400 })
  const released = await admin(path, { method: 'POST' })
  t.equal(released.status, 204)
  t.equal(released.text, '')
  t.same((await admin('/unknown')).json, { items: [], next: null })
  t.match(await admin(path, { method: 'POST' }), { status: 404, error: 'GW_TASK_NOT_FOUND' })
  t.equal((await submit(token)).status, 200, 'its credits are there again')
  for (const id of ['1', '-1', 'x', '%00', '%2F', 'ä'.repeat(300), '9'.repeat(99), 'x'.repeat(2000)]) {
    t.match(
      await admin(`/unknown/${id}/release`, { method: 'POST' }),
      { status: 404, error: 'GW_TASK_NOT_FOUND' },
      id.slice(0, 20)
    )
  }
})

t.test('a task that runs can not be let go', async t => {
  const { admin, mint, submit } = await start(t)
  await submit(await mint('alice'))
  for (let id = 0; id < 5; id++) {
    t.match(await admin(`/unknown/${id}/release`, { method: 'POST' }), { status: 404, error: 'GW_TASK_NOT_FOUND' })
  }
})

t.test('long lists come in pages, each with the cursor of the next', async t => {
  const { admin, mint, submit } = await start(t, { config: 'plans: { default: {} }' })
  const token = await mint('alice')
  for (let count = 0; count < 5; count++) await submit(token, `sandbox:drop-after, the ${count}.`)
  const all = (await admin('/unknown')).json.items
  t.equal(all.length, 5)
  const paged = []
  for (let query = '?limit=2', pages = 0; ; pages++) {
    const { items, next } = (await admin(`/unknown${query}`)).json
    t.ok(items.length <= 2)
    paged.push(...items)
    if (next === null) break
    t.ok(pages < 5)
    t.match(
      await admin(`/audit?cursor=${encodeURIComponent(next)}`),
      { status: 400, json: { message: /cursor/ } },
      'a cursor is of its own list'
    )
    query = `?limit=2&cursor=${encodeURIComponent(next)}`
  }
  t.same(paged, all)
  const [newest, oldest] = [(await admin('/audit?limit=1')).json, (await admin('/audit')).json.items.at(-1)]
  t.equal(newest.items.length, 1)
  t.equal(oldest.kind, 'settings', 'the newest is first')
})

t.test('another method on an admin route is a 405', async t => {
  const { admin } = await start(t)
  t.match(await admin('/usage', { method: 'DELETE' }), { status: 405, error: 'GW_METHOD_NOT_ALLOWED' })
  t.equal((await admin('/credits')).headers.get('allow'), 'POST')
})
