import { badRequest } from '../../errors.ts'
import type { Microcredits } from '../policy/pricing.ts'

/** What a subject has used, and what the operator gave it on top of its plan. */
export interface CreditBalance {
  /** Of the period, what is set aside for unfinished tasks included. */
  readonly used: Microcredits
  /** What is left of all grants. */
  readonly granted: Microcredits
  /** Tasks that take a slot. */
  readonly unfinished: number
}

/** Credits beyond the plan's, given by the operator. */
export interface Grant {
  readonly subject: string
  /** Above zero. */
  readonly microcredits: Microcredits
}

/** What a session with limits of its own has taken so far, unfinished tasks included. */
export interface SessionSpent {
  readonly uses: number
  readonly microcredits: Microcredits
}

export const nothingSpent: SessionSpent = { uses: 0, microcredits: 0 }

/**
 * The accounts of the subjects. A reservation takes what is left of the period's credits first and the rest from the
 * grants, which do not end with a period; what it takes goes back to where it came from.
 *
 * Every method is one atomic step and throws `GW_STORE_DOWN`.
 */
export interface CreditAccounts {
  balanceOf (subject: string, periodStart: number): Promise<CreditBalance>
  /** Of demands with this `SessionBudget.id`; none: nothing. */
  spentIn (subject: string, budgetId: string): Promise<SessionSpent>
  /**
   * Adds a row to the ledger; resolves, when it is on disk, to what is left of all grants of the subject. Throws
   * `GW_BAD_REQUEST`, and adds nothing, when that would be more than can be counted.
   */
  grant (grant: Grant): Promise<Microcredits>
}

/** The grants of a subject would come to more than 2^53 - 1 microcredits. */
export function tooMuchGranted () {
  return badRequest('credits would be more than can be counted, together with what is left of earlier grants: at most 9007199254.740991.')
}
