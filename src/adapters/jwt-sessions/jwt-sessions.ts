import {
  errors, type JWTPayload, jwtVerify, type JWTVerifyOptions, type JWTVerifyResult
} from 'jose'
import { hash } from 'node:crypto'
import { isPrintable } from '../../domain/json.ts'
import { globs } from '../../domain/policy.ts'
import { recent } from '../../domain/recent.ts'
import type { Secret, SecretRef } from '../../domain/secret.ts'
import {
  isModelGlob, maxModels, type Scope, scopes, type Session, type SessionVerifier,
  unscoped, type Verdict
} from '../../domain/session.ts'
import { after, type Clock, endOfTime } from '../../domain/time.ts'
import { type IssuerKeys, keyDocuments, type KeySet, publishedKeys, sharedKeys } from './issuer-keys.ts'

/**
 * How the claims of an issuer become a session. A claim is named as it stands in the token, or by its path:
 * `app_metadata.plan`. One that users can write themselves must not be named here.
 */
interface ClaimRules {
  /** The `iss` of its tokens, letter for letter. */
  readonly issuer: string
  /** Stands before its subjects and session ids in place of the issuer. */
  readonly subjectPrefix?: string
  /** `sub` by default. */
  readonly subjectClaim?: string
  /** Of tokens without `planClaim`. */
  readonly plan: string
  readonly planClaim?: string
  /** Names the claim that names a pool. A token without it has that of its plan. */
  readonly poolClaim?: string
  /** Names the claim that lists models; all models otherwise. A token without it may use none. */
  readonly modelsClaim?: string
  /** Names the claim that lists scopes, among others that mean nothing here; all scopes otherwise. */
  readonly scopesClaim?: string
  /** Claims that a token must carry, each with one of these values. */
  readonly claims?: Readonly<Record<string, ReadonlyArray<string | boolean>>>
}

/** Names of subjects and sessions end up in logs, labels of stores and keys of maps: printable text, and not long. */
const maxSubjectLength = 160
const maxIdLength = 128
/** An issuer may date its tokens so far ahead of our clock, ms: what ends all sessions until now must not miss any. */
const aheadMs = 60_000

/**
 * The session that a verified token stands for. Throws when a claim is missing or is not what it has to be; the message
 * names the claim and never its value.
 */
function sessionFrom (
  payload: JWTPayload,
  token: string,
  { now, ...rules }: ClaimRules & { readonly now: () => number }
): Session {
  const { plan, planClaim, poolClaim, modelsClaim, scopesClaim, issuer, subjectPrefix = issuer } = rules
  for (const [claim, values] of Object.entries(rules.claims ?? {})) {
    const given: unknown[] = [claimAt(payload, claim)].flat()
    if (!values.some(value => given.includes(value))) throw wrong(claim)
  }
  const models = modelsClaim === undefined ? ['*'] : modelsFrom(payload, modelsClaim)
  const listed = scopesClaim === undefined ? scopes : textsFrom(payload, scopesClaim)
  const session = unscoped({
    id: `${subjectPrefix}:${idOf(payload, token)}`,
    subject: subjectFrom(payload, rules.subjectClaim ?? 'sub', subjectPrefix),
    plan: planClaim === undefined ? plan : textFrom(payload, planClaim) ?? plan,
    models,
    permits: globs(models),
    scopes: scopes.filter((scope: Scope) => listed.includes(scope)),
    ...lifetimeFrom(payload, now())
  })
  return poolClaim === undefined ? session : { ...session, pool: textFrom(payload, poolClaim) }
}

/** A claim by its own name, which may have dots in it, or by its path. */
function claimAt (payload: JWTPayload, name: string): unknown {
  if (Object.hasOwn(payload, name)) return payload[name]
  return name
    .split('.')
    .reduce<unknown>(
      (value, key) =>
        typeof value === 'object' && value !== null && Object.hasOwn(value, key)
          ? (value as JWTPayload)[key]
          : undefined,
      payload
    )
}

function wrong (claim: string): Error {
  return new Error(`the claim ${claim} is not what it has to be`)
}

