import { Redis } from 'ioredis'
import { inspect } from 'node:util'
import t, { type Test } from 'tap'
import { failures } from '../../src/adapters/redis/client.ts'
import { decoded, encoded, placeOf, reservationName } from '../../src/adapters/redis/keys.ts'
import { redisStore, type RedisStoreOptions } from '../../src/adapters/redis/store.ts'
import { idempotencyMs, type ReservationId } from '../../src/domain/ledger.ts'
import { Secret } from '../../src/domain/secret.ts'
import { forgetSlackMs } from '../../src/domain/session.ts'
import type { Store } from '../../src/domain/store.ts'
import { demandOf } from '../contracts/ledger-balance.ts'
import { clock } from '../helpers/clock.ts'
import { pagesOf } from '../helpers/pages.ts'
import {
  certificates, redisCluster, redisServer, type RedisServer, type RedisServerOptions
} from '../helpers/redis-server.ts'
import { until } from '../helpers/until.ts'

const [hourMs, dayMs] = [3_600_000, 86_400_000]
const terms = { reservedMs: 30_000, sentMs: 140_000, giveUpMs: dayMs, refundsPerPeriod: 3, retentionMs: 30 * dayMs }
const sent = { to: 'sent', keyId: 'key-1' } as const
const storeDown = { code: 'GW_STORE_DOWN', detail: { retryAfterSeconds: 1 } }
const answer = Buffer.from('{"code":200}')
const idempotency = { key: 'a key', fingerprint: 'print' }
const { periodStart } = demandOf()

async function connect (t: Test, url: string, more: Partial<RedisStoreOptions> = {}) {
  const store = await redisStore({ url: new Secret(url), terms, now: Date.now, onLost: () => {}, ...more })
  t.teardown(() => store.close())
  return store
}

async function open (t: Test, options: RedisServerOptions = {}) {
  const server = await redisServer(t, options)
  const time = clock()
  return { server, time, ...server, store: await connect(t, server.url, { now: time.now }) }
}

const sessionOf = (id: string) => ({ id, subject: 'app:alice', issuedAt: 1000 })

async function reserve ({ ledger }: Store, more = {}): Promise<ReservationId> {
  const reserved = await ledger.reserve(demandOf(more))
  if (!reserved.granted) throw new Error(`no ${reserved.reason}`)
  return reserved.id
}

async function sentOne (store: Store, more = {}): Promise<ReservationId> {
  const id = await reserve(store, more)
  await store.ledger.advance(id, sent)
  return id
}

async function claimed (store: Store, taskId: string, more = {}): Promise<ReservationId> {
  const id = await sentOne(store, more)
  await store.ledger.advance(id, { to: 'claimed', taskId })
  return id
}

async function unknown (store: Store, more = {}): Promise<ReservationId> {
  const id = await sentOne(store, more)
  await store.ledger.advance(id, { to: 'unknown' })
  return id
}

async function pages<Item> (
  read: (cursor: string | null) => Promise<{ items: readonly Item[], next: string | null }>
): Promise<Item[]> {
  const all: Item[] = []
  for await (const { items } of pagesOf(read)) all.push(...items)
  return all
}

// --- at start ---

const refusal = async (url: string, more: Partial<RedisStoreOptions> = {}): Promise<Error> => {
  try {
    await (await redisStore({ url: new Secret(url), terms, now: Date.now, onLost: () => {}, ...more })).close()
  } catch (error) {
    return error as Error
  }
  throw new Error('it was not refused')
}

t.test('a server that can not be reached stops the start, by its name', async t => {
  const server = await redisServer(t)
  await server.kill()
  const { message } = await refusal(server.url)
  t.match(message, new RegExp(`^the store redis://localhost:${server.port} can not be used: .*ECONNREFUSED`))
  t.match((await refusal('redis://127.0.0.2')).message, 'ECONNREFUSED 127.0.0.2:6379', 'its port is the usual one')
})

t.test('a password opens, and a wrong one stops the start without being shown', async t => {
  const { url, port } = await redisServer(t, { password: 'pass/word @1' })
  await (await connect(t, url)).ping()
  for (const wrong of [
    `redis://:not-that-one@localhost:${port}`,
    `redis://somebody:not-that-one@localhost:${port}`,
    `redis://localhost:${port}`
  ]) {
    const error = await refusal(wrong)
    t.match(error.message, /^the store redis:\/\/localhost:\d+ can not be used: (?:WRONGPASS|NOAUTH)/)
    t.notMatch(inspect(error, { depth: 9, showHidden: true }), /not-that-one/)
  }
})

