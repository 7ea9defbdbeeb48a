import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import t, { type Test } from 'tap'
import { startGateway, type TestGateway, type TestGatewayOptions } from '../helpers/gateway.ts'
import { type RedisServer, redisServer } from '../helpers/redis-server.ts'
import { until } from '../helpers/until.ts'

const config =
  'plans: { default: { credits: 100, requestsPerMinute: 1000, pollsPerMinute: 1000, concurrentTasks: 100 } }'

/** As in src/services.ts. */
const reservedMs = 30_000

/** A way for a store to fail, and back. */
interface Outage {
  begin (): Promise<unknown> | unknown
  end (): Promise<unknown> | unknown
}

/** Credits and ownership are closed while the store is away, nothing is lost meanwhile, and nobody has to help. */
async function closedAndBack (t: Test, gateway: TestGateway, { begin, end }: Outage): Promise<void> {
  const { mint, submit, status, call, sandbox, log, time } = gateway
  const token = await mint('alice')
  const { json: { data: { taskId } } } = await submit(token)
  const reached = sandbox.submits.length
  const left = async () => (await call('/api/v1/apikeys/current-balance', { token })).json.data
  const before = await left()

  await begin()
  const isReady = async () => {
    time.advance(1000) // it is looked at once a second
    return (await call('/readyz')).status === 200
  }
  // Who writes finds out; reading may go on where only writing fails.
  const refused = await Promise.all(Array.from({ length: 20 }, () => submit(token)))
  for (const { status, error, headers } of refused) {
    t.match(
      { status, error, retryAfter: headers.get('retry-after') },
      { status: 503, error: 'GW_STORE_DOWN', retryAfter: '1' }
    )
  }
  t.equal(sandbox.submits.length, reached, 'nothing was sent')
  t.match(await call('/readyz'), { status: 503, json: { status: 'unavailable', store: 'down' } })
  t.equal((await call('/livez')).status, 200, 'the process is well')
  t.ok(log.some(({ code }) => code === 'GW_STORE_DOWN'), 'the log says so')

  await end()
  await until('the gateway to be ready again', isReady)
  // What the store did all the same, too late for us to hear of it, lapses by its lease.
  time.advance(reservedMs)
  await gateway.gateway.tidy()
  t.equal(await left(), before, 'what was refused has cost nothing')
  t.match((await status(token, taskId)).json, { data: { taskId } }, 'the task has its owner')
  t.equal((await submit(token)).status, 200)
  t.equal(await left(), before - 1)
}

t.test('on Redis', async t => {
  const server = await redisServer(t, { appendonly: true })
  const onRedis = (t: Test, more: Partial<TestGatewayOptions> = {}) =>
    startGateway(t, { config, ...more, env: { GATEWAY_STORE: server.url } })

  for (const [title, outage] of Object.entries(redisOutages(server))) {
    await t.test(title, async t => closedAndBack(t, await onRedis(t), outage))
  }

  await t.test('with limits.onStoreError: allow only the request rate is let go, and money stays closed', async t => {
    const gateway = await onRedis(t, { config: `${config}\nlimits: { onStoreError: allow }` })
    await closedAndBack(t, gateway, redisOutages(server)['a server that dies']!)
  })
})

function redisOutages (server: RedisServer): Record<string, Outage> {
  const { admin } = server
  return {
    'a server that dies': { begin: () => server.kill(), end: () => server.start() },
    'a server that stands still': { begin: () => server.freeze(), end: () => server.thaw() },
    'a server that holds back writes': {
      begin: () => admin.client('PAUSE', 60_000, 'WRITE'),
      end: () => admin.client('UNPAUSE')
    },
    'a server that only reads': {
      begin: () => admin.replicaof('127.0.0.1', 1),
      end: () => admin.replicaof('NO', 'ONE')
    },
    'a server that is full': {
      begin: () => admin.config('SET', 'maxmemory', '1mb'),
      end: () => admin.config('SET', 'maxmemory', '0')
    }
  }
}

t.test('on SQLite: a file that another process keeps locked', async t => {
  const path = join(t.testdir(), 'gateway.db')
  const gateway = await startGateway(t, { config, store: path })
  const other = new DatabaseSync(path)
  t.teardown(() => other.close())
  await closedAndBack(t, gateway, { begin: () => other.exec('BEGIN IMMEDIATE'), end: () => other.exec('ROLLBACK') })
})
