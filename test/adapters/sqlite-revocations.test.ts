import { StatementSync } from 'node:sqlite'
import t, { type Test } from 'tap'
import type { RevocableSession } from '../../src/domain/session.ts'
import { clock } from '../helpers/clock.ts'
import { fileOf, open, openWithin, storeDown, visit } from './sqlite-files.ts'

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
  for (let count = 0; count < 2; count++) await t.rejects(server.isRevoked(session('two', 'app:bob')), storeDown)
  time.advance(lookEveryMs)
  for (let count = 0; count < 2; count++) await t.rejects(server.isRevoked(old), storeDown)
  await store.close()
  time.advance(lookEveryMs)
  for (let count = 0; count < 2; count++) await t.rejects(server.isRevoked(old), storeDown)
})
