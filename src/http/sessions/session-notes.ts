import type { AuditEntry, AuditKind, AuditTrail } from '../../domain/ledger/audit.ts'
import type { Session } from '../../domain/sessions/session.ts'

/**
 * Writes down that a session begins or ends: before the answer, and before what it tells of is done, so that none does
 * without its entry.
 */
export function sessionNotes ({ audit, now }: { readonly audit: AuditTrail, readonly now: () => number }) {
  return (kind: AuditKind, actor: string, { id, subject }: Session, more: AuditEntry['detail'] = {}): Promise<void> =>
    audit.append([{ at: now(), kind, actor, subject, detail: { session: id, ...more } }])
}
