import rateLimit from '@fastify/rate-limit'
import Fastify, { type FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import { redisStore } from '../../src/adapters/redis/store.ts'
import { plans } from '../../src/domain/policy.ts'
import { Secret } from '../../src/domain/secret.ts'
import { unscoped } from '../../src/domain/session.ts'
import type { RateCounter } from '../../src/domain/store.ts'
import { contextOf, RequestState } from '../../src/http/context.ts'
import { localRates, rateStore, subjectRates, type SubjectRatesOptions } from '../../src/http/rates.ts'
import { terms } from '../contracts/open-books.ts'
import { clock } from '../helpers/clock.ts'
import { issuerToken, startGateway, type TestGateway } from '../helpers/gateway.ts'
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

const smallPlan = plans({
  default: {
    models: ['*'], requestsPerMinute: 2, pollsPerMinute: 3, concurrentTasks: 1, credits: 'unlimited', period: 'day'
  }
}).get('default')!

/** Routes with a budget each of 2 submits and 3 polls a minute, of the subject that the header names. */
async function limitedRoutes (t: Test, options: SubjectRatesOptions): Promise<FastifyInstance> {
  const app = Fastify()
  await app.register(rateLimit, { global: false, store: rateStore({ elapsed: clock().elapsed, maxKeys: 10 }) })
  const rates = subjectRates(app, options)
  for (const name of ['submits', 'lookAtSubmits', 'polls', 'misses'] as const) {
    app.get(`/${name}`, async (request, reply) => {
      const session = unscoped({
        id: '1',
        subject: String(request.headers.subject),
        plan: smallPlan.name,
        models: smallPlan.models,
        permits: smallPlan.permits,
        scopes: [],
        issuedAt: 0,
        expiresAt: 1
      })
      request.call = new RequestState(() => {})
      request.call.identify(session, smallPlan)
      await rates[name](contextOf(request, reply))
      return 'passed'
    })
  }
  t.teardown(() => app.close())
  return app
}

/** The counter of one replica more. */
async function replicaOf (t: Test, { url }: Pick<RedisServer, 'url'>): Promise<RateCounter> {
  const store = await redisStore({ url: new Secret(url), terms, now: clock().now, onLost: () => {} })
  t.teardown(() => store.close())
  return store.rates!
}

const get = (app: FastifyInstance, url: string, subject = 'app:alice') => app.inject({ url, headers: { subject } })

/** Two replicas' worth of routes. */
const places: Record<string, (t: Test) => Promise<readonly [RateCounter, RateCounter]>> = {
  'in this process': async () => {
    const counter = localRates({ elapsed: clock().elapsed, maxKeys: 10 })
    return [counter, counter]
  },
  'on Redis': async t => {
    const server = await redisServer(t)
    return [await replicaOf(t, server), await replicaOf(t, server)]
  }
}

for (const [place, counters] of Object.entries(places)) {
  t.test(`whoever counts in one place shares each budget of a subject, and says what is left of it: ${place}`, async t => {
    const [here, there] = await counters(t)
    const one = await limitedRoutes(t, { counter: here, onStoreError: 'refuse' })
    const other = await limitedRoutes(t, { counter: there, onStoreError: 'refuse' })
    t.match(await get(one, '/submits'), {
      statusCode: 200,
      headers: { 'ratelimit-limit': '2', 'ratelimit-remaining': '1', 'ratelimit-reset': '60' }
    })
    const look = await get(other, '/lookAtSubmits')
    t.equal(look.statusCode, 200)
    t.equal(look.headers['ratelimit-limit'], undefined, 'there is something left, and nothing said of it')
    t.match(await get(other, '/submits'), { statusCode: 200, headers: { 'ratelimit-remaining': '0' } })
    for (const refused of [await get(one, '/lookAtSubmits'), await get(one, '/submits')]) {
      t.match(refused, { statusCode: 429, headers: { 'ratelimit-limit': '2', 'ratelimit-remaining': '0' } })
      t.equal(refused.json().code, 'GW_RATE_LIMITED')
    }
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
    t.match(
      await get(other, '/misses'),
      { statusCode: 429, headers: { 'ratelimit-remaining': '0' } },
      'but that nothing is left'
    )
  })
}

t.test('while nobody counts, calls are refused or pass, as the operator has said', async t => {
  const server = await redisServer(t)
  const counter = await replicaOf(t, server)
  const refusing = await limitedRoutes(t, { counter, onStoreError: 'refuse' })
  const allowing = await limitedRoutes(t, { counter, onStoreError: 'allow' })
  await server.kill()
  for (const path of ['/submits', '/lookAtSubmits', '/polls', '/misses']) {
    const refused = await get(refusing, path)
    t.equal(refused.statusCode, 503, path)
    t.equal(refused.json().code, 'GW_STORE_DOWN', path)
    t.equal((await get(allowing, path)).statusCode, 200, path)
  }
})

t.test('replicas of earlier versions count under the same names', async t => {
  const server = await redisServer(t)
  await get(await limitedRoutes(t, { counter: await replicaOf(t, server), onStoreError: 'refuse' }), '/submits')
  t.equal(await server.admin.get('gw:rate:undefinedundefined-submits:app:alice'), '1')
  const ttl = await server.admin.pttl('gw:rate:undefinedundefined-submits:app:alice')
  t.ok(ttl > 50_000 && ttl <= 60_000, `${ttl}`)
})

t.test('a process remembers so many keys, and forgets the one that was counted longest ago', async t => {
  const { hit, look } = localRates({ elapsed: clock().elapsed, maxKeys: 2 })
  for (const key of ['one', 'two', 'one', 'three']) hit(key, 1000)
  t.match([look('one', 1000), look('two', 1000), look('three', 1000)], [{ count: 2 }, { count: 0 }, { count: 1 }])
})

t.test('@fastify/rate-limit is what limits: without it nobody is refused', async t => {
  const config = 'plans: { default: { requestsPerMinute: 2, pollsPerMinute: 2, concurrentTasks: 100 } }\n' +
    'limits: { addressRequestsPerMinute: 12, addressFailuresPerMinute: 3 }'
  const openTo = Object.assign(
    async (app: FastifyInstance) => { app.decorate('createRateLimit', () => async () => ({ isAllowed: true, key: '' })) },
    { [Symbol.for('skip-override')]: true }
  )
  /** How often each of the limits refuses. */
  const refusals = async (more: Parameters<typeof startGateway>[1] = {}) => {
    const { mint, submit, status, call } = await startGateway(t, { config, ...more })
    const token = await mint('alice')
    const count = async (calls: number, ask: () => Promise<{ error: unknown }>) => {
      const codes = []
      for (let asked = 0; asked < calls; asked++) codes.push((await ask()).error)
      return codes.filter(code => code === 'GW_RATE_LIMITED' || code === 'GW_THROTTLED').length
    }
    const submits = await count(3, () => submit(token))
    const polls = await count(3, () => status(token, 'nowhere'))
    const failures = await count(3, () => submit('bad'))
    const requests = await count(4, () => call('/gateway/sessions', { token: issuerToken, body: { subject: 'bob' } }))
    return { submits, polls, failures, requests }
  }
  t.strictSame(await refusals(), { submits: 1, polls: 1, failures: 2, requests: 2 })
  const { createGateway } = await t.mockImport<typeof import('../../src/gateway.ts')>('../../src/gateway.ts', {
    '@fastify/rate-limit': Object.assign(openTo, { normalizeIP: rateLimit.normalizeIP })
  })
  t.strictSame(await refusals({ createGateway }), { submits: 0, polls: 0, failures: 0, requests: 0 })
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
    'x-gateway-credits',
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
