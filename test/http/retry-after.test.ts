import t from 'tap'
import { startGateway } from '../helpers/gateway.ts'
import { guestsOf } from '../helpers/guests.ts'

const config = 'plans: { default: { requestsPerMinute: 100, concurrentTasks: 100, credits: unlimited }, guest: {} }'
const own = ['ratelimit-limit', 'ratelimit-remaining', 'ratelimit-reset']

t.test('a page of a listed origin can read every header that says what to do next', async t => {
  const { call } = await startGateway(t, { env: { GATEWAY_ALLOWED_ORIGINS: 'https://app.example' } })
  const { headers } = await call('/gateway/session', { headers: { origin: 'https://app.example' } })
  const exposed = headers.get('access-control-expose-headers')!.split(/, */)
  const needed = [
    'x-gateway-error',
    'x-request-id',
    'request-id',
    ...own,
    'retry-after',
    'x-should-retry',
    'etag',
    'allow',
    'content-disposition',
    'idempotency-replayed',
    'content-range'
  ]
  t.same([...exposed].sort(), [...needed].sort())
})

t.test('a refused request is told to wait at least one second and at most 59', async t => {
  const { mint, submit } = await startGateway(t, { config: 'plans: { default: { requestsPerMinute: 1 } }' })
  const token = await mint('alice')
  t.equal((await submit(token)).status, 200)
  const refused = await submit(token)
  t.match(refused, { status: 429, error: 'GW_RATE_LIMITED' })
  t.equal(refused.headers.get('retry-after'), '59', 'the whole window is a minute')
  t.equal(refused.headers.get('x-should-retry'), null)
  t.notOk('retryAfterSeconds' in refused.json.error)
})

t.test('a longer wait is told in the body, and no client is asked to sit it out', async t => {
  const gateway = await startGateway(t, {
    config: `${config}\nguests: { enabled: true, proof: none, sessionsPerAddressPerDay: 1 }`
  })
  const { enter } = guestsOf(gateway)
  t.equal((await enter()).status, 201)
  const refused = await enter()
  t.match(refused, {
    status: 429,
    error: 'GW_THROTTLED',
    json: { message: 'Too many requests from this address. Wait 86400 seconds.', error: { retryAfterSeconds: 86_400 } }
  })
  t.equal(refused.headers.get('retry-after'), null)
  t.equal(refused.headers.get('x-should-retry'), 'false')
})

t.test('what may be asked again after a failure upstream is not held back by our own budget', async t => {
  const { mint, submit, status, sandbox, time } = await startGateway(t, { config })
  const token = await mint('alice')
  const submitted = await submit(token)
  for (const name of own) t.ok(submitted.headers.has(name), 'it is told on success')
  const { taskId } = submitted.json.data
  for (const [code, ask] of [
    [429, submit],
    [503, submit],
    [500, () => status(token, taskId)],
    [404, submit]
  ] as const) {
    time.advance(60_000)
    sandbox.next((_request, response) => {
      response.writeHead(code, { 'content-type': 'application/json' }).end(`{"code":${code},"message":"x","data":null}`)
    })
    const refused = await ask(token)
    t.match(refused, { status: code, error: null })
    // ky and others wait for `ratelimit-reset` when there is no `retry-after`: up to a minute in place of 0.3 s.
    t.same([...refused.headers.keys()].filter(name => own.includes(name)), [], String(code))
  }
  sandbox.next((_request, response) => { response.destroy() })
  const lost = await submit(token)
  t.equal(lost.error, 'GW_OUTCOME_UNKNOWN')
  t.same([...lost.headers.keys()].filter(name => own.includes(name)), [])
})

t.test('how long to wait passes as the upstream says it, in seconds and in milliseconds', async t => {
  const { mint, submit, sandbox } = await startGateway(t, { config })
  const token = await mint('alice')
  const refuse = async (headers: Record<string, string>) => {
    sandbox.next((_request, response) => {
      response
        .writeHead(503, { ...headers, 'content-type': 'application/json' })
        .end('{"code":503,"message":"busy","data":null}')
    })
    const reply = await submit(token)
    return [reply.headers.get('retry-after'), reply.headers.get('retry-after-ms')]
  }
  t.same(
    await refuse({ 'retry-after': '30', 'retry-after-ms': '500' }),
    ['30', '500'],
    'the shorter one is what SDKs obey'
  )
  t.same(await refuse({ 'retry-after-ms': '1500.5' }), [null, '1500.5'])
  t.same(await refuse({ 'retry-after': '120' }), ['120', null], 'neither longer nor shorter than without us')
  for (const odd of ['-1', 'soon', '1e9', '99999999999', '']) {
    t.same(await refuse({ 'retry-after-ms': odd }), [null, null], odd)
  }
})

t.test('a status asked for too early has our wait alone beside the last answer', async t => {
  const { mint, submit, status, sandbox } = await startGateway(t, { config: `${config}\npolling: { "*": 300000 }` })
  const token = await mint('alice')
  const { taskId } = (await submit(token)).json.data
  sandbox.next((_request, response) => {
    response
      .writeHead(200, { 'retry-after-ms': '100', 'content-type': 'application/json' })
      .end(JSON.stringify({ code: 200, message: 'x', data: { taskId, state: 'processing' } }))
  })
  t.equal((await status(token, taskId)).headers.get('retry-after-ms'), '100')
  const early = await status(token, taskId)
  t.equal(early.headers.get('retry-after-ms'), null)
  t.equal(early.headers.get('retry-after'), '59')
})
