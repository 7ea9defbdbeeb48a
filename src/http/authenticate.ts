import type { FastifyRequest } from 'fastify'
import type { Plan } from '../domain/plan.ts'
import type { Revocations, Session, SessionVerifier } from '../domain/session.ts'
import { gatewayError, isGatewayError } from '../errors.ts'
import { credentialOf } from './credential.ts'

/** Route hook: gives the call its session, or throws. It runs before the body is read. */
export type Authenticate = (request: FastifyRequest) => Promise<void>

export interface AuthenticateOptions {
  readonly verifiers: readonly SessionVerifier[]
  readonly revocations: Revocations
  readonly plans: ReadonlyMap<string, Plan>
  /** A verifier that has not answered by then vouches for nobody, ms. */
  readonly timeoutMs: number
}

/** *authenticate*: the credential becomes a session. Nobody vouches, or not in time → refused. */
export function authenticator ({ verifiers, revocations, plans, timeoutMs }: AuthenticateOptions): Authenticate {
  return async request => {
    const { call } = request
    call.stage = 'authenticate'
    if (hasQueryToken(request.query)) throw gatewayError('GW_BAD_REQUEST', { about: 'A key or token never goes into the query: send it as a header.' })
    const credential = credentialOf(request.raw.rawHeaders)
    if (credential === null) throw gatewayError('GW_NO_SESSION')

    const session = await before(timeoutMs, firstVoucher(verifiers, credential))
    const plan = plans.get(session.plan)
    if (plan === undefined || await revocations.isRevoked(session.id)) throw gatewayError('GW_BAD_SESSION')
    call.session = session
    call.plan = plan
  }
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
