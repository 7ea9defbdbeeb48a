import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import t from 'tap'
import { groupCommit } from '../../src/adapters/sqlite/database.ts'
import { signedSessions } from '../../src/adapters/signed-sessions.ts'
import { Secret } from '../../src/domain/secret.ts'
import { forgetSlackMs } from '../../src/domain/session.ts'
import { balance, demandOf } from '../contracts/ledger-balance.ts'
import { answer, periodStart, sent } from '../contracts/open-books.ts'
import { sessionOf } from '../contracts/revocations.ts'
import { clock } from '../helpers/clock.ts'
import {
  claimed, fileOf, lockHolder, open, openWithin, reserve, sentOne, smallStore, storeDown, time, visit
} from './sqlite-files.ts'

t.test('the folder of the file is made, however deep', async t => {
  const path = join(t.testdir({}), 'a/b/gateway.db')
  await open(t, path).ping()
  t.ok(existsSync(path))
})

t.test('a store that was closed and is opened again knows everything', async t => {
  const path = fileOf(t)
  const first = open(t, path)
  await claimed(first, 'one', { microcredits: 5 })
  await claimed(first, 'two', { microcredits: 3 })
  await first.ledger.settle({ taskId: 'two', state: 'success', answer })
  await first.revocations.revoke('session', time.now() + 1000)
  await first.revocations.revokeSubject('app:bob', time.now(), time.now() + 1000)
  await sentOne(first, {
    microcredits: 0,
    session: { id: 'scoped', uses: 1, creditLimit: 1, expiresAt: time.now() + 1000 }
  })
  await first.close()

  const second = open(t, path)
  const { creditsUsed, slotsUsed } = balance(second.ledger)
  t.match(await second.ledger.taskOf('one'), { stage: 'claimed', subject: 'app:alice', finalAnswer: null })
  t.match(await second.ledger.taskOf('two'), { stage: 'settled' })
  t.ok((await second.ledger.taskOf('two'))?.finalAnswer?.equals(answer))
  t.equal(await creditsUsed(), 8)
  t.equal(await slotsUsed(), 1)
  t.equal(await second.revocations.isRevoked(sessionOf('session')), true)
  t.equal(await second.revocations.isRevoked({ ...sessionOf('other'), subject: 'app:bob' }), true)
  t.same(await second.accounts.spentIn('app:alice', 'scoped'), { uses: 1, microcredits: 0 })
})

t.test('what an earlier server left half done is brought to a safe end', async t => {
  const path = fileOf(t)
  const first = open(t, path)
  await reserve(first, { microcredits: 1 })
  const lost = await sentOne(first, { microcredits: 2 })
  await claimed(first, 'one', { microcredits: 4 })
  await sentOne(first, { microcredits: 8, subject: 'app:bob' })
  await first.close()

  const second = open(t, path)
  const { creditsUsed, slotsUsed } = balance(second.ledger)
  t.equal(await creditsUsed(), 6, 'what was never sent is given back, what may have been accepted is not')
  t.equal(await slotsUsed(), 1)
  t.equal(await creditsUsed({ subject: 'app:bob' }), 8)
  t.equal(await slotsUsed({ subject: 'app:bob' }), 0)
  t.match(await second.ledger.taskOf('one'), { stage: 'claimed' })
  t.equal(await second.ledger.advance(lost, { to: 'released' }), false)
  t.equal(await second.ledger.advance(lost, { to: 'claimed', taskId: 'late' }), true)
  const stages = visit(t, path)
    .prepare('SELECT stage, count(*) AS count FROM tasks GROUP BY stage ORDER BY stage')
    .all()
  t.same(
    stages.map(row => ({ ...row })),
    [
      { stage: 'claimed', count: 2 },
      { stage: 'unknown', count: 1 }
    ]
  )
})

t.test('a number that was given before a restart is not given again to a row that stays', async t => {
  const path = fileOf(t)
  const first = open(t, path)
  const ids = [await sentOne(first), await sentOne(first)]
  await first.close()
  t.notOk(ids.includes(await reserve(open(t, path))))
})

