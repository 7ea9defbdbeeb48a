import type { DatabaseSync } from 'node:sqlite'
import { setImmediate as nextTurn } from 'node:timers/promises'
import type { FinalState } from '../../domain/bodies/envelope.ts'
import type { Stage } from '../../domain/ledger/ledger.ts'
import type { TaskRecord, TaskRecords } from '../../domain/ledger/records.ts'
import type { SqliteAccounts } from './accounts.ts'
import { chargeColumns, chargeFrom, type ChargeRow } from './charges.ts'
import type { GroupCommit } from './group-commit.ts'
import type { SqliteIdempotency } from './idempotency.ts'
import { pageOf, rowAt } from './pages.ts'
import type { SqliteRepeats } from './repeats.ts'
import { read } from './store-down.ts'

interface RecordsOptions {
  readonly accounts: SqliteAccounts
  readonly idempotency: SqliteIdempotency
  readonly repeats: SqliteRepeats
  readonly usage: TaskRecords['usage']
}

/** Rows of the ledger in pages: by the index of a subject's tasks, and by that of the unknown ones. */
export function sqliteRecords (db: DatabaseSync, group: GroupCommit, { accounts, idempotency, repeats, usage }: RecordsOptions): TaskRecords {
  const sql = statements(db)

  return {
    async tasksOf (subject, { cursor, limit }) {
      const rows = read(() => sql.ofSubject.all(subject, rowAt(cursor) ?? Infinity, limit + 1) as unknown as Row[])
      await group.committed() // what is told here must not be undone
      return pageOf(rows, limit, recordFrom)
    },
    async endsOf (subject, { endedAt, taskId }, limit) {
      await nextTurn()
      const rows = read(() => sql.ends.all(subject, endedAt, taskId, limit) as unknown as EndRow[])
      await group.committed()
      return rows.map(row => ({ endedAt: row.ended_at, taskId: row.task_id }))
    },
    async unknowns ({ cursor, limit }) {
      return pageOf(read(() => sql.unknown.all(rowAt(cursor) ?? 0, limit + 1) as unknown as Row[]), limit, recordFrom)
    },
    async release (name) {
      const id = rowAt(name)
      const released = group.run(() => {
        const row = sql.release.get(id) as ChargeRow | undefined
        if (row === undefined) return false
        accounts.giveBack(chargeFrom(row))
        idempotency.free(id)
        repeats.drop(id)
        return true
      })
      await group.committed()
      return released
    },
    usage
  }
}

const columns = 'id, subject, task_id, operation, model, stage, state, microcredits, refunded, created_at, ended_at'

interface Row {
  readonly id: number
  readonly subject: string
  readonly task_id: string | null
  readonly operation: string
  readonly model: string
  readonly stage: Stage
  readonly state: FinalState | null
  readonly microcredits: number
  readonly refunded: 0 | 1
  readonly created_at: number
  readonly ended_at: number | null
}

interface EndRow { readonly ended_at: number, readonly task_id: string }

function recordFrom ({ id, task_id: taskId, refunded, created_at: createdAt, ended_at: endedAt, ...row }: Row): TaskRecord {
  return { ...row, id: String(id), taskId, refunded: refunded === 1, createdAt, endedAt }
}

function statements (db: DatabaseSync) {
  return {
    ofSubject: db.prepare(`SELECT ${columns} FROM tasks WHERE subject = ? AND listed = 1 AND id < ? ORDER BY id DESC LIMIT ?`),
    ends: db.prepare(`SELECT ended_at, task_id FROM tasks WHERE subject = ? AND stage = 'settled' AND (ended_at, task_id) > (?, ?)
      ORDER BY ended_at, task_id LIMIT ?`),
    unknown: db.prepare(`SELECT ${columns} FROM tasks WHERE stage = 'unknown' AND refunded = 0 AND id > ? ORDER BY id LIMIT ?`),
    release: db.prepare(`UPDATE tasks SET refunded = 1 WHERE id = ? AND stage = 'unknown' AND refunded = 0 RETURNING ${chargeColumns}`)
  }
}
