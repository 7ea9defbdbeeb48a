import { existsSync, writeFileSync } from 'node:fs'
import { DatabaseSync } from 'node:sqlite'
import t, { type Test } from 'tap'
import { isServed } from '../../src/adapters/sqlite/database.ts'
import { idempotencyMs } from '../../src/domain/ledger.ts'
import { forgetSlackMs } from '../../src/domain/session.ts'
import type { Store } from '../../src/domain/store.ts'
import { demandOf } from '../contracts/ledger-balance.ts'
import { answer, periodStart, terms } from '../contracts/open-books.ts'
import { clock } from '../helpers/clock.ts'
import {
  claimed, fileOf, lockHolder, open, openWithin, reserve, sentOne, storeDown, time, visit
} from './sqlite-files.ts'

const operator = { role: 'operator' } as const
const subject = 'app:alice'

t.test('what the operator gives and lets go counts for the server at once', async t => {
  const path = fileOf(t)
  const server = open(t, path)
  const beside = open(t, path, operator)
  const limited = { creditLimit: 10, microcredits: 8 }
  const id = await sentOne(server, limited)
  await server.ledger.advance(id, { to: 'unknown' })
  const { items } = await beside.records.unknowns({ cursor: null, limit: 10 })
  t.match(items, [{ id, subject, stage: 'unknown' }])
  t.match(await server.ledger.reserve(demandOf(limited)), { granted: false, reason: 'credits' })
  t.equal(await beside.accounts.grant({ subject, microcredits: 6 }), 6)
  t.match(await server.ledger.reserve(demandOf(limited)), { granted: true })
  t.match(await server.accounts.balanceOf(subject, periodStart), { used: 10, granted: 0 })
  t.match(await server.ledger.reserve(demandOf(limited)), { granted: false, reason: 'credits' })
  t.equal(await beside.records.release(id), true)
  t.match(await server.ledger.reserve(demandOf(limited)), { granted: true })
  t.equal(await server.records.release(id), false, 'once for both')
})

t.test('a file beside the ledger that is no lock is not taken for one', async t => {
  const path = fileOf(t)
  writeFileSync(`${path}.lock`, 'no database, but as long as the beginning of one is '.repeat(100))
  t.throws(() => isServed(path), { code: 'ERR_SQLITE_ERROR' })
})

t.test('of no task none was made before a day', async t => {
  const { records } = open(t, fileOf(t))
  t.same(await records.tasks({ cursor: null, limit: 10 }, { before: time.now() }), { items: [], next: null })
})

t.test('the operator recovers nothing, and leads nothing', async t => {
  const path = fileOf(t)
  const server = open(t, path)
  const id = await sentOne(server)
  const beside = open(t, path, operator)
  t.equal(beside.lost, 0)
  t.equal(await beside.leads(), false)
  t.equal(await server.leads(), true)
  await beside.ping()
  await beside.close()
  t.equal(await server.ledger.advance(id, { to: 'released' }), true, 'it is still under way')
})

t.test('a server starts while the operator is at work', async t => {
  const path = fileOf(t)
  await open(t, path).close()
  const beside = open(t, path, operator)
  const server = open(t, path)
  await beside.audit.append([{ at: time.now(), kind: 'grant', actor: 'cli', subject, detail: {} }])
  await claimed(server, 'one')
  t.match(await server.audit.read({ cursor: null, limit: 10 }), { items: [{ actor: 'cli' }] })
})

t.test('the operator has the patience that a server has not', async t => {
  const path = fileOf(t)
  await open(t, path).close()
  const beside = open(t, path, operator)
  const letGo = await lockHolder(t, path, 300)
  t.equal(await beside.accounts.grant({ subject, microcredits: 5 }), 5)
  await letGo()
})

t.test('the operator reads all there is beside the server', async t => {
  const path = fileOf(t)
  const server = open(t, path)
  await claimed(server, 'one', { microcredits: 5 })
  const beside = open(t, path, operator)
  t.match(await beside.accounts.balanceOf(subject, periodStart), { used: 5, granted: 0, unfinished: 1 })
  t.match(await beside.records.tasksOf(subject, { cursor: null, limit: 10 }), { items: [{ taskId: 'one' }] })
  await server.ledger.settle({ taskId: 'one', state: 'success', answer })
  t.match(await beside.records.usage({ from: '2026-01-15', to: '2026-01-15' }), [
    { tasks: 1, succeeded: 1, microcredits: 5 }
  ])
})

