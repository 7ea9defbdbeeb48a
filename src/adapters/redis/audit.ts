import type { AuditEntry, AuditTrail } from '../../domain/ledger/audit.ts'
import type { Commands } from './commands.ts'
import type { KeyNames } from './key-names.ts'

/** The audit trail as a stream, of which the newest hundred thousand entries are kept. */
export function redisAudit ({ on, ask }: Commands, { audit }: KeyNames): AuditTrail {
  return {
    async append (entries) { await on(audit, 'append', ...entries.map(entry => JSON.stringify(entry))) },
    async read ({ cursor, limit }) {
      if (cursor !== null && !/^\d{1,20}-\d{1,20}$/.test(cursor)) return { items: [], next: null }
      const found = await ask(client => client.xrevrange(audit, cursor === null ? '+' : `(${cursor}`, '-', 'COUNT', limit + 1))
      const shown = found.slice(0, limit)
      return {
        items: shown.map(([, [, entry]]) => JSON.parse(entry!) as AuditEntry),
        next: found.length > limit ? shown.at(-1)![0] : null
      }
    }
  }
}