t.test('a server that forgets keys when it is full stops the start, and so does one that does not say', async t => {
  const { url } = await redisServer(t, { policy: 'allkeys-lru' })
  t.match(
    (await refusal(url)).message,
    /can not be used: when its memory is full it may forget keys: set maxmemory-policy to noeviction, it is allkeys-lru$/
  )
  const server = await redisServer(t)
  await server.admin.acl('SETUSER', 'app', 'on', '>secret', '~*', '+@all', '-info')
  const warnings = t.capture(console, 'warn')
  const { message } = await refusal(`redis://app:secret@localhost:${server.port}`)
  t.match(message, /NOPERM/)
  warnings.restore()
})

t.test('TLS is spoken with a server whose authority is known, and with no other', async t => {
  const tls = certificates(t)
  const { url, port } = await redisServer(t, { tls, password: 'secret' })
  const store = await connect(t, url, { tls: { ca: tls.authority } })
  await claimed(store, 'one')
  t.match(await store.ledger.taskOf('one'), { stage: 'claimed' })
  t.match((await refusal(url)).message, /can not be used: .*(?:certificate|self-signed)/)
  t.match((await refusal(`redis://:secret@localhost:${port}`)).message, /can not be used: /)
})

t.test('a cluster is found out from any of its nodes, and has no numbered databases', async t => {
  const { servers: [first, second] } = await redisCluster(t, { password: 'secret' })
  const store = await connect(t, first!.url)
  await Promise.all(
    Array.from({ length: 12 }, (_, index) => claimed(store, `task ${index}`, { subject: `app:${index}` }))
  )
  t.match(await (await connect(t, second!.url)).ledger.taskOf('task 5'), { subject: 'app:5' })
  t.match(
    (await refusal(`${first!.url}/1`)).message,
    /can not be used: it is a cluster, which has no database 1: leave the number out$/
  )
})

t.test('a database of its own, and a prefix of its own, hold nothing of another', async t => {
  const { url } = await redisServer(t)
  const [one, other, third] = [
    await connect(t, url),
    await connect(t, `${url}/1`),
    await connect(t, url, { prefix: 'other' })
  ]
  await claimed(one, 'one')
  t.match(await one.ledger.taskOf('one'), { stage: 'claimed' })
  t.equal(await other.ledger.taskOf('one'), null)
  t.equal(await third.ledger.taskOf('one'), null)
})

// --- replicas ---

t.test('two replicas share everything, and of their parallel reservations one gets the last credits', async t => {
  const { url, store: one, time } = await open(t)
  const other = await connect(t, url, { now: time.now })
  const all = await Promise.all([one, other].flatMap(({ ledger }) =>
    Array.from({ length: 50 }, () => ledger.reserve(demandOf({ microcredits: 7, creditLimit: 13, idempotency })))))
  t.equal(all.filter(({ granted }) => granted).length, 1)
  await one.revocations.revoke('session', time.now() + 1000)
  t.equal(await other.revocations.isRevoked(sessionOf('session')), true)
})

t.test('one replica leads, and another one when that has closed', async t => {
  const { url, store } = await open(t)
  const first = await connect(t, url)
  t.equal(await first.leads(), true)
  t.equal(await store.leads(), false)
  t.equal(await first.leads(), true)
  await first.close()
  t.equal(await store.leads(), true)
})

t.test('a leader that died is followed when its lease ends', async t => {
  const { server, url, store } = await open(t)
  const other = await connect(t, url)
  t.equal(await store.leads(), true)
  t.ok(await server.admin.pttl('gw:leader') > 14_000)
  await server.admin.pexpire('gw:leader', 1) // as if that time had passed
  await until('the other one leads', () => other.leads())
  t.equal(await store.leads(), false)
})

t.test('a store that is closed says so, and closing waits for what is being written', async t => {
  const { url, store } = await open(t)
  const id = await sentOne(store)
  const claiming = store.ledger.advance(id, { to: 'claimed', taskId: 'one' })
  await until('it is on its way', async () => { await Promise.resolve(); return true })
  t.equal(await claiming, true)
  await store.close()
  await t.rejects(store.ping(), storeDown)
  await t.rejects(async () => store.ledger.taskOf('strange'), storeDown)
  await store.close()
  t.match(await (await connect(t, url)).ledger.taskOf('one'), { stage: 'claimed' })
})

// --- a crash in the middle ---

