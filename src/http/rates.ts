import rateLimit, { type FastifyRateLimitStore, type FastifyRateLimitStoreCtor } from '@fastify/rate-limit'
import Fastify, {
  type FastifyInstance, type FastifyReply, type FastifyRequest, type preParsingHookHandler
} from 'fastify'
import { LRUCache } from 'lru-cache'
import { type Readable, Transform } from 'node:stream'
import { type CreditAccounts, creditsLeft, leastLeft, nothingSpent } from '../domain/ledger.ts'
import { periodAt } from '../domain/policy.ts'
import { budgetOf } from '../domain/session.ts'
import type { Clock } from '../domain/time.ts'
import { gatewayError } from '../errors.ts'
import { type RequestContext, contextOf, type SessionRequestState } from './context.ts'

/** Counts one call of the subject; throws `GW_RATE_LIMITED` above its plan's limit. */
export type Rate = (context: RequestContext) => Promise<void>

/** The budgets of a subject, each shared by all routes that count in it. */
export interface Rates {
  /** Submits and LLM calls. */
  readonly submits: Rate
  /** Throws what the next submit would be refused with, and counts nothing. */
  readonly lookAtSubmits: Rate
  /** Status calls. */
  readonly polls: Rate
  /**
   * Sessions that begin for a subject: minted, or swapped for a cookie. Each is an entry in the audit trail, and a
   * write to
   * disk.
   */
  sessions (request: FastifyRequest, subject: string): Promise<void>
  /**
   * Asking for tasks that aren't the caller's: counts as a poll, and says nothing of it, as each 404 is like the other.
   */
  readonly misses: Rate
  /** Answers that are given again: each counts as a poll, and its submit's own headers say nothing of polls. */
  readonly replays: Rate
}

/** Where calls are counted when several replicas share the budgets. */
export interface SharedRates {
  /** A client of ioredis, as `@fastify/rate-limit` wants it. */
  readonly redis: unknown
  /** While nobody counts (`limits.onStoreError`): `refuse` throws `GW_STORE_DOWN`, `allow` lets every call pass. */
  readonly onStoreError: 'refuse' | 'allow'
}

type Told = Parameters<FastifyRateLimitStore['incr']>[1]

type Budget = Exclude<Awaited<ReturnType<ReturnType<FastifyInstance['createRateLimit']>>>, { isAllowed: true }>

/** Counts one call; or, with `increment: false`, tells how many there have been. */
type Count = (request: FastifyRequest, how?: { readonly increment: boolean }) => Promise<Budget>

const minuteMs = 60_000
/** Far more than pages open, or devices have, in a minute. */
const sessionsPerMinute = 120

interface RateWindow { readonly startedAt: number, count: number }

/**
 * The plugin's store in the memory of this process. Its own goes by `Date.now()`, so that a clock put back an hour
 * shuts a
 * window for that hour; and it hands out one object for all requests of a turn of the event loop, each of which then
 * reads
 * what the last of them has counted. Here windows are fixed ones of the monotonic clock, and each is told its own
 * count.
 *
 * Every limiter that is made of it has its own windows, `maxKeys` of them; the one used longest ago is forgotten first.
 */
export function rateWindows ({
  elapsed,
  maxKeys
}: Pick<Clock, 'elapsed'> & { readonly maxKeys: number }): FastifyRateLimitStoreCtor {
  return class Windows implements FastifyRateLimitStore {
    readonly #windows = new LRUCache<string, RateWindow>({ max: maxKeys })

    incr (key: string, tell: Told, windowMs: number): void {
      let window = this.#open(key, windowMs)
      if (window === undefined) this.#windows.set(key, window = { startedAt: elapsed(), count: 0 })
      tell(null, { current: ++window.count, ttl: leftOf(window, windowMs) })
    }

    read (key: string, tell: Told, windowMs: number): void {
      const window = this.#open(key, windowMs)
      tell(
        null,
        window === undefined ? { current: 0, ttl: 0 } : { current: window.count, ttl: leftOf(window, windowMs) }
      )
    }

    child (): FastifyRateLimitStore {
      return new Windows()
    }

    #open (key: string, windowMs: number): RateWindow | undefined {
      const window = this.#windows.get(key)
      return window !== undefined && leftOf(window, windowMs) > 0 ? window : undefined
    }
  }

  function leftOf ({ startedAt }: RateWindow, windowMs: number): number {
    return startedAt + windowMs - elapsed()
  }
}

/** Without `shared`, each process counts by itself. */
export async function subjectRates (app: FastifyInstance, shared?: SharedRates): Promise<Rates> {
  const counter = shared === undefined ? app : await sharedCounter(shared)
  const countSubmit = counting(counter, 'submits', call => call.plan.requestsPerMinute)
  const submits = keep(countSubmit)
  const polls = keep(counting(counter, 'polls', call => call.plan.pollsPerMinute))
  const begun = new WeakMap<FastifyRequest, string>()
  const sessions = counting(counter, 'sessions', () => sessionsPerMinute, request => begun.get(request)!)
  return {
    submits: context => submits(context, true),
    lookAtSubmits: look(countSubmit),
    polls: context => polls(context, true),
    async sessions (request, subject) {
      begun.set(request, subject)
      holdBudget(await sessions(request))
    },
    misses: context => polls(context, false),
    replays: context => polls(context, false)
  }
}

/**
 * One budget per subject and minute. A fixed window: at most twice the limit in any minute. Headers as in
 * draft-ietf-httpapi-ratelimit-headers-03, which clients know best.
 */
