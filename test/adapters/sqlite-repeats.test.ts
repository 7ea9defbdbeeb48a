import { copyFileSync, existsSync } from 'node:fs'
import t, { type Test } from 'tap'
import { type StoredResponse, repeatMs, type Transition } from '../../src/domain/ledger.ts'
import type { Store } from '../../src/domain/store.ts'
import { demandOf } from '../contracts/ledger-balance.ts'
import { sent, terms } from '../contracts/open-books.ts'
import { repeatOf, submitted } from '../contracts/repeats.ts'
import { clock } from '../helpers/clock.ts'
import { fileOf, lockHolder, open, openWithin, visit } from './sqlite-files.ts'

const subject = 'app:alice'
const claim = (taskId: string): Transition => ({ to: 'claimed', taskId })
const answer: StoredResponse = { status: 200, contentType: 'application/json', body: Buffer.from('{"code":200}') }

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
    await store.repeats.undelivered(kept, answer)
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
      kept: { kind: 'answered', answer },
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
  await t.rejects(store.repeats.undelivered(lost, answer), { code: 'GW_STORE_DOWN' })
  store.repeats.delivered(told)
  await t.rejects(store.tidy(), { code: 'GW_STORE_DOWN' })
  t.same(store.repeats.crowded(), [])
  await letGo()
  await store.tidy()
  const repeat = repeatOf()
  t.match(await store.repeats.take(subject, repeat), { kind: 'answered', answer })
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
