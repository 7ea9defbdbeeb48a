import { setImmediate as nextTurn } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { accountBooks, type HeldRow } from '../../src/adapters/redis/account-books.ts'
import type { Commands, Reply } from '../../src/adapters/redis/client.ts'
import { keyNames, placeOf } from '../../src/adapters/redis/keys.ts'
import { redisStore } from '../../src/adapters/redis/store.ts'
import { creditsFrom, type Hold } from '../../src/domain/ledger.ts'
import { Secret } from '../../src/domain/secret.ts'
import { dayMs } from '../../src/domain/time.ts'
import { answer, type Fixture, openBooks, terms } from '../contracts/open-books.ts'
import { redisCluster, type RedisServer, redisServer } from '../helpers/redis-server.ts'

const team = (window: string, endsAt: number | null): Hold => ({ account: 'pool:team', window, endsAt, limit: 1000 })
const yesterday = team('day:2026-01-15', Date.UTC(2026, 0, 16))
const today = team('day:2026-01-16', Date.UTC(2026, 0, 17))
const prepaid = team('none', null)
const runningLimits = [{ account: 'gateway', limit: 50 }] as const

interface Day extends Fixture {
  readonly key: (account: 'pool:team' | 'gateway', word: string) => string
  /** A hold as its account knows it. */
  readonly memberOf: (task: string) => Promise<string>
}
type Admin = RedisServer['admin']

/** Two days of three members of a pool, under a prefix of their own. */
async function aDay (t: Test, url: string, admin: Admin, prefix: string): Promise<Day> {
  const fixture = await openBooks(t, async (t, { terms, now, elapsed }) => {
    const store = await redisStore({ url: new Secret(url), terms, now, onLost: () => {}, prefix, elapsed: elapsed! })
    t.teardown(() => store.close())
    return store
  })
  const { at, ledger, time, leads } = fixture
  const keys = keyNames(prefix)
  const places = new Map<string, string>()
  const note = async (task: string, id: Promise<string>) => { places.set(task, await id) }
  await leads()
  const before = { holds: [prepaid, yesterday], runningLimits }
  await note('task-1', at('settled', { ...before, microcredits: 5 }, 'task-1'))
  await note('task-2', at('settled', { ...before, microcredits: 7, subject: 'app:bob' }, 'task-2'))
  time.advance(dayMs)
  const now = { holds: [prepaid, today], runningLimits }
  await note('task-3', at('settled', { ...now, microcredits: 3 }, 'task-3'))
  await note('task-4', at('claimed', { ...now, microcredits: 4, subject: 'app:bob' }, 'task-4'))
  await at('claimed', { ...now, microcredits: 2 }, 'task-5')
  await ledger.settle({ taskId: 'task-5', state: 'failed', answer })
  await at('unknown', { ...now, microcredits: 6, subject: 'app:carol' })
  await at('sent', { ...now, microcredits: 8, subject: 'app:carol' })
  await at('reserved', { runningLimits, subject: 'app:carol' })
  return {
    ...fixture,
    key: (account, word) => keys.holdsOf(account).replace(/open$/, word),
    async memberOf (task) {
      const place = placeOf(places.get(task)!)!
      return `${place.subject}#${(await admin.hget(keys.reservation(place), 'hold'))!.split(' ')[0]}`
    }
  }
}

type Corrupt = (admin: Admin, day: Day) => Promise<unknown>
const used = (window: string, by: number): Corrupt => (admin, { key }) => admin.incrby(key('pool:team', `used:${window}`), by)
const gone = (window: string): Corrupt => (admin, { key }) => admin.del(key('pool:team', `used:${window}`))
const ceiling = (is: number, window: string, should: number) => ({
  kind: 'ceiling',
  subject: null,
  problem: `of pool:team ${creditsFrom(is)} credits are used in ${window}, and its tasks come to ${creditsFrom(should)}`
})

