import type { DatabaseSync } from 'node:sqlite'
import {
  type CreditAccounts, type ReserveRequest, type SessionBudget, type SessionSpent, tooMuchGranted
} from '../../domain/ledger.ts'
import type { Microcredits } from '../../domain/policy.ts'
import { type GroupCommit, read } from './database.ts'
import type { Reservations, TaskCounts } from './ledger.ts'

/** What sessions with limits of their own have taken: a row each, from its first submit to its end. */
export interface Budgets {
  /** What of a demand the session has no room for. */
  lackOf (demand: ReserveRequest, session: SessionBudget): 'uses' | 'credits' | null
  spend (charge: Charge, session: SessionBudget): void
  giveBack (charge: Charge, uses: 0 | 1): void
  /** What is only reserved included. */
  spentIn (subject: string, sessionId: string): SessionSpent
}

export function sqliteBudgets (db: DatabaseSync, reservations: Reservations): Budgets {
  const find = db.prepare('SELECT uses, microcredits FROM session_budgets WHERE subject = ? AND session_id = ?')
  const spend =
    db.prepare(`INSERT INTO session_budgets (subject, session_id, uses, microcredits, expires_at) VALUES (?, ?, 1, ?, ?)
    ON CONFLICT DO UPDATE SET uses = uses + 1, microcredits = microcredits + excluded.microcredits`)
  const giveBack = db.prepare(
    'UPDATE session_budgets SET uses = uses - ?, microcredits = microcredits - ? WHERE subject = ? AND session_id = ?'
  )

  const spentIn = (subject: string, sessionId: string): SessionSpent => {
    const written = find.get(subject, sessionId) as SessionSpent | undefined
    const held = reservations.heldOfSession(subject, sessionId)
    return { uses: (written?.uses ?? 0) + held.uses, microcredits: (written?.microcredits ?? 0) + held.microcredits }
  }

  return {
    lackOf ({ subject, microcredits }, { id, uses, creditLimit }) {
      const spent = spentIn(subject, id)
      if (uses !== null && spent.uses >= uses) return 'uses'
      return creditLimit !== null && spent.microcredits + microcredits > creditLimit ? 'credits' : null
    },
    spend ({ subject, fromPeriod, fromGrants }, { id, expiresAt }) {
      spend.run(subject, id, fromPeriod + fromGrants, expiresAt)
    },
    giveBack ({ subject, fromPeriod, fromGrants, sessionId }, uses) {
      if (sessionId !== null) giveBack.run(uses, fromPeriod + fromGrants, subject, sessionId)
    },
    spentIn
  }
}

/** The accounts, and the ways that the ledger changes them: those are for use within its transaction. */
export interface SqliteAccounts extends CreditAccounts {
  /** Where its credits would come from, or what is lacking. Grants are only looked at when they are needed. */
  chargeFor (demand: ReserveRequest): Charge | 'uses' | 'credits'
  spend (charge: Charge, session?: SessionBudget): void
  /** Nothing came of it: the session has its use again as well. */
  giveBack (charge: Charge): void
  /** Credits alone. `false`: the period had as many refunds already. */
  refund (charge: Charge, refundsPerPeriod: number): boolean
}

interface Around { readonly reservations: Reservations, readonly slots: TaskCounts, readonly now: () => number }

/**
 * Credits in SQLite: a row per subject and period, and a row of what is left of the grants. The file is asked each
 * time,
 * because the command line may give credits and release charges while a server runs.
 */