t.test('a file of a newer version is refused with a sentence that says so, and is left alone', async t => {
  const path = fileOf(t)
  await open(t, path).close()
  const db = visit(t, path)
  const { user_version: version } = db.prepare('PRAGMA user_version').get() as { user_version: number }
  db.exec('PRAGMA user_version = 999')
  t.throws(() => open(t, path), {
    message: `the ledger ${path} can not be opened: it has version 999, this gateway knows ${version}: a newer one wrote it`
  })
  db.exec(`PRAGMA user_version = ${version}`)
  await open(t, path).ping()
})

t.test('a file that is no ledger is refused', async t => {
  const path = fileOf(t)
  writeFileSync(path, 'this is no database, and longer than a header of one would be: '.repeat(20))
  t.throws(() => open(t, path), { message: `the ledger ${path} can not be opened: file is not a database` })
})

t.test('a path where no file can be is refused by name', async t => {
  const path = fileOf(t)
  mkdirSync(`${path}.lock`)
  t.throws(() => open(t, path), { message: `the ledger ${path} can not be opened: unable to open database file` })
  const other = join(path, '..', 'other.db')
  writeFileSync(`${other}.lock`, 'no database either '.repeat(100))
  t.throws(() => open(t, other), { message: `the ledger ${other} can not be opened: file is not a database` })
  const folder = join(path, '..', 'folder')
  mkdirSync(folder)
  t.throws(() => open(t, folder), { message: `the ledger ${folder} can not be opened: unable to open database file` })
})

t.test('a second server on one file is refused, and let in when the first has gone', async t => {
  const path = fileOf(t)
  const first = open(t, path)
  t.throws(() => open(t, path), { message: `the ledger ${path} can not be opened: another gateway is running on it` })
  t.throws(
    () => open(t, path),
    { message: `the ledger ${path} can not be opened: another gateway is running on it` },
    'the first try took nothing away'
  )
  await claimed(first, 'one')
  await first.close()
  t.match(await open(t, path).ledger.taskOf('one'), { stage: 'claimed' })
})

t.test('any number of servers may have a store in memory', async t => {
  const [one, other] = [open(t, ':memory:'), open(t, ':memory:')]
  await claimed(one, 'one')
  t.equal(await other.ledger.taskOf('one'), null)
})

t.test('the command line may read and write beside the server', async t => {
  const path = fileOf(t)
  const store = open(t, path)
  await claimed(store, 'one', { microcredits: 5 })
  await store.ledger.settle({ taskId: 'one', state: 'success', answer })
  const db = visit(t, path)
  t.match(db.prepare('SELECT task_id, stage FROM tasks').get(), { task_id: 'one', stage: 'settled' })
  db.exec('UPDATE credits SET used = 3')
  t.equal(await balance(store.ledger).creditsUsed(), 3)
  await claimed(store, 'two')
  t.match(db.prepare('SELECT count(*) AS count FROM tasks').get(), { count: 2 })
})

t.test('writes go to a log beside the file; full waits for the disk as well', async t => {
  for (const [synchronous, level] of [['normal', 1], ['full', 2]] as const) {
    const { db } = await openWithin(t, join(t.testdirName, synchronous, 'gateway.db'), { synchronous })
    t.match(db.prepare('PRAGMA journal_mode').get(), { journal_mode: 'wal' })
    t.match(db.prepare('PRAGMA synchronous').get(), { synchronous: level })
  }
})

t.test('many writes of one turn are one transaction', async t => {
  const path = fileOf(t)
  const store = open(t, path)
  const ids = await Promise.all(Array.from({ length: 50 }, () => reserve(store)))
  const counts = [commitsIn(path)]
  for (const step of [() => sent, (index: number) => ({ to: 'claimed', taskId: `task ${index}` }) as const]) {
    t.same(await Promise.all(ids.map((id, index) => store.ledger.advance(id, step(index)))), ids.map(() => true))
    counts.push(commitsIn(path))
  }
  await Promise.all(ids.map((_, index) => store.ledger.settle({ taskId: `task ${index}`, state: 'success', answer })))
  counts.push(commitsIn(path))
  t.same(counts, [counts[0]!, counts[0]! + 1, counts[0]! + 2, counts[0]! + 3])
})

