import type { Page, PageRequest } from './records.ts'

/** What an operator may be asked about later. */
export type AuditKind =
  'mint' | 'revoke' | 'refusals' | 'settings' | 'secret' | 'grant' | 'release' | 'create' | 'rotate' | 'invite' | 'accept'

/** Holds no secret, no token, no prompt and no URL of a result. Secrets are named by their fingerprints. */
export interface AuditEntry {
  /** Unix ms. */
  readonly at: number
  readonly kind: AuditKind
  /** Who did it: `issuer`, `admin`, `cli`, `gateway`, or a session's subject. */
  readonly actor: string
  /** Whom it is about; `null` when it is about nobody. */
  readonly subject: string | null
  /** A flat row of facts, by kind. */
  readonly detail: Readonly<Record<string, string | number | boolean | null>>
}

/**
 * What an entry is kept with. Callers begin and end sessions, and are refused, as often as they like: what is kept of that
 * pushes nothing out of what the operator has done.
 */
export const auditParts = ['operator', 'sessions', 'refusals'] as const
export type AuditPart = typeof auditParts[number]

const ofSessions: ReadonlySet<AuditKind> = new Set<AuditKind>(['mint', 'revoke', 'accept'])

export function auditPartOf ({ kind, actor }: Pick<AuditEntry, 'kind' | 'actor'>): AuditPart {
  if (kind === 'refusals') return kind
  return ofSessions.has(kind) && actor !== 'admin' && actor !== 'cli' ? 'sessions' : 'operator'
}

/** What the operator has done is kept for so long, whatever else happens, ms. */
export const auditRetentionMs = 400 * 86_400_000

/** Written to at its end, and never changed. */
export interface AuditTrail {
  /** All or none, on disk when it resolves. Throws `GW_STORE_DOWN`. */
  append (entries: readonly AuditEntry[]): Promise<void>
  /** The newest first. Throws `GW_STORE_DOWN`. */
  read (page: PageRequest): Promise<Page<AuditEntry>>
}