t.test('a ledger that is not there is not made for an operator', async t => {
  const path = fileOf(t)
  t.throws(() => open(t, path, operator), {
    message: `the ledger ${path} can not be opened: there is no such file; the gateway makes it at its first start`
  })
  t.notOk(existsSync(path))
  t.notOk(existsSync(`${path}.lock`))
  t.throws(() => open(t, ':memory:', operator), {
    message: 'the ledger :memory: can not be opened: it is in the memory of the gateway, and ends with it'
  })
})

t.test('a file of an older version is left to the gateway', async t => {
  const path = fileOf(t)
  new DatabaseSync(path).close()
  const db = visit(t, path)
  db.exec('CREATE TABLE something (id INTEGER)')
  t.throws(() => open(t, path, operator), {
    message: /it has version 0, and \d+ is needed: start the gateway once, it brings the file up to date$/
  })
  t.match(db.prepare('PRAGMA journal_mode').get(), { journal_mode: 'delete' }, 'it is not touched')
  db.exec('PRAGMA user_version = 999')
  t.throws(() => open(t, path, operator), {
    message: /it has version 999, this gateway knows \d+: a newer one wrote it$/
  })
})

t.test('an operator whose store is closed is told so', async t => {
  const path = fileOf(t)
  await open(t, path).close()
  const beside = open(t, path, operator)
  await beside.close()
  const all = { cursor: null, limit: 10 }
  const span = { from: '2026-01-01', to: '2026-01-31' }
  const asked: Array<() => Promise<unknown>> = [
    () => beside.accounts.balanceOf(subject, periodStart),
    () => beside.accounts.grant({ subject, microcredits: 1 }),
    () => beside.records.tasksOf(subject, all),
    () => beside.records.unknowns(all),
    () => beside.records.release('1'),
    () => beside.records.usage(span),
    () => beside.audit.append([{ at: 0, kind: 'grant', actor: 'cli', subject, detail: {} }]),
    () => beside.audit.read(all),
    () => beside.idempotency.earlier(subject, { key: 'one', fingerprint: 'print' }),
    () => beside.tidy()
  ]
  for (const ask of asked) await t.rejects(async () => { await ask() }, storeDown)
})

const dayMs = 86_400_000
const ever = { from: '2000-01-01', to: '2100-01-01' }
const mostRows = 500

const count = (db: DatabaseSync, table: string): number =>
  (db.prepare(`SELECT count(*) AS count FROM ${table}`).get() as { count: number }).count

/** Ended tasks of long ago, one a millisecond, with their answers. */
function fill (db: DatabaseSync, rows: number, endedAt: number): void {
  db.exec(`WITH RECURSIVE numbers (id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM numbers WHERE id < ${rows})
    INSERT INTO tasks (id, subject, operation, model, key_id, stage, task_id,
      microcredits, refundable, period_start, created_at, lease_until, ended_at, state)
    SELECT id, 'app:' || (id % 7), 'generateTask', 'suno', 'key-1', 'settled', 'task ' || id,
      2, 1, 0, ${endedAt} + id - ${rows}, 0, ${endedAt}, 'success' FROM numbers;
    INSERT INTO answers SELECT id, x'00' FROM tasks`)
}

async function openOld (t: Test, rows: number): Promise<{ store: Store, db: DatabaseSync, path: string }> {
  const path = fileOf(t)
  const time = clock()
  await open(t, path).close()
  const db = visit(t, path)
  fill(db, rows, time.now() - terms.retentionMs)
  return { store: open(t, path), db, path }
}

t.test('a call deletes a bounded number of tasks, and the next one goes on', async t => {
  const { store, db } = await openOld(t, 1300)
  const usage = await store.records.usage(ever)
  for (const left of [800, 300, 0]) {
    await store.tidy()
    t.equal(count(db, 'tasks'), left)
    t.equal(count(db, 'answers'), left)
    t.same(await store.records.usage(ever), usage)
  }
})