function keep (count: Count) {
  return async ({ request, reply }: RequestContext, tells: boolean): Promise<void> => {
    const budget = await count(request)
    if (tells || budget.isExceeded) writeBudget(reply, budget)
    holdBudget(budget)
  }
}

function holdBudget ({ isExceeded, ttlInSeconds }: Budget): void {
  if (isExceeded) throw gatewayError('GW_RATE_LIMITED', { retryAfterSeconds: ttlInSeconds })
}

/** Says what `keep` would say of one call more, without counting it. */
function look (count: Count): Rate {
  return async ({ request, reply }) => {
    const budget = await count(request, { increment: false })
    if (budget.remaining > 0) return
    writeBudget(reply, budget)
    throw gatewayError('GW_RATE_LIMITED', { retryAfterSeconds: budget.ttlInSeconds })
  }
}

/**
 * The plugin has one store for all that is counted on one instance. Addresses are counted by each replica for itself,
 * so
 * that a flood of them is no load on the store; what is shared is counted on an instance of its own, which never
 * listens.
 */
async function sharedCounter ({ redis, onStoreError }: SharedRates): Promise<FastifyInstance> {
  const counter = Fastify()
  await counter.register(rateLimit, {
    global: false,
    redis,
    nameSpace: 'gw:rate:',
    skipOnError: onStoreError === 'allow'
  })
  return counter
}

function counting (
  counter: FastifyInstance, budget: string, limitOf: (call: SessionRequestState) => number,
  subjectOf = (request: FastifyRequest) => (request.call as SessionRequestState).session.subject
): Count {
  const count = counter.createRateLimit({
    max: request => limitOf(request.call as SessionRequestState),
    timeWindow: minuteMs,
    // In one name space for all budgets.
    keyGenerator: (request: FastifyRequest) => `${budget}:${subjectOf(request)}`
  })
  return async (request, how) => {
    try {
      return await count(request, how) as Budget // without an allow list nothing is ever exempt
    } catch (cause) {
      throw gatewayError('GW_STORE_DOWN', { retryAfterSeconds: 1, cause })
    }
  }
}

function writeBudget (reply: FastifyReply, budget: Budget): void {
  reply
    .header('ratelimit-limit', budget.max)
    .header('ratelimit-remaining', budget.remaining)
    .header('ratelimit-reset', budget.ttlInSeconds)
}

/**
 * Bodies up to this length are read from everybody, bytes: a subject that has nothing left may still ask again for an
 * answer
 * it has paid for, and what it asks is only known from the body.
 */
export const replayBodyBytes = 65_536

export interface LargeBodiesOptions {
  /** Throws what a submit would be refused with by its rate, and counts nothing. */
  readonly lookAtRate: Rate
  readonly accounts: CreditAccounts
  /** Whether submits of that model cost nothing, whatever is in them. */
  readonly isFree: (model: string) => boolean
  /** Unix ms. */
  readonly now: () => number
}

/**
 * Route hook for submits, before the body is read: a body above `replayBodyBytes` is taken only from a subject that has
 * something left of its rate, credits and uses; else it is refused with what the submit would have been refused with.
 * They
 * are looked at and not counted, since the body may be wrong. A body that announces no length is read up to that bound.
 *
 * Small bodies cost no look: the store would be asked twice for each of them, and they are read in a millisecond.
 */
export function largeBodies (options: LargeBodiesOptions): preParsingHookHandler {
  return (request, reply, payload, done) => {
    const length = announcedLength(request)
    if (length !== null && length <= replayBodyBytes) return done(null)
    lookAhead(options, contextOf(request, reply)).then(() => done(null), (refusal: Error) => {
      request.call.stage = 'admit'
      if (length !== null) done(refusal)
      else done(null, bounded(payload as Readable, refusal))
    })
  }
}

/** `null`: it is sent in chunks, as long as they come. */
function announcedLength ({ headers }: FastifyRequest): number | null {
  if (headers['transfer-encoding'] !== undefined) return null
  return Number(headers['content-length'] ?? 0)
}

/** Throws what a submit would be refused with now. */
async function lookAhead (
  { lookAtRate, accounts, isFree: isFreeModel, now }: LargeBodiesOptions,
  context: RequestContext
): Promise<void> {
  await lookAtRate(context)
  const { call: { session, plan }, request } = context
  const budget = budgetOf(session)
  const isFree = isFreeModel((request.params as { readonly model: string }).model)
  if (budget === undefined && (isFree || plan.credits === null)) return
  const [balance, spent] = await Promise.all([
    accounts.balanceOf(session.subject, periodAt(plan.period, now()).start),
    budget === undefined ? nothingSpent : accounts.spentIn(session.subject, budget.id)
  ])
  if (session.uses !== null && spent.uses >= session.uses) {
    throw gatewayError('GW_SESSION_SPENT', { shouldRetry: false })
  }
  const left = leastLeft(creditsLeft(plan, balance), session.credits, spent.microcredits)
  if (!isFree && left === 0) throw gatewayError('GW_CREDITS_EXHAUSTED', { shouldRetry: false })
}

/**
 * What comes, up to the bound; beyond it, the refusal. The connection stays whole, or the refusal could not be told.
 */
function bounded (payload: Readable, refusal: Error): Readable {
  let length = 0
  const part = new Transform({
    transform (chunk: Buffer, _encoding, next) {
      length += chunk.length
      if (length > replayBodyBytes) next(refusal)
      else next(null, chunk)
    }
  })
  payload.once('error', error => part.destroy(error)) // its caller has hung up
  return payload.pipe(part)
}
