import { hash } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import type { Live } from '../../domain/live.ts'
import type { Secret } from '../../domain/secret.ts'
import type { Session, SessionVerifier } from '../../domain/sessions/session.ts'
import type { Clock } from '../../domain/time.ts'
import { gatewayError } from '../../errors.ts'
import { type ClaimRules, sessionFrom } from './claims.ts'
import { type IssuerKeys, type KeySet, publishedKeys, sharedKeys } from './issuer-keys.ts'
import { keyDocuments } from './key-documents.ts'
import { verifiedToken } from './signatures.ts'

const verifiedTokens = 10_000
/** Headers as a whole hold 16 KiB. */
const maxTokenLength = 12_288
/** For all documents of one renewal; less than what a request waits for a verifier, ms. */
const documentsMs = 4000

/** Somebody else who issues sessions (`issuers` in config/gateway.yaml). */
export interface TrustedIssuer extends ClaimRules {
  /** Where its public keys are. Without it, and without a secret, they are found by OpenID Connect Discovery. */
  readonly jwksUrl?: string
  /** The only algorithms accepted: HS ones for a secret, and none of them otherwise. */
  readonly algorithms: readonly string[]
  readonly audience?: string
}

export interface JwtSessionsOptions extends Clock {
  readonly issuers: readonly TrustedIssuer[]
  /**
   * Secrets shared with issuers, by the `iss` of their tokens: all of them verify, so that they can rotate. When one is
   * taken away, the sessions under it have ended.
   */
  readonly secrets: ReadonlyMap<string, Live<readonly Secret[]>>
  /** The keys of an issuer could not be had. Those known before stay in use; it is tried again on its next tokens. */
  readonly onKeysFailed: (issuer: string, error: unknown) => void
  /** An issuer publishes other keys than before; sessions under a key that is gone have ended. */
  readonly onKeysChanged?: () => void
  /** For all documents of one renewal, ms. */
  readonly timeoutMs?: number
}

interface Verified { readonly session: Session, readonly keys: KeySet, readonly source: IssuerKeys }

/**
 * Sessions issued elsewhere, as signed JWTs (RFC 7519, with the advice of RFC 8725). A token belongs to the issuer that
 * its `iss` names, letter for letter; no other one is asked, and nothing is fetched for a token that names none of them.
 *
 * Verified tokens are remembered by the SHA-256 of the whole token until they expire, or until their issuer has other
 * keys. Whether a session was revoked is never remembered here. Keys are fetched in the background from the first
 * moment; an issuer that can not be reached keeps nobody from starting.
 */
export function jwtSessions (
  { issuers, secrets, now, elapsed, onKeysFailed, onKeysChanged = () => {}, timeoutMs = documentsMs }: JwtSessionsOptions
): SessionVerifier {
  const trusted = new Map(issuers.map(rules => [rules.issuer, { rules, source: keysOf(rules) }]))
  const verified = new LRUCache<string, Verified>({ max: verifiedTokens })

  function keysOf (rules: TrustedIssuer): IssuerKeys {
    const shared = secrets.get(rules.issuer)
    if (shared !== undefined) return sharedKeys(shared)
    const load = keyDocuments({ ...rules, timeoutMs })
    return publishedKeys({ load, elapsed, onFailed: error => onKeysFailed(rules.issuer, error), onChanged: onKeysChanged })
  }

  async function verifyFresh (token: string): Promise<Verified | null> {
    const { rules, source } = trusted.get(issuerOf(token)) ?? {}
    if (rules === undefined || source === undefined) return null
    try {
      const { payload, keys } = await verifiedToken(token, { ...rules, source, now })
      return { session: sessionFrom(payload, token, { ...rules, now }), keys, source }
    } catch (cause) {
      throw gatewayError('GW_BAD_SESSION', { cause })
    }
  }

  return {
    async verify (token) {
      const digest = hash('sha256', token, 'base64')
      const known = verified.get(digest)
      if (known !== undefined) {
        if (known.session.expiresAt <= now()) throw gatewayError('GW_BAD_SESSION')
        if (known.keys === await known.source.current()) return known.session
      }
      const fresh = await verifyFresh(token)
      if (fresh === null) return null
      verified.set(digest, fresh)
      return fresh.session
    }
  }
}

/** The issuer that a token claims to be of; nothing of it has been verified then. `''`: it names none. */
function issuerOf (token: string): string {
  const [, payload, signature, more] = token.length > maxTokenLength ? [] : token.split('.', 4)
  if (payload === undefined || signature === undefined || more !== undefined) return ''
  try {
    const { iss } = JSON.parse(Buffer.from(payload, 'base64url').toString()) as { iss?: unknown }
    return typeof iss === 'string' ? iss : ''
  } catch {
    return ''
  }
}