/** As left by a replica that died after it wrote who owns a task, and before the claim. */
async function halfClaimed (store: Store, { admin }: RedisServer, taskId: string, more = {}): Promise<ReservationId> {
  const id = await sentOne(store, more)
  await admin.set(`gw:task:${taskId}`, id)
  return id
}

t.test('a task whose claim was cut off has its owner, and ends with its credits given back', async t => {
  const { server, store } = await open(t)
  await halfClaimed(store, server, 'one', { microcredits: 5, idempotency })
  t.match(await store.ledger.taskOf('one'), { subject: 'app:alice', stage: 'sent', finalAnswer: null })
  t.equal(await store.ledger.settle({ taskId: 'one', state: 'failed', answer }), true)
  t.match(await store.ledger.taskOf('one'), { stage: 'settled', finalAnswer: answer })
  t.match(await store.accounts.balanceOf('app:alice', periodStart), { used: 0, unfinished: 0 })
  t.match(await store.records.tasksOf('app:alice', { cursor: null, limit: 10 }), {
    items: [{ taskId: 'one', refunded: true }]
  })
})

t.test('a claim that was cut off is made by whoever makes it again, also after its lease', async t => {
  const { server, store, time } = await open(t)
  const id = await halfClaimed(store, server, 'one')
  time.advance(terms.sentMs)
  t.same(await store.ledger.sweep(), { released: 0, unknown: 1 })
  t.match(await store.ledger.taskOf('one'), { stage: 'unknown' })
  t.equal(await store.ledger.advance(id, { to: 'claimed', taskId: 'one' }), true)
  t.match(await store.ledger.taskOf('one'), { stage: 'claimed' })
})

t.test('a task id that was written down for a reservation that can not have it is free for its owner', async t => {
  const { server, store } = await open(t)
  const gone = await sentOne(store)
  await store.ledger.advance(gone, { to: 'released' })
  const taken = await claimed(store, 'other')
  for (const [taskId, wrong] of [['one', gone], ['two', taken]] as const) {
    await server.admin.set(`gw:task:${taskId}`, wrong)
    t.equal(await store.ledger.taskOf(taskId), null)
    t.equal(await store.ledger.settle({ taskId, state: 'failed', answer }), false)
    const id = await sentOne(store, { subject: 'app:bob' })
    t.equal(await store.ledger.advance(id, { to: 'claimed', taskId }), true)
    t.match(await store.ledger.taskOf(taskId), { subject: 'app:bob' })
  }
  const held = await halfClaimed(store, server, 'three')
  t.equal(
    await store.ledger.advance(await sentOne(store, { subject: 'app:bob' }), { to: 'claimed', taskId: 'three' }),
    false,
    'its owner may still come'
  )
  t.equal(await store.ledger.advance(held, { to: 'claimed', taskId: 'three' }), true)
})

t.test('a task whose claim was refused has no owner', async t => {
  const { server, store } = await open(t)
  const id = await reserve(store)
  t.equal(await store.ledger.advance(id, { to: 'claimed', taskId: 'one' }), false)
  t.equal(await server.admin.exists('gw:task:one'), 0)
  await server.admin.set('gw:task:one', id)
  t.equal(await store.ledger.taskOf('one'), null, 'nor has one that was never sent')
})

// --- memory ---

t.test('a finished task is told without asking, until its retention ends', async t => {
  const { server, store, time } = await open(t)
  await claimed(store, 'one')
  await store.ledger.settle({ taskId: 'one', state: 'success', answer })
  const task = await store.ledger.taskOf('one')
  await server.kill()
  await until('it is down', () => store.ping().then(() => false, () => true))
  t.same(await store.ledger.taskOf('one'), task)
  time.advance(terms.retentionMs - 1)
  t.same(await store.ledger.taskOf('one'), task)
  time.advance(1)
  t.equal(await store.ledger.taskOf('one'), null)
})

t.test('who is revoked stays so without asking', async t => {
  const { server, store, url, time } = await open(t)
  await (await connect(t, url, { now: time.now })).revocations.revoke('session', time.now() + 1000)
  t.equal(await store.revocations.isRevoked(sessionOf('session')), true)
  await store.revocations.revoke('ended', time.now() - forgetSlackMs)
  t.equal(await server.admin.exists('gw:revoked:ended'), 0, 'what has ended by itself needs no note')
  await server.kill()
  t.equal(await store.revocations.isRevoked(sessionOf('session')), true)
  await t.rejects(async () => store.revocations.isRevoked(sessionOf('other')), storeDown)
})