t.test('a row that may not go yet does not keep the others, and goes in its time', async t => {
  const { store, db } = await openOld(t, 1300)
  db.exec("UPDATE tasks SET ended_at = NULL, stage = 'claimed', lease_until = 9e15 WHERE id % 100 = 1")
  for (let call = 0; call < 3; call++) await store.tidy()
  t.equal(count(db, 'tasks'), 13)
  db.exec("UPDATE tasks SET ended_at = 0, stage = 'settled' WHERE id > 600")
  await store.tidy()
  t.equal(count(db, 'tasks'), 6)
})

t.test(
  'each of its queries begins at the old end and stops there, and so does all that is asked for a request',
  async t => {
    const { db, statements } = await openWithin(t, fileOf(t))
    const scans = statements.filter(sql => {
      const plan = sql.startsWith('PRAGMA')
        ? []
        : (db.prepare(`EXPLAIN QUERY PLAN ${sql}`).all() as Array<{ detail: string }>)
      return plan.some(({ detail }) => /^SCAN (?!CONSTANT)/.test(detail) && !detail.includes('unfinished_tasks'))
    })
    t.same(
      scans.filter(sql => !/ORDER BY id(?: DESC)? LIMIT \d/.test(sql)),
      [
        'SELECT name, seen, told FROM alarms ORDER BY name',
        'DELETE FROM revocations WHERE expires_at <= ? RETURNING session_id AS id',
        'DELETE FROM subject_revocations WHERE expires_at <= ? RETURNING subject',
        'UPDATE grants SET subject = ? WHERE subject = ?',
        'DELETE FROM tokens WHERE subject = ?',
        'DELETE FROM tokens WHERE expires_at <= ?'
      ]
    )
  }
)

t.test('a call that finds nothing to forget writes nothing', async t => {
  const path = fileOf(t)
  const store = open(t, path)
  await claimed(store, 'one')
  const other = visit(t, path)
  other.exec('BEGIN IMMEDIATE')
  await store.tidy()
  other.exec('ROLLBACK')
})

t.test('keys, periods, sums and audit entries go when their time is over, a part at a time', async t => {
  const path = fileOf(t)
  const time = clock()
  const store = open(t, path, { now: time.now })
  const db = visit(t, path)
  const start = time.now()
  const rows = mostRows + 20
  const numbers = `WITH RECURSIVE numbers (id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM numbers WHERE id < ${rows})`
  db.exec(`${numbers} INSERT INTO idempotency (id, subject, key, fingerprint, created_at) SELECT id, 'app:bob', id, 'print', ${start} FROM numbers;
    ${numbers} INSERT INTO credits SELECT 'app:bob', ${start} - id * 60000, 1, 0 FROM numbers;
    ${numbers} INSERT INTO usage SELECT ${Math.floor(start / dayMs)}, 'app:' || id, 'suno', 1, 1, 0, 0, 1 FROM numbers;
    ${numbers} INSERT INTO audit SELECT id, ${start}, 'mint', 'issuer', NULL, '{}' FROM numbers`)
  const counts = () => ['idempotency', 'credits', 'usage', 'audit'].map(table => count(db, table))

  time.advance(idempotencyMs + forgetSlackMs - 1)
  await store.tidy()
  t.same(counts(), [rows, rows, rows, rows])
  time.advance(1)
  await store.tidy()
  t.same(counts(), [20, rows, rows, rows])
  time.advance(40 * dayMs)
  await store.tidy()
  t.same(counts(), [0, 20, rows, rows])
  time.advance(360 * dayMs)
  await store.tidy()
  t.same(counts(), [0, 0, 20, rows], 'the trail is as old as its newest entry')
  await store.audit.append([{ at: time.now(), kind: 'mint', actor: 'issuer', subject, detail: {} }])
  await store.tidy()
  t.same(counts(), [0, 0, 0, 21])
  await store.tidy()
  t.same(counts(), [0, 0, 0, 1])
})

