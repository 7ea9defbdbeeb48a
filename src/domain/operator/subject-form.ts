import { badRequest } from '../../errors.ts'
import type { AuditEntry, AuditTrail } from '../ledger/audit.ts'
import type { CreditAccounts } from '../ledger/credits.ts'
import type { TaskRecords } from '../ledger/records.ts'

/** An issuer's name and the subject's own, without what no store and no terminal should have to show. */
const storedSubject = /^(?=.{3,160}$)[^:\p{Cc}\p{Cs}]+:[^\p{Cc}\p{Cs}]+$/u

/** Throws `GW_BAD_REQUEST` for a subject that does not have its stored form, and says what was probably meant. */
export function checkSubject (subject: string): void {
  if (storedSubject.test(subject)) return
  // `alice` is most likely the app's own.
  const meant = storedSubject.test(`app:${subject}`) && !subject.includes(':') ? `app:${subject}` : 'app:alice'
  throw badRequest(`subject must have its stored form, issuer and name: ${meant}.`)
}

/** Where a subject or a session leaves its traces. */
export interface Traces {
  readonly records: Pick<TaskRecords, 'tasksOf'>
  readonly accounts: Pick<CreditAccounts, 'balanceOf'>
  readonly audit: Pick<AuditTrail, 'read'>
}

/**
 * Whether anything here speaks of this subject: a task, credits that it was granted, a session or a token. One that comes
 * by another issuer's tokens leaves no trace before its first task. Reads the audit trail to its end when there is
 * nothing, so it is for the command line alone. Throws `GW_STORE_DOWN`.
 */
export async function isKnownSubject ({ records, accounts, audit }: Traces, subject: string): Promise<boolean> {
  const { items } = await records.tasksOf(subject, { cursor: null, limit: 1 })
  if (items.length > 0 || (await accounts.balanceOf(subject, 0)).granted > 0) return true
  // What an operator has ended need not have been there.
  return await hasEntry(audit, entry => entry.subject === subject && entry.kind !== 'revoke')
}

/** Whether the audit trail speaks of the minting of this session. Reads it to its end when it does not. */
export async function isKnownSession ({ audit }: Pick<Traces, 'audit'>, id: string): Promise<boolean> {
  return await hasEntry(audit, ({ kind, detail }) => kind === 'mint' && detail['session'] === id)
}

async function hasEntry (audit: Traces['audit'], isIt: (entry: AuditEntry) => boolean): Promise<boolean> {
  let cursor: string | null = null
  do {
    const { items, next }: Awaited<ReturnType<Traces['audit']['read']>> = await audit.read({ cursor, limit: 500 })
    if (items.some(isIt)) return true
    cursor = next
  } while (cursor !== null)
  return false
}