t.test(
  'all sessions of a subject that were issued by then are revoked, on every replica, and a later word holds',
  async t => {
    const { url, store, time } = await open(t)
    const other = await connect(t, url, { now: time.now })
    const isRevoked = (issuedAt: number, subject = 'app:alice') =>
      other.revocations.isRevoked({ id: `${subject} ${issuedAt}`, subject, issuedAt })
    t.equal(await isRevoked(100), false)
    await store.revocations.revokeSubject('app:alice', 200, time.now() + 1000)
    await store.revocations.revokeSubject('app:alice', 100, time.now() + 1000)
    t.equal(await isRevoked(100), true)
    t.equal(await isRevoked(200), true)
    t.equal(await isRevoked(201), false)
    t.equal(await isRevoked(100, 'app:bob'), false)
    await other.revocations.revokeSubject('app:alice', 201, time.now() - 1)
    t.equal(await isRevoked(201), true)
  }
)

// --- budgets of sessions ---

const budget = { id: 'a session {1}', uses: 3, creditLimit: 10, expiresAt: Date.UTC(2026, 1) }
const spentIn = (store: Store) => store.accounts.spentIn('app:alice', budget.id)

t.test('a session with limits of its own takes its uses and its credits, and no more', async t => {
  const { store } = await open(t)
  t.same(await spentIn(store), { uses: 0, microcredits: 0 })
  const all = await Promise.all(
    Array.from({ length: 50 }, () => store.ledger.reserve(demandOf({ microcredits: 2, session: budget })))
  )
  t.equal(all.filter(({ granted }) => granted).length, 3)
  t.same(new Set(all.map(one => one.granted ? '' : one.reason)), new Set(['', 'uses']))
  t.same(await spentIn(store), { uses: 3, microcredits: 6 })
  const more = { ...budget, uses: null }
  t.match(await store.ledger.reserve(demandOf({ microcredits: 5, session: more })), {
    granted: false,
    reason: 'credits'
  })
  t.match(await store.ledger.reserve(demandOf({ microcredits: 4, session: more })), { granted: true })
  t.match(await store.ledger.reserve(demandOf({ microcredits: 4, session: { ...more, creditLimit: null } })), {
    granted: true
  })
  t.match(
    await store.ledger.reserve(demandOf({ taskLimit: 1, session: budget })),
    { reason: 'slot' },
    'a slot is asked for first'
  )
  t.match(await store.ledger.reserve(demandOf({ session: { ...budget, id: 'another' } })), { granted: true })
  t.same(await store.accounts.spentIn('app:bob', budget.id), { uses: 0, microcredits: 0 })
})

t.test('what was not accepted gives its use and its credits back, and what has failed its credits alone', async t => {
  const { server, store, time } = await open(t)
  const demand = { microcredits: 2, session: { ...budget, uses: null } }
  await store.ledger.advance(await sentOne(store, demand), { to: 'released' })
  await store.records.release(await unknown(store, demand))
  await reserve(store, demand)
  time.advance(terms.reservedMs)
  await store.ledger.sweep()
  t.same(await spentIn(store), { uses: 0, microcredits: 0 })
  await claimed(store, 'one', demand)
  await store.ledger.settle({ taskId: 'one', state: 'failed', answer })
  t.same(await spentIn(store), { uses: 1, microcredits: 0 })
  await claimed(store, 'two', demand)
  t.same(await spentIn(store), { uses: 2, microcredits: 2 })
  const [key] = await server.admin.keys('*session*')
  const moreMs = (await server.admin.pttl(key!)) - (budget.expiresAt - time.now())
  t.ok(
    moreMs > forgetSlackMs && moreMs < forgetSlackMs + dayMs,
    'longer than the session, by what a clock may be put ahead'
  )
})

// --- callbacks ---

t.test('a reservation is found by the hash that it was sent with, whatever has become of it', async t => {
  const { store } = await open(t)
  const id = await reserve(store)
  t.equal(await store.callbackSecrets.reservationOf('hash'), null)
  await store.ledger.advance(id, { ...sent, callbackHash: 'hash' })
  const known = { reservation: id, subject: 'app:alice', model: 'nano-banana', keyId: 'key-1' }
  t.same(await store.callbackSecrets.reservationOf('hash'), { ...known, task: null })
  await store.ledger.advance(id, { to: 'sent', keyId: 'key-2', callbackHash: 'later' })
  t.equal(await store.callbackSecrets.reservationOf('later'), null, 'the first one stays')
  await store.ledger.advance(id, { to: 'claimed', taskId: 'one' })
  t.same(await store.callbackSecrets.reservationOf('hash'), {
    ...known,
    keyId: 'key-2',
    task: await store.ledger.taskOf('one')
  })
  const gone = await reserve(store)
  await store.ledger.advance(gone, { ...sent, callbackHash: 'gone' })
  await store.ledger.advance(gone, { to: 'released' })
  t.equal(await store.callbackSecrets.reservationOf('gone'), null)
})

