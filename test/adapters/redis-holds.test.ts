import t, { type Test } from 'tap'
import { redisStore } from '../../src/adapters/redis/store.ts'
import type { Hold, ReserveRequest } from '../../src/domain/ledger.ts'
import { Secret } from '../../src/domain/secret.ts'
import type { Store } from '../../src/domain/store.ts'
import { demandOf } from '../contracts/ledger-balance.ts'
import { answer, periodStart, sent, terms } from '../contracts/open-books.ts'
import { clock } from '../helpers/clock.ts'
import { redisRelay } from '../helpers/redis-relay.ts'
import { redisServer } from '../helpers/redis-server.ts'

const limit = 12
const holds: readonly Hold[] = [
  { account: 'gateway', window: 'none', endsAt: null, limit },
  { account: 'pool:team', window: 'day:2026-11-30', endsAt: 9e12, limit },
  { account: 'plan:default', window: 'hour:2026-11-30T05:00Z', endsAt: 8e12, limit }
]
const runningLimits = [{ account: 'gateway', limit: 50 }, { account: 'pool:team', limit: 50 }] as const
const demand = (more: Partial<ReserveRequest> = {}) => demandOf({ holds, runningLimits, microcredits: 4, ...more })
const storeDown = { code: 'GW_STORE_DOWN' }

const server = await redisServer(t)

/** Two replicas with one clock; the first one's way can be cut. */
async function replicas (t: Test) {
  const time = clock()
  const relay = await redisRelay(t, server.port)
  await server.admin.flushall()
  const open = async (url: string): Promise<Store> => {
    const store = await redisStore({ url: new Secret(url), terms, now: time.now, onLost: () => {} })
    t.teardown(() => store.close())
    return store
  }
  const other = await open(server.url)
  // Now Redis has all scripts, and the relay counts each of them once.
  await wholeLife(other, 'app:somebody')
  return { time, relay, one: await open(relay.url), other }
}

/** All steps of a task that fails, and then of one that costs. */
async function wholeLife ({ ledger, records }: Store, subject = 'app:alice'): Promise<void> {
  for (const end of ['failed', 'success', 'unknown'] as const) {
    const reserved = await ledger.reserve(demand({ subject }))
    if (!reserved.granted) throw new Error(reserved.reason)
    const task = { taskId: `${end} of ${subject}` }
    await ledger.advance(reserved.id, sent)
    if (end === 'unknown') {
      await ledger.advance(reserved.id, { to: 'unknown' })
      await records.release(reserved.id)
    } else {
      await ledger.advance(reserved.id, { to: 'claimed', ...task })
      await ledger.settle({ ...task, state: end, answer })
    }
  }
}

const usedIn = async ({ ceilings }: Store) => (await ceilings!.stateOf(holds)).map(({ used }) => used)
const runningIn = ({ ceilings }: Store) =>
  Promise.all(holds.map(({ account }) => ceilings!.runningIn(account)))
const ofSubject = ({ accounts }: Store) => accounts.balanceOf('app:alice', periodStart)
const ofOthers = 4

t.test('a replica that dies between any two scripts has passed no ceiling, and its holds are given back', async t => {
  let isOver = false
  let cuts = 0
  while (!isOver) {
    const { time, relay, one, other } = await replicas(t)
    relay.cutAfter(++cuts)
    isOver = await wholeLife(one).then(() => true, error => {
      t.equal(error.code, 'GW_STORE_DOWN')
      return false
    })
    const used = await usedIn(other)
    const { used: charged, unfinished } = await ofSubject(other)
    const running = await runningIn(other)
    const what = `cut after ${cuts} scripts`
    t.ok(used.every(sum => sum >= charged + ofOthers && sum <= limit), `${what}: ${used} used for ${charged}`)
    t.ok(running.every(count => count >= unfinished), what)
    for (const ms of [terms.sentMs, 1_200_000]) {
      time.advance(ms)
      await other.ledger.sweep()
    }
    const after = await ofSubject(other)
    t.same(await usedIn(other), holds.map(() => after.used + ofOthers), what)
    t.same(await runningIn(other), holds.map(() => after.unfinished), what)
  }
  t.ok(cuts > 30, `${cuts} scripts`)
})

t.test('a reservation that comes after its holds have lapsed is not made', async t => {
  const { time, relay, one, other } = await replicas(t)
  await one.ledger.reserve(demand({ subject: 'app:bob', microcredits: 0, holds: [] }))
  const { waits, go } = relay.waitAfter(1 + holds.length)
  const reserved = Promise.resolve(one.ledger.reserve(demand()))
  await waits
  t.same(await usedIn(other), holds.map(() => ofOthers + 4), 'all holds are taken')
  time.advance(terms.reservedMs)
  await other.ledger.sweep()
  t.same(await usedIn(other), holds.map(() => ofOthers), 'and given back')
  go()
  await t.rejects(reserved, storeDown)
  t.same(await ofSubject(other), { used: 0, granted: 0, unfinished: 0 })
  t.same(await usedIn(other), holds.map(() => ofOthers))
})

