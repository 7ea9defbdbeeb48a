import type { DatabaseSync } from 'node:sqlite'
import { type CreditAccounts, tooMuchGranted } from '../../domain/ledger/credits.ts'
import type { Demand, SessionBudget } from '../../domain/ledger/ledger.ts'
import { sqliteBudgets } from './budgets.ts'
import type { Charge } from './charges.ts'
import type { GroupCommit } from './group-commit.ts'
import type { Reservations } from './reservations.ts'
import type { Slots } from './slots.ts'
import { read } from './store-down.ts'

/** The accounts, and the ways that the ledger changes them: those are for use within its transaction. */
export interface SqliteAccounts extends CreditAccounts {
  /** Where its credits would come from, or what is lacking. Grants are only looked at when they are needed. */
  chargeFor (demand: Demand): Charge | 'uses' | 'credits'
  spend (charge: Charge, session?: SessionBudget): void
  /** Nothing came of it: the session has its use again as well. */
  giveBack (charge: Charge): void
  /** Credits alone. `false`: the period had as many refunds already. */
  refund (charge: Charge, refundsPerPeriod: number): boolean
}

interface Around { readonly reservations: Reservations, readonly slots: Slots, readonly now: () => number }

/**
 * Credits in SQLite: a row per subject and period, and a row of what is left of the grants. The file is asked each time,
 * because the command line may give credits and release charges while a server runs.
 */
export function sqliteAccounts (db: DatabaseSync, group: GroupCommit, { reservations, slots, now }: Around): SqliteAccounts {
  const sql = statements(db)
  const budgets = sqliteBudgets(db, reservations)
  const usedOf = (subject: string, periodStart: number): number =>
    ((sql.used.get(subject, periodStart) as { used: number } | undefined)?.used ?? 0) + reservations.heldOfPeriod(subject, periodStart)
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
      return read(() => ({ used: usedOf(subject, periodStart), granted: grantedTo(subject), unfinished: slots.of(subject) }))
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