// --- what is kept, and for how long ---

t.test('every key that can be forgotten has its end, and grants have none', async t => {
  const { server, store, time } = await open(t)
  await claimed(store, 'one', { idempotency })
  await store.ledger.settle({ taskId: 'one', state: 'success', answer })
  await unknown(store)
  await store.ledger.sweep()
  await store.revocations.revoke('session', time.now() + 1000)
  await store.leads()
  await store.ping()
  const lasting = async () => {
    const names = await server.admin.keys('*')
    const ends = await Promise.all(names.map(name => server.admin.pttl(name)))
    return names.filter((_, index) => ends[index] === -1 && !/busy|^gw:store$/.test(names[index]!))
  }
  t.same(await lasting(), [])
  t.ok(await server.admin.pttl((await server.admin.keys('*idem*'))[0]!) > idempotencyMs + forgetSlackMs)
  await store.accounts.grant({ subject: 'app:alice', microcredits: 5 })
  t.same((await lasting()).sort(), ['gw:{/app:alice}:account', 'gw:{/app:alice}:grants'])
  await reserve(store, { microcredits: 5, creditLimit: 0 })
  t.ok(
    (await lasting()).includes('gw:{/app:alice}:r:' + (time.now() + 2)),
    'an unfinished one is there until somebody ends it'
  )
  t.notOk((await lasting()).includes('gw:{/app:alice}:account'))
})

t.test('a period is forgotten after a later one has begun, once it must be over', async t => {
  const { server, store } = await open(t)
  await claimed(store, 'one', { microcredits: 5 })
  const endOf = (start: number) => server.admin.pttl(`gw:{/app:alice}:period:${start}`)
  t.ok(await endOf(periodStart) > 60 * dayMs)
  await reserve(store, { periodStart: periodStart + dayMs })
  t.ok(await endOf(periodStart) < 34 * dayMs, 'it may be a month of another plan')
  await reserve(store, { periodStart })
  t.ok(await endOf(periodStart + dayMs) > 60 * dayMs)
  await server.admin.del(`gw:{/app:alice}:period:${periodStart}`)
  t.equal(await store.ledger.settle({ taskId: 'one', state: 'failed', answer }), true)
  t.match(
    await store.accounts.balanceOf('app:alice', periodStart),
    { used: 0 },
    'one that has ended is not begun again'
  )
})

t.test('the newest of very many subjects come first, a few at a time', async t => {
  const { store, time } = await open(t)
  for (let index = 0; index < 103; index++) {
    await claimed(store, `task ${index}`, { subject: `app:${index}` })
    time.advance(1)
  }
  const { items } = await store.records.tasks({ cursor: null, limit: 2 }, {})
  t.same(items.map(({ taskId }) => taskId), ['task 102', 'task 101'])
})

t.test('a month goes on while a session of another plan begins a day in it', async t => {
  const { server, store, time } = await open(t)
  const month = Date.UTC(2026, 10, 1)
  const day = Date.UTC(2026, 10, 3)
  time.advance(day + 12 * hourMs - time.now())
  await claimed(store, 'dear', { microcredits: 90, creditLimit: 100, periodStart: month })
  await reserve(store, { periodStart: day })
  const left = await server.admin.pttl(`gw:{/app:alice}:period:${month}`)
  t.ok(left >= Date.UTC(2026, 11, 1) - time.now(), 'what the month has cost is known until its end')
  const [hour, minute] = [day + 11 * hourMs, day + 12 * hourMs - 60_000]
  await reserve(store, { subject: 'app:bob', periodStart: hour })
  await reserve(store, { subject: 'app:bob', periodStart: minute })
  t.ok(await server.admin.pttl(`gw:{/app:bob}:period:${hour}`) < 2 * dayMs)
})

