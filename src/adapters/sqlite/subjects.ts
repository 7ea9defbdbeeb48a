import type { DatabaseSync } from 'node:sqlite'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { creditsFrom } from '../../domain/ledger.ts'
import { type EraseRequest, hiddenName, type SubjectData, type SubjectPart } from '../../domain/subject-data.ts'
import { instant } from '../../domain/time.ts'
import { type GroupCommit, read } from './database.ts'
import type { Tasks } from './ledger.ts'
import { addTo, subjectArchive } from './records.ts'

interface SubjectDataOptions {
  readonly tasks: Tasks
  /** Unfinished ones that stand in memory alone are among them. */
  readonly unfinishedOf: (subject: string) => readonly number[]
}

/** Tasks a transaction, and entries of the audit trail that are read in one go. */
const chunkTasks = 50
const chunkEntries = 500

interface Row { readonly id: number, readonly task_id: string | null, readonly ended: 0 | 1 }

interface Entry {
  readonly id: number
  readonly actor: string
  readonly subject: string | null
  readonly detail: string
}

/**
 * What one subject has in the file. Deleted bytes are overwritten (`secure_delete`), and the log goes into the file at
 * the end; what SQLite itself has left in the gaps of its pages before is only gone when the file is written anew.
 */
export function sqliteSubjects (
  db: DatabaseSync, group: GroupCommit, { tasks, unfinishedOf }: SubjectDataOptions
): SubjectData {
  const sql = subjectStatements(db)
  const archive = subjectArchive(db)

  /** A chunk of tasks that have ended; how many they were. */
  const eraseTasks = async ({ subject, pseudonym, beforeTask }: EraseRequest): Promise<number> => {
    const rows = read(() => sql.ended.all(subject, chunkTasks) as unknown as Row[])
    for (const { task_id: taskId } of rows) {
      const task = taskId === null ? null : tasks.of(taskId)
      if (task !== null && task.finalAnswer !== null) await beforeTask(task)
    }
    group.run(() => {
      for (const { id } of rows) {
        archive(pseudonym, id)
        sql.remove.run(id)
      }
    })
    await group.committed()
    for (const { task_id: taskId } of rows) if (taskId !== null) tasks.forget(taskId)
    await nextTurn()
    return rows.length
  }
  const eraseRest = async ({ subject, pseudonym }: EraseRequest): Promise<number> => {
    const tokens = group.run(() => {
      const { first, last } = sql.usageDays.get() as { first: number, last: number }
      for (let day = first; day <= last; day++) {
        sql.moveUsage.run(pseudonym, day, subject)
        sql.removeUsage.run(day, subject)
      }
      sql.moveGrants.run(pseudonym, subject)
      sql.moveExtras.run(`subject:${pseudonym}`, `subject:${subject}`)
      sql.moveAccount.run(pseudonym, subject)
      sql.hideEnd.run(hiddenName(subject), subject)
      for (const remove of sql.removals) remove.run(subject)
      return Number(sql.removeTokens.run(subject).changes)
    })
    await group.committed()
    return tokens
  }
  return {
    partsOf: subject => partsOf(db, subject),
    async unfinishedOf (subject) {
      const { count } = read(() => sql.unfinished.get(subject)) as { count: number }
      return Math.max(count, unfinishedOf(subject).length)
    },
    async erase (request) {
      db.exec('PRAGMA secure_delete = ON')
      let count = 0
      for (let erased = chunkTasks; erased === chunkTasks;) {
        erased = await eraseTasks(request)
        count += erased
      }
      const tokens = await eraseRest(request)
      const auditEntries = await redactAudit(sql, group, request)
      emptyLog(db)
      return { tasks: count, tokens, auditEntries }
    },
    async rewrite () {
      await group.committed()
      // In memory it would need as much of that as the file is long.
      read(() => db.exec('PRAGMA temp_store = FILE; VACUUM; PRAGMA wal_checkpoint(TRUNCATE); PRAGMA temp_store = MEMORY'))
    }
  }
}

/** The log has what the file had before, until it goes into the file and is cut. */
function emptyLog (db: DatabaseSync): void {
  try {
    db.exec('PRAGMA wal_checkpoint(TRUNCATE)')
    /* c8 ignore next: only when a write of somebody else's has begun in this very turn */
  } catch { /* somebody else writes: it goes with a later one */ }
}

async function redactAudit (
  sql: Pick<ReturnType<typeof subjectStatements>, 'entries' | 'redact'>,
  group: GroupCommit,
  { subject, pseudonym }: EraseRequest
): Promise<number> {
  let count = 0
  for (let id = 0; ;) {
    const entries = read(() => sql.entries.all(id, chunkEntries) as unknown as Entry[])
    const named = entries.filter(entry => entry.subject === subject || entry.actor === subject)
    if (named.length > 0) {
      group.run(() => { for (const entry of named) sql.redact.run(...redacted(entry, subject, pseudonym), entry.id) })
      await group.committed()
    }
    count += named.length
    if (entries.length < chunkEntries) return count
    id = entries.at(-1)!.id
    await nextTurn()
  }
}

