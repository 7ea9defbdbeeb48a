import { setImmediate as nextTurn } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { redisBooks } from '../../src/adapters/redis/books.ts'
import type { Commands, Reply } from '../../src/adapters/redis/client.ts'
import { type KeyNames, keyNames, type Place, placeOf } from '../../src/adapters/redis/keys.ts'
import { redisStore } from '../../src/adapters/redis/store.ts'
import type { CreditAccounts, ReservationId } from '../../src/domain/ledger.ts'
import { Secret } from '../../src/domain/secret.ts'
import { answer, type Fixture, openBooks, terms } from '../contracts/open-books.ts'
import { clock } from '../helpers/clock.ts'
import { redisCluster, type RedisServer, redisServer } from '../helpers/redis-server.ts'

const session = { id: 'few', uses: 100, creditLimit: 1000, expiresAt: 9e15 }

interface Day extends Fixture {
  readonly keys: KeyNames
  /** Reservations by their tasks, and by `unknown`. */
  readonly ids: ReadonlyMap<string, ReservationId>
  readonly accounts: CreditAccounts
}

/** Two days of a gateway, under a prefix of their own. */
async function aDay (t: Test, url: string, prefix: string): Promise<Day> {
  const fixture = await openBooks(t, async (t, { terms, now, elapsed }) => {
    const store = await redisStore({ url: new Secret(url), terms, now, onLost: () => {}, prefix, elapsed: elapsed! })
    t.teardown(() => store.close())
    return store
  })
  const { at, accounts, ledger, time, leads } = fixture
  const ids = new Map<string, ReservationId>()
  const note = async (name: string, id: Promise<ReservationId>) => { ids.set(name, await id) }
  await leads()
  await accounts.grant({ subject: 'app:alice', microcredits: 20 })
  await note('task-1', at('settled', { microcredits: 5 }, 'task-1'))
  await note('task-2', at('settled', { microcredits: 7, creditLimit: 0 }, 'task-2'))
  time.advance(86_400_000)
  await note('task-3', at('settled', { microcredits: 3, session }, 'task-3'))
  await note('task-5', at('claimed', { idempotency: { key: 'claimed', fingerprint: 'print' } }, 'task-5'))
  await note('unknown', at('unknown', { idempotency: { key: 'unknown', fingerprint: 'print' } }))
  await note('task-6', at('claimed', { microcredits: 4 }, 'task-6'))
  await ledger.settle({ taskId: 'task-6', state: 'failed', answer })
  await note('task-7', at('settled', { subject: 'app:bob', microcredits: 1 }, 'task-7'))
  await at('reserved', { subject: 'app:carol' })
  await at('sent', { subject: 'app:carol', session })
  return { ...fixture, keys: keyNames(prefix), ids }
}

const period = Date.UTC(2026, 0, 15)
type Corrupt = (admin: RedisServer['admin'], day: Day & { place: (name: string) => Place, of: (subject: string, rest: string) => string }) => Promise<unknown>