t.test('lists hold what is within its retention, and are cleared of the rest', async t => {
  const { server, store, time } = await open(t)
  await claimed(store, 'old')
  await store.ledger.settle({ taskId: 'old', state: 'success', answer })
  const lost = await unknown(store)
  time.advance(terms.retentionMs / 2)
  await claimed(store, 'young')
  const mine = () => pages(cursor => store.records.tasksOf('app:alice', { cursor, limit: 1 }))
  t.same((await mine()).map(({ taskId }) => taskId), ['young', null, 'old'])
  time.advance(terms.retentionMs / 2)
  t.same((await mine()).map(({ taskId }) => taskId), ['young'])
  t.same(await pages(cursor => store.records.unknowns({ cursor, limit: 1 })), [])
  t.equal(await store.records.release(lost), false)
  t.equal(await server.admin.zcard('gw:{/app:alice}:list'), 3)
  await store.tidy()
  t.equal(await server.admin.zcard('gw:{/app:alice}:list'), 1)
  t.same(await server.admin.keys('*:r:*'), [`gw:{/app:alice}:r:${time.now() - terms.retentionMs / 2}`])
})

t.test('a subject is forgotten by the list of the busy when it has been idle and has nothing open', async t => {
  const { server, store, time } = await open(t)
  const idle = await sentOne(store, { subject: 'app:idle' })
  await store.ledger.advance(idle, { to: 'released' })
  await claimed(store, 'one', { subject: 'app:busy' })
  await unknown(store, { subject: 'app:unknown' })
  const listed = async () =>
    (await Promise.all((await server.admin.keys('*names')).map(name => server.admin.zrange(name, '0', '-1'))))
      .flat()
      .sort()
  await store.tidy()
  t.same(await listed(), ['app:busy', 'app:idle', 'app:unknown'])
  time.advance(600_000)
  await store.tidy()
  t.same(await listed(), ['app:busy', 'app:unknown'])
  await reserve(store, { subject: 'app:idle' })
  t.same(await listed(), ['app:busy', 'app:idle', 'app:unknown'])
})

t.test('a subject that is used again while it is being forgotten stays on the list', async t => {
  const { server, store, time } = await open(t)
  const id = await reserve(store)
  await store.ledger.advance(id, { to: 'released' })
  const [names] = await server.admin.keys('*names')
  time.advance(600_000)
  await server.admin.zadd(names!.replace('names', 'used'), time.now() + 1, 'app:alice')
  await store.tidy()
  t.same(await server.admin.zrange(names!, '0', '-1'), ['app:alice'])
})

t.test('a number is not given twice, also when all of its subject was forgotten', async t => {
  const { server, store, time } = await open(t)
  const ids = [await reserve(store), await reserve(store), await reserve(store)]
  await server.admin.del('gw:{/app:alice}:account')
  time.advance(1000)
  ids.push(await reserve(store))
  t.equal(new Set(ids).size, 4)
})

// --- work without bounds ---

t.test('what a reservation has swept is told by the next sweep, so that no alarm is missed', async t => {
  const { store, time } = await open(t)
  await sentOne(store, { microcredits: 5 })
  await reserve(store, { microcredits: 3 })
  time.advance(terms.sentMs)
  await reserve(store, { microcredits: 1, taskLimit: 1 })
  t.match(await store.accounts.balanceOf('app:alice', periodStart), { used: 6, unfinished: 1 })
  t.same(await store.ledger.sweep(), { released: 1, unknown: 1 })
  t.same(await store.ledger.sweep(), { released: 0, unknown: 0 })
})

t.test('any number of overstayed reservations of any number of subjects is swept', async t => {
  const { store, time } = await open(t)
  await Promise.all(Array.from({ length: 250 }, () => reserve(store, { microcredits: 1 })))
  await Promise.all(Array.from({ length: 1200 }, (_, index) => sentOne(store, { subject: `app:${index}` })))
  time.advance(terms.sentMs)
  t.same(await store.ledger.sweep(), { released: 250, unknown: 1200 })
  t.match(await store.accounts.balanceOf('app:alice', periodStart), { used: 0, unfinished: 0 })
  const all = await pages(cursor => store.records.unknowns({ cursor, limit: 100 }))
  t.equal(new Set(all.map(({ id }) => id)).size, 1200)
})

t.test('unfinished tasks of a thousand subjects and of one subject with many are found, each once', async t => {
  const { store, time } = await open(t)
  await Promise.all(
    Array.from({ length: 1100 }, (_, index) => claimed(store, `task ${index}`, { subject: `app:${index}` }))
  )
  await Promise.all(Array.from({ length: 30 }, (_, index) => claimed(store, `of alice ${index}`)))
  for (const limit of [7, 1000]) {
    const found = await pages(async cursor => {
      const page = await store.unfinished.page(cursor, time.now(), limit)
      t.ok(page.items.length <= limit)
      return page
    })
    t.equal(found.length, 1130)
    t.equal(new Set(found.map(({ taskId }) => taskId)).size, 1130)
  }
  t.same((await store.unfinished.page(null, time.now() - 1, 1000)).items, [])
})