function subjectFrom (payload: JWTPayload, claim: string, prefix: string): string {
  const own = claimAt(payload, claim)
  if (typeof own !== 'string' || !isPrintable(own)) throw wrong(claim)
  const subject = `${prefix}:${own}`
  if (subject.length > maxSubjectLength) throw wrong(claim)
  return subject
}

/**
 * What a session is revoked by. Without a usable `jti` it is made of what the issuer signed, and not of the signature:
 * for ECDSA anybody can make a second one of the first that is as good, and would have a session that was not revoked.
 */
function idOf ({ jti }: JWTPayload, token: string): string {
  if (typeof jti === 'string' && jti.length <= maxIdLength && isPrintable(jti)) return jti
  return hash('sha256', token.slice(0, token.lastIndexOf('.')), 'base64url')
}

/**
 * The name of a plan or a pool. One that is there and wrong is never quietly another one: whether there is such a plan
 * or pool is asked by authenticate.
 */
function textFrom (payload: JWTPayload, claim: string): string | null {
  const text = claimAt(payload, claim)
  if (text === undefined) return null
  if (typeof text !== 'string') throw wrong(claim)
  return text
}

function modelsFrom (payload: JWTPayload, claim: string): string[] {
  const models = textsFrom(payload, claim)
  if (models.length > maxModels || !models.every(isModelGlob)) throw wrong(claim)
  return models
}

/** A list, or a text of words as in `scope` (RFC 8693 section 4.2). Absent is empty, and empty means none. */
function textsFrom (payload: JWTPayload, claim: string): string[] {
  const value = claimAt(payload, claim)
  const texts: unknown[] =
    typeof value === 'string' ? value.split(' ').filter(word => word !== '') : [value ?? []].flat()
  if (!texts.every(text => typeof text === 'string')) throw wrong(claim)
  return texts as string[]
}

/**
 * The end has no grace: revocations are forgotten at `expiresAt`, and a revoked session must not come back. A token
 * that does not say when it began counts as old, so that whatever ends old sessions ends it too.
 */
function lifetimeFrom ({ exp, iat, nbf }: JWTPayload, now: number): Pick<Session, 'issuedAt' | 'expiresAt'> {
  const expiresAt = Math.floor(exp! * 1000)
  const issuedAt = Math.floor((iat ?? nbf ?? 0) * 1000)
  if (expiresAt <= now || expiresAt > endOfTime) throw wrong('exp')
  if (issuedAt < 0 || issuedAt > now + aheadMs) throw wrong('iat')
  return { issuedAt, expiresAt }
}

interface SignatureRules {
  readonly issuer: string
  readonly audience?: string
  readonly algorithms: readonly string[]
  readonly source: IssuerKeys
  readonly now: () => number
}

/** How far the issuer's clock may be ahead of ours. An expiry has no such grace. */
const clockToleranceMs = 30_000
/**
 * Without a `kid` several keys may fit; a forged token is not worth more tries. Settings hold no more shared secrets.
 */
const maxTries = 5
/**
 * ID tokens and access tokens (RFC 9068). An issuer signs other things with the same keys and for the same audience,
 * such as logout tokens; they open nothing (RFC 8725 section 3.11).
 */
const types = new Set(['jwt', 'at+jwt'])

/**
 * Holds a token against the keys of its issuer, and its standard claims against the rules. `jwk`, `jku`, `x5u` and
 * `x5c` in its header are never looked at: a token does not say whom to trust. Throws when anything is wrong.
 */
