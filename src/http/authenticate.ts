import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Plan } from '../domain/policy/plan.ts'
import type { Revocations, Session, SessionVerifier } from '../domain/sessions/session.ts'
import { badRequest, gatewayError, isGatewayError } from '../errors.ts'
import { credentialOf } from './sessions/credential.ts'
import { holdOrigin, type OwnOrigin } from './sessions/origins.ts'
import type { SessionCookie } from './sessions/session-cookie.ts'

/** Route hook: gives the call its session, or throws. It runs before the body is read. */
export type Authenticate = (request: FastifyRequest, reply: FastifyReply) => Promise<void>

export interface AuthenticateOptions {
  readonly verifiers: readonly SessionVerifier[]
  readonly revocations: Revocations
  readonly plans: ReadonlyMap<string, Plan>
  readonly cookie: SessionCookie
  readonly ownOrigin: OwnOrigin
  /** A verifier that has not answered by then vouches for nobody, ms. */
  readonly timeoutMs: number
}

interface Vouched { readonly session: Session, readonly plan: Plan }

/** *authenticate*: the credential becomes a session. Nobody vouches, or not in time → refused. */
export function authenticator (options: AuthenticateOptions): Authenticate {
  const { cookie, ownOrigin } = options

  return async (request, reply) => {
    const { call } = request
    call.stage = 'authenticate'
    if (hasQueryToken(request.query)) throw badRequest('A key or token never goes into the query: send it as a header.')
    // A cookie comes along by itself; what a caller has written into a header is what it means.
    const inHeader = credentialOf(request.raw.rawHeaders)
    const isCookie = inHeader === null
    const credential = inHeader ?? cookie.read(request)
    if (credential === null) throw gatewayError('GW_NO_SESSION')

    const { session, plan } = await vouch(credential, isCookie, options).catch((error: unknown) => {
      if (isCookie && isGatewayError(error) && error.code === 'GW_BAD_SESSION') cookie.clear(reply)
      throw error
    })
    call.session = session
    call.plan = plan
    holdOrigin(session, request, ownOrigin)
    if (isCookie) await cookie.slide(session, reply)
  }
}

async function vouch (credential: string, isCookie: boolean, { verifiers, revocations, plans, timeoutMs }: AuthenticateOptions): Promise<Vouched> {
  const session = await before(timeoutMs, firstVoucher(verifiers, credential))
  const plan = plans.get(session.plan)
  // What is meant for the one place is no good in the other (RFC 8725 section 3.12): no token can be planted as a cookie.
  if (session.isCookie !== isCookie || plan === undefined || await revocations.isRevoked(session)) throw gatewayError('GW_BAD_SESSION')
  return { session, plan }
}

/** Whatever a verifier does but return a session, there is none. */
async function firstVoucher (verifiers: readonly SessionVerifier[], credential: string): Promise<Session> {
  for (const verifier of verifiers) {
    const session = await answerOf(verifier, credential)
    if (session === null) continue
    if (typeof session?.subject !== 'string' || typeof session.id !== 'string') break
    return session
  }
  throw gatewayError('GW_BAD_SESSION')
}

async function answerOf (verifier: SessionVerifier, credential: string): Promise<Session | null> {
  try {
    return await verifier.verify(credential)
  } catch (error) {
    throw isGatewayError(error) ? error : gatewayError('GW_BAD_SESSION', { cause: error })
  }
}

function before<T> (timeoutMs: number, work: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(gatewayError('GW_BAD_SESSION')), timeoutMs)
    const inTime = <V>(settle: (value: V) => void) => (value: V) => {
      clearTimeout(timer)
      settle(value)
    }
    work.then(inTime(resolve), inTime(reject))
  })
}

/** Queries end up in logs, histories and `Referer` headers (RFC 6750 section 5.3). */
function hasQueryToken (query: unknown): boolean {
  const names = query as Record<string, unknown>
  return names.key !== undefined || names.access_token !== undefined
}