t.test('what is known is answered at once: a reservation, a task, and that nothing is repeated', async t => {
  const { ledger, repeats } = open(t, fileOf(t))
  const repeat = { fingerprint: 'print', call: 'call', arrivedAt: 0 }
  t.equal(repeats.take('app:alice', repeat), null)
  const reserved = ledger.reserve(demandOf({ repeat }))
  t.match(reserved, { granted: true, id: String })
  t.equal(ledger.taskOf('one'), null)
})

t.test('what has resolved is on disk, what has not is not', async t => {
  const path = fileOf(t)
  const store = open(t, path)
  const db = visit(t, path)
  const stage = () => (db.prepare('SELECT stage FROM tasks').get() as { stage?: string } | undefined)?.stage
  const id = await reserve(store)
  const sending = store.ledger.advance(id, sent)
  t.equal(stage(), undefined)
  await sending
  t.equal(stage(), 'sent')
  const claiming = store.ledger.advance(id, { to: 'claimed', taskId: 'one' })
  t.equal(stage(), 'sent')
  await claiming
  t.equal(stage(), 'claimed')
})

t.test(
  'a file that somebody else keeps locked fails each write within its time, and takes them again by itself',
  async t => {
    const path = fileOf(t)
    const store = open(t, path)
    const { creditsUsed, slotsUsed } = balance(store.ledger)
    await claimed(store, 'one', { microcredits: 5 })
    const id = await reserve(store, { microcredits: 3 })
    const other = visit(t, path)
    other.exec('BEGIN IMMEDIATE')
    const start = performance.now()
    await t.rejects(store.ledger.advance(id, sent), storeDown)
    t.ok(performance.now() - start < 1000)
    await t.rejects(store.ledger.settle({ taskId: 'one', state: 'failed', answer }), storeDown)
    await t.rejects(store.revocations.revoke('session', time.now() + 1000), storeDown)
    t.equal(await store.revocations.isRevoked(sessionOf('session')), false)
    t.match(await store.ledger.taskOf('one'), { stage: 'claimed' }, 'what is known is still told')
    other.exec('ROLLBACK')

    t.equal(await store.ledger.advance(id, sent), true, 'the same step, once more')
    t.equal(await creditsUsed(), 8)
    t.equal(await slotsUsed(), 2)
    t.equal(await store.ledger.settle({ taskId: 'one', state: 'failed', answer }), true)
    await store.revocations.revoke('session', time.now() + 1000)
    t.equal(await store.revocations.isRevoked(sessionOf('session')), true)
  })

t.test('a store that can not write is not ready, and is again by itself', async t => {
  const path = fileOf(t)
  const store = open(t, path)
  await store.ping()
  const id = await sentOne(store)
  const other = visit(t, path)
  other.exec('BEGIN IMMEDIATE')
  await t.rejects(store.ledger.advance(id, { to: 'unknown' }), storeDown)
  await t.rejects(store.ping(), storeDown)
  await t.rejects(store.ping(), storeDown)
  other.exec('ROLLBACK')
  await store.ping()
  t.equal(await store.ledger.advance(id, { to: 'unknown' }), true)
  await store.ping()
})

