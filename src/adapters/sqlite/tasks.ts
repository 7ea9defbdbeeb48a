import type { DatabaseSync } from 'node:sqlite'
import { LRUCache } from 'lru-cache'
import type { Stage, Task, UnfinishedTasks } from '../../domain/ledger/ledger.ts'
import { pageOf, rowAt } from './pages.ts'
import { read } from './store-down.ts'

/** Finds tasks by their id. */
export interface Tasks {
  of (taskId: string): Task | null
  /** What is in the file has changed: of this task, or of who knows which. */
  forget (taskId?: string): void
}

/** Memory for tasks that have ended, bytes. */
const endedBytes = 8 * 1024 * 1024
const bytesAround = 500

/** The columns a task is made of, from `tasks LEFT JOIN answers USING (id)`. */
const columns = 'id, task_id, subject, operation, model, key_id, stage, microcredits, created_at, body'

interface TaskRow {
  readonly id: number
  readonly task_id: string
  readonly subject: string
  readonly operation: string
  readonly model: string
  readonly key_id: string
  readonly stage: Stage
  readonly microcredits: number
  readonly created_at: number
  readonly body: Uint8Array | null
}

/** A task that has ended does not change any more, and is what most polls ask for: it is remembered. */
export function sqliteTasks (db: DatabaseSync): Tasks {
  const find = db.prepare(`SELECT ${columns} FROM tasks LEFT JOIN answers USING (id) WHERE task_id = ?`)
  const ended = new LRUCache<string, Task>({
    maxSize: endedBytes,
    sizeCalculation: ({ finalAnswer }) => finalAnswer!.length + bytesAround
  })
  return {
    of (taskId) {
      const known = ended.get(taskId)
      if (known !== undefined) return known
      const row = read(() => find.get(taskId) as TaskRow | undefined)
      if (row === undefined) return null
      const task = taskFrom(row)
      if (task.finalAnswer !== null) ended.set(taskId, task)
      return task
    },
    forget (taskId) {
      if (taskId === undefined) ended.clear()
      else ended.delete(taskId)
    }
  }
}

/** The index of unfinished rows is in the order of their reservations, the oldest first: the first young one ends the list. */
export function sqliteUnfinishedTasks (db: DatabaseSync): UnfinishedTasks {
  const page = db.prepare(`SELECT ${columns} FROM tasks LEFT JOIN answers USING (id)
    WHERE ended_at IS NULL AND stage = 'claimed' AND id > ? ORDER BY id LIMIT ?`)
  return {
    async page (cursor, before, limit) {
      const rows = read(() => page.all(rowAt(cursor) ?? 0, limit + 1) as unknown as TaskRow[])
      const young = rows.findIndex(row => row.created_at > before)
      return pageOf(young === -1 ? rows : rows.slice(0, young), limit, taskFrom)
    }
  }
}

function taskFrom (row: TaskRow): Task {
  const { body } = row
  return {
    taskId: row.task_id,
    subject: row.subject,
    operation: row.operation,
    model: row.model,
    keyId: row.key_id,
    stage: row.stage,
    microcredits: row.microcredits,
    createdAt: row.created_at,
    finalAnswer: body && Buffer.from(body.buffer, body.byteOffset, body.byteLength)
  }
}
