import { StatementSync } from 'node:sqlite'
import t, { type Test } from 'tap'
import { forgetSlackMs, type RevocableSession } from '../../src/domain/session.ts'
import { clock } from '../helpers/clock.ts'
import { fileOf, open, openWithin, storeDown, time, visit } from './sqlite-files.ts'

const dayMs = 86_400_000

t.test('what guests have used is known after a restart', async t => {
  const path = fileOf(t)
  const end = time.now() + 300_000
  const before = open(t, path)
  t.equal(await before.spentProofs.spend('one', end), true)
  t.equal(await before.guestCounts.take('address 192.0.2.1', 1, dayMs), 0)
  await before.close()
  const after = open(t, path)
  t.equal(await after.spentProofs.spend('one', end), false)
  t.equal(await after.guestCounts.take('address 192.0.2.1', 1, dayMs), dayMs)
})

t.test('a count begins anew when its window has ended, and has a window of its own then', async t => {
  const { guestCounts: it } = open(t, ':memory:')
  t.equal(await it.take('one', 1, 1000), 0)
  time.advance(999)
  t.equal(await it.take('one', 1, 1000), 1)
  time.advance(1)
  t.equal(await it.take('one', 1, 1000), 0)
  time.advance(400)
  t.equal(await it.take('one', 1, 1000), 600)
})

t.test('what has ended goes, however much it is, and the rest stays', async t => {
  const path = fileOf(t)
  const store = open(t, path)
  const many = Array.from({ length: 120 }, (_, index) => `n${index}`)
  await Promise.all(
    many.flatMap(name => [store.spentProofs.spend(name, time.now() + 1000), store.guestCounts.take(name, 1, 1000)])
  )
  await store.spentProofs.spend('long', time.now() + 1001)
  await store.guestCounts.take('long', 1, 1001)
  const count = (table: string) => visit(t, path).prepare(`SELECT count(*) AS rows FROM ${table}`).get()
  await store.tidy()
  t.match([count('spent_proofs'), count('guest_counts')], [{ rows: 121 }, { rows: 121 }])
  time.advance(1000)
  await store.tidy()
  t.match(
    [count('spent_proofs'), count('guest_counts')],
    [{ rows: 121 }, { rows: 121 }],
    'a clock may be wrong for a while'
  )
  time.advance(forgetSlackMs)
  await store.tidy()
  t.match([count('spent_proofs'), count('guest_counts')], [{ rows: 1 }, { rows: 1 }])
})

t.test('while nothing can be written nobody is let in', async t => {
  const path = fileOf(t)
  const store = open(t, path)
  const other = visit(t, path)
  other.exec('BEGIN IMMEDIATE')
  await t.rejects(store.spentProofs.spend('one', time.now() + 1000), storeDown)
  await t.rejects(store.guestCounts.take('one', 1, 1000), storeDown)
  other.exec('COMMIT')
  t.equal(await store.spentProofs.spend('one', time.now() + 1000), true)
})

const never = 8.64e15
const lookEveryMs = 500

/** A server's revocations, and an operator's over the same file, by one clock. */
async function start (t: Test) {
  const path = fileOf(t)
  const time = clock()
  const { store, db } = await openWithin(t, path, { now: time.now, elapsed: time.elapsed })
  const { revocations: beside } = open(t, path, { now: time.now, role: 'operator' })
  return { path, time, db, store, server: store.revocations, beside }
}

const session = (id: string, subject = 'app:alice'): RevocableSession => ({ id, subject, issuedAt: 1000 })

t.test('a session is asked about once, until somebody else has written, and that is asked twice a second', async t => {
  const { server, beside, time } = await start(t)
  await server.revoke('mine', never)
  const gets = t.capture(StatementSync.prototype, 'get', StatementSync.prototype.get)
  /** How many statements were run; a capture forgets what it has told. */
  const askedBy = async (count: number): Promise<number> => {
    for (let asked = 0; asked < count; asked++) await server.isRevoked(session('one'))
    return gets().length
  }
  t.equal(await askedBy(1000), 2, 'about the session, and its subject')
  time.advance(lookEveryMs - 1)
  t.equal(await askedBy(1000), 0)
  time.advance(1)
  t.equal(await askedBy(1000), 1)
  await beside.revoke('other', never)
  time.advance(lookEveryMs)
  t.equal(await askedBy(1000), 3)
  await server.revoke('another', never)
  t.equal(await askedBy(1000), 0, 'what it has written itself it knows')
})

t.test('a clock that is put back puts off nothing', async t => {
  const { server, beside, time } = await start(t)
  t.same([await server.isRevoked(session('one')), await server.isRevoked(session('two'))], [false, false])
  await beside.revoke('one', never)
  time.step(-3_600_000)
  time.advance(lookEveryMs)
  t.equal(await server.isRevoked(session('one')), true)
  await beside.revokeSubject('app:alice', time.now(), never)
  time.advance(lookEveryMs)
  t.equal(await server.isRevoked(session('two')), true)
})

t.test('what somebody else has said counts while a word of our own waits for its commit, and both hold', async t => {
  const { server, beside, time } = await start(t)
  await beside.revoke('other', never)
  time.advance(lookEveryMs)
  const saying = Promise.all([server.revoke('mine', never), server.revokeSubject('app:bob', 1000, never)])
  const [other, stranger] = await Promise.all([
    server.isRevoked(session('other')),
    server.isRevoked(session('stranger'))
  ])
  t.same([other, stranger], [true, false])
  await saying
  for (const known of [session('mine'), session('any', 'app:bob'), session('other')]) {
    t.equal(await server.isRevoked(known), true, known.id)
  }
})

t.test('what was answered within a transaction that is then undone is not remembered', async t => {
  const { server, beside, time, db } = await start(t)
  await beside.revoke('other', never)
  time.advance(lookEveryMs)
  const saying = Promise.all([server.revoke('mine', never), server.revokeSubject('app:bob', 1000, never)])
  for (const known of [session('other'), session('mine'), session('any', 'app:bob')]) {
    t.equal(await server.isRevoked(known), true)
  }
  db.exec('ROLLBACK') // as SQLite does by itself when the disk is full
  await t.rejects(saying, storeDown)
  t.same(await Promise.all([session('other'), session('mine'), session('any', 'app:bob')].map(server.isRevoked)), [
    true,
    false,
    false
  ])
})

t.test('who can not look or ask says so, each time, and does not go on with what it knows', async t => {
  const { path, server, store, time } = await start(t)
  const old = session('one')
  t.equal(await server.isRevoked(old), false)
  visit(t, path).exec('DROP TABLE subject_revocations')
  t.equal(await server.isRevoked(old), false)
  for (let count = 0; count < 2; count++) await t.rejects(async () => server.isRevoked(session('two', 'app:bob')), storeDown)
  time.advance(lookEveryMs)
  for (let count = 0; count < 2; count++) await t.rejects(async () => server.isRevoked(old), storeDown)
  await store.close()
  time.advance(lookEveryMs)
  for (let count = 0; count < 2; count++) await t.rejects(async () => server.isRevoked(old), storeDown)
})
