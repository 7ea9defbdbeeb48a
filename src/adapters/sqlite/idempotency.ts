import type { DatabaseSync } from 'node:sqlite'
import { type Earlier, type IdempotencyKey, type IdempotencyStore, idempotencyMs, type KeptAnswer } from '../../domain/ledger/idempotency.ts'
import type { Stage } from '../../domain/ledger/ledger.ts'
import type { GroupCommit } from './group-commit.ts'
import type { Reservation, Reservations } from './reservations.ts'
import { read } from './store-down.ts'

/** What became of idempotency keys, and the ways that the ledger changes that: those are for use within its transaction. */
export interface SqliteIdempotency extends IdempotencyStore {
  /** As `earlier`, but of what may not be on disk yet. */
  find (subject: string, key: IdempotencyKey): Earlier | null
  /** Writes the row of a reservation that has a key. */
  begin (id: number, reservation: Reservation): void
  /** The first answer stays. A reservation without a key has none. */
  answer (id: number, answer: KeptAnswer): void
  free (id: number): void
}

/** The columns that tell what became of a request. */
export interface OutcomeRow {
  readonly status: number | null
  readonly content_type: string
  readonly body: Uint8Array
  readonly stage: Stage | null
  readonly task_id: string | null
}

interface Row extends OutcomeRow { readonly fingerprint: string }

/**
 * Idempotency keys in SQLite: a row per key, with the id of its reservation. It has no state of its own but the answer:
 * the rest is read from the task's row, so that a sweep, a crash and a late claim need not know of it. `steady`: as `steadyClock`
 * makes it.
 */
export function sqliteIdempotency (
  db: DatabaseSync, group: GroupCommit, { reservations, steady }: { readonly reservations: Reservations, readonly steady: () => number }
): SqliteIdempotency {
  const sql = statements(db)

  const find = (subject: string, { key, fingerprint }: IdempotencyKey): Earlier | null => {
    const reserved = reservations.fingerprintOf(subject, key)
    if (reserved !== undefined) return reserved === fingerprint ? { kind: 'pending' } : { kind: 'mismatch' }
    const row = read(() => sql.find.get(subject, key, steady() - idempotencyMs) as Row | undefined)
    if (row === undefined) return null
    return row.fingerprint === fingerprint ? outcomeOf(row) : { kind: 'mismatch' }
  }

  return {
    find,
    async earlier (subject, key) {
      const earlier = find(subject, key)
      // An answer that is told before its claim is on disk could outlive the claim.
      await group.committed()
      return earlier
    },
    begin (id, { demand: { subject, idempotency }, createdAt }) {
      if (idempotency !== undefined) sql.begin.run(id, subject, idempotency.key, idempotency.fingerprint, createdAt)
    },
    answer (id, { status, contentType, body }) { sql.answer.run(status, contentType, body, id) },
    free (id) { sql.free.run(id) }
  }
}

/** What became of a request: its answer if that was kept, else how its task is. */
export function outcomeOf ({ status, content_type: contentType, body, stage, task_id: taskId }: OutcomeRow): Earlier {
  if (status !== null) {
    return { kind: 'answered', answer: { status, contentType, body: Buffer.from(body.buffer, body.byteOffset, body.byteLength) } }
  }
  if (stage === 'sent') return { kind: 'pending' }
  return taskId === null ? { kind: 'unknown' } : { kind: 'task', taskId }
}

function statements (db: DatabaseSync) {
  return {
    find: db.prepare(`SELECT fingerprint, status, content_type, body, stage, task_id FROM idempotency AS kept LEFT JOIN tasks USING (id)
      WHERE kept.subject = ? AND key = ? AND kept.created_at > ?`),
    // In the place of one whose time is over.
    begin: db.prepare('INSERT OR REPLACE INTO idempotency (id, subject, key, fingerprint, created_at) VALUES (?, ?, ?, ?, ?)'),
    answer: db.prepare('UPDATE idempotency SET status = ?, content_type = ?, body = ? WHERE id = ? AND status IS NULL'),
    free: db.prepare('DELETE FROM idempotency WHERE id = ?')
  }
}