t.test('a full disk undoes all of its turn, tells each of its writers, and what was there before stays', async t => {
  const path = fileOf(t)
  const store = await smallStore(t, path)
  const { creditsUsed, slotsUsed } = balance(store.ledger)
  await claimed(store, 'one', { microcredits: 5 })
  const small = await sentOne(store, { microcredits: 1 })
  await claimed(store, 'two', { microcredits: 3 })

  // The long answer does not fit; the two others stand in the same transaction, one before it and one after it.
  const outcomes = await Promise.allSettled([
    store.ledger.advance(small, { to: 'claimed', taskId: 'three' }),
    store.ledger.settle({ taskId: 'two', state: 'success', answer: Buffer.alloc(1024 * 1024, 'x') }),
    store.revocations.revoke('session', time.now() + 1000)
  ])
  t.match(outcomes.slice(0, 2), [{ status: 'rejected', reason: storeDown }, { status: 'rejected', reason: storeDown }])
  t.equal(outcomes[2].status, 'fulfilled', 'the next transaction is a new one')
  t.equal(await store.ledger.taskOf('three'), null)
  t.match(await store.ledger.taskOf('two'), { stage: 'claimed', finalAnswer: null })
  t.equal(await creditsUsed(), 9)
  t.equal(await slotsUsed(), 3)

  t.equal(await store.ledger.advance(small, { to: 'claimed', taskId: 'three' }), true)
  t.equal(await store.ledger.settle({ taskId: 'two', state: 'success', answer }), true)
  t.match(await store.ledger.taskOf('three'), { stage: 'claimed' })
  t.equal(await creditsUsed(), 9)
  t.equal(await slotsUsed(), 2)
})

t.test(
  'a commit that fails undoes all of its turn, tells each of its writers, and the next one is none the worse',
  async t => {
    const path = fileOf(t)
    const store = open(t, path)
    const { creditsUsed, slotsUsed } = balance(store.ledger)
    const ids = await Promise.all(Array.from({ length: 5 }, () => sentOne(store)))
    // A constraint that is looked at when the transaction ends.
    visit(t, path).exec(`CREATE TABLE poison (id INTEGER REFERENCES tasks (id) DEFERRABLE INITIALLY DEFERRED);
    CREATE TRIGGER poison_task AFTER UPDATE ON tasks WHEN new.task_id = 'poison' BEGIN INSERT INTO poison VALUES (-1); END;
    CREATE TRIGGER poison_session AFTER INSERT ON revocations BEGIN INSERT INTO poison VALUES (-1); END`)
    await t.rejects(store.revocations.revoke('session', time.now() + 1000), storeDown)
    t.equal(await store.revocations.isRevoked(sessionOf('session')), false)
    const claims = ids.map((id, index) =>
      store.ledger.advance(id, { to: 'claimed', taskId: index === 3 ? 'poison' : `task ${index}` })
    )
    const dropped = store.ledger.advance(ids[0]!, { to: 'unknown' })
    t.match(
      await Promise.allSettled([...claims, dropped]),
      Array.from({ length: 6 }, () => ({ status: 'rejected', reason: storeDown }))
    )

    const before = commitsIn(path)
    await store.ping()
    t.equal(commitsIn(path), before + 1, 'who has failed proves that it can write')
    await store.ping()
    t.equal(commitsIn(path), before + 1, 'and who has proved it need not again')
    for (const index of [0, 1, 2, 4]) t.equal(await store.ledger.taskOf(`task ${index}`), null)
    t.equal(await creditsUsed(), 5)
    t.equal(await slotsUsed(), 5)
    t.same(
      await Promise.all(ids.map((id, index) => store.ledger.advance(id, { to: 'claimed', taskId: `task ${index}` }))),
      ids.map(() => true)
    )
  }
)

t.test('a reservation whose step was undone costs nothing', async t => {
  const store = await smallStore(t, fileOf(t))
  const { creditsUsed, slotsUsed } = balance(store.ledger)
  await claimed(store, 'one')
  const id = await reserve(store, { subject: 'app:bob', microcredits: 5 })
  await reserve(store, { subject: 'app:bob', microcredits: 3 })
  const sending = store.ledger.advance(id, sent)
  const settling = store.ledger.settle({ taskId: 'one', state: 'success', answer: Buffer.alloc(1024 * 1024, 'x') })
  t.match(await Promise.allSettled([sending, settling]), [{ reason: storeDown }, { reason: storeDown }])
  await store.ledger.advance(id, { to: 'released' })
  t.equal(await creditsUsed({ subject: 'app:bob' }), 3, 'the other one stands')
  t.equal(await slotsUsed({ subject: 'app:bob' }), 1)
})

