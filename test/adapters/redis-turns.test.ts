import t, { type Test } from 'tap'
import { redisStore } from '../../src/adapters/redis/store.ts'
import { Secret } from '../../src/domain/secret.ts'
import { type TurnsUnderTest, statusTurnsContract } from '../contracts/status-turns.ts'
import { clock } from '../helpers/clock.ts'
import { redisCluster, redisServer } from '../helpers/redis-server.ts'
import { until } from '../helpers/until.ts'

const terms = {
  reservedMs: 30_000,
  sentMs: 140_000,
  giveUpMs: 86_400_000,
  refundsPerPeriod: 3,
  retentionMs: 30 * 86_400_000
}
const last = { status: 200, contentType: 'application/json; charset=utf-8', body: Buffer.from([0, 255, 13, 10, 34]) }
let opened = 0

/** The turns of two replicas, with nothing taken. */
async function open (t: Test, url: string) {
  const { now, advance } = clock()
  const prefix = `test-${++opened}`
  const [here, there] = await Promise.all(
    [1, 2].map(async () => {
      const store = await redisStore({ url: new Secret(url), terms, now, onLost: () => {}, prefix })
      t.teardown(() => store.close())
      return store.turns!
    })
  )
  return {
    prefix,
    here: here!,
    there: there!,
    leaseMs: terms.sentMs,
    async pass (ms: number) {
      advance(ms)
    }
  } satisfies TurnsUnderTest & { prefix: string }
}

t.test('the turns of two replicas on one Redis keep the promises of status turns', async t => {
  const { url } = await redisServer(t)
  statusTurnsContract(t, t => open(t, url))
})

t.test('the turns of two replicas on a cluster keep the promises of status turns', async t => {
  const { url } = await redisCluster(t)
  statusTurnsContract(t, t => open(t, url))
})

t.test('an answer that comes when the turn is another replica\'s changes nothing', async t => {
  const { here, there, pass } = await open(t, (await redisServer(t)).url)
  await here.acquire('a', 1000)
  await pass(terms.sentMs)
  await there.acquire('a', 1000)
  await here.release('a', last, 1000)
  await here.release('a', null, 1000)
  t.match(await here.acquire('a', 1000), { mine: false, last: null, nextInMs: 0 })
  await there.release('a', { ...last, status: 201 }, 1000)
  t.match(await here.acquire('a', 1000), { mine: false, last: { ...last, status: 201 } })
})

t.test('the answer of a turn that Redis has forgotten is everybody\'s all the same', async t => {
  const { admin, url } = await redisServer(t)
  const { here, there } = await open(t, url)
  await here.acquire('a', 1000)
  await admin.flushall()
  await here.release('a', last, 1000)
  t.match(await there.acquire('a', 1000), { mine: false, last })
})

t.test('nothing stays: a turn goes by itself soon after it is free', async t => {
  const { admin, url } = await redisServer(t)
  const { here, prefix } = await open(t, url)
  await here.acquire('a', 1000)
  const key = `${prefix}:turn:a`
  const taken = await admin.pttl(key)
  t.ok(taken > terms.sentMs && taken <= terms.sentMs + 60_000)
  await here.release('a', last, 1000)
  const answered = await admin.pttl(key)
  t.ok(answered > 1000 && answered <= 61_000)
})

t.test('a turn whose taker was not told in time that it has it is free again at once', async t => {
  const { admin, url } = await redisServer(t)
  const { here, there } = await open(t, url)
  await admin.call('CLIENT', 'PAUSE', 1300, 'ALL')
  await t.rejects(here.acquire('a', 1000), { code: 'GW_STORE_DOWN' })
  await admin.ping()
  await until('another may ask', () => there.acquire('a', 1000).then(({ mine }) => mine, () => false))
})

t.test('while Redis is away there are no turns, and then there are again', async t => {
  const server = await redisServer(t, { appendonly: true })
  const { here } = await open(t, server.url)
  await here.acquire('a', 1000)
  await server.kill()
  await until('it is gone', () => here.acquire('b', 1000).then(() => false, () => true))
  await t.rejects(here.acquire('a', 1000), { code: 'GW_STORE_DOWN' })
  await t.rejects(here.release('a', last, 1000), { code: 'GW_STORE_DOWN' })
  await server.start()
  await until('it is back', () => here.acquire('c', 1000).then(({ mine }) => mine, () => false))
})