t.test('what a session has taken is forgotten when the session has ended, a part at a time', async t => {
  const path = fileOf(t)
  const time = clock()
  const store = open(t, path, { now: time.now })
  const db = visit(t, path)
  const rows = mostRows + 20
  db.exec(`WITH RECURSIVE numbers (id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM numbers WHERE id < ${rows})
    INSERT INTO session_budgets SELECT 'app:bob', id, 1, 1, ${time.now() + 1000} FROM numbers`)
  time.advance(999 + forgetSlackMs)
  await store.tidy()
  t.equal(count(db, 'session_budgets'), rows)
  time.advance(1)
  await store.tidy()
  t.equal(count(db, 'session_budgets'), 20)
})

t.test('the credits of a period stay for as long as a task that was paid with them', async t => {
  const time = clock()
  const store = open(t, fileOf(t), { now: time.now, terms: { ...terms, giveUpMs: 1000 * dayMs } })
  const periodStart = time.now() - 30 * dayMs
  await claimed(store, 'one', { microcredits: 5, periodStart })
  time.advance(900 * dayMs)
  await store.tidy()
  t.equal(await store.ledger.settle({ taskId: 'one', state: 'failed', answer }), true)
  t.match(await store.accounts.balanceOf(subject, periodStart), { used: 0 })
  t.match(await store.records.tasksOf(subject, { cursor: null, limit: 1 }), { items: [{ refunded: true }] })
})

t.test('the file itself refuses to change the audit trail and the grants', async t => {
  const path = fileOf(t)
  const time = clock()
  const store = open(t, path)
  const entry = { kind: 'mint', actor: 'issuer', subject, detail: {} } as const
  await store.audit.append([
    { ...entry, at: time.now() - 400 * dayMs },
    { ...entry, at: time.now() - 400 * dayMs + 1 },
    { ...entry, at: time.now() }
  ])
  await store.accounts.grant({ subject, microcredits: 5 })
  const db = visit(t, path)
  t.throws(() => db.exec("UPDATE audit SET actor = 'nobody'"), { message: 'the audit trail is never changed' })
  t.throws(() => db.exec('DELETE FROM audit'), { message: 'the audit trail is kept for 400 days' })
  t.equal(count(db, 'audit'), 3, 'all or none')
  db.exec('DELETE FROM audit WHERE id = 1')
  t.throws(() => db.exec('UPDATE grants SET microcredits = 10'), { message: 'grants are never changed' })
  t.throws(() => db.exec('DELETE FROM grants'), { message: 'grants are never deleted' })
})

t.test(
  'what callers do goes before its time when there is very much of it, and what the operator did does not',
  async t => {
    const path = fileOf(t)
    const time = clock()
    const store = open(t, path, { now: time.now })
    const at = time.now()
    const entry = { at, subject, detail: {} } as const
    await store.audit.append([
      { ...entry, kind: 'mint', actor: 'issuer' },
      { ...entry, kind: 'grant', actor: 'admin' },
      { ...entry, kind: 'refusals', actor: 'gateway' },
      { ...entry, kind: 'revoke', actor: 'cli' },
      { ...entry, kind: 'revoke', actor: subject },
      { ...entry, kind: 'settings', actor: 'gateway' },
      { ...entry, kind: 'accept', actor: 'token:bob' }
    ])
    const db = visit(t, path)
    const insert = (id: number) => db.exec(`INSERT INTO audit VALUES (${id}, ${at}, 'mint', 'issuer', NULL, '{}')`)
    const ids = () =>
      db
        .prepare('SELECT id FROM audit ORDER BY id')
        .all()
        .map(({ id }) => id)
    insert(1_000_000)
    await store.tidy()
    t.same(ids(), [1, 2, 3, 4, 5, 6, 7, 1_000_000])
    t.throws(() => db.exec('DELETE FROM audit WHERE id = 1'), { message: 'the audit trail is kept for 400 days' })
    insert(1_000_006)
    await store.tidy()
    t.same(ids(), [2, 4, 6, 7, 1_000_000, 1_000_006])
    insert(2_000_000)
    await store.tidy()
    t.same(ids(), [2, 4, 6, 1_000_006, 2_000_000])
    t.throws(() => db.exec('DELETE FROM audit WHERE id = 2'), { message: 'the audit trail is kept for 400 days' })
    t.match(
      db
        .prepare(
          "EXPLAIN QUERY PLAN SELECT id FROM audit WHERE (kind IN ('mint', 'accept', 'refusals') OR (kind = 'revoke' AND actor NOT IN ('admin', 'cli'))) AND id <= 5 ORDER BY id"
        )
        .all(),
      [{ detail: /audit_of_callers/ }],
      'nothing young is read'
    )
  }
)

