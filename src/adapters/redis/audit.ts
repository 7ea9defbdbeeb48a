import { type AuditEntry, auditPartOf, auditParts, type AuditTrail } from '../../domain/ledger/audit.ts'
import type { Commands } from './commands.ts'
import type { KeyNames } from './key-names.ts'

/**
 * The audit trail as a stream for each of its parts: of what callers do, and of refusals, the newest hundred thousand entries
 * are kept, and what the operator has done for its time. What an operator did under an earlier version stands among what
 * callers do.
 */
export function redisAudit ({ on, ask }: Commands, { audit, auditPart }: KeyNames): AuditTrail {
  return {
    async append (entries) {
      await on(audit, 'append', ...entries.flatMap(entry => [auditPartOf(entry), JSON.stringify(entry)]))
    },
    async read ({ cursor, limit }) {
      if (cursor !== null && !/^\d{1,20}-\d{1,20}$/.test(cursor)) return { items: [], next: null }
      const found = await ask(client => Promise.all(auditParts.map(part =>
        client.xrevrange(auditPart(part), cursor === null ? '+' : `(${cursor}`, '-', 'COUNT', limit + 1))))
      const newest = found.flat().map(([id, [, entry]]) => ({ id, entry: entry! })).sort((one, other) => isLater(one.id, other.id) ? -1 : 1)
      const shown = newest.slice(0, limit)
      return {
        items: shown.map(({ entry }) => JSON.parse(entry) as AuditEntry),
        next: newest.length > limit ? shown.at(-1)!.id : null
      }
    }
  }
}

/** Milliseconds and a number. */
function isLater (one: string, other: string): boolean {
  const [ms, number] = one.split('-').map(Number) as [number, number]
  const [otherMs, otherNumber] = other.split('-').map(Number) as [number, number]
  return ms === otherMs ? number > otherNumber : ms > otherMs
}
