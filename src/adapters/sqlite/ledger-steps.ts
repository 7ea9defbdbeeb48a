import type { DatabaseSync } from 'node:sqlite'
import type { KeptAnswer } from '../../domain/ledger/idempotency.ts'
import type { Ending, LedgerTerms, Step } from '../../domain/ledger/ledger.ts'
import type { SqliteAccounts } from './accounts.ts'
import { chargeColumns, chargeFrom, type ChargeRow } from './charges.ts'
import type { SqliteDeliveries } from './deliveries.ts'
import type { SqliteIdempotency } from './idempotency.ts'
import type { SqliteRepeats } from './repeats.ts'
import type { Reservations } from './reservations.ts'
import type { Slots } from './slots.ts'
import type { Tasks } from './tasks.ts'

/** What the ledger writes together with its own rows. */
export interface LedgerParts {
  readonly reservations: Reservations
  readonly slots: Slots
  readonly accounts: SqliteAccounts
  readonly idempotency: SqliteIdempotency
  readonly repeats: SqliteRepeats
  readonly deliveries: SqliteDeliveries
  readonly tasks: Tasks
  readonly terms: LedgerTerms
  readonly now: () => number
}

/** The steps of the ledger as they are written, each for use within a transaction. `false`: it is not open to that row. */
export interface LedgerSteps {
  send (id: number, step: Extract<Step, { to: 'sent' }>): boolean
  claim (id: number, taskId: string, answer?: KeptAnswer): boolean
  release (id: number, answer?: KeptAnswer): boolean
  /** From `sent` when its outcome is unknown; also from `claimed` when the task has overstayed. */
  lose (id: number, from?: 'sent' | 'claimed'): boolean
  settle (ending: Ending): boolean
}

export function ledgerSteps (db: DatabaseSync, parts: LedgerParts): LedgerSteps {
  const { reservations, slots, accounts, idempotency, repeats, deliveries, terms, now } = parts
  const sql = statements(db)

  /** Also late, when its outcome was unknown, and once more. */
  const hasClaimed = (id: number, taskId: string): boolean => {
    const leaseUntil = now() + terms.giveUpMs
    if (sql.claim.run(taskId, leaseUntil, id, 'sent').changes === 1) return true
    if (sql.claim.run(taskId, leaseUntil, id, 'unknown').changes === 1) {
      slots.count((sql.subjectOf.get(id) as { subject: string }).subject, 1)
      return true
    }
    return (sql.holder.get(taskId) as { id: number } | undefined)?.id === id
  }

  /** Says whose reservation or row has gone, its credits back where they were. */
  const takeAway = (id: number): string | undefined => {
    const reservation = reservations.get(id)
    if (reservation !== undefined) {
      idempotency.begin(id, reservation)
      return reservations.remove(id)!.demand.subject
    }
    const row = sql.release.get(id) as ChargeRow | undefined
    if (row !== undefined) accounts.giveBack(chargeFrom(row))
    return row?.subject
  }

  return {
    send (id, { keyId, callbackHash = null }) {
      const reservation = reservations.get(id)
      const leaseUntil = now() + terms.sentMs
      if (reservation === undefined) return sql.resend.run(keyId, callbackHash, leaseUntil, id).changes === 1
      const { charge, createdAt, demand: { subject, operation, model, microcredits, refundable, periodStart, deliverTo, session, repeat } } = reservation
      accounts.spend(charge, session)
      sql.insert.run(id, subject, operation, model, keyId,
        microcredits, charge.fromGrants, charge.sessionId, refundable ? 1 : 0, periodStart, createdAt, leaseUntil, callbackHash, repeat?.fingerprint ?? null)
      idempotency.begin(id, reservation)
      if (deliverTo !== undefined) deliveries.begin(id, deliverTo)
      reservations.remove(id)
      return true
    },
    claim (id, taskId, answer) {
      const claimed = hasClaimed(id, taskId)
      if (!claimed) return false
      if (answer !== undefined) idempotency.answer(id, answer)
      repeats.claimed(id, answer)
      return true
    },
    release (id, answer) {
      const subject = takeAway(id)
      if (subject === undefined) return false
      slots.count(subject, -1)
      repeats.drop(id)
      if (answer === undefined) idempotency.free(id)
      else idempotency.answer(id, answer)
      return true
    },
    lose (id, from = 'sent') {
      const row = sql.lose.get(now(), id, from) as { subject: string } | undefined
      if (row === undefined) return false
      slots.count(row.subject, -1)
      if (from === 'sent') repeats.lost(id)
      else repeats.drop(id)
      return true
    },
    settle ({ taskId, state, answer }) {
      const end = (from: 'claimed' | 'unknown') => sql.settle.get(now(), state, taskId, from) as EndedRow | undefined
      const claimed = end('claimed')
      const row = claimed ?? end('unknown')
      if (row === undefined) return false
      if (claimed !== undefined) slots.count(row.subject, -1)
      sql.keepAnswer.run(row.id, answer)
      deliveries.makeDue(row.id)
      const mayRefund = state === 'failed' && row.refundable === 1 && row.refunded === 0
      if (mayRefund && accounts.refund(chargeFrom(row), terms.refundsPerPeriod)) sql.markRefunded.run(row.id)
      return true
    }
  }
}

interface EndedRow extends ChargeRow { readonly id: number, readonly refundable: 0 | 1, readonly refunded: 0 | 1 }

function statements (db: DatabaseSync) {
  return {
    insert: db.prepare(`INSERT INTO tasks
      (id, subject, operation, model, key_id, stage, microcredits, granted, session_id, refundable, period_start, created_at,
        lease_until, callback_hash, repeat, listed)
      VALUES (?, ?, ?, ?, ?, 'sent', ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)`),
    resend: db.prepare("UPDATE tasks SET key_id = ?, callback_hash = coalesce(callback_hash, ?), lease_until = ? WHERE id = ? AND stage = 'sent'"),
    claim: db.prepare(`UPDATE OR IGNORE tasks SET stage = 'claimed', task_id = ?, lease_until = ?, ended_at = NULL, listed = 1
      WHERE id = ? AND task_id IS NULL AND stage = ?`),
    subjectOf: db.prepare('SELECT subject FROM tasks WHERE id = ?'),
    holder: db.prepare('SELECT id FROM tasks WHERE task_id = ?'),
    release: db.prepare(`DELETE FROM tasks WHERE id = ? AND stage = 'sent' RETURNING ${chargeColumns}`),
    lose: db.prepare(`UPDATE tasks SET stage = 'unknown', ended_at = ?, listed = 1
      WHERE id = ? AND stage = ? RETURNING subject`),
    settle: db.prepare(`UPDATE tasks SET stage = 'settled', ended_at = ?, state = ?
      WHERE task_id = ? AND stage = ? RETURNING id, refundable, refunded, ${chargeColumns}`),
    keepAnswer: db.prepare('INSERT INTO answers (id, body) VALUES (?, ?)'),
    markRefunded: db.prepare('UPDATE tasks SET refunded = 1 WHERE id = ?')
  }
}
