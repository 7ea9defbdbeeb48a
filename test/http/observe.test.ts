import { openSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { Histogram, Registry } from 'prom-client'
import t, { type Test } from 'tap'
import { signedSessions } from '../../src/adapters/signed-sessions.ts'
import { Secret } from '../../src/domain/secret.ts'
import { createGateway } from '../../src/gateway.ts'
import { RequestState } from '../../src/http/context.ts'
import { metrics, programLog } from '../../src/http/observe.ts'
import {
  adminToken, apiKey, issuerToken, sessionSecret, settingsFor, startGateway, taskMs, type TestGatewayOptions
} from '../helpers/gateway.ts'
import { holdStore, storeFile } from '../helpers/store-file.ts'
import { until } from '../helpers/until.ts'

t.test('an access line has the words that the operator searches for, and no others', async t => {
  const { mint, submit, lines, call } = await startGateway(t)
  const token = await mint('alice')
  const { taskId } = (await submit(token)).json.data
  await call(`/nowhere/${token}?key=${token}`)
  const [minted, submitted, lost] = lines()
  t.match(minted, { operation: 'mintSession', stage: 'reply', granted: true, code: 'OK', status: 201, subject: null })
  t.same(Object.keys(submitted!), [
    'level',
    'time',
    'requestId',
    'operation',
    'method',
    'route',
    'stage',
    'granted',
    'code',
    'subject',
    'model',
    'taskId',
    'keyId',
    'status',
    'upstreamMs',
    'ms',
    'msg'
  ])
  t.match(submitted, { level: 30, msg: 'request', time: /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$/ })
  t.match(submitted, {
    operation: 'generateTask',
    route: '/api/v1/generateTask/:model',
    keyId: /^[0-9a-f]{8}$/,
    taskId
  })
  t.match(lost, {
    operation: 'none',
    route: 'none',
    stage: 'receive',
    granted: false,
    code: 'GW_NOT_FOUND',
    status: 404
  })
})

t.test('no name breaks out of its field in an access line', async t => {
  const { mint, status, submit, lines } = await startGateway(t)
  for (const name of ['"', '\\', '","stage":"admit', 'ü 𝄞']) {
    const token = await mint(name)
    const { taskId } = (await submit(token)).json.data
    await status(token, taskId)
    t.match(lines().at(-1), { subject: `app:${name}`, stage: 'reply', operation: 'statusTask' }, name)
  }
})

t.test('half of a character in a name is written as readers of UTF-8 see it, or some would refuse the line', async t => {
  const { status, log, time } = await startGateway(t)
  const sessions = signedSessions({ secrets: { current: [new Secret(sessionSecret)] }, now: time.now })
  const half = { subject: 'a\ud800b', plan: 'default', models: ['*'], scopes: ['tasks:read'], ttlSeconds: 60 } as const
  await status((await sessions.mint(half)).token, 'nothing')
  t.match(log.at(-1), { operation: 'statusTask', subject: 'app:a\ufffdb' })
})

t.test('an OPTIONS that is no preflight is of no route', async t => {
  const { call, lines } = await startGateway(t)
  await call('/gateway/session', { method: 'OPTIONS' })
  t.match(lines(), [{ operation: 'none', method: 'OPTIONS', route: 'none', code: 'GW_NOT_FOUND' }])
})

t.test('a log that is for warnings has no access lines', async t => {
  const { call, log } = await startGateway(t, { env: { LOG_LEVEL: 'warn' } })
  t.equal((await call('/livez')).status, 200)
  t.same(log, [])
})

t.test('each request ends at the stage that refused it', async t => {
  const { mint, submit, lines, call, status } = await startGateway(t, { config: 'plans: { default: { credits: 0 } }' })
  const token = await mint('alice')
  await call('/api/v1/generateTask/nano-banana', { body: {} })
  await status(token, 'nobody')
  await submit(token)
  t.same(lines().slice(1).map(({ stage, code, granted }) => ({ stage, code, granted })), [
    { stage: 'authenticate', code: 'GW_NO_SESSION', granted: false },
    { stage: 'authorize', code: 'GW_TASK_NOT_FOUND', granted: false },
    { stage: 'admit', code: 'GW_CREDITS_EXHAUSTED', granted: false }
  ])
  const other = await startGateway(t, {})
  await other.submit(await other.mint('bob'), 'sandbox:drop-after')
  t.match(other.lines()[1], { stage: 'settle', code: 'GW_OUTCOME_UNKNOWN', granted: true })
})

t.test('a bug is a 500 with a fixed sentence; what it was is in the log', async t => {
  const { origin, log } = await startBroken(t)
  const reply = await fetch(`${origin}/broken`)
  t.equal(reply.status, 500)
  t.match(await reply.json(), {
    code: 500,
    message: 'Something went wrong in the gateway.',
    error: { code: 'GW_INTERNAL' }
  })
  t.match(
    log.find(line => line.level === 50),
    { err: { message: 'outer', cause: { message: 'inner', code: 'E_INNER' } } }
  )
  t.notMatch(JSON.stringify(log), /a secret field/)
  t.equal((await fetch(`${origin}/livez`)).status, 200)
})

/** A gateway with one route more, which fails as only a bug can. */
async function startBroken (t: Parameters<typeof settingsFor>[0]) {
  const log: Array<Record<string, any>> = []
  const gateway = await createGateway(settingsFor(t, 'http://127.0.0.1:9', {}), {
    logTo: {
      write: line => {
        log.push(JSON.parse(line))
      }
    }
  })
  t.teardown(() => gateway.close())
  gateway.app.get('/broken', async () => {
    throw Object.assign(
      new Error('outer', { cause: Object.assign(new Error('inner'), { code: 'E_INNER', headers: 'a secret field' }) }),
      { token: 'a secret field' }
    )
  })
  return { origin: await gateway.listen(), log }
}

t.test('the access lines of a turn go out at its end, in their order', async t => {
  const file = join(t.testdir(), 'log')
  const { lines } = programLog({ level: 'info', buffered: false, destination: openSync(file, 'w') })
  for (const line of ['one\n', 'two\n']) lines.write(line)
  t.equal(readFileSync(file, 'utf8'), '')
  await new Promise(resolve => setImmediate(resolve))
  t.equal(readFileSync(file, 'utf8'), 'one\ntwo\n')
})

t.test('lines go out at once to a terminal, and in blocks to anything else', async t => {
  const folder = t.testdir()
  for (const buffered of [false, true]) {
    const file = join(folder, `buffered-${buffered}`)
    const { log } = programLog({ level: 'info', buffered, destination: openSync(file, 'w') })
    log.info('one line')
    t.equal(readFileSync(file, 'utf8') === '', buffered)
    log.flush()
    t.match(readFileSync(file, 'utf8'), /"msg":"one line"/)
  }
})

t.test('a path that can not be decoded has its line as well', async t => {
  const { call, lines } = await startGateway(t)
  t.match(await call('/gateway/%zz'), { status: 400, error: 'GW_BAD_REQUEST' })
  t.match(lines()[0], { status: 400, code: 'GW_BAD_REQUEST', stage: 'receive', route: 'none' })
})

const env = { GATEWAY_ADMIN_TOKEN: adminToken }

async function startWithMetrics (test: Test, options: TestGatewayOptions = {}) {
  const gateway = await startGateway(test, { env, ...options })
  const scrape = async () => (await gateway.call('/metrics', { token: adminToken })).text
  /** The number of a row, or `undefined` when it is not there. */
  const value = async (row: string): Promise<number | undefined> => {
    const line = (await scrape()).split('\n').find(line => line.startsWith(`${row} `))
    return line === undefined ? undefined : Number(line.slice(row.length + 1))
  }
  return { ...gateway, scrape, value }
}

t.test('the metrics are in Prometheus\' text format, Node\'s own among them', async t => {
  const { call } = await startWithMetrics(t)
  const { headers, text } = await call('/metrics', { token: adminToken })
  t.equal(headers.get('content-type'), 'text/plain; version=0.0.4; charset=utf-8')
  const names = Array.from(text.matchAll(/^# TYPE (\w+) (\w+)$/gm), ([, name, type]) => `${name} ${type}`)
  t.strictSame(names.filter(name => name.startsWith('gateway_')).sort(), [
    'gateway_alarms gauge',
    'gateway_credits_total counter',
    'gateway_event_stream_seconds histogram',
    'gateway_event_streams gauge',
    'gateway_keys gauge',
    'gateway_request_seconds histogram',
    'gateway_requests_total counter',
    'gateway_store_up gauge',
    'gateway_unknown_outcomes_total counter',
    'gateway_upstream_seconds histogram'
  ])
  for (const name of [
    'process_cpu_seconds_total counter',
    'nodejs_eventloop_lag_p99_seconds gauge',
    'nodejs_heap_size_used_bytes gauge'
  ]) { t.ok(names.includes(name), name) }
  t.equal(new Set(names).size, names.length)
  t.notOk(/ nan$/im.test(text), 'each value is a number')
  for (const line of text.split('\n')) t.ok(/^(?:#.*|[a-z_0-9]+(?:\{(?:\w+="[^"]*",?)+\})? \S+)?$/.test(line), line)
})

t.test('a time is told as the library for metrics would tell it', async t => {
  const { ended, scrape } = metrics(10_000)
  const registers = [new Registry()]
  const name = 'gateway_request_seconds'
  const expected = new Histogram({
    name,
    registers,
    help: 'From arrival to the end of all work.',
    labelNames: ['operation'],
    buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 11]
  })
  for (const ms of [0, 0.25, 1, 1.5, 42, 10_000, 12_345.75]) {
    for (const operation of ['generateTask', 'statusTask']) {
      const call = new RequestState(() => {})
      Object.assign(call, { config: { operation }, durationMs: ms })
      ended({ call })
      expected.observe({ operation }, ms / 1000)
    }
  }
  const text = await scrape()
  t.ok(text.includes(await registers[0]!.metrics()), text)
})

t.test('each request is counted by operation, by the stage where it ended, and by code', async t => {
  const { call, mint, submit, status, time, value } = await startWithMetrics(t, { config: 'plans: { default: { credits: 1 } }' })
  const token = await mint('alice')
  const { taskId } = (await submit(token)).json.data
  await submit(token)
  await call('/gateway/session', { token: 'guess' })
  time.advance(taskMs)
  await status(token, taskId)
  await status(token, taskId)
  await status(token, 'nobody')
  await call(`/nowhere/${token}`)
  await call('/%zz')
  await call('/gateway/session', { token, method: 'PUT' })
  for (const [row, count] of [
    ['operation="mintSession",stage="reply",code="OK"', 1],
    ['operation="generateTask",stage="reply",code="OK"', 1],
    ['operation="generateTask",stage="admit",code="GW_CREDITS_EXHAUSTED"', 1],
    ['operation="statusTask",stage="reply",code="OK"', 2],
    ['operation="statusTask",stage="authorize",code="GW_TASK_NOT_FOUND"', 1],
    ['operation="showSession",stage="authenticate",code="GW_BAD_SESSION"', 1],
    ['operation="none",stage="receive",code="GW_NOT_FOUND"', 1],
    ['operation="none",stage="receive",code="GW_BAD_REQUEST"', 1],
    ['operation="methodNotAllowed",stage="receive",code="GW_METHOD_NOT_ALLOWED"', 1]
  ] as const) await until(row, async () => await value(`gateway_requests_total{${row}}`) === count)
  t.equal(await value('gateway_request_seconds_count{operation="generateTask"}'), 2)
  t.equal(await value('gateway_request_seconds_count{operation="statusTask"}'), 3)
  t.equal(await value('gateway_upstream_seconds_count{operation="generateTask"}'), 1, 'only what has waited for it')
  t.equal(
    await value('gateway_upstream_seconds_count{operation="statusTask"}'),
    1,
    'a finished task is answered from the ledger'
  )
  t.equal(await value('gateway_upstream_seconds_count{operation="mintSession"}'), undefined)
})

t.test(
  'the last bound of the request times lies above every time-out, and event streams are not among them',
  async t => {
    const { scrape, mint, origin, value, call } = await startWithMetrics(t, {
      config: 'plans: { default: {} }\nupstream: { headersMs: 600000 }'
    })
    const token = await mint('alice')
    await call('/gateway/session', { token })
    const controller = new AbortController()
    const stream = await fetch(`${origin}/gateway/events`, {
      headers: { authorization: `Bearer ${token}` },
      signal: controller.signal
    })
    t.equal(stream.status, 200)
    controller.abort()
    await until(
      'the stream is counted',
      async () => (await value('gateway_event_stream_seconds_count{operation="events"}')) === 1
    )
    t.equal(await value('gateway_request_seconds_count{operation="events"}'), undefined)
    await call('/gateway/events')
    await until(
      'one that is refused is a request',
      async () => (await value('gateway_request_seconds_count{operation="events"}')) === 1
    )
    const bounds = Array.from(
      (await scrape()).matchAll(/gateway_request_seconds_bucket\{le="([\d.]+)",operation="showSession"\}/g),
      ([, bound]) => Number(bound)
    )
    t.ok(bounds.at(-1)! > 600 + 60 + 60, `the last bound is ${bounds.at(-1)} s`)
    t.same(
      bounds,
      [...bounds].sort((one, other) => one - other)
    )
  }
)

t.test('no label has a subject, a task id, a model or a word of a caller\'s', async t => {
  const { call, mint, submit, scrape } = await startWithMetrics(t)
  const token = await mint('alice-the-subject')
  const { taskId } = (await submit(token, 'the-prompt', 'sora-2')).json.data
  await call('/the-path?the-query=1', { token, method: 'PATCH', headers: { 'x-the-header': 'x' } })
  await submit(token, 'sandbox:drop-after', 'suno')
  const rows = []
  for (let count = 0; count < 20; count++) {
    await call(`/the-path-${count}`, { method: 'POST' })
    await submit(token, 'x', `model-${count}`)
    await submit(await mint(`subject-${count}`))
    rows.push(Array.from((await scrape()).matchAll(/^gateway_/gm)).length)
  }
  const text = await scrape()
  for (const word of ['alice', taskId, 'the-', 'sora', 'suno', 'model-', 'subject-', token]) {
    t.notOk(text.includes(word), word)
  }
  t.equal(rows.at(-1), rows[1], 'and no number of callers makes more rows')
})

t.test('credits are counted by what became of them', async t => {
  const { mint, submit, status, time, value, gateway } = await startWithMetrics(t, {
    config: 'plans: { default: { credits: unlimited } }\nprices: { "*": 2.5 }\ntasks: { giveUpMs: 7200000 }'
  })
  const credits = (outcome: string) => value(`gateway_credits_total{operation="generateTask",outcome="${outcome}"}`)
  const token = await mint('alice')
  await submit(token)
  const failing = (await submit(token, 'sandbox:failed')).json.data.taskId
  await submit(token, 'sandbox:http-400')
  await submit(token, 'sandbox:drop-after')
  t.equal(await value('gateway_unknown_outcomes_total'), 1)
  t.equal(await credits('failed'), undefined)
  time.advance(taskMs)
  await Promise.all([status(token, failing), status(token, failing)])
  t.equal(await credits('reserved'), 10)
  t.equal(await credits('charged'), 5)
  t.equal(await credits('released'), 2.5)
  t.equal(await credits('unknown'), 2.5)
  t.equal(await credits('failed'), 2.5, 'a task fails once')
  await submit(token, 'sandbox:forever')
  time.advance(7_200_000)
  await gateway.tidy()
  t.equal(await value('gateway_unknown_outcomes_total'), 2, 'a task that has not ended in time')
})

t.test('the keys are counted by state', async t => {
  const { mint, submit, value, sandbox } = await startWithMetrics(t, {
    keys: ['first-key-of-the-operator-1', 'second-key-of-the-operator-2']
  })
  t.equal(await value('gateway_keys{state="ready"}'), 2)
  t.equal(await value('gateway_keys{state="refused"}'), 0)
  sandbox.revoke('first-key-of-the-operator-1')
  await submit(await mint('alice'))
  t.equal(await value('gateway_keys{state="ready"}'), 1)
  t.equal(await value('gateway_keys{state="refused"}'), 1)
  t.equal(await value('gateway_keys{state="empty"}'), 0)
})

t.test('an alarm that is on is a number as well, until it is over', async t => {
  const { mint, submit, value, sandbox, time } = await startWithMetrics(t)
  const benched = () => value('gateway_alarms{kind="key-benched"}')
  t.equal(await benched(), 0)
  t.equal(await value('gateway_alarms{kind="unknown-outcome"}'), 0)
  const token = await mint('alice')
  sandbox.revoke(apiKey)
  await submit(token)
  t.equal(await benched(), 1)
  t.equal(await value('gateway_alarms{kind="store-down"}'), 0)
  sandbox.restore(apiKey)
  time.advance(10_000)
  await until('the key is back', async () => (await submit(token)).status === 200)
  t.equal(await benched(), 0)
})

t.test('they say whether the store serves', async t => {
  const store = storeFile(t)
  const { mint, submit, value, time } = await startWithMetrics(t, { store })
  const token = await mint('alice')
  t.equal(await value('gateway_store_up'), 1)
  const letGo = holdStore(t, store)
  t.equal((await submit(token)).error, 'GW_STORE_DOWN')
  time.advance(1000) // it is asked once a second
  t.equal(await value('gateway_store_up'), 0)
  letGo()
  time.advance(1000)
  t.equal(await value('gateway_store_up'), 1)
})

t.test('on the main port the metrics are throttled like any route', async t => {
  const { call } = await startWithMetrics(t, { config: 'plans: { default: {} }\nlimits: { addressRequestsPerMinute: 3 }' })
  for (let count = 0; count < 3; count++) t.equal((await call('/metrics', { token: adminToken })).status, 200)
  t.match(await call('/metrics', { token: adminToken }), { status: 429, error: 'GW_THROTTLED' })
})

async function startWithTrail (test: Test, options: TestGatewayOptions = {}) {
  const gateway = await startGateway(test, { env, ...options })
  const entries = async (kind?: string): Promise<any[]> => {
    const { json } = await gateway.call('/gateway/admin/audit?limit=500', { token: adminToken })
    return json.items.filter((entry: any) => kind === undefined || entry.kind === kind)
  }
  return { ...gateway, entries }
}

t.test('minting and logging out are in the audit trail', async t => {
  const { mint, call, entries, time } = await startWithTrail(t)
  const token = await mint('alice', { ttlSeconds: 60, models: ['sora-2', 'suno'], scopes: ['tasks:read'] })
  await call('/gateway/session', { token, method: 'DELETE' })
  const at = new Date(time.now()).toISOString()
  const [revoked, minted] = await entries()
  t.strictSame(minted, {
    at,
    kind: 'mint',
    actor: 'issuer',
    subject: 'app:alice',
    detail: { session: minted.detail.session, plan: 'default', ttlSeconds: 60, models: 2, scopes: 'tasks:read' }
  })
  t.match(minted.detail.session, /^[0-9a-f-]{36}$/)
  t.strictSame(revoked, {
    at,
    kind: 'revoke',
    actor: 'app:alice',
    subject: 'app:alice',
    detail: { session: minted.detail.session }
  })
})

t.test('what the operator does is in the audit trail, and what was not done is not', async t => {
  const { mint, call, entries, submit } = await startWithTrail(t)
  await submit(await mint('alice'), 'sandbox:drop-after')
  const admin = (path: string, body?: object) =>
    call(`/gateway/admin${path}`, { token: adminToken, method: 'POST', body })
  await admin('/credits', { subject: 'app:alice', credits: 12.5 })
  await admin('/credits', { subject: 'alice', credits: 12.5 })
  const [{ id }] = (await call('/gateway/admin/unknown', { token: adminToken })).json.items
  await admin(`/unknown/${id}/release`)
  await admin(`/unknown/${id}/release`)
  await admin('/unknown/none/release')
  const [released, granted, ...more] = await entries()
  t.match(granted, { kind: 'grant', actor: 'admin', subject: 'app:alice', detail: { credits: 12.5 } })
  t.match(released, {
    kind: 'release',
    actor: 'admin',
    subject: 'app:alice',
    detail: { id, taskId: null, model: 'nano-banana', credits: 1 }
  })
  t.same(
    more.map(({ kind }) => kind),
    ['mint', 'settings']
  )
})

t.test('refusals are counted, and written once a round', async t => {
  const { mint, call, entries, submit, gateway } = await startWithTrail(t)
  const token = await mint('alice', { models: ['suno'] })
  for (let count = 0; count < 3; count++) await submit(token)
  await call('/gateway/session', { token: 'forged.token.x' })
  await call('/gateway/session', { token: '' })
  await call('/gateway/session')
  await call('/nowhere')
  await submit(token, 'x', 'suno')
  t.same(await entries('refusals'), [])
  await until('a round has written them', async () => {
    await gateway.tidy()
    return (await entries('refusals')).length >= 4
  })
  const refusals = (await entries('refusals'))
    .map(({ actor, subject, detail }) => ({ actor, subject, ...detail }))
    .sort((a, b) => (a.code < b.code ? -1 : 1))
  t.strictSame(refusals, [
    { actor: 'gateway', subject: null, code: 'GW_BAD_SESSION', count: 2, authenticate: 2 },
    { actor: 'gateway', subject: 'app:alice', code: 'GW_MODEL_DENIED', count: 3, authorize: 3 },
    { actor: 'gateway', subject: null, code: 'GW_NOT_FOUND', count: 1, receive: 1 },
    { actor: 'gateway', subject: null, code: 'GW_NO_SESSION', count: 1, authenticate: 1 }
  ])
  await gateway.tidy()
  t.equal((await entries('refusals')).length, 4, 'and not again')
})

t.test(
  'the settings are written down at the first start, and then what has changed, with fingerprints for secrets',
  async t => {
    const store = storeFile(t)
    const other = 'another-issuer-token-0002'
    for (const more of [
      {},
      {},
      { LOG_LEVEL: 'fatal', GATEWAY_ISSUER_TOKEN: other },
      { LOG_LEVEL: 'fatal', GATEWAY_ISSUER_TOKEN: other }
    ]) {
      const { gateway } = await startGateway(t, {
        store,
        env: { ...env, ...more, GATEWAY_CONFIG: 'gateway.yaml', APIXO_BASE_URL: 'http://127.0.0.1:9' }
      })
      await gateway.close()
    }
    const { entries } = await startWithTrail(t, {
      store,
      env: { ...env, LOG_LEVEL: 'fatal', GATEWAY_ISSUER_TOKEN: other, APIXO_BASE_URL: 'http://127.0.0.1:9' }
    })
    const [changed, first, ...more] = await entries('settings')
    t.same(more, [])
    t.match(first, { actor: 'gateway', subject: null, detail: { changed: null, digest: String, snapshot: String } })
    t.strictSame(Object.keys(changed.detail).sort(), [
      'GATEWAY_ISSUER_TOKEN',
      'LOG_LEVEL',
      'changed',
      'digest',
      'snapshot'
    ])
    t.match(changed.detail, {
      changed: 2,
      LOG_LEVEL: 'trace -> fatal',
      GATEWAY_ISSUER_TOKEN: /^sha256:[0-9a-f]{8} -> sha256:[0-9a-f]{8}$/
    })
  }
)

t.test('no session begins or ends, and no credits are given, while the audit trail can not be written', async t => {
  const store = storeFile(t)
  const { mint, call, entries, gateway, time } = await startWithTrail(t, { store })
  const token = await mint('alice')
  const letGo = holdStore(t, store)
  const down = { status: 503, error: 'GW_STORE_DOWN' }
  t.equal((await call('/gateway/tasks?x=1', { token })).status, 400)
  t.match(await call('/gateway/sessions', { token: issuerToken, body: { subject: 'bob' } }), down)
  t.match(await call('/gateway/session', { token, method: 'DELETE' }), down)
  t.match(await call('/gateway/admin/credits', { token: adminToken, body: { subject: 'app:alice', credits: 1 } }), down)
  await t.rejects(gateway.tidy(), { code: 'GW_STORE_DOWN' })
  letGo()
  time.advance(1000) // it is asked once a second
  await until('the store is back', async () => (await call('/readyz')).status === 200)
  t.equal((await call('/gateway/session', { token })).status, 200, 'the session is still there')
  t.match(
    (await call('/gateway/admin/credits', { token: adminToken, body: { subject: 'app:alice', credits: 1 } })).json,
    { granted: 1 }
  )
  await gateway.tidy()
  t.strictSame((await entries('refusals')).map(({ subject, detail }) => ({ subject, ...detail })), [
    { subject: 'app:alice', code: 'GW_BAD_REQUEST', count: 1, authorize: 1 }
  ], 'what was refused meanwhile is not forgotten, and the outage is no refusal')
})

t.test('no token, secret or prompt is in the audit trail', async t => {
  const store = storeFile(t)
  const { mint, call, submit, gateway } = await startWithTrail(t, { store, config: 'plans: { default: { credits: 1 } }' })
  const token = await mint('alice')
  await submit(token, 'a-very-private-prompt sandbox:drop-after')
  await submit(token, 'a-very-private-prompt')
  for (const path of ['/gateway/session?key=a-query-token', '/a-very-private-path', '/gateway/admin/usage']) {
    await call(path, { token })
  }
  await call('/gateway/session', { token: 'a-forged-token' })
  await call('/gateway/session', { token, method: 'DELETE' })
  await call('/gateway/session', { token })
  const [{ id }] = (await call('/gateway/admin/unknown', { token: adminToken })).json.items
  await call(`/gateway/admin/unknown/${id}/release`, { token: adminToken, method: 'POST' })
  await call('/gateway/admin/credits', { token: adminToken, body: { subject: 'app:alice', credits: 1 } })
  await gateway.tidy()
  await gateway.close()
  const db = new DatabaseSync(store)
  const rows = db.prepare('SELECT * FROM audit').all()
  db.close()
  const text = JSON.stringify(rows)
  t.ok(rows.length >= 9)
  for (const secret of [
    token,
    ...token.split('.').slice(1),
    adminToken,
    issuerToken,
    apiKey,
    sessionSecret,
    'private',
    'a-query-token',
    'a-forged-token'
  ]) {
    t.notOk(text.includes(secret), secret)
  }
})
