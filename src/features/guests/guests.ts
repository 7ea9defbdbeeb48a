import type { FastifyInstance, FastifyRequest } from 'fastify'
import { randomUUID } from 'node:crypto'
import type { Secret, SecretRef } from '../../domain/secret.ts'
import { isGuest, ownPrefixes, type Scope } from '../../domain/session.ts'
import type { GuestCounts, SpentProofs } from '../../domain/store.ts'
import { dayMs, hourMs, instant } from '../../domain/time.ts'
import { badRequest, gatewayError } from '../../errors.ts'
import { contextOf } from '../../http/context.ts'
import { addressOf, ipOf, proofHeader } from '../../http/receive.ts'
import type { Services } from '../../http/services.ts'
import type { ProveGuest } from '../../http/stages.ts'
import { altchaProofs, type GuestProofs, newSession, type ProofChallenges, turnstileProofs } from './proofs.ts'
import type { GuestSettings } from './settings.ts'

/** Sessions for anybody. Both methods throw `GW_SCOPE_DENIED` for a proof that is not good, and `GW_STORE_DOWN`. */
export interface Guests {
  /** Lets one more guest in, and uses its proof up. Throws `GW_THROTTLED` when there have been too many. */
  admit (request: FastifyRequest): Promise<void>
  /** Each submit needs a proof of its own, which is used up by asking. */
  readonly prove: ProveGuest
  /** `null`: what guests prove, they do not prove to us, or they prove nothing. */
  readonly challenges: ProofChallenges | null
  /** The name of their plan. */
  readonly plan: string
}

interface GuestsOptions {
  readonly settings: GuestSettings
  /** Of pages that guests come from. */
  readonly origins: readonly string[]
  readonly sessionSecrets: SecretRef<readonly Secret[]>
  /** Of Turnstile: what its settings ask for is there. */
  readonly turnstileSecret: SecretRef<Secret | undefined>
  readonly siteverifyUrl: string | undefined
  readonly spent: SpentProofs
  readonly counts: GuestCounts
  readonly now: () => number
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
export function guests (options: GuestsOptions): Guests {
  const { settings: { plan, sessionsPerAddressPerDay }, spent, counts } = options
  const { proofs, challenges } = openProofs(options)
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
    async admit (request) {
      await use(proofOf(request), newSession, ipOf(request))
      const own = `address ${addressOf(request)}`
      await take(own, sessionsPerAddressPerDay, dayMs)
      await take('everybody', addressesPerHour * sessionsPerAddressPerDay, hourMs).catch(async error => {
        await counts.putBack(own)
        throw error
      })
    },
    prove: ({ request, call: { session: { subject } } }) =>
      use(proofOf(request), guestName(subject), ipOf(request)),
    challenges,
    plan
  }
}

function proofOf ({ headers }: FastifyRequest): string | undefined {
  return headers[proofHeader] as string | undefined
}

/** `null`: guests prove nothing, or nothing to us. */
function openProofs (
  { settings: { proof }, origins, sessionSecrets, turnstileSecret, siteverifyUrl, now }: GuestsOptions
): { readonly proofs: GuestProofs | null, readonly challenges: ProofChallenges | null } {
  if (proof === 'work') {
    const altcha = altchaProofs({ secrets: sessionSecrets, now })
    return { proofs: altcha, challenges: altcha }
  }
  if (proof === 'none') return { proofs: null, challenges: null }
  const hostnames = new Set(origins.map(origin => new URL(origin).hostname))
  // Settings that ask for Turnstile have its secret, and a file that is emptied later changes nothing.
  const secret = turnstileSecret as SecretRef<Secret>
  return { proofs: turnstileProofs({ secret, hostnames, now, url: siteverifyUrl }), challenges: null }
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
  guests: Guests
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
      await guests.admit(request)
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
