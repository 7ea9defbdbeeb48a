import type { Microcredits } from '../../domain/policy/pricing.ts'

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

export function chargeFrom ({ subject, period_start: periodStart, microcredits, granted, session_id: sessionId }: ChargeRow): Charge {
  return { subject, periodStart, fromPeriod: microcredits - granted, fromGrants: granted, sessionId }
}