t.test('while the file can not be read after a turn was undone nobody spends what unfinished tasks have', async t => {
  const path = fileOf(t)
  const store = open(t, path)
  const { creditsUsed, slotsUsed } = balance(store.ledger)
  const id = await sentOne(store, { microcredits: 5 })
  const set = await reserve(store, { microcredits: 2 })
  const other = visit(t, path)
  other.exec('ALTER TABLE tasks RENAME TO hidden')
  await t.rejects(store.ledger.advance(id, { to: 'unknown' }), storeDown)
  t.throws(() => store.ledger.reserve(demandOf({ creditLimit: 5 })), storeDown)
  await t.rejects(store.accounts.balanceOf('app:alice', periodStart), storeDown)
  await t.rejects(store.records.tasksOf('app:alice', { cursor: null, limit: 10 }), storeDown)
  await t.rejects(store.accounts.grant({ subject: 'app:alice', microcredits: 1 }), storeDown)
  await store.ledger.advance(set, { to: 'released' })

  other.exec('ALTER TABLE hidden RENAME TO tasks')
  t.equal(await creditsUsed(), 5)
  t.equal(await slotsUsed(), 1)
  t.equal(await store.ledger.advance(id, { to: 'unknown' }), true)
  t.equal(await creditsUsed(), 5)
  t.equal(await slotsUsed(), 0)
  t.match(await store.accounts.balanceOf('app:alice', periodStart), { granted: 0 }, 'a refused grant is none')
})

t.test('sums of more microcredits than JavaScript counts exactly stop there, and what goes back stops at none', async t => {
  const store = open(t, fileOf(t))
  const { accounts, ledger, records } = store
  const most = Number.MAX_SAFE_INTEGER
  const session = { id: 'scoped', uses: null, creditLimit: null, expiresAt: time.now() + 1000 }
  const ids: string[] = []
  for (let count = 0; count < 2; count++) ids.push(await sentOne(store, { microcredits: most, session }))
  t.same(await accounts.spentIn('app:alice', 'scoped'), { uses: 2, microcredits: most })
  for (const id of ids) await ledger.advance(id, { to: 'unknown' })
  t.match(await accounts.balanceOf('app:alice', periodStart), { used: most })
  for (const id of ids) t.equal(await records.release(id), true)
  t.match(await accounts.balanceOf('app:alice', periodStart), { used: 0 })
  t.same(await accounts.spentIn('app:alice', 'scoped'), { uses: 0, microcredits: 0 })

  const late = await Promise.all([0, 1].map(() => sentOne(store, { microcredits: most })))
  for (const id of late) await ledger.advance(id, { to: 'unknown' })
  for (const id of late) t.equal(await ledger.advance(id, { to: 'claimed', taskId: `late ${id}` }), true)
  for (const id of late) t.equal(await ledger.settle({ taskId: `late ${id}`, state: 'failed', answer }), true)
  t.match(await accounts.balanceOf('app:alice', periodStart), { used: 0, unfinished: 0 })
})

t.test('a store that is closed says so, and closing waits for what is being written', async t => {
  const path = fileOf(t)
  const store = open(t, path)
  const id = await sentOne(store)
  const claiming = store.ledger.advance(id, { to: 'claimed', taskId: 'one' })
  await store.close()
  t.equal(await claiming, true)
  await t.rejects(store.ping(), storeDown)
  t.throws(() => store.ledger.taskOf('one'), storeDown)
  t.throws(() => store.ledger.reserve(demandOf({ creditLimit: 100 })), storeDown)
  await t.rejects(store.unfinished.page(null, time.now(), 10), storeDown)
  await t.rejects(store.ledger.advance(id, { to: 'unknown' }), storeDown)
  await store.close()
  t.match(await open(t, path).ledger.taskOf('one'), { stage: 'claimed' })
})

