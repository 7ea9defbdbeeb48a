import { hash } from 'node:crypto'
import type { JWTPayload } from 'jose'
import { endOfTime } from '../../domain/instant.ts'
import { globs } from '../../domain/policy/glob.ts'
import { type Scope, scopes, type Session, unscoped } from '../../domain/sessions/session.ts'

/**
 * How the claims of an issuer become a session. A claim is named as it stands in the token, or by its path:
 * `app_metadata.plan`. One that users can write themselves must not be named here.
 */
export interface ClaimRules {
  /** The `iss` of its tokens, letter for letter. */
  readonly issuer: string
  /** Stands before its subjects and session ids in place of the issuer. */
  readonly subjectPrefix?: string
  /** `sub` by default. */
  readonly subjectClaim?: string
  /** Of tokens without `planClaim`. */
  readonly plan: string
  readonly planClaim?: string
  /** Names the claim that lists models; all models otherwise. A token without it may use none. */
  readonly modelsClaim?: string
  /** Names the claim that lists scopes, among others that mean nothing here; all scopes otherwise. */
  readonly scopesClaim?: string
  /** Claims that a token must carry, each with one of these values. */
  readonly claims?: Readonly<Record<string, ReadonlyArray<string | boolean>>>
}

/** Names of subjects and sessions end up in logs, labels of stores and keys of maps: printable text, and not long. */
const printable = /^[^\p{Cc}\p{Cs}]+$/u
const maxSubjectLength = 160
const maxIdLength = 128
const maxModels = 100
/** An issuer may date its tokens so far ahead of our clock, ms: what ends all sessions until now must not miss any. */
const aheadMs = 60_000
const modelGlob = /^[A-Za-z0-9._*-]{1,64}$/

/**
 * The session that a verified token stands for. Throws when a claim is missing or is not what it has to be; the message
 * names the claim and never its value.
 */
export function sessionFrom (payload: JWTPayload, token: string, { now, ...rules }: ClaimRules & { readonly now: () => number }): Session {
  const { plan, planClaim, modelsClaim, scopesClaim, issuer, subjectPrefix = issuer } = rules
  for (const [claim, values] of Object.entries(rules.claims ?? {})) {
    const given: unknown[] = [claimAt(payload, claim)].flat()
    if (!values.some(value => given.includes(value))) throw wrong(claim)
  }
  const models = modelsClaim === undefined ? ['*'] : modelsFrom(payload, modelsClaim)
  const listed = scopesClaim === undefined ? scopes : textsFrom(payload, scopesClaim)
  return unscoped({
    id: `${subjectPrefix}:${idOf(payload, token)}`,
    subject: subjectFrom(payload, rules.subjectClaim ?? 'sub', subjectPrefix),
    plan: planClaim === undefined ? plan : planFrom(payload, planClaim, plan),
    models,
    permits: globs(models),
    scopes: scopes.filter((scope: Scope) => listed.includes(scope)),
    ...lifetimeFrom(payload, now())
  })
}

/** A claim by its own name, which may have dots in it, or by its path. */
function claimAt (payload: JWTPayload, name: string): unknown {
  if (Object.hasOwn(payload, name)) return payload[name]
  return name.split('.').reduce<unknown>((value, key) =>
    typeof value === 'object' && value !== null && Object.hasOwn(value, key) ? (value as JWTPayload)[key] : undefined, payload)
}

function wrong (claim: string): Error {
  return new Error(`the claim ${claim} is not what it has to be`)
}

function subjectFrom (payload: JWTPayload, claim: string, prefix: string): string {
  const own = claimAt(payload, claim)
  if (typeof own !== 'string' || !printable.test(own)) throw wrong(claim)
  const subject = `${prefix}:${own}`
  if (subject.length > maxSubjectLength) throw wrong(claim)
  return subject
}

/**
 * What a session is revoked by. Without a usable `jti` it is made of what the issuer signed, and not of the signature:
 * for ECDSA anybody can make a second one of the first that is as good, and would have a session that was not revoked.
 */
function idOf ({ jti }: JWTPayload, token: string): string {
  if (typeof jti === 'string' && jti.length <= maxIdLength && printable.test(jti)) return jti
  return hash('sha256', token.slice(0, token.lastIndexOf('.')), 'base64url')
}

/** A plan that is there and wrong is never quietly another one. Whether there is such a plan is asked by authenticate. */
function planFrom (payload: JWTPayload, claim: string, absent: string): string {
  const plan = claimAt(payload, claim)
  if (plan === undefined) return absent
  if (typeof plan !== 'string') throw wrong(claim)
  return plan
}

function modelsFrom (payload: JWTPayload, claim: string): string[] {
  const models = textsFrom(payload, claim)
  if (models.length > maxModels || !models.every(model => modelGlob.test(model))) throw wrong(claim)
  return models
}

/** A list, or a text of words as in `scope` (RFC 8693 section 4.2). Absent is empty, and empty means none. */
function textsFrom (payload: JWTPayload, claim: string): string[] {
  const value = claimAt(payload, claim)
  const texts: unknown[] = typeof value === 'string' ? value.split(' ').filter(word => word !== '') : [value ?? []].flat()
  if (!texts.every(text => typeof text === 'string')) throw wrong(claim)
  return texts as string[]
}

/**
 * The end has no grace: revocations are forgotten at `expiresAt`, and a revoked session must not come back. A token that
 * does not say when it began counts as old, so that whatever ends old sessions ends it too.
 */
function lifetimeFrom ({ exp, iat, nbf }: JWTPayload, now: number): Pick<Session, 'issuedAt' | 'expiresAt'> {
  const expiresAt = Math.floor(exp! * 1000)
  const issuedAt = Math.floor((iat ?? nbf ?? 0) * 1000)
  if (expiresAt <= now || expiresAt > endOfTime) throw wrong('exp')
  if (issuedAt < 0 || issuedAt > now + aheadMs) throw wrong('iat')
  return { issuedAt, expiresAt }
}