t.test('usage is one picture of the ledger, whatever is moved and made while it is read', async t => {
  const { store, db } = await openOld(t, 3000)
  const usage = await store.records.usage(ever)
  t.equal(
    usage.reduce((sum, { tasks }) => sum + tasks, 0),
    3000
  )
  const reading = store.records.usage(ever)
  const [during] = await Promise.all([reading, store.tidy(), claimed(store, 'new')])
  t.same(during, usage)
  t.ok(count(db, 'tasks') < 3000)
  await store.tidy()
  const after = await store.records.usage(ever)
  t.equal(
    after.reduce((sum, { tasks }) => sum + tasks, 0),
    3001
  )
})

t.test('usage of more sums than are read at once is whole and in order', async t => {
  const { store, db } = await openOld(t, 1200)
  db.exec("UPDATE tasks SET subject = printf('app:%05d', (id * 7) % 1200)")
  const check = async () => {
    const rows = await store.records.usage(ever)
    t.same(
      rows.map(({ subject }) => subject),
      Array.from({ length: 1200 }, (_, index) => `app:${String(index).padStart(5, '0')}`)
    )
    t.ok(rows.every(({ tasks, microcredits }) => tasks === 1 && microcredits === 2))
  }
  await check()
  await store.tidy()
  await check()
})

t.test(
  'usage of more microcredits than JavaScript counts exactly stops there, and can be read, before and after its tasks are forgotten',
  async t => {
    const { store, db } = await openOld(t, 1200)
    const most = Number.MAX_SAFE_INTEGER
    const day = Math.floor(clock().now() / dayMs)
    db.exec(`UPDATE tasks SET microcredits = ${most}, subject = 'app:rich' WHERE id > 10`)
    db.exec(`INSERT INTO usage VALUES (${day}, 'app:older', 'suno', 1, 1, 0, 0, ${BigInt(most) * 3n})`)
    const check = async () => {
      const rows = await store.records.usage(ever)
      const rich = rows.filter(({ subject }) => subject === 'app:rich')
      t.equal(
        rich.reduce((sum, { tasks }) => sum + tasks, 0),
        1190
      )
      t.ok(rich.every(({ microcredits }) => microcredits === most))
      t.match(
        rows.filter(({ subject }) => subject === 'app:older'),
        [{ tasks: 1, microcredits: most }]
      )
      t.equal(
        rows.filter(({ subject }) => /^app:\d$/.test(subject)).reduce((sum, { microcredits }) => sum + microcredits, 0),
        20
      )
    }
    await check()
    for (let call = 0; call < 3; call++) await store.tidy()
    t.equal(count(db, 'tasks'), 0)
    await check()
  }
)

t.test('usage can not be read from a ledger that is broken, and the connection for it is closed', async t => {
  const { store, db } = await openOld(t, 10)
  db.exec('ALTER TABLE usage RENAME TO elsewhere')
  await t.rejects(store.records.usage(ever), storeDown)
  db.exec('ALTER TABLE elsewhere RENAME TO usage')
  t.equal((await store.records.usage(ever)).length, 7)
})

t.test('a task that retention has ended is forgotten in memory as well', async t => {
  const time = clock()
  const store = open(t, ':memory:', { now: time.now })
  await claimed(store, 'one')
  await store.ledger.advance(await sentOne(store), { to: 'unknown' })
  await reserve(store)
  await store.ledger.settle({ taskId: 'one', state: 'success', answer })
  t.match(await store.ledger.taskOf('one'), { stage: 'settled' })
  time.advance(terms.retentionMs)
  await store.tidy()
  t.equal(await store.ledger.taskOf('one'), null)
})
