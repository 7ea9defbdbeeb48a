import Fastify, { type FastifyInstance } from 'fastify'
import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import { newRequestState, type SessionRequestState } from '../../src/http/context.ts'
import { type SharedRates, subjectRates } from '../../src/http/rates.ts'
import { startGateway, type TestGateway } from '../helpers/gateway.ts'
import { guestsOf } from '../helpers/guests.ts'
import { type RedisServer, redisServer } from '../helpers/redis-server.ts'

const plan = (more: string) =>
  `plans: { default: { requestsPerMinute: 1000, pollsPerMinute: 1000, concurrentTasks: 100, credits: unlimited, ${more} } }`

/** Calls until the answer is a 429 or the bound is met; says how many passed. */
async function passes (call: () => Promise<{ status: number }>, most = 20): Promise<number> {
  for (let count = 0; count < most; count++) if ((await call()).status === 429) return count
  return most
}

t.test('submits of all models share one budget per subject and minute', async t => {
  const { mint, submit, sandbox } = await startGateway(t, {
    config: plan('requestsPerMinute: 4').replace('requestsPerMinute: 1000, ', '')
  })
  const [alice, again, bob] = [await mint('alice'), await mint('alice'), await mint('bob')]
  t.equal((await submit(alice)).status, 200)
  t.equal((await submit(alice, 'x', 'sora-2')).status, 200)
  const third = await submit(again)
  t.equal(third.headers.get('ratelimit-limit'), '4')
  t.equal(third.headers.get('ratelimit-remaining'), '1')
  t.equal(third.headers.get('ratelimit-reset'), '60')
  t.equal((await submit(again)).status, 200)
  const fifth = await submit(alice)
  t.match(fifth, {
    status: 429,
    error: 'GW_RATE_LIMITED',
    json: { code: 429, data: null, error: { code: 'GW_RATE_LIMITED' } }
  })
  t.equal(fifth.headers.get('retry-after'), '59')
  t.equal(fifth.headers.get('ratelimit-remaining'), '0')
  t.equal((await submit(bob)).status, 200, 'another subject has its own')
  t.equal(sandbox.submits.length, 5)
})

t.test('polls have a budget of their own, next to that of submits', async t => {
  const { mint, submit, status } = await startGateway(t, {
    config: plan('requestsPerMinute: 2, pollsPerMinute: 3').replace(
      'requestsPerMinute: 1000, pollsPerMinute: 1000, ',
      ''
    )
  })
  const token = await mint('alice')
  const { taskId } = (await submit(token)).json.data
  t.equal(await passes(() => status(token, taskId)), 3)
  t.match(await status(token, taskId), { status: 429, error: 'GW_RATE_LIMITED' })
  t.equal((await submit(token)).status, 200, 'polls have not used up the submits')
  t.equal((await submit(token)).status, 429)
})

/** Every pair of routes shares the budget of the address, whether or not they exist. */
const routes: ReadonlyArray<readonly [string, (gateway: TestGateway) => Promise<{ status: number }>]> = [
  ['an unknown route', ({ call }) => call('/nowhere')],
  ['a wrong method', ({ call }) => call('/gateway/session', { method: 'PUT' })],
  [
    'a preflight',
    ({ call }) =>
      call('/gateway/session', {
        method: 'OPTIONS',
        headers: { origin: 'https://app.example', 'access-control-request-method': 'GET' }
      })
  ],
  ['a submit', ({ submit }) => submit('no-token')],
  ['a status call', ({ status }) => status('no-token', 'x')],
  ['minting', ({ call }) => call('/gateway/sessions', { body: {} })]
]

for (const [first, callFirst] of routes) {
  for (const [second, callSecond] of routes) {
    t.test(`${first} and ${second} share the budget of their address`, async t => {
      const gateway = await startGateway(t, {
        config: 'plans: { default: {} }\nlimits: { addressRequestsPerMinute: 4, addressFailuresPerMinute: 100 }',
        env: { GATEWAY_ALLOWED_ORIGINS: 'https://app.example' }
      })
      for (let count = 0; count < 2; count++) {
        t.not((await callFirst(gateway)).status, 429)
        t.not((await callSecond(gateway)).status, 429)
      }
      t.match(await callFirst(gateway), { status: 429, error: 'GW_THROTTLED' })
      t.match(await callSecond(gateway), { status: 429, error: 'GW_THROTTLED' })
      t.equal((await gateway.call('/livez')).status, 200, 'health routes are exempt')
      t.equal((await gateway.call('/readyz')).status, 200)
    })
  }
}

