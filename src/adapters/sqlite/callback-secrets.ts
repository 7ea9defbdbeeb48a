import type { DatabaseSync } from 'node:sqlite'
import type { CallbackSecrets } from '../../domain/callbacks/callback-secrets.ts'
import { read } from './store-down.ts'
import type { Tasks } from './tasks.ts'

interface Row {
  readonly id: number
  readonly subject: string
  readonly model: string
  readonly key_id: string
  readonly task_id: string | null
}

/** The hash stands in the row of its reservation, and goes with it. */
export function sqliteCallbackSecrets (db: DatabaseSync, tasks: Tasks): CallbackSecrets {
  const find = db.prepare('SELECT id, subject, model, key_id, task_id FROM tasks WHERE callback_hash = ?')
  return {
    async reservationOf (secretHash) {
      const row = read(() => find.get(secretHash) as Row | undefined)
      if (row === undefined) return null
      const { id, subject, model, key_id: keyId, task_id: taskId } = row
      return { reservation: String(id), subject, model, keyId, task: taskId === null ? null : tasks.of(taskId) }
    }
  }
}
