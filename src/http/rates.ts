import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { gatewayError } from '../errors.ts'
import type { Context, SessionCall } from './call.ts'

/** Counts one call of the subject; throws `GW_RATE_LIMITED` above its plan's limit. */
export type Rate = (context: Context) => Promise<void>

/** The budgets of a subject, each shared by all routes that count in it. */
export interface Rates {
  /** Submits and LLM calls. */
  readonly submits: Rate
  /** Status calls. */
  readonly polls: Rate
  /** Asking for tasks that aren't the caller's: counts as a poll, and says nothing of it, as each 404 is like the other. */
  readonly misses: Rate
}

const minuteMs = 60_000

export function subjectRates (app: FastifyInstance): Rates {
  const submits = perSubject(app, call => call.plan.requestsPerMinute)
  const polls = perSubject(app, call => call.plan.pollsPerMinute)
  return {
    submits: context => submits(context, true),
    polls: context => polls(context, true),
    misses: context => polls(context, false)
  }
}

/**
 * One budget per subject and minute. A fixed window: at most twice the limit in any minute. Headers as in
 * draft-ietf-httpapi-ratelimit-headers-03, which clients know best.
 */
function perSubject (app: FastifyInstance, limitOf: (call: SessionCall) => number) {
  const count = app.createRateLimit({
    max: request => limitOf(request.call as SessionCall),
    timeWindow: minuteMs,
    keyGenerator: (request: FastifyRequest) => (request.call as SessionCall).session.subject
  })
  return async ({ request, reply }: Context, tells: boolean): Promise<void> => {
    const budget = await count(request)
    /* c8 ignore next - the type's other half: without an allow list nothing is ever exempt */
    if (budget.isAllowed) return
    if (tells || budget.isExceeded) writeBudget(reply, budget)
    if (budget.isExceeded) throw gatewayError('GW_RATE_LIMITED', { retryAfterSeconds: budget.ttlInSeconds })
  }
}

function writeBudget (reply: FastifyReply, budget: { max: number, remaining: number, ttlInSeconds: number }): void {
  reply
    .header('ratelimit-limit', budget.max)
    .header('ratelimit-remaining', budget.remaining)
    .header('ratelimit-reset', budget.ttlInSeconds)
}
