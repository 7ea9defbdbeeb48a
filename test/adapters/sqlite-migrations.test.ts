import { DatabaseSync } from 'node:sqlite'
import t from 'tap'
import { answer, periodStart } from '../contracts/open-books.ts'
import { sessionOf } from '../contracts/revocations.ts'
import { fileOf, open, reserve, time, visit } from './sqlite-files.ts'

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
