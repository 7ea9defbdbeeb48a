import type { FastifyInstance, FastifyRequest } from 'fastify'
import { randomUUID } from 'node:crypto'
import type { AuditTrail } from '../../domain/audit.ts'
import { guestName, type Guests, isGuest, newSession, type ProofChallenges } from '../../domain/guests.ts'
import type { Scope, SessionIssuer } from '../../domain/session.ts'
import { instant } from '../../domain/time.ts'
import { badRequest, gatewayError } from '../../errors.ts'
import { proofOf } from '../admit.ts'
import type { Authenticate, OwnOrigin } from '../authenticate.ts'
import { contextOf } from '../context.ts'
import type { Rates } from '../rates.ts'
import { addressOf, ipOf } from '../receive.ts'

export interface GuestRoutesOptions {
  readonly guests: Guests
  /** `null`: what guests prove, they do not prove to us, or they prove nothing. */
  readonly challenges: ProofChallenges | null
  readonly authenticate: Authenticate
  readonly sessions: SessionIssuer
  readonly audit: AuditTrail
  readonly rates: Rates
  readonly plan: string
  readonly defaultTtlSeconds: number
  readonly allowedOrigins: readonly string[]
  readonly ownOrigin: OwnOrigin
  readonly now: () => number
}

/** LLM calls are not among them: no proof is asked for those. */
const guestScopes: readonly Scope[] = ['tasks:write', 'tasks:read']

/** Sessions for anybody. These routes exist only when the operator opens them. */
export function guestRoutes (app: FastifyInstance, options: GuestRoutesOptions): void {
  const { guests, challenges, sessions, audit, plan, defaultTtlSeconds: ttlSeconds, now } = options

  app.post(
    '/gateway/sessions/guest',
    { config: { operation: 'mintGuestSession', opensWith: 'proof' }, onRequest: checkPage(options) },
    async (request, reply) => {
      request.call.stage = 'authorize'
      if (Object.keys(request.body ?? {}).length > 0) {
        throw badRequest('Guests do not choose what they get: send no body.')
      }
      request.call.stage = 'admit'
      await guests.admit(proofOf(request), { ip: ipOf(request), address: addressOf(request) })
      const { token, session } = await sessions.mint({
        issuer: 'guest',
        subject: randomUUID(),
        plan,
        models: ['*'],
        scopes: guestScopes,
        ttlSeconds
      })
      const { id, subject, expiresAt } = session
      await audit.append([
        { at: now(), kind: 'mint', actor: subject, subject, detail: { session: id, plan, ttlSeconds } }
      ])
      reply.code(201)
      return { token, subject, expiresAt: instant(expiresAt) }
    }
  )

  if (challenges !== null) challengeRoutes(app, challenges, options)
}

/**
 * One for a session that is to begin, one for the next submit of a session. Nothing is remembered of either: whoever
 * asks for many and solves none has got nothing.
 */
function challengeRoutes (
  app: FastifyInstance,
  { challenge }: ProofChallenges,
  { authenticate, rates }: GuestRoutesOptions
): void {
  app.get('/gateway/sessions/guest/challenge', { config: { operation: 'guestChallenge' } }, () => challenge(newSession))

  app.get(
    '/gateway/session/challenge',
    { config: { operation: 'submitChallenge' }, onRequest: authenticate },
    async (request, reply) => {
      const context = contextOf(request, reply)
      const {
        session: { subject }
      } = context.call
      context.call.stage = 'authorize'
      if (!isGuest(subject)) throw badRequest('Only guests need a proof to submit.')
      context.call.stage = 'admit'
      await rates.polls(context)
      return await challenge(guestName(subject))
    }
  )
}

/**
 * Guests come from a page, of ours or of a listed origin. A program can write any `Origin`, and has to prove itself
 * like
 * everybody; a page can not, or the visitors of any busy site would be made to begin sessions and to do the work for
 * it.
 */
function checkPage ({ allowedOrigins, ownOrigin }: GuestRoutesOptions) {
  return async (request: FastifyRequest): Promise<void> => {
    request.call.stage = 'authenticate'
    const { origin } = request.headers
    if (origin !== undefined && (allowedOrigins.includes(origin) || origin === ownOrigin(request))) return
    throw gatewayError('GW_ORIGIN_DENIED', {
      about: 'Guests come from a page of this gateway, or of an origin in GATEWAY_ALLOWED_ORIGINS.'
    })
  }
}
