import { createHmac, createSecretKey, hash, type KeyObject, randomUUID, timingSafeEqual } from 'node:crypto'
import { decodeProtectedHeader, jwtVerify, SignJWT } from 'jose'
import { LRUCache } from 'lru-cache'
import { globs } from '../domain/glob.ts'
import type { Secret } from '../domain/secret.ts'
import { type Scope, type Session, type SessionIssuer, type SessionVerifier } from '../domain/session.ts'
import { gatewayError } from '../errors.ts'

/** The `iss` of tokens that this gateway signs; a verifier leaves all others to the next. */
const issuerName = 'apixo-gateway'
const verifiedTokens = 10_000
/** Longer than any token we sign with a list of models, shorter than what a header may hold. */
const maxTokenLength = 12_288

export interface SignedSessionsOptions {
  /** Newest first: the first signs, all verify, so that they can rotate. At least 32 bytes each (RFC 7518 section 3.2). */
  readonly secrets: readonly Secret[]
  readonly now: () => number
}

interface Claims { jti: string, sub: string, plan: string, models: string[], scopes: Scope[], iat: number, exp: number }

/**
 * Sessions as JWTs signed with HS256 (RFC 7519, with the advice of RFC 8725: one algorithm, one type, issuer and expiry
 * required). Verified ones are remembered by the SHA-256 of the whole token until they expire: a signature does not
 * change. Whether a session was revoked is never remembered here.
 */
export function signedSessions ({ secrets, now }: SignedSessionsOptions): SessionVerifier & SessionIssuer {
  const keys = secrets.map(secret => createSecretKey(Buffer.from(secret.reveal())))
  const verified = new LRUCache<string, Session>({ max: verifiedTokens })

  const verifyFresh = async (token: string): Promise<Session | null> => {
    if (token.length > maxTokenLength || !isOurs(token)) return null
    const key = keys.find(key => isSignedWith(key, token))
    if (key === undefined) throw gatewayError('GW_BAD_SESSION')
    try {
      const { payload } = await jwtVerify(token, key, {
        algorithms: ['HS256'],
        typ: 'JWT',
        issuer: issuerName,
        requiredClaims: ['jti', 'sub', 'plan', 'models', 'scopes', 'iat', 'exp'],
        currentDate: new Date(now())
      })
      return sessionFrom(payload as unknown as Claims)
    } catch (cause) {
      throw gatewayError('GW_BAD_SESSION', { cause })
    }
  }

  return {
    async verify (token) {
      const digest = hash('sha256', token, 'base64')
      const known = verified.get(digest)
      if (known !== undefined) {
        if (known.expiresAt <= now()) throw gatewayError('GW_BAD_SESSION')
        return known
      }
      const session = await verifyFresh(token)
      if (session !== null) verified.set(digest, session)
      return session
    },

    async mint ({ subject, plan, models, scopes, ttlSeconds }) {
      const iat = Math.floor(now() / 1000)
      const claims: Claims = {
        jti: randomUUID(), sub: `app:${subject}`, plan, models: [...models], scopes: [...scopes], iat, exp: iat + ttlSeconds
      }
      const token = await new SignJWT({ iss: issuerName, ...claims }).setProtectedHeader({ alg: 'HS256', typ: 'JWT' }).sign(keys[0]!)
      return { token, session: sessionFrom(claims) }
    }
  }
}

/** Whether a token claims to be of this gateway. Nothing of it has been verified then. */
function isOurs (token: string): boolean {
  try {
    if (decodeProtectedHeader(token).alg === undefined) return false
    const payload = JSON.parse(Buffer.from(token.split('.')[1]!, 'base64url').toString()) as { iss?: unknown }
    return payload.iss === issuerName
  } catch {
    return false
  }
}

/**
 * Which of several secrets signed a token, and whether any did, found without the detour through WebCrypto's thread
 * pool: forged tokens are cheaper to refuse than to make. The library has the last word on what this lets through.
 */
function isSignedWith (key: KeyObject, token: string): boolean {
  const end = token.lastIndexOf('.')
  const expected = createHmac('sha256', key).update(token.slice(0, end)).digest()
  const signature = Buffer.from(token.slice(end + 1), 'base64url')
  return signature.length === expected.length && timingSafeEqual(signature, expected)
}

function sessionFrom (claims: Claims): Session {
  return {
    id: claims.jti,
    subject: claims.sub,
    plan: claims.plan,
    models: claims.models,
    permits: globs(claims.models),
    scopes: claims.scopes,
    issuedAt: claims.iat * 1000,
    expiresAt: claims.exp * 1000
  }
}
