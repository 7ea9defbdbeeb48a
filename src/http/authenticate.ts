import type { FastifyInstance, FastifyReply, FastifyRequest, onRequestHookHandler } from 'fastify'
import { createHash, hash, timingSafeEqual } from 'node:crypto'
import type { Plan } from '../domain/policy.ts'
import { recent } from '../domain/recent.ts'
import type { Secret, SecretRef } from '../domain/secret.ts'
import { isInRange, type Revocations, type Session, type SessionVerifier, type Verdict } from '../domain/session.ts'
import { after, type Awaitable } from '../domain/time.ts'
import { badRequest, gatewayError, type GatewayError, isGatewayError } from '../errors.ts'
import { asHook } from './context.ts'
import { ipOf, type PassGate } from './receive.ts'
import type { SessionCookie } from './session-cookie.ts'

/**
 * Finds the caller's token where stock SDKs put their key: `Authorization: Bearer` (RFC 6750 section 2.1), `x-api-key`,
 * `x-goog-api-key`. `null` when there is none.
 *
 * It reads the raw headers: Node keeps only the first of two `Authorization` headers, and which of them counts would
 * then depend on the reader. Repeated or contradicting ones are a 400, another scheme than Bearer is no session.
 */
export function credentialOf (rawHeaders: readonly string[]): string | null {
  const seen = new Set<string>()
  let token: string | null = null
  for (let index = 0; index < rawHeaders.length; index += 2) {
    const name = credentialHeader(rawHeaders[index]!)
    if (name === null) continue
    if (seen.has(name)) throw bad(`the header ${name} is given twice`)
    seen.add(name)
    const found = name === 'authorization' ? bearer(rawHeaders[index + 1]!) : rawHeaders[index + 1]!
    if (token !== null && found !== token) throw bad(`${[...seen].join(' and ')} carry different tokens`)
    token = found
  }
  return token
}

/** Looked at by length first: most headers are none of these, and lower-casing each would cost more than the search. */
function credentialHeader (rawName: string): string | null {
  const length = rawName.length
  if (length !== 13 && length !== 9 && length !== 14) return null
  const name = rawName.toLowerCase()
  return name === 'authorization' || name === 'x-api-key' || name === 'x-goog-api-key' ? name : null
}

function bearer (value: string): string {
  const token = /^bearer +([\w.~+/=-]+)$/i.exec(value)?.[1]
  if (token === undefined) throw gatewayError('GW_BAD_SESSION')
  return token
}

function bad (about: string) {
  return badRequest(`Send one session token: ${about}.`)
}

/** The parties that hold a token of the server's own, and no session. */
type TokenHolder = 'issuer' | 'admin'

/** As `credentialOf`, for a route that takes one of the server's own tokens: no error there speaks of sessions. */
export function serverTokenOf (rawHeaders: readonly string[], holder: TokenHolder): string {
  let credential
  try {
    credential = credentialOf(rawHeaders)
  } catch (error) {
    throw isGatewayError(error) && error.code === 'GW_BAD_SESSION' ? wrongToken(holder) : error
  }
  if (credential === null) throw noToken(holder)
  return credential
}

export function noToken (holder: TokenHolder): GatewayError {
  return gatewayError('GW_NO_SESSION', { about: `Send the ${holder} token: Authorization: Bearer <token>.` })
}

export function wrongToken (holder: TokenHolder): GatewayError {
  const setting = `GATEWAY_${holder.toUpperCase()}_TOKEN`
  return gatewayError('GW_BAD_SESSION', {
    about: `This is not the ${holder} token: send what the gateway has as ${setting}.`
  })
}

/** The web origin of the gateway's own pages, as browsers write it; `null`: the request does not tell. */
export type OwnOrigin = (request: FastifyRequest) => string | null

/** `publicUrl`: as the operator says. Without it, as callers see us: through a proxy only if that is trusted. */
export function ownOrigins (publicUrl: string | undefined): OwnOrigin {
  if (publicUrl !== undefined) return () => publicUrl
  return ({ protocol, host }) => URL.parse(`${protocol}://${host}`)?.origin ?? null
}

/**
 * Throws `GW_ORIGIN_DENIED` where a session is used from somewhere it is not for. That is a 403, and no 401: the
 * session is good, and a page that took a new one of the same kind would be refused again.
 *
 * No script can set or drop `Origin` and `Sec-Fetch-Site` (https://fetch.spec.whatwg.org/#forbidden-request-header).
 * Other programs can: against a thief of a token, `origins` are no help, and `addressRange` is.
 */
function assertOrigin (
  { isCookie, origins, addressRange }: Session,
  request: FastifyRequest,
  ownOrigin: OwnOrigin
): void {
  if (isCookie && !isOwnPage(request, ownOrigin)) {
    throw denied("A cookie counts only for pages of the gateway's own origin.")
  }
  if (origins !== null && !isListed(origins, request, ownOrigin)) {
    throw denied('This session is not for pages of this origin.')
  }
  // A caller that has hung up has no address any more, and is in no network.
  if (addressRange !== null && !isInRange(ipOf(request), addressRange)) {
    throw denied('This session is not for this address.')
  }
}

