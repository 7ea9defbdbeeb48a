import type { DatabaseSync } from 'node:sqlite'
import type { Deliveries, Delivery, DeliveryAttempt } from '../../domain/callbacks/deliveries.ts'
import type { GroupCommit } from './group-commit.ts'
import { read } from './store-down.ts'

/** What is to be told of tasks, and the ways that the ledger changes that: those are for use within its transaction. */
export interface SqliteDeliveries extends Deliveries {
  begin (id: number, url: string): void
  /** The task has ended: its delivery is due, if it has one. */
  makeDue (id: number): void
}

interface Row {
  readonly task_id: string
  readonly url: string
  readonly attempts: string
  readonly next_at: number | null
}

interface DueRow extends Row { readonly body: Uint8Array }

/** Deliveries in SQLite: a row for each, with the id of its reservation, which takes it along when it goes. */
export function sqliteDeliveries (db: DatabaseSync, group: GroupCommit, now: () => number): SqliteDeliveries {
  const sql = statements(db)
  return {
    begin (id, url) { sql.begin.run(id, url) },
    makeDue (id) { sql.makeDue.run(now(), id) },
    async due (limit) {
      const rows = read(() => sql.due.all(now(), limit) as unknown as DueRow[])
      await group.committed() // what is told to others must not be undone
      return rows.map(({ body, ...row }) => ({ ...deliveryFrom(row), body: Buffer.from(body.buffer, body.byteOffset, body.byteLength) }))
    },
    async attempted (taskId, attempt, nextAt) {
      group.run(() => sql.attempted.run(JSON.stringify(attempt), nextAt, taskId))
      await group.committed()
    },
    async of (taskId) {
      const row = read(() => sql.of.get(taskId) as Row | undefined)
      return row === undefined ? null : deliveryFrom(row)
    }
  }
}

function deliveryFrom ({ task_id: taskId, url, attempts, next_at: nextAt }: Row): Delivery {
  return { taskId, url, attempts: JSON.parse(attempts) as DeliveryAttempt[], nextAt }
}

function statements (db: DatabaseSync) {
  return {
    begin: db.prepare('INSERT INTO deliveries (id, url) VALUES (?, ?)'),
    makeDue: db.prepare('UPDATE deliveries SET next_at = ? WHERE id = ?'),
    due: db.prepare(`SELECT task_id, url, attempts, next_at, body FROM deliveries JOIN tasks USING (id) JOIN answers USING (id)
      WHERE next_at <= ? ORDER BY next_at, id LIMIT ?`),
    attempted: db.prepare(`UPDATE deliveries SET attempts = json_insert(attempts, '$[#]', json(?)), next_at = iif(next_at IS NULL, NULL, ?)
      WHERE id = (SELECT id FROM tasks WHERE task_id = ?)`),
    of: db.prepare('SELECT task_id, url, attempts, next_at FROM deliveries JOIN tasks USING (id) WHERE task_id = ?')
  }
}