async function verifiedToken (
  token: string,
  rules: SignatureRules
): Promise<{ readonly payload: JWTPayload, readonly keys: KeySet }> {
  const { issuer, audience, algorithms, source, now } = rules
  const options: JWTVerifyOptions = {
    issuer,
    algorithms: [...algorithms],
    requiredClaims: ['exp'],
    clockTolerance: clockToleranceMs / 1000,
    currentDate: new Date(now()),
    ...(audience === undefined ? {} : { audience })
  }
  const {
    payload,
    protectedHeader: { typ = 'JWT' },
    keys
  } = await withKeys(source, keys => withAnyKey(token, keys, options))
  if (!types.has(typ.toLowerCase().replace(/^application\//, ''))) throw new Error('this type of token is no session')
  return { payload, keys }
}

/** A key that nobody knows yet may be a new one: the issuer is asked once, if it was not a moment ago. */
async function withKeys (source: IssuerKeys, verify: (keys: KeySet) => Promise<JWTVerifyResult>) {
  const keys = await source.current()
  try {
    if (keys === undefined) throw new errors.JWKSNoMatchingKey()
    return { ...await verify(keys), keys }
  } catch (error) {
    if (!isUnknownKey(error)) throw error
    const renewed = await source.renewed()
    if (renewed === undefined || renewed === keys) throw error
    return { ...await verify(renewed), keys: renewed }
  }
}

/** Also a signature that does not fit: some issuers name no key, or use one name for all of them. */
function isUnknownKey (error: unknown): boolean {
  return error instanceof errors.JWKSNoMatchingKey || error instanceof errors.JWSSignatureVerificationFailed
}

async function withAnyKey (token: string, keys: KeySet, options: JWTVerifyOptions): Promise<JWTVerifyResult> {
  try {
    return await jwtVerify(token, keys, options)
  } catch (error) {
    if (!(error instanceof errors.JWKSMultipleMatchingKeys)) throw error
    let tries = 0
    for await (const key of error) {
      try {
        return await jwtVerify(token, key, options)
      } catch (failure) {
        if (!(failure instanceof errors.JWSSignatureVerificationFailed) || ++tries === maxTries) throw failure
      }
    }
    throw new errors.JWSSignatureVerificationFailed()
  }
}

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
  readonly secrets: ReadonlyMap<string, SecretRef<readonly Secret[]>>
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
 * its `iss` names, letter for letter; no other one is asked, and nothing is fetched for a token that names none of
 * them.
 *
 * Verified tokens are remembered by the SHA-256 of the whole token until they expire, or until their issuer has other
 * keys. Whether a session was revoked is never remembered here. Keys are fetched in the background from the first
 * moment; an issuer that can not be reached keeps nobody from starting.
 */
export function jwtSessions ({
  issuers,
  secrets,
  now,
  elapsed,
  onKeysFailed,
  onKeysChanged = () => {},
  timeoutMs = documentsMs
}: JwtSessionsOptions): SessionVerifier {
  const trusted = new Map(issuers.map(rules => [rules.issuer, { rules, source: keysOf(rules) }]))
  const verified = recent<Verified>(verifiedTokens)

  function keysOf (rules: TrustedIssuer): IssuerKeys {
    const shared = secrets.get(rules.issuer)
    if (shared !== undefined) return sharedKeys(shared)
    const load = keyDocuments({ ...rules, timeoutMs })
    return publishedKeys({
      load,
      elapsed,
      onFailed: error => onKeysFailed(rules.issuer, error),
      onChanged: onKeysChanged
    })
  }

  async function verifyFresh (token: string): Promise<Verified | 'bad' | null> {
    const { rules, source } = trusted.get(issuerOf(token)) ?? {}
    if (rules === undefined || source === undefined) return null
    try {
      const { payload, keys } = await verifiedToken(token, { ...rules, source, now })
      return { session: sessionFrom(payload, token, { ...rules, now }), keys, source }
    } catch {
      return 'bad'
    }
  }

  const verifyStrange = async (token: string, digest: string): Promise<Verdict> => {
    const fresh = await verifyFresh(token)
    if (fresh === null || fresh === 'bad') return fresh
    verified.set(digest, fresh)
    return fresh.session
  }

  return {
    verify (token) {
      const digest = hash('sha256', token, 'base64')
      const known = verified.get(digest)
      if (known === undefined) return verifyStrange(token, digest)
      if (known.session.expiresAt <= now()) return 'bad'
      return after(known.source.current(), keys => known.keys === keys ? known.session : verifyStrange(token, digest))
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