/** A browser says that this comes from somewhere else than a page of ours, or from its own address bar. */
export function isForeignPage (
  { method, headers: { origin, 'sec-fetch-site': site } }: FastifyRequest,
  own: string | null
): boolean {
  if (origin !== undefined && origin !== own) return true
  return site !== undefined && site !== 'same-origin' && !(site === 'none' && reads(method))
}

/**
 * Cookies are sent whichever page asks, and `SameSite` stops other sites alone, not other hosts of ours. What changes
 * something is to come from a page of ours beyond doubt; what reads, not from any other (browsers that send neither
 * header with a GET of the same origin are still about).
 */
function isOwnPage (request: FastifyRequest, ownOrigin: OwnOrigin): boolean {
  const own = ownOrigin(request)
  const { method, headers: { origin, 'sec-fetch-site': site } } = request
  return !isForeignPage(request, own) && (reads(method) || site === 'same-origin' || origin !== undefined)
}

/** Browsers send no `Origin` with a GET of the same origin. Of the Sec-Fetch-* headers no other one is ever read. */
function isListed (origins: readonly string[], request: FastifyRequest, ownOrigin: OwnOrigin): boolean {
  const { method, headers: { origin, 'sec-fetch-site': site } } = request
  if (origin !== undefined) return origins.includes(origin)
  const own = reads(method) && site === 'same-origin' ? ownOrigin(request) : null
  return own !== null && origins.includes(own)
}

function denied (about: string) {
  return gatewayError('GW_ORIGIN_DENIED', { about })
}

/** HEAD is a GET without its body (RFC 9110 section 9.3.2). */
function reads (method: string): boolean {
  return method === 'GET' || method === 'HEAD'
}

/** Route hook: gives the call its session, or throws. It runs before the body is read. */
export type Authenticate = onRequestHookHandler

interface AuthenticateOptions {
  readonly verifiers: readonly SessionVerifier[]
  readonly revocations: Revocations
  readonly plans: ReadonlyMap<string, Plan>
  /** Names. */
  readonly pools: ReadonlySet<string>
  readonly cookie: SessionCookie
  readonly ownOrigin: OwnOrigin
  /** A verifier that has not answered by then vouches for nobody, ms. */
  readonly timeoutMs: number
  /** Told which verifier has vouched for a credential. */
  readonly onVouched?: (verifier: SessionVerifier, credential: string) => void
}

type Verifiers = Pick<AuthenticateOptions, 'verifiers' | 'onVouched'>
interface Authenticated { readonly session: Session, readonly plan: Plan }

/** *authenticate*: the credential becomes a session. Nobody vouches, or not in time → refused. */
export function authenticator (options: AuthenticateOptions): Authenticate {
  const { cookie, ownOrigin } = options

  const enter = (authenticated: Authenticated | null, request: FastifyRequest): GatewayError | undefined => {
    if (authenticated === null) return gatewayError('GW_BAD_SESSION')
    const { session, plan } = authenticated
    request.call.identify(session, plan)
    assertOrigin(session, request, ownOrigin)
    return undefined
  }
  const enterByCookie = async (credential: string, request: FastifyRequest, reply: FastifyReply): Promise<void> => {
    try {
      const refusal = enter(await verifyCredential(credential, true, options), request)
      if (refusal !== undefined) throw refusal
    } catch (error) {
      if (isGatewayError(error) && error.code === 'GW_BAD_SESSION') cookie.clear(reply)
      throw error
    }
    await cookie.slide(request.call.session!, reply)
  }

  return asHook((request, reply) => {
    request.call.enter('authenticate')
    if (hasQueryToken(request.query)) throw badRequest('A key or token never goes into the query: send it as a header.')
    // A cookie comes along by itself; what a caller has written into a header is what it means.
    const inHeader = credentialOf(request.raw.rawHeaders)
    if (inHeader !== null) {
      return after(verifyCredential(inHeader, false, options), authenticated => enter(authenticated, request))
    }
    const inCookie = cookie.read(request)
    if (inCookie === null) return gatewayError('GW_NO_SESSION')
    return enterByCookie(inCookie, request, reply)
  })
}

/** At once for a session that is known: nothing of it waits. `null`: nobody vouches for it. */
function verifyCredential (
  credential: string,
  isCookie: boolean,
  options: AuthenticateOptions
): Awaitable<Authenticated | null> {
  const { revocations, plans, pools, timeoutMs } = options
  return after(inTime(timeoutMs, firstSession(options, credential)), session => {
    if (session === null) return null
    const plan = plans.get(session.plan)
    // What is meant for the one place is no good in the other (RFC 8725 section 3.12): no token can be planted as a
    // cookie.
    if (session.isCookie !== isCookie || plan === undefined) return null
    // A session of a pool that is not there (any more) would be in none, and have one limit less above it.
    if (session.pool !== null && !pools.has(session.pool)) return null
    return after(revocations.isRevoked(session), isRevoked => isRevoked ? null : { session, plan })
  })
}