t.test('a revocation is forgotten two days after its session would have ended by itself', async t => {
  const path = fileOf(t)
  const time = clock()
  const store = open(t, path, { now: time.now })
  await store.revocations.revoke('short', time.now() + 1000)
  await store.revocations.revoke('long', time.now() + 10_000)
  time.advance(1000 + forgetSlackMs)
  await store.revocations.revoke('other', time.now() + 1000)
  t.same(
    visit(t, path)
      .prepare('SELECT session_id FROM revocations ORDER BY session_id')
      .all()
      .map(row => row.session_id),
    ['long', 'other']
  )
  t.equal(await store.revocations.isRevoked(sessionOf('short')), false, 'in memory as well')
  await store.revocations.revokeSubject('app:alice', 2000, time.now() + 1000)
  t.equal(await store.revocations.isRevoked(sessionOf('another')), true)
  time.advance(1000 + forgetSlackMs)
  await store.revocations.revokeSubject('app:bob', 2000, time.now() + 1000)
  t.equal(await store.revocations.isRevoked(sessionOf('another')), false, 'and so are subjects')
})

t.test('the file has ids, names and answers, and no token', async t => {
  const path = fileOf(t)
  const store = open(t, path)
  const sessions = signedSessions({
    secrets: { current: [new Secret('a-session-secret-of-32-bytes-and-more')] },
    now: time.now
  })
  const { token, session } = await sessions.mint({
    subject: 'alice',
    plan: 'default',
    models: ['*'],
    scopes: [],
    ttlSeconds: 60
  })
  await claimed(store, 'one', { subject: session.subject })
  await store.revocations.revoke(session.id, session.expiresAt)
  const bytes = Buffer.concat(['', '-wal'].map(end => readFileSync(path + end)))
  for (const known of [session.id, session.subject, 'one']) t.ok(bytes.includes(known), known)
  for (const part of token.split('.')) t.notOk(bytes.includes(part))
})

/**
 * Commits in the log beside a file; a frame that ends one says how long the file is then:
 * https://sqlite.org/fileformat2.html#walformat
 */
function commitsIn (path: string): number {
  const log = readFileSync(`${path}-wal`)
  const frameBytes = 24 + log.readUInt32BE(8)
  const frames = Math.floor((log.length - 32) / frameBytes)
  return Array.from({ length: frames }, (_, index) => log.readUInt32BE(32 + index * frameBytes + 4)).filter(
    length => length > 0
  ).length
}

t.test(
  'a file that another process keeps locked holds up the event loop once, and is taken again the moment it is free',
  async t => {
    const path = fileOf(t)
    const store = open(t, path)
    await claimed(store, 'one')
    const id = await reserve(store)
    for (let times = 0; times < 2; times++) {
      const letGo = await lockHolder(t, path)
      const start = performance.now()
      await t.rejects(store.ledger.advance(id, sent), storeDown)
      const first = performance.now() - start
      for (let count = 0; count < 99; count++) await t.rejects(store.ledger.advance(id, sent), storeDown)
      const all = performance.now() - start
      t.ok(first > 20, `${first} ms: a lock that is held for a moment is waited for`)
      t.ok(all < 2000, `${all} ms: a hundred waits would have been 5000`)
      await t.rejects(store.ping(), storeDown)
      t.match(await store.ledger.taskOf('one'), { stage: 'claimed' }, 'reading goes on')
      await letGo()
      t.equal(await store.ledger.advance(id, sent), true)
      await store.ping()
    }
  }
)

/** As version 1 made it. */
const version1 = `
  CREATE TABLE tasks (
    id INTEGER PRIMARY KEY, subject TEXT NOT NULL, operation TEXT NOT NULL, model TEXT NOT NULL, key_id TEXT NOT NULL,
    stage TEXT NOT NULL CHECK (stage IN ('sent', 'claimed', 'settled', 'unknown')), task_id TEXT UNIQUE, microcredits INTEGER NOT NULL,
    refundable INTEGER NOT NULL, refunded INTEGER NOT NULL DEFAULT 0, period_start INTEGER NOT NULL, created_at INTEGER NOT NULL,
    lease_until INTEGER NOT NULL, ended_at INTEGER, state TEXT
  ) STRICT;
  CREATE INDEX unfinished_tasks ON tasks (id) WHERE ended_at IS NULL;
  CREATE TABLE answers (id INTEGER PRIMARY KEY REFERENCES tasks (id) ON DELETE CASCADE, body BLOB NOT NULL) STRICT;
  CREATE TABLE credits (
    subject TEXT NOT NULL, period_start INTEGER NOT NULL, used INTEGER NOT NULL CHECK (used >= 0), refunds INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (subject, period_start)
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE revocations (session_id TEXT PRIMARY KEY, expires_at INTEGER NOT NULL) STRICT, WITHOUT ROWID;
  PRAGMA user_version = 1;`
