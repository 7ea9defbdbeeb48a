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
  /** The app's own name for its user, without an issuer's prefix. */
  readonly subject: string
  readonly plan: string
  readonly models: readonly string[]
  readonly scopes: readonly Scope[]
  readonly ttlSeconds: number
}

export interface SessionIssuer {
  mint (request: SessionRequest): Promise<{ readonly token: string, readonly session: Session }>
}

/** Remembers which sessions have ended before their time. */
export interface Revocations {
  /** Resolves when the revocation is on disk. Revoking twice is once. `expiresAt` (Unix ms): it may be forgotten then. */
  revoke (sessionId: string, expiresAt: number): Promise<void>
  isRevoked (sessionId: string): Promise<boolean>
}
