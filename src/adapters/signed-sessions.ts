import { jwtVerify, SignJWT } from 'jose'
import { createHmac, createSecretKey, hash, type KeyObject, randomUUID, timingSafeEqual } from 'node:crypto'
import { globs } from '../domain/policy.ts'
import { recent } from '../domain/recent.ts'
import { memoized, type SecretRef, type Secret } from '../domain/secret.ts'
import {
  ownIss, ownPrefixes, type PrintedSession, type Scope, type Session, type SessionIssuer, type SessionVerifier
} from '../domain/session.ts'

const verifiedTokens = 10_000
/** Of HS256. */
const signatureBytes = 32
/** Longer than any token we sign with a list of models, shorter than what a header may hold. */
const maxTokenLength = 12_288

interface SignedSessionsOptions {
  /**
   * Newest first: the first signs, all verify, so that they can rotate. With one that is taken off, its sessions end.
   * At least 32 bytes each (RFC 7518 section 3.2).
   */
  readonly secrets: SecretRef<readonly Secret[]>
  readonly now: () => number
}

/**
 * What a token says. Those from `origins` on are absent where there is no such limit, as in tokens of earlier versions.
 */
interface Claims {
  readonly jti: string
  readonly sub: string
  readonly plan: string
  readonly models: readonly string[]
  readonly scopes: readonly Scope[]
  /** Seconds, to the millisecond: sessions of a subject are ended by when they began. */
  readonly iat: number
  readonly exp: number
  readonly origins?: readonly string[] | undefined
  readonly net?: string | undefined
  readonly uses?: number | undefined
  /** Microcredits. */
  readonly credits?: number | undefined
  readonly pool?: string | undefined
  /**
   * Of a cookie: the name that uses and credits count under, and the instant that it is not printed anew for, seconds.
   */
  readonly root?: string | undefined
  readonly end?: number | undefined
}

const requiredClaims = ['jti', 'sub', 'plan', 'models', 'scopes', 'iat', 'exp'] as const
const isText = (value: unknown): boolean => typeof value === 'string' && value !== ''
const isCount = (value: unknown): boolean => Number.isSafeInteger(value) && (value as number) > 0
const optionalClaims = new Map<string, (value: unknown) => boolean>([
  ['origins', value => Array.isArray(value) && value.length > 0 && value.every(isText)],
  ['net', isText],
  ['uses', isCount],
  ['credits', isCount],
  ['pool', isText],
  ['root', isText],
  ['end', isCount]
])

/**
 * Sessions as JWTs signed with HS256 (RFC 7519, with the advice of RFC 8725: one algorithm, one type, issuer and expiry
 * required). Verified ones are remembered by the SHA-256 of the whole token until they expire or the secrets change: a
 * signature does not. Whether a session was revoked is never remembered here.
 */
export function signedSessions ({ secrets, now }: SignedSessionsOptions): SessionVerifier & SessionIssuer {
  const memory = memoized(secrets, list => ({
    keys: list.map(secret => createSecretKey(Buffer.from(secret.reveal()))),
    verified: recent<Session>(verifiedTokens)
  }))

  const verifySigned = async (token: string, key: KeyObject): Promise<Session | 'bad'> => {
    try {
      const { payload } = await jwtVerify(token, key, {
        algorithms: ['HS256'],
        typ: 'JWT',
        issuer: ownIss,
        requiredClaims: [...requiredClaims],
        currentDate: new Date(now())
      })
      checkClaims(payload)
      return sessionFrom(payload as unknown as Claims)
    } catch {
      return 'bad'
    }
  }

  const print = async (claims: Claims): Promise<PrintedSession> => {
    const token = await new SignJWT({ iss: ownIss, ...claims })
      .setProtectedHeader(header)
      .sign(memory.current.keys[0]!)
    return { token, session: sessionFrom(claims) }
  }

  return {
    verify (token) {
      const { keys, verified } = memory.current
      const digest = hash('sha256', token)
      const known = verified.get(digest)
      if (known !== undefined) return known.expiresAt <= now() ? 'bad' : known
      if (token.length > maxTokenLength || !isOurs(token)) return null
      const key = keys.find(key => isSignedWith(key, token))
      return key === undefined
        ? 'bad'
        : verifySigned(token, key).then(verdict => {
          if (verdict !== 'bad') verified.set(digest, verdict)
          return verdict
        })
    },

    async mint ({ issuer = 'app', subject, addressRange: net, ttlSeconds, issuedAt, ...request }) {
      const at = now()
      return await print({
        ...request,
        net,
        jti: randomUUID(),
        sub: ownPrefixes[issuer] + subject,
        iat: (issuedAt ?? at) / 1000,
        exp: Math.floor(at / 1000) + ttlSeconds
      })
    },

    async printCookie (session, expiresAt) {
      const { id, isCookie, rootId, endsAt } = session
      return await print({
        ...claimsOf(session),
        jti: isCookie ? id : randomUUID(),
        exp: Math.floor(Math.min(expiresAt, endsAt) / 1000),
        root: rootId,
        end: Math.floor(endsAt / 1000)
      })
    }
  }
}

