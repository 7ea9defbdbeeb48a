import { copyFileSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { setImmediate as nextTurn } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { sqliteBooksBeside } from '../../src/adapters/sqlite/books.ts'
import { latestVersion } from '../../src/adapters/sqlite/migrations.ts'
import { sqliteStore } from '../../src/adapters/sqlite/store.ts'
import type { Hold } from '../../src/domain/ledger.ts'
import { dayMs } from '../../src/domain/time.ts'
import { answer, openBooks, terms } from '../contracts/open-books.ts'
import { fileOf, open, storeDown, time, visit } from './sqlite-files.ts'

const session = { id: 'few', uses: 100, creditLimit: 1000, expiresAt: 9e15 }
const holdOf = (account: Hold['account'], window: string, endsAt: number | null): Hold =>
  ({ account, window, endsAt, limit: 1000 })
const holds = [
  holdOf('gateway', 'none', null),
  holdOf('pool:one', 'day:2026-01-15', Date.UTC(2026, 0, 16)),
  holdOf('plan:free', 'month:2026-01', Date.UTC(2026, 1, 1))
]

/** A day of a gateway, in a file that nobody has open. */
async function realFile (t: Test): Promise<string> {
  const path = fileOf(t)
  const { at, ledger, accounts, close } = await openBooks(t, (_, { terms, now }) =>
    sqliteStore({ path, terms, now, synchronous: 'normal' }))
  await accounts.grant({ subject: 'app:alice', microcredits: 20 })
  await at('settled', { microcredits: 5 }, 'task-1')
  await at('settled', { microcredits: 7, creditLimit: 0 }, 'task-2')
  await at('settled', { microcredits: 3, session }, 'task-3')
  await at('settled', { microcredits: 2, holds }, 'task-4')
  await at('claimed', { idempotency: { key: 'claimed', fingerprint: 'print' } }, 'task-5')
  await at('unknown', { idempotency: { key: 'unknown', fingerprint: 'print' } })
  await at('claimed', { microcredits: 4 }, 'task-6')
  await ledger.settle({ taskId: 'task-6', state: 'failed', answer })
  await at('settled', { subject: 'app:bob', microcredits: 1 }, 'task-7')
  await at('claimed', { subject: 'app:carol', holds }, 'task-8')
  await close()
  return path
}

const ofTask = (id: string) => `WHERE task_id = '${id}'`
const corruptions: ReadonlyArray<readonly [what: string, sql: string, faults: readonly object[]]> = [
  ['nothing', '', []],
  ['a period with a credit too many', "UPDATE credits SET used = used + 1 WHERE subject = 'app:bob'",
    [{ kind: 'period', subject: 'app:bob', problem: 'of its period since 2026-01-15T00:00:00.000Z 0.000002 credits are used, and its tasks come to 0.000001' }]],
  ['a period that is gone', "DELETE FROM credits WHERE subject = 'app:bob'", [{ kind: 'period', subject: 'app:bob' }]],
  ['a task that is gone', `DELETE FROM tasks ${ofTask('task-1')}`, [{ kind: 'period', subject: 'app:alice' }]],
  ['a task with another price', `UPDATE tasks SET microcredits = 50 ${ofTask('task-7')}`, [{ kind: 'period', subject: 'app:bob' }]],
  ['grants of which more is left', "UPDATE accounts SET granted = granted + 5 WHERE subject = 'app:alice'",
    [{ kind: 'grants', subject: 'app:alice', problem: 'of 0.00002 credits granted 0.000018 are left, so 0.000002 are used, and its tasks come to 0.000007' }]],
  ['grants of which less is left', "UPDATE accounts SET granted = granted - 1 WHERE subject = 'app:alice'", [{ kind: 'grants' }]],
  ['a session with fewer uses', 'UPDATE session_budgets SET uses = uses - 1',
    [{ kind: 'session', subject: 'app:alice', problem: 'the session few has taken 0 uses, and its tasks come to 1' }]],
  ['a session with more credits', 'UPDATE session_budgets SET microcredits = microcredits + 1', [{ kind: 'session' }]],
  ['a task that has ended and takes a slot', `UPDATE tasks SET ended_at = NULL ${ofTask('task-1')}`,
    [{ kind: 'slot', subject: 'app:alice', problem: 'task task-1 is settled, and takes a slot all the same' }]],
  ['a task that runs and takes no slot', `UPDATE tasks SET ended_at = created_at ${ofTask('task-5')}`,
    [{ kind: 'slot', subject: 'app:alice', problem: 'task task-5 is claimed, and takes no slot' }]],
  ['a lease that nobody has ended', `UPDATE tasks SET lease_until = 0 ${ofTask('task-5')}`,
    [{ kind: 'lease', subject: 'app:alice', problem: 'task task-5 is claimed, and should have ended by 1970-01-01T00:00:00.000Z' }]],
  ['a task without a subject', `UPDATE tasks SET subject = '' ${ofTask('task-6')}`,
    [{ kind: 'owner', subject: null, problem: 'task task-6 is of no subject' }]],
  ['a task without its id', `UPDATE tasks SET task_id = NULL ${ofTask('task-5')}`,
    [{ kind: 'owner', subject: 'app:alice', problem: /^reservation \d+ is claimed, and its task id is lost$/ }]],
  ['a key that leads nowhere', "UPDATE idempotency SET id = 1000 WHERE key = 'unknown'",
    [{ kind: 'key', subject: 'app:alice', problem: 'its idempotency key "unknown" leads to no reservation' }]],
  ['a key that leads to somebody else', `UPDATE idempotency SET id = (SELECT id FROM tasks ${ofTask('task-7')}) WHERE key = 'unknown'`,
    [{ kind: 'key', problem: 'its idempotency key "unknown" leads to a reservation of app:bob' }]],
  ['a pool with a credit too many', "UPDATE ceilings SET used = used + 1 WHERE account = 'pool:one'",
    [{ kind: 'ceiling', subject: null, problem: 'of pool:one 0.000003 credits are used in day:2026-01-15, and its tasks come to 0.000002' }]],
  ['a pool with a credit too few', "UPDATE ceilings SET used = used - 1 WHERE account = 'gateway'", [{ kind: 'ceiling' }]],
  ['what is prepaid, with a credit that a forgotten task may have had',
    "UPDATE ceilings SET used = used + 1 WHERE account = 'gateway'", []],
  ['a window that is gone', "DELETE FROM ceilings WHERE account = 'plan:free'", [{ kind: 'ceiling', problem: /^of plan:free 0 / }]],
  ['a window that nobody holds', "INSERT INTO ceilings VALUES ('pool:two', 'week:2026-01-12', 1768780800000, 9)", [{ kind: 'ceiling' }]]
]

t.test('each corruption of a file is named, and nothing else', async t => {
  const path = await realFile(t)
  for (const [index, [what, sql, faults]] of corruptions.entries()) {
    const copy = `${path}-${index}`
    copyFileSync(path, copy)
    visit(t, copy).exec(`PRAGMA foreign_keys = OFF; ${sql}`)
    const { books, close } = open(t, copy)
    const verified = await books.verify(nextTurn)
    t.match(verified, { count: faults.length, skipped: 0, faults }, what)
    t.equal(verified.faults.length, faults.length)
    await close()
  }
})

t.test('where no gateway runs nobody sweeps, and a lease that has ended is no fault', async t => {
  const path = await realFile(t)
  visit(t, path).exec('UPDATE tasks SET lease_until = 0 WHERE ended_at IS NULL')
  const books = sqliteBooksBeside({ path, terms, now: time.now, elapsed: time.elapsed })
  t.same((await books.verify(nextTurn)).faults, [])
  const { close } = open(t, path)
  t.match((await books.verify(nextTurn)).faults, [{ kind: 'lease' }, { kind: 'lease' }], 'but as soon as one runs')
  await close()
  t.same((await books.verify(nextTurn)).faults, [])
})

t.test('a window that is used in a file without a task is told, and so is a lock that is none', async t => {
  const path = fileOf(t)
  await open(t, path).close()
  visit(t, path).exec("INSERT INTO ceilings VALUES ('gateway', 'day:2026-01-15', 1768521600000, 9)")
  const books = sqliteBooksBeside({ path, terms, now: time.now, elapsed: time.elapsed })
  t.match((await books.verify(nextTurn)).faults, [{ kind: 'ceiling' }])
  rmSync(`${path}.lock`)
  t.equal((await books.verify(nextTurn)).count, 1, 'nobody has ever served it')
  writeFileSync(`${path}.lock`, 'This is no database, and was never one. '.repeat(100))
  await t.rejects(books.verify(nextTurn), storeDown)
})

t.test('nothing is written, and the gateway writes on meanwhile', async t => {
  const path = await realFile(t)
  const before = readFileSync(path)
  const { mtimeMs } = statSync(path)
  const books = sqliteBooksBeside({ path, terms, now: time.now, elapsed: time.elapsed })
  t.match(await books.verify(nextTurn), { subjects: 3, tasks: 9, count: 0 })
  t.ok(readFileSync(path).equals(before))
  t.equal(statSync(path).mtimeMs, mtimeMs)
})

t.test('a file that is not there, or of another version, is told of', async t => {
  const path = fileOf(t)
  t.throws(() => sqliteBooksBeside({ path, terms, now: time.now, elapsed: time.elapsed }), { message: /there is no such file/ })
  t.throws(() => sqliteBooksBeside({ path: ':memory:', terms, now: time.now, elapsed: time.elapsed }), { message: /in the memory of the gateway/ })
  const db = visit(t, path)
  db.exec(`PRAGMA user_version = ${latestVersion - 1}`)
  t.throws(() => sqliteBooksBeside({ path, terms, now: time.now, elapsed: time.elapsed }), { message: /start the gateway once/ })
  db.exec(`PRAGMA user_version = ${latestVersion}`)
  await t.rejects(sqliteBooksBeside({ path, terms, now: time.now, elapsed: time.elapsed }).verify(nextTurn), storeDown, 'it has no tables')
})

t.test('what was given long ago, and used by tasks that nobody remembers, can not be told from what is lost', async t => {
  const path = await realFile(t)
  const db = visit(t, path)
  db.exec("UPDATE accounts SET granted = granted - 1 WHERE subject = 'app:alice'")
  const { elapsed } = time
  const books = (days: number) => sqliteBooksBeside({ path, terms, now: () => time.now() + days * dayMs, elapsed })
  t.match((await books(399).verify(nextTurn)).faults, [{ kind: 'grants' }])
  t.same((await books(402).verify(nextTurn)).faults, [])
})

t.test('a long look begins anew now and then, so that the log of the writer can', async t => {
  const path = await realFile(t)
  const db = visit(t, path)
  const period = time.now()
  const insert = db.prepare(`INSERT INTO tasks
    (id, subject, operation, model, key_id, stage, microcredits, refundable, period_start, created_at, lease_until)
    VALUES (?, ?, 'generateTask', 'm', 'k', 'sent', 1, 1, ${period}, 0, 9000000000000)`)
  const credits = db.prepare(`INSERT OR REPLACE INTO credits VALUES (?, ${period}, ?, 0)`)
  for (let id = 1000; id < 1250; id++) {
    insert.run(id, `app:many-${id}`)
    if (id > 1000) credits.run(`app:many-${id}`, 0)
  }
  let ms = 0
  const books = sqliteBooksBeside({ path, terms, now: time.now, elapsed: () => { ms += 2; return ms } })
  let rests = 0
  const rest = async () => {
    if (rests++ > 0) return
    for (const subject of ['app:bob', 'app:many-1249']) credits.run(subject, 9)
  }
  const faults = [{ kind: 'period', subject: 'app:many-1249' }]
  t.match(await books.verify(rest), { subjects: 253, tasks: 259, faults })
  t.equal((await books.verify(rest)).count, 2, 'the other one was read as it had been at the beginning')
})
