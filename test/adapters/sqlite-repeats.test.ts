import { copyFileSync, existsSync } from 'node:fs'
import t, { type Test } from 'tap'
import { idempotencyMs, repeatMs, type StoredResponse, type Transition } from '../../src/domain/ledger.ts'
import type { Store } from '../../src/domain/store.ts'
import { demandOf } from '../contracts/ledger-balance.ts'
import { answer, sent, terms } from '../contracts/open-books.ts'
import { repeatOf, submitted } from '../contracts/repeats.ts'
import { clock } from '../helpers/clock.ts'
import {
  claimed, fileOf, lockHolder, open, openWithin, reserve, sentOne, smallStore, storeDown, time, visit
} from './sqlite-files.ts'

const key = { key: 'one', fingerprint: 'print' }
const keyed = { idempotency: key }
const subject = 'app:alice'
const kept = { status: 200, contentType: 'application/json', body: Buffer.from('{"code":200}') }
const long = { taskId: 'long', state: 'success', answer: Buffer.alloc(1024 * 1024, 'x') } as const

t.test('a key is written with the first step, so that a crash before it leaves the key free', async t => {
  const path = fileOf(t)
  const store = open(t, path)
  const keys = () => visit(t, path).prepare('SELECT key, status FROM idempotency').all().map(row => ({ ...row }))
  const id = await reserve(store, keyed)
  t.same(keys(), [])
  await store.ledger.advance(id, sent)
  t.same(keys(), [{ key: 'one', status: null }])
  await store.ledger.advance(id, { to: 'claimed', taskId: 'task', answer: kept })
  t.same(keys(), [{ key: 'one', status: 200 }])
})

t.test('after a restart a key says what became of its request: answered, unknown, or nothing at all', async t => {
  const path = fileOf(t)
  const first = open(t, path)
  const names = ['answered', 'sent', 'reserved', 'refused']
  const keys = names.map(name => ({ key: name, fingerprint: 'print' }))
  const [answered, , reserved, refused] = keys
  await first.ledger.advance(await sentOne(first, { idempotency: answered }), {
    to: 'claimed',
    taskId: 'task',
    answer: kept
  })
  const lost = await sentOne(first, { idempotency: keys[1] })
  await reserve(first, { idempotency: reserved })
  await first.ledger.advance(await sentOne(first, { idempotency: refused }), { to: 'released', answer: kept })
  await first.close()

  const second = open(t, path)
  const known = await Promise.all(keys.map(key => second.idempotency.earlier(subject, key)))
  t.match(known, [{ kind: 'answered', answer: kept }, { kind: 'unknown' }, null, { kind: 'answered', answer: kept }])
  t.equal(await second.ledger.advance(lost, { to: 'claimed', taskId: 'late', answer: kept }), true)
  t.match(await second.idempotency.earlier(subject, keys[1]!), { kind: 'answered' })
})

t.test('a number that a kept key has is not given again, though its refused submit left no other trace', async t => {
  const path = fileOf(t)
  const first = open(t, path)
  const id = await sentOne(first, keyed)
  await first.ledger.advance(id, { to: 'released', answer: kept })
  await first.close()
  const second = open(t, path)
  const next = await sentOne(second, { idempotency: { key: 'two', fingerprint: 'print' } })
  t.not(next, id)
  t.match(await second.idempotency.earlier(subject, key), { kind: 'answered' })
})

t.test('a key whose first step was undone is free', async t => {
  const store = await smallStore(t, fileOf(t))
  await claimed(store, 'long')
  const id = await reserve(store, keyed)
  const outcomes = await Promise.allSettled([store.ledger.advance(id, sent), store.ledger.settle(long)])
  t.match(outcomes, [{ reason: storeDown }, { reason: storeDown }])
  t.equal(await store.idempotency.earlier(subject, key), null)
  t.match(await store.ledger.reserve(demandOf(keyed)), { granted: true })
})

t.test('an answer is not told before it is on disk', async t => {
  const store = await smallStore(t, fileOf(t))
  await claimed(store, 'long')
  const id = await sentOne(store, keyed)
  const claim = { to: 'claimed', taskId: 'task', answer: kept } as const
  const outcomes = await Promise.allSettled([
    store.ledger.advance(id, claim),
    store.idempotency.earlier(subject, key),
    store.ledger.reserve(demandOf(keyed)),
    store.records.tasksOf(subject, { cursor: null, limit: 10 }),
    store.ledger.settle(long)
  ])
  t.match(outcomes, Array.from({ length: 5 }, () => ({ status: 'rejected', reason: storeDown })))
  t.match(await store.idempotency.earlier(subject, key), { kind: 'pending' })
  t.equal(await store.ledger.advance(id, claim), true)
  t.match(await store.idempotency.earlier(subject, key), { kind: 'answered' })
})