const corruptions: ReadonlyArray<readonly [what: string, corrupt: Corrupt, faults: readonly object[]]> = [
  ['nothing', async () => {}, []],
  ['a period with a credit too many', (admin, { of }) => admin.hincrby(of('app:bob', `period:${period}`), 'used', 1),
    [{ kind: 'period', subject: 'app:bob', problem: 'of its period since 2026-01-15T00:00:00.000Z 0.000002 credits are used, and its tasks come to 0.000001' }]],
  ['a period that is gone', (admin, { of }) => admin.del(of('app:bob', `period:${period}`)), [{ kind: 'period', subject: 'app:bob' }]],
  ['grants of which more is left', (admin, { of }) => admin.hincrby(of('app:alice', 'account'), 'granted', 5),
    [{ kind: 'grants', subject: 'app:alice', problem: 'of 0.00002 credits granted 0.000018 are left, so 0.000002 are used, and its tasks come to 0.000007' }]],
  ['grants of which less is left', (admin, { of }) => admin.hincrby(of('app:alice', 'account'), 'granted', -1), [{ kind: 'grants' }]],
  ['a session with fewer uses', (admin, { of }) => admin.hincrby(of('app:alice', 'session:few'), 'uses', -1),
    [{ kind: 'session', subject: 'app:alice', problem: 'the session few has taken 0 uses, and its tasks come to 1' }]],
  ['a task that has ended and takes a slot', (admin, { of, place }) => admin.zadd(of('app:alice', 'open'), 9e15, place('task-1').number),
    [{ kind: 'slot', subject: 'app:alice', problem: 'task task-1 is settled, and takes a slot all the same' }]],
  ['a task that runs and takes no slot', (admin, { of, place }) => admin.zrem(of('app:alice', 'open'), place('task-5').number),
    [{ kind: 'slot', subject: 'app:alice', problem: 'task task-5 is claimed, and takes no slot' }]],
  ['a slot of no task', (admin, { of }) => admin.zadd(of('app:alice', 'open'), 9e15, '17'),
    [{ kind: 'slot', subject: 'app:alice', problem: 'a slot is taken by the reservation app:alice#17, which is not there' }]],
  ['a lease that nobody has ended', (admin, { of, place }) => admin.zadd(of('app:alice', 'open'), 0, place('task-5').number),
    [{ kind: 'lease', subject: 'app:alice', problem: 'task task-5 is claimed, and should have ended by 1970-01-01T00:00:00.000Z' }]],
  ['a task without an owner', (admin, { keys }) => admin.del(keys.owner('task-1')),
    [{ kind: 'owner', subject: 'app:alice', problem: /^task task-1 of the reservation app:alice#\d+ has no owner/ }]],
  ['an owner without a task', (admin, { keys, ids }) => admin.set(keys.owner('ghost'), ids.get('task-7')!),
    [{ kind: 'owner', subject: 'app:bob', problem: /^task ghost leads to the reservation app:bob#\d+, which has no such task$/ }]],
  ['a key that leads nowhere', (admin, { of }) => admin.hset(of('app:alice', 'idem:unknown'), 'number', '17'),
    [{ kind: 'key', subject: 'app:alice', problem: 'its idempotency key "unknown" leads to no reservation' }]],
  ['a task that is gone', (admin, { keys, place }) => admin.del(keys.reservation(place('task-3'))), [
    { kind: 'tasks', subject: 'app:alice', problem: '4 tasks were counted on 2026-01-16, and 3 are there' },
    { kind: 'owner', subject: 'app:alice', problem: /^task task-3 leads to/ }
  ]],
  ['a task that nobody counted', (admin, { of }) => admin.hincrby(of('app:bob', 'usage:2026-01-16'), 'tasks:nano-banana', -1),
    [{ kind: 'tasks', subject: 'app:bob', problem: '0 tasks were counted on 2026-01-16, and 1 are there' }]]
]

async function eachIsNamed (t: Test, url: string, adminFor: (key: string) => Promise<RedisServer['admin']>): Promise<void> {
  for (const [index, [what, corrupt, faults]] of corruptions.entries()) {
    const day = await aDay(t, url, `test-${index}`)
    const place = (name: string): Place => placeOf(day.ids.get(name)!)!
    const of = (subject: string, rest: string): string => day.keys.account(subject).replace(/account$/, rest)
    await corrupt(await adminFor(of('app:alice', 'account')), { ...day, place, of })
    const verified = await day.books.verify(nextTurn)
    t.match(verified, { subjects: 3, count: faults.length, skipped: 0, faults }, what)
    t.equal(verified.faults.length, faults.length)
  }
}

t.test('each corruption in Redis is named, and nothing else', async t => {
  const { url, admin } = await redisServer(t)
  await eachIsNamed(t, url, async () => admin)
})

t.test('and in a cluster', async t => {
  const { url, servers } = await redisCluster(t)
  const { Cluster } = await import('ioredis')
  const cluster = new Cluster([{ host: '127.0.0.1', port: servers[0]!.port }])
  t.teardown(() => cluster.disconnect())
  await eachIsNamed(t, url, async () => cluster as unknown as RedisServer['admin'])
})

t.test('what was given long ago, and used by tasks that nobody remembers, can not be told from what is lost', async t => {
  const { url, admin } = await redisServer(t)
  const { books, keys, time } = await aDay(t, url, 'long')
  await admin.hincrby(keys.account('app:alice'), 'granted', -1)
  await admin.del(keys.leader)
  time.advance(390 * 86_400_000)
  t.match((await books.verify(nextTurn)).faults, [{ kind: 'grants' }])
  time.advance(12 * 86_400_000)
  t.same((await books.verify(nextTurn)).faults, [])
})

/** Books of a subject whose parts a test has made, beside a real Redis that has its keys. */
async function scriptedBooks (t: Test, parts: Reply[][], seen: Seen = async () => {}) {
  const { admin } = await redisServer(t)
  const keys = keyNames('scripted')
  const commands: Commands = {
    ofSubject: async () => parts.length > 1 ? parts.shift()! : parts[0]!,
    on: async () => null,
    async ask (give) {
      const answer = await give(admin)
      await seen(answer, admin, keys)
      return answer
    }
  }
  const { now } = clock()
  return { admin, keys, books: redisBooks({ commands, keys, terms, now }) }
}

type Seen = (answer: unknown, admin: RedisServer['admin'], keys: KeyNames) => Promise<unknown>

/** `next`: where the next part begins. */
const part = (stamp: string, next: string, periods: Reply = [], sessions: Reply = []): Reply[] =>
  [stamp, next, '0', '0', null, '', [], periods, sessions, []].map(value =>
    typeof value === 'string' ? Buffer.from(value) : value)
const texts = (...values: readonly string[]): Reply => [values.map(value => Buffer.from(value))]

t.test('a subject that never holds still while it is read in parts is left out, and said to be', async t => {
  const parts = Array.from({ length: 10 }, (_, nth) => part(`${nth}`, nth % 2 === 0 ? '5' : ''))
  const { admin, keys, books } = await scriptedBooks(t, parts)
  await admin.hset(keys.account('app:alice'), 'seq', 1)
  t.match(await books.verify(nextTurn), { subjects: 1, skipped: 1, count: 0 })
})

t.test('and one that holds still in the end is not, whatever has changed before', async t => {
  const period = (used: string) => texts('1768435200000', used)
  const session = (uses: string) => texts('few', uses, '0')
  const { admin, keys, books } = await scriptedBooks(t, [
    part('1', '5', period('1')), part('1', '', period('2')),
    part('1', '5', [], session('1')), part('1', '', [], session('2')),
    part('1', '5', period('0'), session('0')), part('1', '', period('0'), session('0'))
  ])
  await admin.hset(keys.account('app:alice'), 'seq', 1)
  t.match(await books.verify(nextTurn), { subjects: 1, skipped: 0, count: 0 })
})

t.test('a subject whose key comes up twice while the keys are walked over is looked at once', async t => {
  let times = 0
  const { admin, keys, books } = await scriptedBooks(t, [part('1', '')], async answer => {
    const isPage = Array.isArray(answer) && Array.isArray(answer[1])
    if (isPage && times++ === 0) answer[0] = '1' // somewhere in the table
  })
  for (let nth = 0; nth < 20; nth++) await admin.hset(keys.account(`app:${nth}`), 'seq', 1)
  t.match(await books.verify(nextTurn), { subjects: 20, skipped: 0, count: 0 })
})

t.test('what was about to go when it was looked at is no fault', async t => {
  const seen: Seen = async (answer, admin, keys) => {
    if (JSON.stringify(answer) === '[null,null]') await admin.del(keys.owner('left'))
    if (answer === 0) await admin.del(keys.account('app:alice').replace(/account$/, 'idem:freed'))
    if (JSON.stringify(answer).includes(keys.owner('gone'))) await admin.del(keys.owner('gone'))
  }
  const { admin, keys, books } = await scriptedBooks(t, [part('1', '')], seen)
  const { now } = clock()
  await admin.set(keys.leader, 'somebody')
  await admin.set(keys.owner('left'), `app:alice#${now()}`)
  await admin.set(keys.owner('gone'), `app:alice#${now()}`)
  await admin.hset(keys.account('app:alice').replace(/account$/, 'idem:freed'), 'number', '17', 'createdAt', now())
  t.same((await books.verify(nextTurn)).faults, [])
})