t.test('unknown ones of several subjects are listed in the order of their time', async t => {
  const { store, time } = await open(t)
  const ids: ReservationId[] = []
  for (let index = 0; index < 20; index++) {
    ids.push(await unknown(store, { subject: `app:${index * 7 % 5}` }))
    time.advance(1000)
  }
  ids.push(await unknown(store, { subject: 'app:x' }), await unknown(store, { subject: 'app:y' }))
  for (const limit of [1, 3, 100]) {
    t.same((await pages(cursor => store.records.unknowns({ cursor, limit }))).map(({ id }) => id), ids)
  }
})

t.test('a cursor or a name that is none of ours finds nothing', async t => {
  const { store } = await open(t)
  await unknown(store)
  const page = { cursor: 'x y', limit: 10 }
  const nothing = { items: [], next: null }
  t.same(await store.records.tasksOf('app:alice', page), nothing)
  t.same(await store.records.unknowns(page), nothing)
  t.same(await store.audit.read(page), nothing)
  t.equal(await store.records.release('x'), false)
  t.equal(await store.ledger.advance('x', { to: 'unknown' }), false)
})

t.test('usage of many subjects is added up, and of the asked days alone', async t => {
  const { store, time } = await open(t)
  await claimed(store, 'failed', { microcredits: 5 })
  await store.ledger.settle({ taskId: 'failed', state: 'failed', answer })
  await claimed(store, 'fine', { microcredits: 3, model: 'a:b\nc' })
  await store.ledger.settle({ taskId: 'fine', state: 'success', answer })
  time.advance(dayMs)
  await claimed(store, 'runs', { microcredits: 2 })
  await unknown(store, { subject: 'app:{bob}', microcredits: 7 })
  const none = { tasks: 1, succeeded: 0, failed: 0, unknown: 0 }
  const first = [
    { day: '2026-01-15', subject: 'app:alice', model: 'a:b\nc', ...none, succeeded: 1, microcredits: 3 },
    { day: '2026-01-15', subject: 'app:alice', model: 'nano-banana', ...none, failed: 1, microcredits: 0 }
  ]
  const second = [
    { day: '2026-01-16', subject: 'app:alice', model: 'nano-banana', ...none, microcredits: 2 },
    { day: '2026-01-16', subject: 'app:{bob}', model: 'nano-banana', ...none, unknown: 1, microcredits: 7 }
  ]
  t.same(await store.records.usage({ from: '2026-01-15', to: '2026-01-15' }), first)
  t.same(await store.records.usage({ from: '2026-01-16', to: '2026-12-31' }), second)
  t.same(await store.records.usage({ from: '2025-01-01', to: '2027-01-01' }), [...first, ...second])
})

// --- numbers and names ---

t.test('credits are counted to the last digit', async t => {
  const { store } = await open(t)
  const most = 2 ** 52 + 1
  await reserve(store, { microcredits: most })
  t.match(await store.accounts.balanceOf('app:alice', periodStart), { used: most })
  t.match(await store.ledger.reserve(demandOf({ microcredits: 2, creditLimit: most + 1 })), { reason: 'credits' })
  t.match(await store.ledger.reserve(demandOf({ microcredits: 1, creditLimit: most + 1 })), { granted: true })
  t.equal(await store.accounts.grant({ subject: 'app:bob', microcredits: most }), most)
})

t.test('round numbers, which Lua would write as 1e+15, are counted like others', async t => {
  const { store } = await open(t)
  const round = 1e15
  t.equal(await store.accounts.grant({ subject: 'app:alice', microcredits: round }), round)
  const session = { ...budget, creditLimit: null }
  const id = await reserve(store, { microcredits: round, creditLimit: round / 2, session })
  t.match(await store.accounts.balanceOf('app:alice', periodStart), { used: round / 2, granted: round / 2 })
  t.match(await spentIn(store), { microcredits: round })
  await store.ledger.advance(id, { to: 'released' })
  t.match(await store.accounts.balanceOf('app:alice', periodStart), { used: 0, granted: round })
  t.match(await spentIn(store), { uses: 0, microcredits: 0 })
  await claimed(store, 'one', { microcredits: round })
  t.match(await store.records.usage({ from: '2026-01-01', to: '2026-12-31' }), [{ microcredits: round }])
})

