import type { SessionBudget } from '../ledger/ledger.ts'
import type { Microcredits } from '../policy/pricing.ts'

export type Scope = 'tasks:write' | 'tasks:read' | 'llm'
export const scopes: readonly Scope[] = ['tasks:write', 'tasks:read', 'llm']

/** Who is calling, and what they may do: the verified content of a token. */
export interface Session {
  /** The token's id (`jti`): what is revoked, logged and stored. Never the token. */
  readonly id: string
  /** The issuer's name and its own, `app:alice`: subjects of two issuers can't collide. At most 160 characters. */
  readonly subject: string
  readonly plan: string
  readonly models: readonly string[]
  /** `models`, compiled once. */
  readonly permits: (model: string) => boolean
  readonly scopes: readonly Scope[]
  /** Unix ms. */
  readonly issuedAt: number
  /** Unix ms. */
  readonly expiresAt: number
  /** The web origins whose pages may use it; `null`: whoever holds it may. */
  readonly origins: readonly string[] | null
  /** The network that it may be used from, in CIDR notation; `null`: from anywhere. */
  readonly addressRange: string | null
  /** Submits and LLM calls in its whole life; `null`: as many as the plan permits. */
  readonly uses: number | null
  /** Credits for its whole life, beside those of its subject; `null`: those of its subject alone. */
  readonly credits: Microcredits | null
  /** It is sent in a cookie and in nothing else; any other is sent in a header and in nothing else. */
  readonly isCookie: boolean
  /** Uses and credits count under this name: its own id, or that of the session which a cookie stands in for. */
  readonly rootId: string
  /** Unix ms. A cookie may be printed anew until then, and no later; of any other it is `expiresAt`. */
  readonly endsAt: number
}

type Scoping = 'origins' | 'addressRange' | 'uses' | 'credits' | 'isCookie' | 'rootId' | 'endsAt'

/** A session of those who print no more than who somebody is: it may be used from anywhere, as often as its plan permits. */
export function unscoped (session: Omit<Session, Scoping>): Session {
  const scoping = { origins: null, addressRange: null, uses: null, credits: null, isCookie: false }
  return { ...session, ...scoping, rootId: session.id, endsAt: session.expiresAt }
}

/** What a submit or an LLM call takes from the session itself; `undefined`: nothing, only from its subject. */
export function budgetOf ({ uses, credits, rootId, endsAt }: Session): SessionBudget | undefined {
  return uses === null && credits === null ? undefined : { id: rootId, uses, creditLimit: credits, expiresAt: endsAt }
}

/**
 * Turns a credential into a session.
 *
 * A session: mine, and good. `null`: not mine, ask the next verifier. Throws `GW_BAD_SESSION`: mine, and bad; nobody
 * else is asked. Anything else a verifier does (no answer, another throw) leaves the caller without a session.
 */
export interface SessionVerifier {
  verify (credential: string): Promise<Session | null>
}

/** What the app's backend asks for when it mints a session. */
export interface SessionRequest {
  /** Whose name the subject is: what the stored one begins with. `app` when absent. */
  readonly issuer?: 'app' | 'guest'
  /** The issuer's own name for its user, without a prefix. */
  readonly subject: string
  readonly plan: string
  readonly models: readonly string[]
  readonly scopes: readonly Scope[]
  readonly ttlSeconds: number
  /** When it begins, Unix ms; now when absent. Its end is reckoned from now in any case. */
  readonly issuedAt?: number
  /** As in a session; absent is `null`. */
  readonly origins?: readonly string[]
  readonly addressRange?: string
  readonly uses?: number
  readonly credits?: Microcredits
}

/** A session and its printed form. */
export interface PrintedSession {
  readonly token: string
  readonly session: Session
}

export interface SessionIssuer {
  mint (request: SessionRequest): Promise<PrintedSession>
  /**
   * Prints a session for a cookie, to last until `expiresAt` (Unix ms), but never beyond the session's own `endsAt`: no
   * cookie can do more than what it stands in for, or for longer. Of a session in a header that is a new one with an id
   * of its own; of one that is in a cookie already it is the same one, so that requests with the older print, which are
   * under way, are no strangers.
   */
  printCookie (session: Session, expiresAt: number): Promise<PrintedSession>
}

/** What is asked of revocations. */
export type RevocableSession = Pick<Session, 'id' | 'subject' | 'issuedAt'> & Partial<Pick<Session, 'rootId'>>

/**
 * The id under which the cookie of a session is revoked, when both are to end. The swap for the cookie revokes the session's
 * own id alone. No session has such an id: ids are printable.
 */
export function standInsOf (sessionId: string): string {
  return `${sessionId}\n`
}

/**
 * That a subject has ended all its sessions is remembered for at least so long, ms: `sessions.maxTtlSeconds` may have been
 * longer when they were minted.
 */
export const endedEverywhereMs = 400 * 86_400_000

/**
 * What must not come back is kept for so much longer than it holds, ms: the clock by which it is forgotten may be put back
 * later. A session that was revoked must not be good again, what a session has taken must not be had again, nor may an
 * idempotency key's submit be charged twice. It bears a step of a day, and a session of an hour.
 */
export const forgetSlackMs = 2 * 86_400_000

/**
 * Remembers which sessions have ended before their time. What one process has written holds for all that share the store,
 * within a second: they ask, and no message has to arrive. All throw `GW_STORE_DOWN`.
 */
export interface Revocations {
  /**
   * Resolves when the revocation is on disk. Revoking twice is once: of several calls, even at the same time, one is told
   * `true`. `expiresAt` (Unix ms): it may be forgotten `forgetSlackMs` later.
   */
  revoke (sessionId: string, expiresAt: number): Promise<boolean>
  /**
   * Ends all sessions of the subject that were issued at `before` (Unix ms) or earlier; a later `before` takes the place
   * of an earlier one, and never the other way round. On disk when it resolves. `expiresAt`: as above.
   */
  revokeSubject (subject: string, before: number, expiresAt: number): Promise<void>
  /** The latest `before` of the subject, Unix ms; `-Infinity`: its sessions were never ended, or that is forgotten. */
  endedBefore (subject: string): Promise<number>
  /** By its id, or with all of its subject's. */
  isRevoked (session: RevocableSession): Promise<boolean>
}
