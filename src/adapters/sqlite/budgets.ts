import type { DatabaseSync } from 'node:sqlite'
import type { SessionSpent } from '../../domain/ledger/credits.ts'
import type { Demand, SessionBudget } from '../../domain/ledger/ledger.ts'
import type { Charge } from './charges.ts'
import type { Reservations } from './reservations.ts'

/** What sessions with limits of their own have taken: a row each, from its first submit to its end. */
export interface Budgets {
  /** What of a demand the session has no room for. */
  lackOf (demand: Demand, session: SessionBudget): 'uses' | 'credits' | null
  spend (charge: Charge, session: SessionBudget): void
  giveBack (charge: Charge, uses: 0 | 1): void
  /** What is only reserved included. */
  spentIn (subject: string, sessionId: string): SessionSpent
}

export function sqliteBudgets (db: DatabaseSync, reservations: Reservations): Budgets {
  const find = db.prepare('SELECT uses, microcredits FROM session_budgets WHERE subject = ? AND session_id = ?')
  const spend = db.prepare(`INSERT INTO session_budgets (subject, session_id, uses, microcredits, expires_at) VALUES (?, ?, 1, ?, ?)
    ON CONFLICT DO UPDATE SET uses = uses + 1, microcredits = microcredits + excluded.microcredits`)
  const giveBack = db.prepare('UPDATE session_budgets SET uses = uses - ?, microcredits = microcredits - ? WHERE subject = ? AND session_id = ?')

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
    spend ({ subject, fromPeriod, fromGrants }, { id, expiresAt }) { spend.run(subject, id, fromPeriod + fromGrants, expiresAt) },
    giveBack ({ subject, fromPeriod, fromGrants, sessionId }, uses) {
      if (sessionId !== null) giveBack.run(uses, fromPeriod + fromGrants, subject, sessionId)
    },
    spentIn
  }
}
