import t, { type Test } from 'tap'
import { adminToken, startGateway, taskMs, type TestGatewayOptions } from '../helpers/gateway.ts'
import { holdStore, storeFile } from '../helpers/store-file.ts'
import { until } from '../helpers/until.ts'

const env = { GATEWAY_ADMIN_TOKEN: adminToken }

async function start (test: Test, options: TestGatewayOptions = {}) {
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
  const { call } = await start(t)
  const { headers, text } = await call('/metrics', { token: adminToken })
  t.equal(headers.get('content-type'), 'text/plain; version=0.0.4; charset=utf-8')
  const names = Array.from(text.matchAll(/^# TYPE (\w+) (\w+)$/gm), ([, name, type]) => `${name} ${type}`)
  t.strictSame(names.filter(name => name.startsWith('gateway_')).sort(), [
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

t.test('each request is counted by operation, by the stage where it ended, and by code', async t => {
  const { call, mint, submit, status, time, value } = await start(t, { config: 'plans: { default: { credits: 1 } }' })
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
    const { scrape, mint, origin, value, call } = await start(t, {
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
  const { call, mint, submit, scrape } = await start(t)
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
  const { mint, submit, status, time, value, gateway } = await start(t, {
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
  const { mint, submit, value, sandbox } = await start(t, {
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

t.test('they say whether the store serves', async t => {
  const store = storeFile(t)
  const { mint, submit, value, time } = await start(t, { store })
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
  const { call } = await start(t, { config: 'plans: { default: {} }\nlimits: { addressRequestsPerMinute: 3 }' })
  for (let count = 0; count < 3; count++) t.equal((await call('/metrics', { token: adminToken })).status, 200)
  t.match(await call('/metrics', { token: adminToken }), { status: 429, error: 'GW_THROTTLED' })
})