const corruptions: ReadonlyArray<readonly [what: string, corrupt: Corrupt, faults: readonly object[]]> = [
  ['nothing', async () => {}, []],
  ['a window with a credit too few', used('day:2026-01-16', -1), [ceiling(20, 'day:2026-01-16', 21)]],
  ['a window with a credit too many', used('day:2026-01-16', 1), [ceiling(22, 'day:2026-01-16', 21)]],
  ['one that is over with too few', used('day:2026-01-15', -1), [ceiling(11, 'day:2026-01-15', 12)]],
  ['one that is over with too many', used('day:2026-01-15', 1), [ceiling(13, 'day:2026-01-15', 12)]],
  ['what is prepaid with too few', used('none', -1), [ceiling(32, 'none', 33)]],
  ['what is prepaid with more, which may be of tasks that nobody remembers', used('none', 1), []],
  ['a window that is gone', gone('day:2026-01-16'), [ceiling(0, 'day:2026-01-16', 21)]],
  ['a prepaid one that is gone', gone('none'), [ceiling(0, 'none', 33)]],
  ['an account whose name is gone, and a window', async (admin, day) => {
    await admin.del(day.key('pool:team', 'open').replace(/\{.*/, 'ceilings'))
    await gone('day:2026-01-16')(admin, day)
  }, [ceiling(0, 'day:2026-01-16', 21)]],
  ['a hold that was left open', async (admin, { key, memberOf }) => {
    await admin.hset(key('pool:team', 'taken'), await memberOf('task-1'), '5 none day:2026-01-15')
    await admin.zadd(key('pool:team', 'open'), 9e15, await memberOf('task-1'))
  }, [{ kind: 'running', subject: 'app:alice', problem: 'task task-1 is settled, and counts all the same as running in pool:team' }]],
  ['one of an account without ceilings', async (admin, { key, memberOf }) => {
    await admin.hset(key('gateway', 'taken'), await memberOf('task-2'), '7 ')
    await admin.zadd(key('gateway', 'open'), 9e15, await memberOf('task-2'))
  }, [{ kind: 'running', subject: 'app:bob', problem: 'task task-2 is settled, and counts all the same as running in gateway' }]],
  ['one that was left a moment ago', async (admin, { key, memberOf }) => {
    await admin.hset(key('pool:team', 'taken'), await memberOf('task-3'), '3 none day:2026-01-16')
    await admin.zadd(key('pool:team', 'open'), 9e15, await memberOf('task-3'))
  }, []],
  ['a hold that is gone', async (admin, { key, memberOf }) => {
    await admin.hdel(key('pool:team', 'taken'), await memberOf('task-4'))
    await admin.zrem(key('pool:team', 'open'), await memberOf('task-4'))
  }, [{ kind: 'running', subject: 'app:bob', problem: 'task task-4 is claimed, and does not count as running in pool:team' }]]
]

async function eachIsNamed (t: Test, url: string, admin: Admin): Promise<void> {
  for (const [index, [what, corrupt, faults]] of corruptions.entries()) {
    const day = await aDay(t, url, admin, `test-${index}`)
    await corrupt(admin, day)
    t.match(await day.books.verify(nextTurn), { subjects: 3, count: faults.length, skipped: 0, faults }, what)
  }
}

t.test('whatever is wrong above the subjects in Redis is named, and nothing else', async t => {
  const { url, admin } = await redisServer(t)
  await eachIsNamed(t, url, admin)
})

t.test('and in a cluster', async t => {
  const { url, servers } = await redisCluster(t)
  const { Cluster } = await import('ioredis')
  const cluster = new Cluster([{ host: '127.0.0.1', port: servers[0]!.port }])
  t.teardown(() => cluster.disconnect())
  await eachIsNamed(t, url, cluster as unknown as Admin)
})

t.test('a window that began longer ago than tasks are kept may have more, but no less', async t => {
  const { url, admin } = await redisServer(t)
  const day = await aDay(t, url, admin, 'old')
  const { books, time } = day
  await admin.del('old:leader')
  time.advance(terms.retentionMs - dayMs)
  await used('day:2026-01-16', 1)(admin, day)
  t.same((await books.verify(nextTurn)).faults, [])
  await used('day:2026-01-16', -2)(admin, day)
  t.match((await books.verify(nextTurn)).faults, [ceiling(20, 'day:2026-01-16', 21)])
  await gone('day:2026-01-16')(admin, day)
  t.same((await books.verify(nextTurn)).faults, [], 'and it may be gone')
})

t.test('what an erased subject has used stays, and what is more than that is found', async t => {
  const { url, admin } = await redisServer(t)
  const day = await aDay(t, url, admin, 'erased')
  const { books, subjects, time, at } = day
  await subjects.erase({ subject: 'app:alice', pseudonym: 'erased:0123456789ab', beforeTask: async () => {} })
  t.same((await books.verify(nextTurn)).faults, [])
  await used('day:2026-01-16', 1)(admin, day)
  t.same((await books.verify(nextTurn)).faults, [], 'of that day and the one before so much may be gone')
  await used('day:2026-01-16', 7)(admin, day)
  t.match((await books.verify(nextTurn)).faults, [{
    kind: 'ceiling',
    problem: 'of pool:team 0.000029 credits are used in day:2026-01-16, and its tasks ' +
      'come to 0.000018 and what was forgotten'
  }])
  await admin.set('erased:{/app:dave}:erasing', 'erased:0')
  t.same((await books.verify(nextTurn)).faults, [], 'while somebody is being erased nobody knows')
  await admin.del('erased:{/app:dave}:erasing')
  time.advance(3 * dayMs)
  const later = team('day:2026-01-19', Date.UTC(2026, 0, 20))
  await at('settled', { holds: [later] }, 'later')
  await admin.del('erased:leader')
  await used('day:2026-01-16', -8)(admin, day)
  await used('day:2026-01-19', 1)(admin, day)
  t.match((await books.verify(nextTurn)).faults, [ceiling(2, 'day:2026-01-19', 1)], 'what was erased is of days before')
})

type Said = readonly [holds: string[], running: string[], used: Array<string | null>]

/** Books of an account that says what a test lets it say, first and then. */
async function scriptedAccount (t: Test, ...states: readonly Said[]) {
  const { admin } = await redisServer(t)
  const left = states.map(state => state.map(texts => texts.map(text => text === null ? null : Buffer.from(text))))
  const commands: Commands = {
    ofSubject: async () => null,
    on: async () => left.shift() as Reply,
    ask: give => give(admin)
  }
  const keys = keyNames('scripted')
  const windows = new Set(['scripted:{^pool:team}:used:day:2026-01-16'])
  const now = () => Date.UTC(2026, 0, 16, 12)
  return { admin, keys, books: await accountBooks({ commands, keys, terms, now, isSwept: true, names: [], windows }) }
}

const row = (more: Partial<HeldRow>): HeldRow => ({
  number: '1',
  text: 'task task',
  stage: 'settled',
  cost: 5,
  refunded: false,
  endedAt: Date.UTC(2026, 0, 16, 1),
  hold: 'hold [["pool:team","day:2026-01-16"]]',
  ...more
})
const holding = ['app:alice#hold', '3 day:2026-01-16']

t.test('what comes and goes while rows are read is no fault', async t => {
  const { books } = await scriptedAccount(t, [[], [], ['0']], [[], [], ['5']])
  const other = row({ hold: 'other [["pool:team","day:2026-01-16"]]', stage: 'claimed', endedAt: Infinity })
  books.add('app:alice', [row({}), other])
  t.same(await books.faults(true), [], 'one was made, and another one was given back')
})

t.test('an account that has not heard of an end has what was taken', async t => {
  const { books } = await scriptedAccount(t, [holding, ['app:alice#hold'], ['3']], [holding, ['app:alice#hold'], ['3']])
  books.add('app:alice', [row({ endedAt: Date.UTC(2026, 0, 16, 12) })])
  t.same(await books.faults(true), [])
  const told = await scriptedAccount(t, [holding, ['app:alice#hold'], ['3']], [[], [], ['5']])
  told.books.add('app:alice', [row({ refunded: true, stage: 'unknown' }), row({})])
  t.same(await told.books.faults(true), [], 'and what it has cost as soon as it hears of it')
})

t.test('a task that an operator has let go runs on without a hold', async t => {
  const { books, admin, keys } = await scriptedAccount(t, [[], [], ['0']], [[], [], ['0']])
  await admin.hset(keys.reservation({ subject: 'app:alice', number: '1' }), 'stage', 'claimed', 'refunded', '1')
  const running = row({ stage: 'claimed', cost: 0, endedAt: Infinity })
  books.add('app:alice', [running, { ...running, refunded: true }])
  t.same(await books.faults(true), [])
})

t.test('where a subject was left out, only what is too little is told', async t => {
  const many = await scriptedAccount(t, [[], [], ['9']], [[], [], ['9']])
  t.same(await many.books.faults(false), [])
  const few = await scriptedAccount(t, [[], [], ['9']], [[], [], ['4']])
  few.books.add('app:alice', [row({})])
  t.match(await few.books.faults(false), [{ kind: 'ceiling', problem: /0.000004 credits are used .* come to 0.000005$/ }])
})

t.test('of a window whose name does not say when it was, only what is too little is told', async t => {
  const { books } = await scriptedAccount(t, [[], [], ['0']], [[], [], ['0', null, '1']])
  books.add('app:alice', [row({ hold: 'hold [["pool:team","some","year:2026"]]' })])
  t.match(await books.faults(true), [{ problem: /^of pool:team 0.000001 credits are used in year:2026/ }])
})
