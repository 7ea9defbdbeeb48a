import type { Plan } from '../policy/plan.ts'
import type { Microcredits } from '../policy/pricing.ts'
import type { CreditBalance } from './credits.ts'

/** What a subject may still spend, of its period and of its grants; `null` is unlimited. Never below zero. */
export function creditsLeft ({ credits }: Plan, { used, granted }: CreditBalance): Microcredits | null {
  // A plan that has become smaller may have been overdrawn: that is not taken from the grants.
  return credits === null ? null : Math.max(0, credits - used) + granted
}

/** What a session may still spend: the least of what its subject has left and its own limit leaves; `null` is unlimited. */
export function leastLeft (ofSubject: Microcredits | null, limit: Microcredits | null, spent: Microcredits): Microcredits | null {
  if (limit === null) return ofSubject
  return Math.min(ofSubject ?? Infinity, Math.max(0, limit - spent))
}

/**
 * Credits as they are shown. One division of two whole numbers gives the double nearest to the decimal, which is what
 * prints as that decimal: 74.87 and never 74.86999999. Sums are made before, in microcredits.
 */
export function creditsFrom (microcredits: Microcredits): number {
  return microcredits / 1_000_000
}
