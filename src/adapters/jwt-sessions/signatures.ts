import { errors, type JWTPayload, jwtVerify, type JWTVerifyOptions, type JWTVerifyResult } from 'jose'
import type { IssuerKeys, KeySet } from './issuer-keys.ts'

export interface SignatureRules {
  readonly issuer: string
  readonly audience?: string
  readonly algorithms: readonly string[]
  readonly source: IssuerKeys
  readonly now: () => number
}

/** How far the issuer's clock may be ahead of ours. An expiry has no such grace. */
const clockToleranceMs = 30_000
/** Without a `kid` several keys may fit; a forged token is not worth more tries. Settings hold no more shared secrets. */
const maxTries = 5
/**
 * ID tokens and access tokens (RFC 9068). An issuer signs other things with the same keys and for the same audience,
 * such as logout tokens; they open nothing (RFC 8725 section 3.11).
 */
const types = new Set(['jwt', 'at+jwt'])

/**
 * Holds a token against the keys of its issuer, and its standard claims against the rules. `jwk`, `jku`, `x5u` and `x5c`
 * in its header are never looked at: a token does not say whom to trust. Throws when anything is wrong.
 */
export async function verifiedToken (token: string, rules: SignatureRules): Promise<{ readonly payload: JWTPayload, readonly keys: KeySet }> {
  const { issuer, audience, algorithms, source, now } = rules
  const options: JWTVerifyOptions = {
    issuer,
    algorithms: [...algorithms],
    requiredClaims: ['exp'],
    clockTolerance: clockToleranceMs / 1000,
    currentDate: new Date(now()),
    ...(audience === undefined ? {} : { audience })
  }
  const { payload, protectedHeader: { typ = 'JWT' }, keys } = await withKeys(source, keys => withAnyKey(token, keys, options))
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
