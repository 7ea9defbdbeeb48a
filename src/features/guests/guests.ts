import type { FastifyInstance, FastifyRequest } from 'fastify'
import { randomUUID } from 'node:crypto'
import { isGuest, ownPrefixes, type Scope } from '../../domain/session.ts'
import type { GuestCounts, SpentProofs } from '../../domain/store.ts'
import { dayMs, hourMs, instant } from '../../domain/time.ts'
import { badRequest, gatewayError } from '../../errors.ts'
import { proofOf } from '../../http/admit.ts'
import { contextOf } from '../../http/context.ts'
import { proofHeader } from '../../http/credential.ts'
import { addressOf, ipOf } from '../../http/receive.ts'
import type { GuestSessions, Services } from '../../http/services.ts'

/** A proof that is good, and is not known to have been used. */
export interface Proof {
  /** Two proofs have two, and one has the same one however it is written. */
  readonly id: string
  /** Unix ms. It is no longer good from then on. */
  readonly expiresAt: number
}

/** What a proof is for when it is to begin a session; else it is for a submit of the guest of that name. */
export const newSession = 'session'

/** Tells whether a guest has done what is asked of guests. */
export interface GuestProofs {
  /**
   * `null`: it is none, is forged, is past its time, or is for something else. `purpose`: `newSession`, or a guest's
   * name. `ip`: the address that it comes from. Throws `GW_OVERLOADED` while it can not tell.
   */
  verify (proof: string, purpose: string, ip: string): Promise<Proof | null>
}

/** Makes what guests have to solve. */
export interface ProofChallenges {
  /** A challenge whose solution proves something for this purpose alone, as JSON. */
  challenge (purpose: string): Promise<object>
}

/** Where a guest comes from. */
interface Visitor {
  readonly ip: string
  /** What sessions are counted by: the address, or the /64 that it is in. */
  readonly address: string
}

/** Sessions for anybody. All throw `GW_SCOPE_DENIED` for a proof that is not good, and `GW_STORE_DOWN`. */
export interface Guests {
  /** Lets one more guest in, and uses its proof up. Throws `GW_THROTTLED` when there have been too many. */
  admit (proof: string | undefined, visitor: Visitor): Promise<void>
  /** Lets a guest submit one task, and uses its proof up. */
  prove (proof: string | undefined, subject: string, ip: string): Promise<void>
}

interface GuestsOptions {
  /** `null`: guests prove nothing. */
  readonly proofs: GuestProofs | null
  readonly spent: SpentProofs
  readonly counts: GuestCounts
  readonly sessionsPerAddressPerDay: number
}

/**
 * Addresses are cheap: this also bounds somebody who rents many. In any hour at most as many sessions begin as this
 * many addresses may begin in a day; what guests cost is then at most that many times the credits of their plan.
 */
const addressesPerHour = 100

const prefix = ownPrefixes.guest

/**
 * What a guest's proofs are for. A session in a cookie has the subject of the one it was exchanged for, so theirs are
 * the same.
 */
export function guestName (subject: string): string {
  return subject.slice(prefix.length)
}

/**
 * An address that has had its sessions does not count for the hour: it can't use up what is for all. A visitor that is
 * refused because the hour is full keeps the sessions of the day.
 */
export function guests ({ proofs, spent, counts, sessionsPerAddressPerDay }: GuestsOptions): Guests {
  const use = async (proof: string | undefined, purpose: string, ip: string): Promise<void> => {
    if (proofs === null) return
    if (proof === undefined) {
      throw denied('is missing: guests begin a session, and submit each task, with a fresh proof')
    }
    const good = await proofs.verify(proof, purpose, ip)
    if (good === null || !await spent.spend(good.id, good.expiresAt)) {
      throw denied('is forged, too old, used before, or for something else: get a new one')
    }
  }
  const take = async (name: string, limit: number, windowMs: number): Promise<void> => {
    const waitMs = await counts.take(name, limit, windowMs)
    if (waitMs > 0) throw gatewayError('GW_THROTTLED', { retryAfterSeconds: Math.ceil(waitMs / 1000) })
  }
  return {
    async admit (proof, { ip, address }) {
      await use(proof, newSession, ip)
      const own = `address ${address}`
      await take(own, sessionsPerAddressPerDay, dayMs)
      await take('everybody', addressesPerHour * sessionsPerAddressPerDay, hourMs).catch(async error => {
        await counts.putBack(own)
        throw error
      })
    },
    prove: (proof, subject, ip) => use(proof, guestName(subject), ip)
  }
}

function denied (reason: string) {
  return gatewayError('GW_SCOPE_DENIED', { about: `The proof in ${proofHeader} ${reason}.` })
}

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