const all = { cursor: null, limit: 10 }

t.test('a file of the first version is brought up to date with all that is in it', async t => {
  const path = fileOf(t)
  const old = new DatabaseSync(path)
  const now = time.now()
  old.exec(version1)
  const insert =
    old.prepare(`INSERT INTO tasks (id, subject, operation, model, key_id, stage, task_id, microcredits, refundable, period_start,
    created_at, lease_until, ended_at, state) VALUES (?, 'app:alice', 'generateTask', 'suno', 'key-1', ?, ?, 5, 1, ${periodStart}, ${now}, ?, ?, ?)`)
  insert.run(3, 'settled', 'done', now, now, 'success')
  insert.run(5, 'claimed', 'running', now + 1000, null, null)
  insert.run(6, 'unknown', null, now, now, null)
  insert.run(9, 'sent', null, now + 1000, null, null)
  old.prepare('INSERT INTO answers VALUES (3, ?)').run(answer)
  old.exec(
    `INSERT INTO credits VALUES ('app:alice', ${periodStart}, 20, 1); INSERT INTO revocations VALUES ('session', ${now + 1000})`
  )
  old.close()

  const store = open(t, path)
  t.equal(store.lost, 1)
  const { items } = await store.records.tasksOf('app:alice', all)
  t.match(items, [
    { id: '9', stage: 'unknown' },
    { id: '6', stage: 'unknown' },
    { id: '5', stage: 'claimed' },
    { id: '3', stage: 'settled', state: 'success' }
  ])
  t.equal(items.length, 4)
  t.match(await store.ledger.taskOf('done'), { finalAnswer: answer })
  t.same(await store.accounts.balanceOf('app:alice', periodStart), { used: 20, granted: 0, unfinished: 1 })
  t.equal(await store.revocations.isRevoked(sessionOf('session')), true)
  t.same((await store.records.unknowns(all)).items.map(({ id }) => id), ['6', '9'])
  t.equal(await store.records.release('6'), true)
  t.equal(await store.ledger.settle({ taskId: 'running', state: 'failed', answer }), true)
  t.match(await store.accounts.balanceOf('app:alice', periodStart), { used: 10 })
  t.match(
    await store.records.usage({ from: '2026-01-15', to: '2026-01-15' }),
    [{ tasks: 4, succeeded: 1, failed: 1, unknown: 1, microcredits: 10 }],
    'the released one is known to be none'
  )
  t.equal(await reserve(store), '10')
})

t.test('a file that could not be brought up to date is as it was', async t => {
  const path = fileOf(t)
  const old = visit(t, path)
  old.exec(`${version1} CREATE TABLE grants (something INTEGER)`)
  t.throws(() => open(t, path), { message: /can not be opened: table grants already exists$/ })
  t.match(old.prepare('PRAGMA user_version').get(), { user_version: 1 })
  t.throws(() => old.prepare('SELECT granted FROM tasks'))
  old.exec('DROP TABLE grants')
  await open(t, path).ping()
})

t.test('what waits for a transaction is told that it is undone, whatever else goes wrong then', async t => {
  const db = new DatabaseSync(':memory:')
  t.teardown(() => db.close())
  db.exec('CREATE TABLE it (id INTEGER)')
  const group = groupCommit(db, 0, () => {})
  group.onUndo(() => { throw new Error('the file can not be read') })
  group.run(() => db.exec('INSERT INTO it VALUES (1)'))
  const waiting = group.committed()
  t.throws(() => group.run(() => db.exec('INSERT INTO nowhere VALUES (1)')))
  await t.rejects(waiting, { code: 'GW_STORE_DOWN' })
  t.same(db.prepare('SELECT * FROM it').all(), [])
})
