import type { LedgerTerms } from '../../domain/ledger/ledger.ts'

const dayMs = 86_400_000
/** Longer than the longest period, a month, ms. */
const periodMs = 40 * dayMs

/** Keys outlive what stands in them by this, ms, as the clocks of servers differ: what counts are the instants in them. */
export const slackMs = 3_600_000

/** A replica that has said nothing for so long is dead, ms. */
export const deadMs = 3000

/** How long a key is kept whose content lasts so long, ms. */
export function keptFor (lastsMs: number): number {
  return Math.max(0, lastsMs) + slackMs
}

/** For how long what is only looked up by its name is kept at the most, ms: an unknown task may still end while it is remembered. */
export function keepMs ({ retentionMs, giveUpMs }: LedgerTerms): number {
  return 2 * retentionMs + giveUpMs + periodMs
}