t.test('what a dead replica holds is in the way until its lease ends, and then no submit waits for a sweep', async t => {
  const { time, relay, one, other } = await replicas(t)
  relay.cutAfter(1 + holds.length)
  await t.rejects(Promise.resolve(one.ledger.reserve(demand())), storeDown)
  const bob = demand({ subject: 'app:bob', microcredits: 6 })
  t.match(await other.ledger.reserve(bob), { granted: false, reason: 'ceiling', account: 'gateway', window: 'none' })
  time.advance(terms.reservedMs)
  t.match(await other.ledger.reserve(bob), { granted: true })
})

t.test('of many submits that come to two replicas at once, with room for one in each account, one is granted', async t => {
  const counts: number[] = []
  for (let round = 0; round < 15; round++) {
    const { one, other } = await replicas(t)
    const all = await Promise.all(Array.from({ length: 40 }, (_, index) =>
      (index % 2 === 0 ? one : other).ledger.reserve(demand({ subject: `app:${index}`, microcredits: 8 }))))
    counts.push(all.filter(({ granted }) => granted).length)
    t.ok(all.every(reserved => reserved.granted || reserved.reason === 'ceiling'))
    t.same(await usedIn(other), [12, 12, 12])
  }
  t.same(counts, counts.map(() => 1))
})

t.test('of several submits together each has its own hold, and one that draws on nothing has none', async t => {
  const { other } = await replicas(t)
  t.match(await other.ledger.reserveAll([demand({ microcredits: 3 }), demandOf(), demand()]), { granted: true })
  t.same([await usedIn(other), await runningIn(other)], [[11, 11, 11], [2, 2, 2]])
})

t.test('what was charged for an unknown end is used above its subject also when that is erased', async t => {
  const { time, other } = await replicas(t)
  const lost = await other.ledger.reserve(demand())
  if (!lost.granted) throw new Error('there was no room')
  await other.ledger.advance(lost.id, sent)
  await other.ledger.advance(lost.id, { to: 'unknown' })
  await other.subjects.erase({ subject: 'app:alice', pseudonym: 'erased:x', beforeTask: async () => {} })
  time.advance(1_300_000)
  await other.ledger.sweep()
  t.same(await usedIn(other), holds.map(() => ofOthers + 4))
})

t.test('holds of what runs for long, and of what is unknown for long, stay', async t => {
  const { time, other } = await replicas(t)
  const long = await other.ledger.reserve(demand({ microcredits: 1 }))
  const lost = await other.ledger.reserve(demand({ microcredits: 2 }))
  if (!long.granted || !lost.granted) throw new Error('there was no room')
  for (const { id } of [long, lost]) await other.ledger.advance(id, sent)
  await other.ledger.advance(long.id, { to: 'claimed', taskId: 'long' })
  await other.ledger.advance(lost.id, { to: 'unknown' })
  for (let hours = 0; hours < 20; hours++) {
    time.advance(3_600_000)
    await other.ledger.sweep()
  }
  t.same([await usedIn(other), await runningIn(other)], [[7, 7, 7], [1, 1, 1]])
  time.advance(terms.retentionMs)
  await other.ledger.sweep()
  t.same([await usedIn(other), await runningIn(other)], [[7, 7, 7], [0, 0, 0]], 'long forgotten, and still charged')
})

t.test('more lapsed holds than are looked at at once are all given back', async t => {
  const { time, other } = await replicas(t)
  const some = Array.from({ length: 130 }, (_, index) =>
    demandOf({ subject: `app:${index % 7}`, runningLimits: [{ account: 'gateway', limit: 1000 }], taskLimit: 1000 }))
  await Promise.all(some.map(one => other.ledger.reserve(one)))
  t.equal(await other.ceilings!.runningIn('gateway'), 130)
  time.advance(terms.reservedMs)
  t.same(await other.ledger.sweep(), { released: 130, unknown: 0 })
  t.equal(await other.ceilings!.runningIn('gateway'), 0)
})

t.test('without ceilings a submit takes not one script more', async t => {
  const { relay, one } = await replicas(t)
  const plain = demandOf()
  await one.ledger.reserve(plain)
  const before = relay.scripts
  const reserved = await one.ledger.reserve(plain)
  t.equal(relay.scripts - before, 1)
  if (!reserved.granted) throw new Error(reserved.reason)
  await one.ledger.advance(reserved.id, sent)
  await one.ledger.advance(reserved.id, { to: 'claimed', taskId: 'task' })
  await one.ledger.settle({ taskId: 'task', state: 'failed', answer })
  t.equal(relay.scripts - before, 5, 'and no step, the owner of the task included')
})
