import Fastify, { type FastifyInstance } from 'fastify'
import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import { newRequestState, type SessionRequestState } from '../../src/http/context.ts'
import { type SharedRates, subjectRates } from '../../src/http/rates.ts'
import { type RedisServer, redisServer } from '../helpers/redis-server.ts'

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