/** Of an entry: its actor, subject and detail without the name. */
function redacted (
  { actor, subject, detail }: Entry, name: string, pseudonym: string
): readonly [actor: string, subject: string | null, detail: string] {
  return [
    actor === name ? pseudonym : actor,
    subject === name ? pseudonym : subject,
    detail.replaceAll(JSON.stringify(name), JSON.stringify(pseudonym))
  ]
}

const text = (body: unknown): string | null => body instanceof Uint8Array ? Buffer.from(body).toString() : null

/** What is read of each table, and how it is shown. */
const shownRows: ReadonlyArray<readonly [string, (row: Readonly<Record<string, any>>) => SubjectPart]> = [
  ['SELECT * FROM credits WHERE subject = ?', ({ period_start: start, used, refunds }) =>
    ({ kind: 'period', start: instant(start), used: creditsFrom(used), refunds })],
  ['SELECT * FROM accounts WHERE subject = ?', ({ granted }) => ({ kind: 'granted', left: creditsFrom(granted) })],
  ['SELECT * FROM grants WHERE subject = ? ORDER BY id', ({ microcredits, created_at: at }) =>
    ({ kind: 'grant', credits: creditsFrom(microcredits), at: instant(at) })],
  ["SELECT * FROM extras WHERE account = 'subject:' || ? ORDER BY id", ({ microcredits, created_at: at, until }) =>
    ({ kind: 'extra', credits: creditsFrom(microcredits), at: instant(at), until: until && instant(until) })],
  ['SELECT * FROM session_budgets WHERE subject = ?', row => ({
    kind: 'session',
    session: row['session_id'],
    uses: row['uses'],
    credits: creditsFrom(row['microcredits']),
    expiresAt: instant(row['expires_at'])
  })],
  ['SELECT * FROM idempotency WHERE subject = ? ORDER BY id', row => ({
    kind: 'idempotency key', key: row['key'], at: instant(row['created_at']), status: row['status'], answer: text(row['body'])
  })],
  ['SELECT id FROM upstream_states WHERE subject = ? ORDER BY id', ({ id }) => ({ kind: 'kept at the upstream', id })]
]

async function * partsOf (db: DatabaseSync, subject: string): AsyncGenerator<SubjectPart> {
  for (const [query, show] of shownRows) {
    for (const row of read(() => db.prepare(query).all(subject))) yield show(row)
    await nextTurn()
  }
}

function subjectStatements (db: DatabaseSync) {
  return {
    unfinished: db.prepare(
      'SELECT count(*) AS count FROM tasks INDEXED BY unfinished_tasks WHERE ended_at IS NULL AND subject = ?'
    ),
    ended: db.prepare('SELECT id, task_id FROM tasks WHERE subject = ? AND ended_at IS NOT NULL LIMIT ?'),
    remove: db.prepare('DELETE FROM tasks WHERE id = ?'),
    usageDays: db.prepare('SELECT (SELECT min(day) FROM usage) AS first, (SELECT max(day) FROM usage) AS last'),
    moveUsage: db.prepare(addTo('usage', `SELECT day, ?, model, tasks, succeeded, failed, unknown, microcredits FROM usage
      WHERE day = ? AND subject = ?`)),
    removeUsage: db.prepare('DELETE FROM usage WHERE day = ? AND subject = ?'),
    moveGrants: db.prepare('UPDATE grants SET subject = ? WHERE subject = ?'),
    moveExtras: db.prepare('UPDATE extras SET account = ? WHERE account = ?'),
    moveAccount: db.prepare('UPDATE accounts SET subject = ? WHERE subject = ?'),
    hideEnd: db.prepare(`INSERT INTO subject_revocations SELECT ?, before, expires_at FROM subject_revocations WHERE subject = ?
      ON CONFLICT DO UPDATE SET before = max(before, excluded.before), expires_at = max(expires_at, excluded.expires_at)`),
    removals: ['subject_revocations', 'credits', 'session_budgets', 'idempotency', 'upstream_states'].map(table =>
      db.prepare(`DELETE FROM ${table} WHERE subject = ?`)),
    removeTokens: db.prepare('DELETE FROM tokens WHERE subject = ?'),
    entries: db.prepare('SELECT id, actor, subject, detail FROM audit WHERE id > ? ORDER BY id LIMIT ?'),
    redact: db.prepare('UPDATE audit SET actor = ?, subject = ?, detail = ? WHERE id = ?')
  }
}