t.test('any text can be part of a name, and no two become one', t => {
  const texts = [
    '',
    'a',
    'A',
    '{',
    '}',
    '{}',
    '~',
    '~007b',
    ' ',
    '\0',
    'ä',
    'a\u0308',
    '\ud800',
    '\ufffd',
    '😀',
    '#',
    '#1',
    'app:{a}#5'
  ]
  const names = texts.map(encoded)
  t.equal(new Set(names).size, texts.length)
  for (const [index, name] of names.entries()) {
    t.match(name, /^[A-Za-z0-9:._@~-]*$/)
    t.equal(decoded(name), texts[index])
    t.same(placeOf(reservationName({ subject: texts[index]!, number: '17' })), { subject: texts[index], number: '17' })
  }
  for (const wrong of ['', '#', 'a', 'a#', 'a#0', 'a#01', 'a#1x', '{a}#1', 'a#12345678901234567']) {
    t.equal(placeOf(wrong), null)
  }
  t.end()
})

t.test('an error is told with its sentence alone, and an address that has none with its code', t => {
  const { reason, failure } = failures('hunter2')
  const secret = Object.assign(new Error('unknown command AUTH, with args hunter2'), {
    command: { args: ['hunter2'] },
    code: 'EX'
  })
  t.notMatch(inspect([reason(secret), failure(secret)], { depth: 9 }), /hunter2/)
  t.match(reason(secret), { message: 'unknown command AUTH, with args [secret]', code: 'EX' })
  t.match(reason(Object.assign(new AggregateError([]), { code: 'ECONNREFUSED' })), { message: 'ECONNREFUSED' })
  t.end()
})

t.test('callers and strangers push nothing of what the operator did out of the audit trail', async t => {
  const { store: { audit }, time } = await open(t)
  const entry = { at: time.now(), subject: 'app:alice', detail: {} } as const
  const deeds = [
    { ...entry, kind: 'grant', actor: 'admin' },
    { ...entry, kind: 'revoke', actor: 'cli' },
    { ...entry, kind: 'settings', actor: 'gateway' }
  ] as const
  await audit.append(deeds)
  const swaps = Array.from({ length: 3000 }, () => ({ ...entry, kind: 'mint', actor: 'token:mallory' }) as const)
  const refusals = Array.from({ length: 3000 }, () => ({ ...entry, kind: 'refusals', actor: 'gateway' }) as const)
  for (let round = 0; round < 36; round++) {
    await audit.append(swaps)
    await audit.append(refusals)
  }
  const counts = new Map<string, number>()
  for await (const { items } of pagesOf(cursor => audit.read({ cursor, limit: 5000 }))) {
    for (const { kind } of items) counts.set(kind, (counts.get(kind) ?? 0) + 1)
  }
  t.match(Object.fromEntries(counts), { grant: 1, revoke: 1, settings: 1 })
  for (const kind of ['mint', 'refusals']) {
    t.ok(counts.get(kind)! >= 100_000 && counts.get(kind)! < 101_000, `${counts.get(kind)} of ${kind}`)
  }
})

t.test('an entry of an earlier version, or of a replica that still runs it, is in its place', async t => {
  const { store: { audit }, url, time } = await open(t)
  const client = new Redis(url)
  t.teardown(() => client.disconnect())
  const entryOf = (kind: 'grant' | 'mint', number: number) => ({
    at: time.now(),
    kind,
    actor: 'admin',
    subject: null,
    detail: { number }
  })
  for (let number = 0; number < 6; number++) {
    const entry = entryOf(number % 2 === 0 ? 'grant' : 'mint', number)
    if (number < 3) await client.xadd('gw:audit', 'MAXLEN', '~', 100_000, '*', 'entry', JSON.stringify(entry))
    else await audit.append([entry])
  }
  t.same((await audit.read({ cursor: null, limit: 10 })).items.map(({ detail }) => detail.number), [5, 4, 3, 2, 1, 0])
  await client.xadd('gw:audit', '99999999999999-7', 'entry', JSON.stringify(entryOf('mint', 6)))
  await audit.append([entryOf('grant', 7)])
  t.same(
    (await audit.read({ cursor: null, limit: 2 })).items.map(({ detail }) => detail.number),
    [7, 6],
    'also when its clock is ahead'
  )
})

t.test('a Redis that was emptied serves nobody, whether or not somebody is told of it', async t => {
  const { server, time } = await open(t)
  const store = await connect(t, server.url, { now: time.now, elapsed: time.elapsed })
  await store.ping()
  await server.admin.flushall()
  time.advance(1000)
  await t.rejects(store.ping(), storeDown)
})
