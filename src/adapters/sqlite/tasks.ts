import type { DatabaseSync } from 'node:sqlite'
import type { Stage, Task, UnfinishedTasks } from '../../domain/ledger.ts'
import { storeDown } from './group-commit.ts'

/** The columns a task is made of, from `tasks LEFT JOIN answers USING (id)`. */
export const taskColumns = 'id, task_id, subject, model, key_id, stage, microcredits, created_at, body'

export interface TaskRow {
  readonly id: number
  readonly task_id: string
  readonly subject: string
  readonly model: string
  readonly key_id: string
  readonly stage: Stage
  readonly microcredits: number
  readonly created_at: number
  readonly body: Uint8Array | null
}

export function taskFrom (row: TaskRow): Task {
  const { body } = row
  return {
    taskId: row.task_id,
    subject: row.subject,
    model: row.model,
    keyId: row.key_id,
    stage: row.stage,
    microcredits: row.microcredits,
    createdAt: row.created_at,
    finalAnswer: body && Buffer.from(body.buffer, body.byteOffset, body.byteLength)
  }
}

/** The index of unfinished rows is in the order of their ids: a page of them costs what it returns. */
export function sqliteUnfinishedTasks (db: DatabaseSync): UnfinishedTasks {
  const page = db.prepare(`SELECT ${taskColumns} FROM tasks LEFT JOIN answers USING (id)
    WHERE ended_at IS NULL AND stage = 'claimed' AND id > ? AND created_at <= ? ORDER BY id LIMIT ?`)
  return {
    async after (id, before, limit) {
      const rows = read(() => page.all(id, before, limit) as unknown as TaskRow[])
      return rows.map(row => ({ ...taskFrom(row), id: row.id }))
    }
  }
}

/** A query that fails says so as every write does. */
export function read<T> (query: () => T): T {
  try {
    return query()
  } catch (cause) {
    throw storeDown(cause)
  }
}
