import type { FastifyInstance, FastifyRequest } from 'fastify'
import { randomUUID } from 'node:crypto'
import { guestName, isGuest, newSession, type ProofChallenges } from '../../domain/guests.ts'
import type { Scope } from '../../domain/session.ts'
import { instant } from '../../domain/time.ts'
import { badRequest, gatewayError } from '../../errors.ts'
import { proofOf } from '../admit.ts'
import { contextOf } from '../context.ts'
import { addressOf, ipOf } from '../receive.ts'
import type { GuestSessions, Services } from '../services.ts'

/** LLM calls are not among them: no proof is asked for those. */
const guestScopes: readonly Scope[] = ['tasks:write', 'tasks:read']

/** Sessions for anybody. These routes exist only when the operator opens them. */
export function guestRoutes (
  app: FastifyInstance,
  services: Pick<
    Services,
    'authenticate' | 'issuer' | 'audit' | 'rates' | 'lifetimes' | 'allowedOrigins' | 'ownOrigin' | 'clock'
  >,
  guests: GuestSessions
): void {
  const { issuer, audit, lifetimes: { defaultTtlSeconds: ttlSeconds }, clock: { now } } = services
  const { challenges, plan } = guests

  app.post(
    '/gateway/sessions/guest',
    { config: { operation: 'mintGuestSession', opensWith: 'proof' }, onRequest: checkPage(services) },
    async (request, reply) => {
      request.call.enter('authorize')
      if (Object.keys(request.body ?? {}).length > 0) {
        throw badRequest('Guests do not choose what they get: send no body.')
      }
      request.call.enter('admit')
      await guests.admit(proofOf(request), { ip: ipOf(request), address: addressOf(request) })
      const { token, session } = await issuer.mint({
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

  if (challenges !== null) challengeRoutes(app, services, challenges)
}

/**
 * One for a session that is to begin, one for the next submit of a session. Nothing is remembered of either: many that
 * are asked for and not solved are worth nothing.
 */
function challengeRoutes (
  app: FastifyInstance,
  { authenticate, rates }: Pick<Services, 'authenticate' | 'rates'>,
  { challenge }: ProofChallenges
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
      context.call.enter('authorize')
      if (!isGuest(subject)) throw badRequest('Only guests need a proof to submit.')
      context.call.enter('admit')
      await rates.polls(context)
      return await challenge(guestName(subject))
    }
  )
}

/**
 * Guests come from a page, of ours or of a listed origin. A program can write any `Origin`, and has to prove itself
 * like everybody; a page can not, or the visitors of any busy site would be made to begin sessions and to do the work
 * for it.
 */
function checkPage ({ allowedOrigins, ownOrigin }: Pick<Services, 'allowedOrigins' | 'ownOrigin'>) {
  return async (request: FastifyRequest): Promise<void> => {
    request.call.enter('authenticate')
    const { origin } = request.headers
    if (origin !== undefined && (allowedOrigins.includes(origin) || origin === ownOrigin(request))) return
    throw gatewayError('GW_ORIGIN_DENIED', {
      about: 'Guests come from a page of this gateway, or of an origin in GATEWAY_ALLOWED_ORIGINS.'
    })
  }
}