t.test('a refusal whose answer could not be kept gives everything back all the same', async t => {
  const store = await smallStore(t, fileOf(t))
  const id = await reserve(store, { ...keyed, microcredits: 5 })
  await t.rejects(store.ledger.advance(id, { to: 'released', answer: { ...kept, body: long.answer } }), storeDown)
  await store.ledger.advance(id, { to: 'released' })
  t.equal(await store.idempotency.earlier(subject, key), null)
  t.same(await store.accounts.balanceOf(subject, demandOf().periodStart), { used: 0, granted: 0, unfinished: 0 })
})

t.test('an expired key that nobody has tidied away makes room for the next', async t => {
  const path = fileOf(t)
  const store = open(t, path)
  await sentOne(store, keyed)
  const later = { ...time, now: () => time.now() + idempotencyMs }
  await store.close()
  const second = open(t, path, { now: later.now })
  const id = await sentOne(second, keyed)
  t.same(visit(t, path).prepare('SELECT id FROM idempotency').all().map(row => String(row.id)), [id])
  await second.ledger.settle({ taskId: 'none', state: 'success', answer })
})

const claim = (taskId: string): Transition => ({ to: 'claimed', taskId })
const keptAnswer: StoredResponse = { status: 200, contentType: 'application/json', body: Buffer.from('{"code":200}') }

/** A server over a file as it was when its process was killed. */
function killed (t: Test, path: string, time = clock()): Store {
  const copy = `${path}.${performance.now()}`
  for (const end of ['', '-wal']) if (existsSync(path + end)) copyFileSync(path + end, copy + end)
  return open(t, copy, time)
}

const taken = (store: Store, print?: string) => store.repeats.take(subject, repeatOf(print))

t.test(
  'whatever a killed server had not delivered counts as lost, once, and two minutes from the next start',
  async t => {
    const path = fileOf(t)
    const time = clock()
    const store = open(t, path, time)
    await submitted(store, [], { repeat: repeatOf('reserved') })
    await submitted(store, [sent], { repeat: repeatOf('sent') })
    await submitted(store, [sent, claim('claimed')], { repeat: repeatOf('claimed') })
    await submitted(store, [sent, claim('settled')], { repeat: repeatOf('settled') })
    await store.ledger.settle({ taskId: 'settled', state: 'success', answer: Buffer.from('{}') })
    const kept = await submitted(store, [sent, claim('kept')], { repeat: repeatOf('kept') })
    await store.repeats.undelivered(kept, keptAnswer)
    await submitted(store, [sent, { to: 'unknown' }], { repeat: repeatOf('unknown') })
    const let_ = await submitted(store, [sent, { to: 'unknown' }], { repeat: repeatOf('let go') })
    await store.records.release(let_)
    await submitted(store, [sent, { to: 'released' }], { repeat: repeatOf('refused') })
    time.advance(1000)

    const fates = {
      reserved: null,
      sent: { kind: 'unknown' },
      claimed: { kind: 'task', taskId: 'claimed' },
      settled: { kind: 'task', taskId: 'settled' },
      kept: { kind: 'answered', answer: keptAnswer },
      unknown: { kind: 'unknown' },
      'let go': null,
      refused: null
    }
    const second = killed(t, path, time)
    for (const [print, fate] of Object.entries(fates)) t.same(await taken(second, print), fate, print)

    time.advance(repeatMs - 1001)
    const third = killed(t, path, time)
    for (const [print, fate] of Object.entries(fates)) {
      t.same(await taken(third, print), fate, `${print}, at a late start`)
    }
    time.advance(1)
    t.equal(await taken(third, 'other'), null)
    for (const print of ['unknown', 'kept']) {
      t.equal(await third.repeats.take(subject, repeatOf(print)), null, `${print} is over`)
    }
    t.match(await third.ledger.reserve(demandOf({ repeat: repeatOf('kept') })), { granted: true })
  }
)

t.test('a start that was killed does not renew the two minutes', async t => {
  const path = fileOf(t)
  const time = clock()
  const first = open(t, path, time)
  await submitted(first, [sent, claim('task')])
  await first.close()
  const second = open(t, path, time)
  time.advance(repeatMs - 1)
  const third = killed(t, path, time)
  t.match(await taken(third), { taskId: 'task' })
  await second.close()
  time.advance(1)
  const fourth = open(t, path, time)
  t.equal(await taken(fourth), null)
})

t.test('a delivered answer is noted with the next write, or the next tidy, and by a write of nobody else', async t => {
  const path = fileOf(t)
  const time = clock()
  const store = open(t, path, time)
  const file = visit(t, path)
  const open_ = () =>
    (file.prepare('SELECT count(*) AS count FROM tasks WHERE repeat IS NOT NULL').get() as { count: number }).count
  store.repeats.delivered(await submitted(store, [sent, claim('one')]))
  t.equal(open_(), 1)
  t.match(await taken(killed(t, path, time)), { taskId: 'one' }, 'killed before that, in doubt it is not made again')
  await submitted(store, [sent, claim('two')], { repeat: repeatOf('two') })
  t.equal(open_(), 1, 'the other one')
  t.equal(await taken(killed(t, path, time)), null)
  store.repeats.delivered('2')
  await store.tidy()
  t.equal(open_(), 0)
  const last = await submitted(store, [sent, claim('three')])
  store.repeats.delivered(last)
  await store.close()
  t.equal(open_(), 0)
})