/** Whatever a verifier does but return a session, there is none. `from`: those before it have nothing to say. */
function firstSession (options: Verifiers, credential: string, from = 0): Awaitable<Session | null> {
  const verifier = options.verifiers[from]
  if (verifier === undefined) return null
  return after(answerOf(verifier, credential), verdict => {
    if (verdict === null) return firstSession(options, credential, from + 1)
    if (verdict === 'bad' || typeof verdict?.subject !== 'string' || typeof verdict.id !== 'string') return null
    options.onVouched?.(verifier, credential)
    return verdict
  })
}

function answerOf (verifier: SessionVerifier, credential: string): Awaitable<Verdict> {
  try {
    const answer = verifier.verify(credential)
    return answer instanceof Promise ? answer.catch(throwRefusal) : answer
  } catch (error) {
    return throwRefusal(error)
  }
}

function throwRefusal (error: unknown): never {
  throw isGatewayError(error) ? error : gatewayError('GW_BAD_SESSION', { cause: error })
}

/** Throws `GW_BAD_SESSION` when it takes longer, ms. */
function inTime<T> (timeoutMs: number, work: Awaitable<T>): Awaitable<T> {
  if (!(work instanceof Promise)) return work
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(gatewayError('GW_BAD_SESSION')), timeoutMs)
    const inTime = <V>(settle: (value: V) => void) => (value: V) => {
      clearTimeout(timer)
      settle(value)
    }
    work.then(inTime(resolve), inTime(reject))
  })
}

interface SessionGateOptions extends Pick<AuthenticateOptions, 'verifiers' | 'cookie' | 'timeoutMs'> {
  /**
   * The one of the verifiers that knows what we have signed ourselves: cheap, and it asks nobody. A signature of
   * another issuer costs much more, and a person's token is looked up.
   */
  readonly own: SessionVerifier
}

interface SessionGate extends Required<Pick<AuthenticateOptions, 'onVouched'>> {
  readonly passes: PassGate
}

/** Credentials of others that are remembered. */
const knownCredentials = 10_000
/**
 * Of others' credentials that are not known so many are verified for an address that has failed too often, a second.
 */
const strangersPerSecond = 5

/**
 * Lets sessions pass from an address that has failed too often. What is cheapest comes first: credentials that have
 * been good in this process, then our own signature, and of the rest a few a second, so that nobody there can have us
 * verify as many as they like. A request that passes still has to be authenticated.
 */
export function sessionGate (
  app: FastifyInstance,
  { verifiers, own, cookie, timeoutMs }: SessionGateOptions
): SessionGate {
  const known = recent<true>(knownCredentials)
  const hashOf = (credential: string): string => hash('sha256', credential, 'base64')
  const strangers = app.createRateLimit({ max: strangersPerSecond, timeWindow: 1000 })
  // Of our own nothing is remembered: to verify one costs as much as to look it up.
  const onVouched: SessionGate['onVouched'] = (verifier, credential) => {
    if (verifier !== own) known.set(hashOf(credential), true)
  }

  const isGood = async (credential: string, request: FastifyRequest): Promise<boolean> => {
    if (known.has(hashOf(credential))) return true
    const verdict = await own.verify(credential)
    if (verdict !== null) return verdict !== 'bad'
    const budget = await strangers(request)
    if (!budget.isAllowed && budget.isExceeded) return false
    return await firstSession({ verifiers, onVouched }, credential) !== null
  }
  return {
    onVouched,
    async passes (request) {
      try {
        const credential = credentialOf(request.raw.rawHeaders) ?? cookie.read(request)
        return credential !== null && await inTime(timeoutMs, isGood(credential, request))
      } catch (error) {
        // What is wrong with it is not said here; that the store is down is.
        if (isGatewayError(error) && error.statusCode >= 500) throw error
        return false
      }
    }
  }
}

/** Queries end up in logs, histories and `Referer` headers (RFC 6750 section 5.3). */
function hasQueryToken (query: unknown): boolean {
  const names = query as Record<string, unknown>
  return names.key !== undefined || names.access_token !== undefined
}

/** Equal or not, in a time that says nothing about how much of it is right: both are hashed to one length first. */
export function isSame (credential: string, secret: Secret): boolean {
  const digest = (value: string) => createHash('sha256').update(value).digest()
  return timingSafeEqual(digest(credential), digest(secret.reveal()))
}

/** Route hook: lets only the operator pass, before a byte of body is read. */
export type AuthenticateOperator = onRequestHookHandler

/**
 * Only the admin token, sent as `Authorization: Bearer`, makes a caller the operator: no session, no issuer's token,
 * and no header that a stock SDK fills with whatever key it was given.
 */
export function operatorAuthenticator (adminToken: SecretRef<Secret>): AuthenticateOperator {
  return asHook(request => {
    request.call.enter('authenticate')
    const credential = serverTokenOf(request.raw.rawHeaders, 'admin')
    if (request.headers.authorization === undefined) throw noToken('admin')
    if (!isSame(credential, adminToken.current)) throw wrongToken('admin')
    request.call.enter('authorize')
  })
}
