import type { FastifyRateLimitStore, FastifyRateLimitStoreCtor } from '@fastify/rate-limit'
import type { FastifyInstance, FastifyReply, FastifyRequest, preParsingHookHandler, RouteOptions } from 'fastify'
import { type Readable, Transform } from 'node:stream'
import { creditsLeft, leastLeft, nothingSpent } from '../domain/ledger.ts'
import { periodAt } from '../domain/policy.ts'
import { recent } from '../domain/recent.ts'
import { budgetOf } from '../domain/session.ts'
import type { RateCounter, RateWindow } from '../domain/store.ts'
import type { Clock } from '../domain/time.ts'
import { type GatewayError, gatewayError } from '../errors.ts'
import { contextOf, type RequestContext } from './context.ts'
import { leftAbove } from './left.ts'
import type { Services } from './services.ts'
import { ceilingReached } from './stages.ts'

/** Counts one call of the subject; throws `GW_RATE_LIMITED` above its plan's limit. */
type Rate = (context: RequestContext) => Promise<void>

/** The budgets of a subject, each shared by all routes that count in it. */
export interface Rates {
  /** Submits. */
  readonly submits: Rate
  /** Throws what the next submit would be refused with, and counts nothing. */
  readonly lookAtSubmits: Rate
  /** Status calls. */
  readonly polls: Rate
  /**
   * Sessions that begin for a subject: minted, or swapped for a cookie. Each is an entry in the audit trail, and a
   * write to disk.
   */
  sessions (request: FastifyRequest, subject: string): Promise<void>
  /**
   * Asking for tasks that aren't the caller's: counts as a poll, and says nothing of it, as each 404 is like the other.
   */
  readonly misses: Rate
  /** Answers that are given again: each counts as a poll, and its submit's own headers say nothing of polls. */
  readonly replays: Rate
}

const minuteMs = 60_000
/** Far more than pages open, or devices have, in a minute. */
const sessionsPerMinute = 120

declare module '@fastify/rate-limit' {
  interface CreateRateLimitOptions {
    /** Where a limiter counts; absent: in this process, in windows of its own. */
    readonly counter?: RateCounter
  }
}

type Told = Parameters<FastifyRateLimitStore['incr']>[1]

/**
 * The plugin's `store`: each limiter counts with the counter that it was made with. Addresses are counted by each
 * replica for itself, so that a flood of them is no load on the store; subjects are counted where all replicas do.
 */