t.test('a store that can not write keeps in memory what it was told, and notes it later', async t => {
  const path = fileOf(t)
  const time = clock()
  const { store } = await openWithin(t, path, time)
  const [lost, told] = [await submitted(store, [sent, claim('lost')]), await submitted(store, [sent, claim('told')])]
  const letGo = await lockHolder(t, path)
  await t.rejects(store.repeats.undelivered(lost, keptAnswer), { code: 'GW_STORE_DOWN' })
  store.repeats.delivered(told)
  await t.rejects(store.tidy(), { code: 'GW_STORE_DOWN' })
  t.same(store.repeats.takeCrowded(), [])
  await letGo()
  await store.tidy()
  const repeat = repeatOf()
  t.match(await store.repeats.take(subject, repeat), { kind: 'answered', answer: keptAnswer })
  await store.repeats.end(subject, repeat, true)
  t.equal(await taken(store), null)
})

t.test('what a failed commit has undone is noted with the next', async t => {
  const path = fileOf(t)
  const { store, db } = await openWithin(t, path, clock())
  store.repeats.delivered(await submitted(store, [sent, claim('one')]))
  db.exec("CREATE TEMP TRIGGER full BEFORE INSERT ON tasks BEGIN SELECT raise(ABORT, 'disk full'); END")
  await t.rejects(submitted(store, [sent], { repeat: repeatOf('two') }), { code: 'GW_STORE_DOWN' })
  db.exec('DROP TRIGGER full')
  await store.tidy()
  t.same(db.prepare('SELECT repeat FROM tasks').all(), [{ repeat: null }])
})

t.test('a wall clock that is put forward or back by a day forgets nothing, and keeps nothing for longer', async t => {
  const time = clock()
  const store = open(t, ':memory:', time)
  await submitted(store, [sent, { to: 'unknown' }])
  for (const step of [25, -50, 25]) {
    time.step(step * 3_600_000)
    const repeat = repeatOf()
    t.match(await store.repeats.take(subject, repeat), { kind: 'unknown' })
    await store.repeats.end(subject, repeat, false)
  }
  time.step(-25 * 3_600_000)
  time.advance(repeatMs)
  t.equal(await taken(store), null)
})

t.test('a start looks at the last few minutes of the ledger, not at all of it', async t => {
  const path = fileOf(t)
  const time = clock()
  const store = open(t, path, time)
  await submitted(store, [sent, claim('old')], { repeat: repeatOf('old') })
  time.advance(terms.reservedMs + terms.sentMs + repeatMs + 1)
  await submitted(store, [sent, claim('new')], { repeat: repeatOf('new') })
  const second = killed(t, path, time)
  t.equal(await taken(second, 'old'), null)
  t.match(await taken(second, 'new'), { taskId: 'new' })
})

t.test('what the command line lets go is not told again', async t => {
  const path = fileOf(t)
  const store = open(t, path)
  const id = await submitted(store, [sent, { to: 'unknown' }])
  const beside = open(t, path, { role: 'operator' })
  t.equal(await beside.records.release(id), true)
  t.equal(await taken(store), null)
})

t.test(
  'a repeat that can not be told, as another write of its turn has failed, leaves its first to the next',
  async t => {
    const { store, db } = await openWithin(t, fileOf(t), clock())
    await store.repeats.undelivered(await submitted(store, [sent, claim('task')]))
    const asks = [
      () => store.repeats.take(subject, repeatOf()),
      () => store.ledger.reserve(demandOf({ repeat: repeatOf() }))
    ]
    for (const ask of asks) {
      const [done, failing] = [
        await submitted(store, [sent], { repeat: repeatOf('done') }),
        await submitted(store, [], { repeat: repeatOf('failing') })
      ]
      db.exec("CREATE TEMP TRIGGER full BEFORE INSERT ON tasks BEGIN SELECT raise(ABORT, 'disk full'); END")
      const turn = [store.ledger.advance(done, claim('other')), ask(), store.ledger.advance(failing, sent)]
      for (const one of await Promise.allSettled(turn)) {
        t.match(one, { status: 'rejected', reason: { code: 'GW_STORE_DOWN' } })
      }
      db.exec('DROP TRIGGER full')
      const next = repeatOf()
      t.same(await store.repeats.take(subject, next), { kind: 'task', taskId: 'task' })
      await store.repeats.end(subject, next, false)
    }
  }
)