const jsonFrom = (part: string): any => JSON.parse(Buffer.from(part, 'base64url').toString())
const encoded = (text: string): string => Buffer.from(text).toString('base64url')

const header = { alg: 'HS256', typ: 'JWT' } as const
/**
 * What we print begins with this header, and its payload with our name, to the quote of the name after it: so far in
 * whole groups of base64url, and so that no longer name begins with ours.
 */
const ownHeader = encoded(JSON.stringify(header))
const ownStart = encoded(JSON.stringify({ iss: ownIss, jti: '' }).slice(0, 24))

/** Whether a token claims to be of this gateway. Nothing of it has been verified then. */
function isOurs (token: string): boolean {
  const [head, payload, signature, more] = token.split('.', 4)
  if (payload === undefined || signature === undefined || more !== undefined) return false
  if (head === ownHeader && payload.startsWith(ownStart)) return true
  try {
    return jsonFrom(head!).alg !== undefined && jsonFrom(payload).iss === ownIss
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
  const signature = Buffer.from(token.slice(end + 1), 'base64url')
  if (signature.length !== signatureBytes) return false
  return timingSafeEqual(signature, createHmac('sha256', key).update(token.slice(0, end)).digest())
}

/**
 * A claim that this version does not know may be a limit that a later one has set: a version that does not enforce it
 * must not accept the token.
 */
function checkClaims (payload: Readonly<Record<string, unknown>>): void {
  for (const [name, value] of Object.entries(payload)) {
    const isKnown =
      name === 'iss' || requiredClaims.some(claim => claim === name) || optionalClaims.get(name)?.(value) === true
    if (!isKnown) throw new Error(`the claim ${name} is not what it has to be`)
  }
  if ((payload.root === undefined) !== (payload.end === undefined)) throw new Error('root and end belong together')
}

function sessionFrom (claims: Claims): Session {
  const { origins = null, net: addressRange = null, uses = null, credits = null, pool = null, root, end } = claims
  return {
    id: claims.jti,
    subject: claims.sub,
    plan: claims.plan,
    models: claims.models,
    permits: globs(claims.models),
    scopes: claims.scopes,
    issuedAt: Math.round(claims.iat * 1000),
    expiresAt: claims.exp * 1000,
    origins,
    addressRange,
    uses,
    credits,
    pool,
    isCookie: root !== undefined,
    rootId: root ?? claims.jti,
    endsAt: (end ?? claims.exp) * 1000
  }
}

/** What a session in a cookie has of the one it stands in for: also when that began, so that it ends with its kind. */
function claimsOf (session: Session) {
  const { subject: sub, plan, models, scopes, issuedAt, origins, addressRange, uses, credits, pool } = session
  return {
    sub,
    plan,
    models,
    scopes,
    iat: issuedAt / 1000,
    origins: origins ?? undefined,
    net: addressRange ?? undefined,
    uses: uses ?? undefined,
    credits: credits ?? undefined,
    pool: pool ?? undefined
  }
}