export function rateStore (ofOneLimiter: LocalRatesOptions): FastifyRateLimitStoreCtor {
  return class RateStore implements FastifyRateLimitStore {
    readonly #counter: RateCounter

    constructor ({ counter }: { readonly counter?: RateCounter }) {
      this.#counter = counter ?? localRates(ofOneLimiter)
    }

    incr (key: string, done: Told, windowMs: number): void {
      answer(done, this.#counter.hit(key, windowMs))
    }

    read (key: string, done: Told, windowMs: number): void {
      answer(done, this.#counter.look(key, windowMs))
    }

    child (limiter: RouteOptions & { readonly counter?: RateCounter }): FastifyRateLimitStore {
      return new RateStore(limiter)
    }
  }
}

function answer (done: Told, window: RateWindow | Promise<RateWindow>): void {
  const found = ({ count, endsInMs }: RateWindow): void => done(null, { current: count, ttl: endsInMs })
  if (window instanceof Promise) window.then(found, done)
  else found(window)
}

export interface SubjectRatesOptions {
  readonly counter: RateCounter
  /** While nobody counts (`limits.onStoreError`): `refuse` throws `GW_STORE_DOWN`, `allow` lets every call pass. */
  readonly onStoreError: 'refuse' | 'allow'
}

/** Needs the plugin, with `rateStore`. */
export function subjectRates (app: FastifyInstance, options: SubjectRatesOptions): Rates {
  const ofCaller = ({ call }: FastifyRequest): string => call.session!.subject
  const submits = limiter(app, 'submits', ofCaller, options)
  const polls = limiter(app, 'polls', ofCaller, options)
  // Who begins a session may be somebody else than who is to have it, and the plugin hands on the request alone.
  const beginning = new WeakMap<FastifyRequest, string>()
  const sessions = limiter(app, 'sessions', request => beginning.get(request)!, options)

  const countPoll: Count = ({ request, call: { plan } }) => polls(plan.pollsPerMinute, request)
  const quietPolls: Rate = async context => {
    const budget = await countPoll(context)
    if (budget.isExceeded) refuse(context, budget)
  }
  return {
    async submits (context) { tell(context, await submits(context.call.plan.requestsPerMinute, context.request)) },
    async lookAtSubmits (context) {
      const budget = await submits(context.call.plan.requestsPerMinute, context.request, { increment: false })
      if (budget.remaining === 0) refuse(context, budget)
    },
    async polls (context) { tell(context, await countPoll(context)) },
    async sessions (request, subject) {
      beginning.set(request, subject)
      const budget = await sessions(sessionsPerMinute, request)
      if (budget.isExceeded) throw rateLimited(budget)
    },
    misses: quietPolls,
    replays: quietPolls
  }
}

type Limit = ReturnType<FastifyInstance['createRateLimit']>
type Budget = Exclude<Awaited<ReturnType<Limit>>, { isAllowed: true }>

interface Counting {
  /** `false`: what one call more would find. */
  readonly increment: boolean
}

type Count = (context: RequestContext) => Promise<Budget>
/** `most`: calls a minute. */
type Limiter = (most: number, request: FastifyRequest, how?: Counting) => Promise<Budget>

/** One limit per subject and minute. */
function limiter (
  app: FastifyInstance,
  name: string,
  subjectOf: (request: FastifyRequest) => string,
  { counter, onStoreError }: SubjectRatesOptions
): Limiter {
  // One for each plan: a limit that is a function would be one promise more for each request. They count together.
  const limits = new Map<number, Limit>()
  const limitOf = (max: number): Limit => {
    const known = limits.get(max)
    if (known !== undefined) return known
    const made = app.createRateLimit({
      counter,
      timeWindow: minuteMs,
      skipOnError: onStoreError === 'allow',
      keyGenerator: request => `${name}:${subjectOf(request)}`,
      max
    })
    limits.set(max, made)
    return made
  }
  // Without an allow list nothing is ever exempt.
  return (most, request, how) => limitOf(most)(request, how) as Promise<Budget>
}

/** Says what is left of a budget, or throws that nothing is. */
function tell (context: RequestContext, budget: Budget): void {
  if (budget.isExceeded) refuse(context, budget)
  writeBudget(context.reply, budget)
}

function refuse ({ reply }: RequestContext, budget: Budget): never {
  writeBudget(reply, budget)
  throw rateLimited(budget)
}

function rateLimited ({ ttlInSeconds }: Budget): GatewayError {
  return gatewayError('GW_RATE_LIMITED', { retryAfterSeconds: ttlInSeconds })
}

/** Headers as in draft-ietf-httpapi-ratelimit-headers-03, which clients know best. */
function writeBudget (reply: FastifyReply, budget: Budget): void {
  reply
    .header('ratelimit-limit', budget.max)
    .header('ratelimit-remaining', budget.remaining)
    .header('ratelimit-reset', budget.ttlInSeconds)
}

/**
 * Bodies up to this length are read from everybody, bytes: a subject that has nothing left may still ask again for an
 * answer it has paid for, and what it asks is only known from the body.
 */
const replayBodyBytes = 65_536

/** What is looked at before a large body is read. */
type LookAheadServices = Pick<Services, 'rates' | 'accounts' | 'ceilings' | 'clock'> & {
  readonly submitRules: Pick<Services['submitRules'], 'isFree'>
}

/**
 * Route hook for submits, before the body is read: a body above `replayBodyBytes` is taken only from a subject that has
 * something left of its rate, credits and uses; else it is refused with what the submit would have been refused with.
 * They are looked at and not counted, since the body may be wrong. A body that announces no length is read up to that
 * bound.
 *
 * Small bodies cost no look: the store would be asked twice for each of them, and they are read in a millisecond.
 */
export function largeBodies (services: LookAheadServices): preParsingHookHandler {
  return (request, reply, payload, done) => {
    const length = announcedLength(request)
    if (length !== null && length <= replayBodyBytes) return done(null)
    lookAhead(services, contextOf(request, reply)).then(() => done(null), (refusal: Error) => {
      request.call.enter('admit')
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
  services: LookAheadServices,
  context: RequestContext
): Promise<void> {
  const { rates, accounts, ceilings, submitRules, clock } = services
  await rates.lookAtSubmits(context)
  const { call: { session, plan }, request } = context
  const budget = budgetOf(session)
  const isFree = submitRules.isFree((request.params as { readonly model: string }).model)
  if (budget === undefined && (isFree || (plan.credits === null && ceilings === null))) return
  const [balance, spent, above] = await Promise.all([
    accounts.balanceOf(session.subject, periodAt(plan.period, clock.now()).start),
    budget === undefined ? nothingSpent : accounts.spentIn(session.subject, budget.id),
    leftAbove(services, context.call)
  ])
  const reached = isFree ? undefined : above.find(({ left }) => left === 0)
  if (reached !== undefined) throw ceilingReached(reached)
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

export interface LocalRatesOptions extends Pick<Clock, 'elapsed'> {
  /** Keys that are remembered; the one counted longest ago is forgotten first. */
  readonly maxKeys: number
}

const noWindow: RateWindow = { count: 0, endsInMs: 0 }

/** A counter that answers at once. */
export interface LocalRates extends RateCounter {
  hit (key: string, windowMs: number): RateWindow
  look (key: string, windowMs: number): RateWindow
}

/** The counter of one process, in its memory. */
export function localRates ({ elapsed, maxKeys }: LocalRatesOptions): LocalRates {
  const windows = recent<{ readonly startedAt: number, count: number }>(maxKeys)

  return {
    hit (key, windowMs) {
      const now = elapsed()
      let window = windows.get(key)
      if (window === undefined || window.startedAt + windowMs <= now) {
        windows.set(key, window = { startedAt: now, count: 0 })
      }
      return { count: ++window.count, endsInMs: window.startedAt + windowMs - now }
    },
    look (key, windowMs) {
      const window = windows.get(key)
      const endsInMs = window === undefined ? 0 : window.startedAt + windowMs - elapsed()
      return window === undefined || endsInMs <= 0 ? noWindow : { count: window.count, endsInMs }
    }
  }
}
