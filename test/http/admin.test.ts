import { SignJWT } from 'jose'
import type { AddressInfo } from 'node:net'
import t, { type Test } from 'tap'
import { Secret } from '../../src/domain/secret.ts'
import { fromOwnPage, swap } from '../helpers/cookies.ts'
import {
  adminToken, type CallOptions, issuerToken, startGateway, taskMs, type TestGatewayOptions
} from '../helpers/gateway.ts'
import { secretFiles } from '../helpers/secret-files.ts'
import { holdStore, storeFile } from '../helpers/store-file.ts'
import { until } from '../helpers/until.ts'

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

t.test('an extra counts until its end, a grant of what is prepaid until it is spent', async t => {
  const { admin, mint, submit, call, time } = await start(t, {
    config: `
plans: { default: { credits: 2, ceilings: { month: 9 } }, team: { credits: 100, pool: design } }
pools: { design: { ceilings: { none: 0, month: 2 } } }
gateway: { ceilings: { month: 100 } }
prices: { "*": 1 }`
  })
  const give = (body: object) => admin('/extras', { body })
  const until = new Date(time.now() + 600_000).toISOString()
  const [alice, bob] = [await mint('alice'), await mint('bob', { plan: 'team' })]
  t.match(await submit(bob), { status: 402, text: /"level":"pool","resetsAt":null/ })
  t.strictSame((await give({ subject: 'app:alice', credits: 1.5, until })).json, {
    subject: 'app:alice', total: 1.5, until
  })
  t.match(await give({ pool: 'design', credits: 3 }), { status: 201, json: { pool: 'design', total: 3, until: null } })
  t.match((await give({ pool: 'design', credits: 1, until })).json, { total: 1, until })
  t.strictSame((await give({ gateway: true, credits: 5, until })).json, { gateway: true, total: 5, until })
  t.match((await call('/gateway/session', { token: alice })).json, {
    credits: { limit: 3.5, left: 3.5 }, above: []
  })
  for (const token of [alice, alice, alice, bob, bob, bob]) t.equal((await submit(token)).status, 200)
  t.match(await submit(alice), { status: 402 })
  t.match(await submit(bob), { status: 402, text: /"level":"pool","resetsAt":"2026-02-01/ })
  time.advance(600_000)
  t.match((await call('/gateway/session', { token: alice })).json, { credits: { limit: 2, used: 3, left: 0 } })
  t.match((await admin('/audit')).json.items.filter(({ kind }: any) => kind === 'extra' || kind === 'grant'), [
    { kind: 'extra', subject: null, detail: { credits: 5, gateway: true, until } },
    { kind: 'extra', subject: null, detail: { credits: 1, pool: 'design', until } },
    { kind: 'grant', subject: null, detail: { credits: 3, pool: 'design' } },
    { kind: 'extra', actor: 'admin', subject: 'app:alice', detail: { credits: 1.5, until } }
  ])
})

t.test('an extra that makes no sense is a 400 that says what to change', async t => {
  const { admin } = await start(t, { config: 'plans: { default: {} }\npools: { a: { ceilings: { day: 1 } } }' })
  const until = '2099-01-01'
  for (const [body, why] of [
    [{ credits: 1, until }, /^Say whose it is to be/],
    [{ pool: 'a', gateway: true, credits: 1, until }, /^Say whose/],
    [{ gateway: false, credits: 1, until }, /^Say whose/],
    [{ subject: 'alice', credits: 1, until }, /: app:alice\.$/],
    [{ subject: 'app:alice', credits: 1 }, /until must say when/],
    [{ pool: 'b', credits: 1, until }, 'There is no pool "b": pools are "a".'],
    [{ pool: 'toString', credits: 1, until }, /^There is no pool/],
    [{ pool: 'a', credits: 1 }, /^It would not count: pools\.a has no ceilings\.none/],
    [{ gateway: true, credits: 1 }, /^It would not count: gateway/],
    [{ pool: 'a', credits: 0, until }, /above 0/],
    [{ pool: 'a', credits: 1e9, until }, /at most/],
    [{ pool: 'a', credits: 1, until: '2001-01-01' }, /^until must be an instant to come/],
    [{ pool: 'a', credits: 1, until: '2099-02-30' }, /^until/],
    [{ pool: 'a', credits: 1, until: '7d' }, /^until/],
    [{ plan: 'default', credits: 1, until }, /"plan"/]
  ] as const) {
    t.match(await admin('/extras', { body }), { status: 400, json: { message: why } }, JSON.stringify(body))
  }
  t.same((await admin('/audit')).json.items.filter(({ kind }: any) => kind === 'extra' || kind === 'grant'), [])
})

t.test('where there are no pools, an extra for one says so', async t => {
  const { admin } = await start(t)
  const body = { pool: 'a', credits: 1, until: '2099-01-01' }
  t.match((await admin('/extras', { body })).json, { message: 'There is no pool "a": the config file has none.' })
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

const keys = ['apixo-key-number-one', 'apixo-key-number-two'] as const
const ids = keys.map(key => new Secret(key).fingerprint)
const probes = (calls: ReadonlyArray<{ readonly url: string }>) =>
  calls.filter(({ url }) => url.endsWith('/current-balance')).length

async function startWithKeys (t: Test, options: TestGatewayOptions = {}) {
  const gateway = await startGateway(t, { keys, ...options, env: { GATEWAY_ADMIN_TOKEN: adminToken, ...options.env } })
  const list = (query = '', token = adminToken) => gateway.call(`/gateway/admin/keys${query}`, { token })
  const ago = (ms: number) => new Date(gateway.time.now() - ms).toISOString()
  return { ...gateway, list, ago }
}

t.test('the operator sees each key by its fingerprint, and since when it is as it is', async t => {
  const { list, submit, mint, sandbox, time, ago } = await startWithKeys(t)
  const token = await mint('alice')
  t.same((await list()).json, ids.map(keyId => ({ keyId, state: 'ready', since: ago(0) })))
  time.advance(1000)
  sandbox.revoke(keys[0])
  t.equal((await submit(token)).status, 200)
  time.advance(1000)
  t.same((await list()).json, [
    { keyId: ids[0], state: 'benched', reason: 'refused', since: ago(1000) },
    { keyId: ids[1], state: 'ready', since: ago(2000) }
  ])
  t.equal(probes(sandbox.calls), 1, 'looking costs nothing')
})

t.test('a key that rests is shown with the end of its rest', async t => {
  const { list, submit, mint, ago } = await startWithKeys(t)
  t.equal((await submit(await mint('alice'), 'sandbox:http-429')).status, 429)
  t.same((await list()).json, [
    { keyId: ids[0], state: 'resting', since: ago(0), restingUntil: ago(-7000) },
    { keyId: ids[1], state: 'ready', since: ago(0) }
  ])
})

t.test('balances are asked for on demand, once in ten seconds for each key, however many ask', async t => {
  const { list, sandbox, time } = await startWithKeys(t)
  const asked = await Promise.all(Array.from({ length: 20 }, () => list('?balance=true')))
  for (const { json } of asked) t.match(json, [{ state: 'ready', balance: 100 }, { state: 'ready', balance: 100 }])
  t.equal(probes(sandbox.calls), 2)
  sandbox.balanceUsd = 42
  time.advance(9999)
  t.match((await list('?balance=true')).json, [{ balance: 100 }, { balance: 100 }])
  t.equal(probes(sandbox.calls), 2)
  time.advance(1)
  t.match((await list('?balance=true')).json, [{ balance: 42 }, { balance: 42 }])
  for (const query of ['', '?balance=false']) {
    t.notOk('balance' in (await list(query)).json[0], 'not for who does not ask')
  }
  t.equal(probes(sandbox.calls), 4)
})

t.test('a balance that is not told is null, and asking finds the key that is refused or has no money', async t => {
  const { list, sandbox, log, time } = await startWithKeys(t)
  sandbox.revoke(keys[1])
  sandbox.balanceUsd = 0
  t.match((await list('?balance=true')).json, [
    { keyId: ids[0], state: 'benched', reason: 'empty', balance: 0 },
    { keyId: ids[1], state: 'benched', reason: 'refused', balance: null }
  ])
  t.equal(log.filter(line => line.alarm === 'key-benched').length, 2)
  time.advance(10_000)
  for (let count = 0; count < 2; count++) {
    sandbox.next((_request, response) => {
      response.destroy()
    })
  }
  t.match(
    (await list('?balance=true')).json,
    [
      { reason: 'empty', balance: null },
      { reason: 'refused', balance: null }
    ],
    'the upstream does not answer'
  )
})

t.test('nobody but the operator is told, and no key is shown', async t => {
  const { list, call, mint, log } = await startWithKeys(t)
  t.match(await list('?balance=true', await mint('alice')), { status: 401, error: 'GW_BAD_SESSION' })
  t.match(await call('/gateway/admin/keys'), { status: 401, error: 'GW_NO_SESSION' })
  const { text } = await list('?balance=true')
  for (const key of keys) {
    t.notMatch(text, key)
    t.notMatch(JSON.stringify(log), key)
  }
  const plain = await startGateway(t)
  t.match(await plain.call('/gateway/admin/keys', { token: adminToken }), { status: 404, error: 'GW_NOT_FOUND' })
})

t.test('a query that makes no sense is a 400', async t => {
  const { list } = await startWithKeys(t)
  for (const query of ['?balance=yes', '?balance=', '?balance=true&balance=true', '?key=1', '?balances=true']) {
    t.match(await list(query), { status: 400, error: 'GW_BAD_REQUEST' }, query)
  }
})

t.test('with an admin port the keys are shown there, and nowhere else', async t => {
  const { call, gateway } = await startWithKeys(t, { env: { GATEWAY_ADMIN_PORT: '0' } })
  t.equal((await call('/gateway/admin/keys', { token: adminToken })).status, 404)
  const { port } = gateway.adminApp!.server.address() as AddressInfo
  const response = await fetch(`http://127.0.0.1:${port}/gateway/admin/keys`, {
    headers: { authorization: `Bearer ${adminToken}` }
  })
  t.match(await response.json(), [{ keyId: ids[0] }, { keyId: ids[1] }])
})

const shop = 'https://shop.example/'
const secret = 'q7Zc0vT2mLx9RfWk4JbN8sHd1yUeGaPo-shared-with-the-shop'
const [daySeconds, path] = [86_400, '/gateway/admin/revocations']
const refused = { status: 401, error: 'GW_BAD_SESSION' }
const plans = 'plans: { default: {} }\nlimits: { addressFailuresPerMinute: 10000 }'

/** A gateway with an operator who ends sessions. */
async function startWithPlans (t: Test, options: TestGatewayOptions = {}) {
  const gateway = await startGateway(t, { config: plans, env: { GATEWAY_ADMIN_TOKEN: adminToken }, ...options })
  const { call } = gateway
  const who = (token: string) => call('/gateway/session', { token })
  return {
    ...gateway,
    who,
    statusesOf: (...tokens: readonly string[]) => Promise.all(tokens.map(async token => (await who(token)).status)),
    end: (body: unknown, more: CallOptions = {}) => call(path, { token: adminToken, body, ...more }),
    /** The newest first. */
    async entries (kind: string): Promise<any[]> {
      const { json } = await call('/gateway/admin/audit', { token: adminToken })
      return json.items.filter((entry: any) => entry.kind === kind)
    }
  }
}

t.test('all sessions of a subject end, in headers and in cookies, and no later one and nobody else\'s', async t => {
  const it = await startWithPlans(t)
  const { end, mint, call, statusesOf, time, entries } = it
  const [one, other, bob] = [await mint('alice'), await mint('alice', { uses: 5 }), await mint('bob')]
  const cookie = await swap(it, await mint('alice'))
  const { status, json } = await end({ subject: 'app:alice' })
  const before = new Date(time.now()).toISOString()
  t.strictSame([status, json], [201, { subject: 'app:alice', before }])
  const sameInstant = await mint('alice')
  t.same(
    await statusesOf(one, other, sameInstant, bob),
    [401, 401, 200, 200],
    'one that is minted after them is good, in the same millisecond too'
  )
  t.match(await call('/gateway/session', fromOwnPage(cookie)), refused)
  time.advance(1)
  t.same(await statusesOf(await mint('alice'), one), [200, 401])
  t.match(await entries('revoke'), [{ at: before, actor: 'admin', subject: 'app:alice', detail: { everywhere: true } }])
})

t.test('one session ends by the id that the audit trail has, with the cookie it was swapped for', async t => {
  const it = await startWithPlans(t)
  const { end, mint, call, statusesOf, entries, lines } = it
  const [one, other] = [await mint('alice'), await mint('alice')]
  const [, { detail: { session } }] = await entries('mint')
  const reply = await end({ session })
  t.strictSame([reply.status, reply.json], [201, { session }])
  t.same(await statusesOf(one, other), [401, 200])
  t.match(await entries('revoke'), [{ actor: 'admin', subject: null, detail: { session } }])
  const [swapped, kept] = [await swap(it, other), await swap(it, await mint('bob'))]
  const [, , { detail: { insteadOf } }] = await entries('mint')
  t.equal((await end({ session: insteadOf })).status, 201)
  t.match(await call('/gateway/session', fromOwnPage(swapped)), refused)
  t.equal((await call('/gateway/session', fromOwnPage(kept))).status, 200)
  const [{ detail: { session: cookieId } }] = await entries('mint')
  await end({ session: cookieId })
  t.match(await call('/gateway/session', fromOwnPage(kept)), refused, 'or by its own')
  t.match(
    lines().filter(({ operation }) => operation === 'endSessions'),
    Array(3).fill({ route: path, status: 201, subject: null })
  )
})

t.test('tokens of people end by their id, and with all sessions of their subject', async t => {
  const { end, call, statusesOf, time } = await startWithPlans(t)
  const create = async (subject: string) =>
    (await call('/gateway/admin/tokens', { token: adminToken, body: { subject } })).json
  const [one, other, bob] = [await create('alice'), await create('alice'), await create('bob')]
  const tokens = [one, other, bob].map(({ token }) => token as string)
  t.same(await statusesOf(...tokens), [200, 200, 200])
  t.equal((await end({ session: one.id })).status, 201)
  time.advance(1000)
  t.same(await statusesOf(...tokens), [401, 200, 200])
  t.equal((await end({ subject: 'token:alice' })).status, 201)
  t.same(await statusesOf(...tokens), [401, 401, 200])
  const { json } = await call('/gateway/admin/tokens', { token: adminToken })
  t.same(json.items.map(({ state }: any) => state), ['active', 'revoked', 'revoked'])
})

/** A gateway that takes tokens of a shop, under its own name or another. */
async function startShop (t: Test, prefix: string) {
  const secretFile = secretFiles(t, { shop: secret }).path('shop')
  const gateway = await startWithPlans(t, {
    config: `${plans}\nissuers: [{ issuer: "${shop}", secretFile: "${secretFile}", audience: app, algorithms: [HS256]${prefix === shop ? '' : `, subjectPrefix: ${prefix}`} }]`
  })
  const seconds = () => Math.floor(gateway.time.now() / 1000)
  const print = (more: object = {}, lastsSeconds = 600) =>
    new SignJWT({ iss: shop, sub: 'alice', aud: 'app', iat: seconds(), exp: seconds() + lastsSeconds, ...more })
      .setProtectedHeader({ alg: 'HS256' })
      .sign(Buffer.from(secret))
  return { ...gateway, print, seconds }
}

for (const prefix of [shop, 'shop']) {
  t.test(`sessions of another issuer, under ${prefix}, end by subject and by id`, async t => {
    const { end, print, statusesOf, time, seconds } = await startShop(t, prefix)
    const [one, two, unnamed, undated, bob] = await Promise.all([
      print({ jti: 'one' }),
      print({ jti: 'two' }),
      print(),
      print({ iat: undefined }),
      print({ sub: 'bob' })
    ])
    const all = [one, two, unnamed, undated, bob] as const
    t.same(await statusesOf(...all), [200, 200, 200, 200, 200])
    t.equal((await end({ session: `${prefix}:one` })).status, 201)
    t.same(await statusesOf(...all), [401, 200, 200, 200, 200])
    t.equal((await end({ subject: `${prefix}:alice` })).status, 201)
    t.same(await statusesOf(...all), [401, 401, 401, 401, 200], 'also what does not say when it was issued')
    time.advance(1000)
    t.same(
      await statusesOf(
        await print(),
        await print({ iat: undefined, exp: seconds() + 700 }),
        await print({ iat: undefined, nbf: seconds() })
      ),
      [200, 401, 200]
    )
  })
}

t.test('a token of another issuer that lasts for years does not come back', async t => {
  const { end, print, statusesOf, time, call, who } = await startShop(t, 'shop')
  const [long, other, bob] = [
    await print({}, 3650 * daySeconds),
    await print({ sub: 'bob' }, 300 * daySeconds),
    await print({ sub: 'bob' })
  ]
  t.same(await statusesOf(long, other, bob), [200, 200, 200])
  await end({ subject: 'shop:alice' })
  t.equal((await call('/gateway/session?everywhere=true', { method: 'DELETE', token: bob })).status, 204)
  time.advance(299 * daySeconds * 1000)
  await end({ session: 'another' }) // what has ended by itself is forgotten with the next one
  t.same(await statusesOf(long, other), [401, 401], 'nor one of somebody who has logged out everywhere')
  time.advance(3000 * daySeconds * 1000)
  await end({ session: 'another' })
  t.match(await who(long), refused)
})

t.test('a request that does not say exactly what it ends is a 400, and ends nothing', async t => {
  const { end, mint, statusesOf, entries, call } = await startWithPlans(t)
  const token = await mint('alice')
  const [{ detail: { session } }] = await entries('mint')
  const one = /^Send one of the two: subject, or session/
  for (const [body, message] of [
    [{}, one],
    [{ subject: 'app:alice', session }, one],
    [{ subject: 'alice' }, /subject .*: app:alice\.$/],
    [{ subject: '' }, /subject/],
    [{ subject: null }, /subject/],
    [{ subject: ['app:alice'] }, /subject/],
    [{ session: '' }, /session/],
    [{ session: 7 }, /session/],
    [{ session: 'a\nb' }, /printable/],
    [{ session: 'x'.repeat(257) }, /256/],
    [{ session: token }, /never its token/],
    [{ session: 'app:alice' }, /as subject/],
    [{ session, everywhere: true }, /"everywhere"/],
    ['{"subject":"app:alice","subject":"app:bob"}', /subject/],
    [[], /body/]
  ] as const) {
    t.match(
      await end(body),
      { status: 400, error: 'GW_BAD_REQUEST', json: { message } },
      JSON.stringify(body).slice(0, 60)
    )
  }
  t.match(await end({ session }, { headers: { 'content-type': 'text/plain' } }), { status: 415 })
  t.match(await call(`${path}?subject=app:alice`, { token: adminToken, body: { session } }), {
    status: 400,
    json: { message: /"subject"/ }
  })
  t.match(await call(path, { token: adminToken, method: 'POST' }), { status: 400 })
  t.same(await statusesOf(token), [200])
  t.same(await entries('revoke'), [])
})

t.test('nobody but the operator ends sessions of others', async t => {
  const { end, mint, call, statusesOf } = await startWithPlans(t)
  const token = await mint('alice')
  for (const stranger of [token, issuerToken]) {
    t.match(await end({ subject: 'app:alice' }, { token: stranger }), refused)
  }
  t.match(await call(path, { body: { subject: 'app:alice' } }), { status: 401, error: 'GW_NO_SESSION' })
  t.equal((await call(path, { token: adminToken })).headers.get('allow'), 'POST')
  t.same(await statusesOf(token), [200])
  const closed = await startWithPlans(t, { env: {} })
  t.match(await closed.end({ subject: 'app:alice' }), { status: 404, error: 'GW_NOT_FOUND' })
})

t.test('what can not be written down ends nothing, and the operator hears so', async t => {
  const store = storeFile(t)
  const { end, mint, statusesOf, call } = await startWithPlans(t, { store })
  const token = await mint('alice')
  const letGo = holdStore(t, store)
  t.match(await end({ subject: 'app:alice' }), { status: 503, error: 'GW_STORE_DOWN' })
  t.match(await end({ session: 'one' }), { status: 503, error: 'GW_STORE_DOWN' })
  letGo()
  await until('the store is back', async () => (await call('/readyz')).status === 200)
  t.same(await statusesOf(token), [200])
  t.equal((await end({ subject: 'app:alice' })).status, 201)
  t.same(await statusesOf(token), [401])
})
