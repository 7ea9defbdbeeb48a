import { auditRetentionMs } from './audit.ts'
import type { Page, PageRequest } from './records.ts'
import type { Scope } from './session.ts'

/** The secret of a token, as it is kept: what is in the store opens nothing. */
export interface TokenSecret {
  /**
   * SHA-256 of the printed form, base64url. It has 256 random bits in it: there is nothing to guess, and so no salt.
   */
  readonly hash: string
  /** Unix ms. */
  readonly issuedAt: number
}

/** A token of one person among several who share an upstream key; at first it may be no more than an invitation. */
export interface Token {
  /** What it is listed, logged and revoked by. Not secret. */
  readonly id: string
  /** `token:` and a name: subjects of other issuers can't collide with it. */
  readonly subject: string
  readonly plan: string
  /** As in a session. */
  readonly pool: string | null
  readonly models: readonly string[]
  readonly scopes: readonly Scope[]
  /** Unix ms. */
  readonly createdAt: number
  /** How long it lasts from the moment that somebody has it. */
  readonly ttlMs: number
  /** Unix ms. Of an invitation: until when it may be accepted. */
  readonly expiresAt: number
  /** Nobody has accepted it: its secret is the one of the link, and opens nothing else. */
  readonly isInvitation: boolean
  readonly secret: TokenSecret
  /** The one before the latest rotation, good until `until` (Unix ms). */
  readonly previous: (TokenSecret & { readonly until: number }) | null
  /** Unix ms. */
  readonly revokedAt: number | null
  /** Unix ms, to about a minute. */
  readonly usedAt: number | null
}

/** `used` writes an instant down only if the one before is older than this, ms. */
export const usedEveryMs = 60_000
/** Tokens are listed for so long after their end, ms: as long as the audit trail tells of them. */
export const tokenRetentionMs = auditRetentionMs

/** What is asked of tokens with every request. All throw `GW_STORE_DOWN`. */
interface TokenLookup {
  /** From what all replicas, and a command line beside a server, have written: not from memory. */
  find (id: string): Promise<Token | null>
  /** Somebody has used it, at this instant (Unix ms). On disk when it resolves, if there was anything to write. */
  used (id: string, at: number): Promise<void>
}

/** Keeps tokens. Each method is one atomic step, on disk when it resolves. All throw `GW_STORE_DOWN`. */
export interface TokenStore extends TokenLookup {
  /** A new one: never rotated, revoked or used. */
  create (token: Token): Promise<void>
  /** The newest first, those that have ended included. */
  list (page: PageRequest): Promise<Page<Token>>
  /**
   * Gives it a new secret; the one that it has now is good until `until` (Unix ms), the one before that ends. `null`:
   * it is not there, revoked, expired by `secret.issuedAt`, or an invitation.
   */
  rotate (id: string, secret: TokenSecret, until: number): Promise<Token | null>
  /**
   * The invitation with that hash becomes a token with this secret, which lasts for its `ttlMs`. Of parallel calls one
   * succeeds. `null`: there is no such invitation, or it was revoked, accepted, or has expired by `secret.issuedAt`.
   */
  accept (id: string, hash: string, secret: TokenSecret): Promise<Token | null>
  /** Ends it at this instant (Unix ms); twice is once. `false`: it is not there. */
  revoke (id: string, at: number): Promise<boolean>
}

/** Digits to the base 62 of a token's id: of 64 random bits. */
export const tokenIdDigits = 11
const idForm = new RegExp(`^[0-9A-Za-z]{${tokenIdDigits}}$`)

/** Ids of other sessions have other forms. */
export function isTokenId (id: string): boolean {
  return idForm.test(id)
}