export function sqliteAccounts (
  db: DatabaseSync,
  group: GroupCommit,
  { reservations, slots, now }: Around
): SqliteAccounts {
  const sql = statements(db)
  const budgets = sqliteBudgets(db, reservations)
  const usedOf = (subject: string, periodStart: number): number =>
    ((sql.used.get(subject, periodStart) as { used: number } | undefined)?.used ?? 0) +
    reservations.heldOfPeriod(subject, periodStart)
  const rowOf = (subject: string): number => (sql.granted.get(subject) as { granted: number } | undefined)?.granted ?? 0
  const grantedTo = (subject: string): number => rowOf(subject) - reservations.heldOfGrants(subject)

  return {
    chargeFor (demand) {
      const { subject, periodStart, microcredits, creditLimit, session } = demand
      const lack = session === undefined ? null : budgets.lackOf(demand, session)
      if (lack !== null) return lack
      const account = { subject, periodStart, sessionId: session?.id ?? null }
      if (creditLimit === null) return { ...account, fromPeriod: microcredits, fromGrants: 0 }
      const left = Math.max(0, creditLimit - usedOf(subject, periodStart))
      const fromPeriod = Math.min(microcredits, left)
      const fromGrants = microcredits - fromPeriod
      return fromGrants > 0 && fromGrants > grantedTo(subject) ? 'credits' : { ...account, fromPeriod, fromGrants }
    },
    spend (charge, session) {
      const { subject, periodStart, fromPeriod, fromGrants } = charge
      if (session !== undefined) budgets.spend(charge, session)
      sql.spend.run(subject, periodStart, fromPeriod)
      if (fromGrants > 0) sql.take.run(fromGrants, subject)
    },
    giveBack (charge) {
      const { subject, periodStart, fromPeriod, fromGrants } = charge
      budgets.giveBack(charge, 1)
      sql.giveBack.run(fromPeriod, subject, periodStart)
      if (fromGrants > 0) sql.add.run(subject, fromGrants)
    },
    refund (charge, refundsPerPeriod) {
      const { subject, periodStart, fromPeriod, fromGrants } = charge
      if (sql.refund.run(fromPeriod, subject, periodStart, refundsPerPeriod).changes === 0) return false
      budgets.giveBack(charge, 0)
      if (fromGrants > 0) sql.add.run(subject, fromGrants)
      return true
    },
    async balanceOf (subject, periodStart) {
      return read(() => ({
        used: usedOf(subject, periodStart),
        granted: grantedTo(subject),
        unfinished: slots.of(subject)
      }))
    },
    spentIn: async (subject, budgetId) => read(() => budgets.spentIn(subject, budgetId)),
    async grant ({ subject, microcredits }) {
      const left = group.run(() => {
        if (rowOf(subject) + microcredits > Number.MAX_SAFE_INTEGER) return null
        sql.grant.run(subject, microcredits, now())
        sql.add.run(subject, microcredits)
        return grantedTo(subject)
      })
      await group.committed()
      if (left === null) throw tooMuchGranted()
      return left
    }
  }
}

/** Sums that JavaScript can't read back exactly would shut the account: what goes back to it stops there. */
function statements (db: DatabaseSync) {
  return {
    used: db.prepare('SELECT used FROM credits WHERE subject = ? AND period_start = ?'),
    spend: db.prepare(`INSERT INTO credits (subject, period_start, used) VALUES (?, ?, ?)
      ON CONFLICT DO UPDATE SET used = min(used + excluded.used, ${Number.MAX_SAFE_INTEGER})`),
    giveBack: db.prepare('UPDATE credits SET used = used - ? WHERE subject = ? AND period_start = ?'),
    refund: db.prepare(`UPDATE credits SET used = used - ?, refunds = refunds + 1
      WHERE subject = ? AND period_start = ? AND refunds < ?`),
    granted: db.prepare('SELECT granted FROM accounts WHERE subject = ?'),
    grant: db.prepare('INSERT INTO grants (subject, microcredits, created_at) VALUES (?, ?, ?)'),
    take: db.prepare('UPDATE accounts SET granted = granted - ? WHERE subject = ?'),
    add: db.prepare(`INSERT INTO accounts (subject, granted) VALUES (?, ?)
      ON CONFLICT DO UPDATE SET granted = min(granted + excluded.granted, ${Number.MAX_SAFE_INTEGER})`)
  }
}

/** Which account a price is taken from, and goes back to. */
export interface Charge {
  readonly subject: string
  readonly periodStart: number
  readonly fromPeriod: Microcredits
  readonly fromGrants: Microcredits
  /** The session whose own limits it counts against; `null` for one that has none. */
  readonly sessionId: string | null
}

/** The columns of `tasks` that say so. */
export const chargeColumns = 'subject, period_start, microcredits, granted, session_id'

export interface ChargeRow {
  readonly subject: string
  readonly period_start: number
  readonly microcredits: Microcredits
  /** The part of it that is from grants. */
  readonly granted: Microcredits
  readonly session_id: string | null
}

export function chargeFrom ({
  subject,
  period_start: periodStart,
  microcredits,
  granted,
  session_id: sessionId
}: ChargeRow): Charge {
  return { subject, periodStart, fromPeriod: microcredits - granted, fromGrants: granted, sessionId }
}