t.test('401 and 404 are counted apart, and shut all of an address out but its sessions', async t => {
  const gateway = await startGateway(t, { config: `${plan('period: day')}\nlimits: { addressFailuresPerMinute: 5 }` })
  const token = await gateway.mint('alice')
  const { taskId } = (await gateway.submit(token)).json.data
  for (let count = 0; count < 3; count++) t.equal((await gateway.status(token, `guess-${count}`)).status, 404)
  t.equal((await gateway.call('/nowhere')).status, 404)
  t.equal((await gateway.status(token, taskId)).status, 200, 'good calls don\'t count')
  t.equal((await gateway.submit('bad')).status, 401)
  t.equal((await gateway.status(token, taskId)).status, 200)
  const shut = await gateway.submit('bad')
  t.match(shut, { status: 429, error: 'GW_THROTTLED' })
  t.equal(shut.headers.get('retry-after'), '59')
})

t.test('a plan\'s credits end with 402, which tells an SDK not to try again', async t => {
  const { mint, submit, sandbox } = await startGateway(t, { config: 'plans: { default: { credits: 2 } }' })
  const token = await mint('alice')
  t.equal(await (async () => { let n = 0; while ((await submit(token)).status === 200) n++; return n })(), 2)
  const refused = await submit(token)
  t.match(refused, { status: 402, error: 'GW_CREDITS_EXHAUSTED' })
  t.equal(refused.headers.get('x-should-retry'), 'false')
  t.equal(sandbox.submits.length, 2)
})

t.test('unfinished tasks are limited, and a finished one makes room', async t => {
  const { mint, submit, status, time } = await startGateway(t, { config: 'plans: { default: { concurrentTasks: 1 } }' })
  const token = await mint('alice')
  const { taskId } = (await submit(token)).json.data
  const refused = await submit(token)
  t.match(refused, { status: 429, error: 'GW_TOO_MANY_TASKS' })
  t.ok(Number(refused.headers.get('retry-after')) > 0)
  time.advance(60_000)
  t.equal((await status(token, taskId)).json.data.state, 'success')
  t.equal((await submit(token)).status, 200)
})

/**
 * Two replicas' worth of routes: a budget each of 2 submits and 3 polls a minute, of the subject that the header names.
 */
async function replica (t: Test, shared: SharedRates): Promise<FastifyInstance> {
  const app = Fastify()
  const rates = await subjectRates(app, shared)
  app.decorateRequest('call', null as never)
  for (const name of ['submits', 'polls', 'misses'] as const) {
    app.get(`/${name}`, async (request, reply) => {
      const plan = { requestsPerMinute: 2, pollsPerMinute: 3 }
      const call = {
        ...newRequestState(() => {}),
        plan,
        session: { subject: request.headers.subject }
      } as unknown as SessionRequestState
      request.call = call
      await rates[name]({ request, reply, call })
      return 'passed'
    })
  }
  t.teardown(() => app.close())
  return app
}

async function client (t: Test, { port }: Pick<RedisServer, 'port'>): Promise<Redis> {
  const redis = new Redis({ port, lazyConnect: true, enableOfflineQueue: false, retryStrategy: () => null })
  redis.on('error', () => {})
  await redis.connect()
  t.teardown(() => redis.disconnect())
  return redis
}

const get = (app: FastifyInstance, url: string, subject = 'app:alice') => app.inject({ url, headers: { subject } })

t.test('replicas share each budget of a subject, and say what is left of it', async t => {
  const server = await redisServer(t)
  const another = async () => replica(t, { redis: await client(t, server), onStoreError: 'refuse' })
  const [one, other] = [await another(), await another()]
  t.match(await get(one, '/submits'), {
    statusCode: 200,
    headers: { 'ratelimit-limit': '2', 'ratelimit-remaining': '1', 'ratelimit-reset': '60' }
  })
  t.match(await get(other, '/submits'), { statusCode: 200, headers: { 'ratelimit-remaining': '0' } })
  const third = await get(one, '/submits')
  t.match(third, { statusCode: 429, headers: { 'ratelimit-remaining': '0' } })
  t.equal(third.json().code, 'GW_RATE_LIMITED')
  t.equal((await get(one, '/submits', 'app:bob')).statusCode, 200, 'another subject has its own')

  t.match(
    await get(one, '/polls'),
    { statusCode: 200, headers: { 'ratelimit-remaining': '2' } },
    'and polls have theirs'
  )
  const miss = await get(other, '/misses')
  t.equal(miss.statusCode, 200)
  t.equal(miss.headers['ratelimit-limit'], undefined, 'a miss counts and says nothing')
  t.match(await get(one, '/polls'), { statusCode: 200, headers: { 'ratelimit-remaining': '0' } })
})

t.test('while nobody counts, calls are refused or pass, as the operator has said', async t => {
  const server = await redisServer(t)
  const redis = await client(t, server)
  const [refusing, allowing] = [
    await replica(t, { redis, onStoreError: 'refuse' }),
    await replica(t, { redis, onStoreError: 'allow' })
  ]
  await server.kill()
  const refused = await get(refusing, '/submits')
  t.equal(refused.statusCode, 503)
  t.equal(refused.json().code, 'GW_STORE_DOWN')
  t.equal((await get(allowing, '/submits')).statusCode, 200)
})

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
