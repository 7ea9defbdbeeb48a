import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { type KeyRing, probeIntervalMs } from '../domain/keys.ts'
import type { ReservationId, TaskLedger } from '../domain/ledger.ts'
import { periodAt } from '../domain/plan.ts'
import type { UpstreamKey } from '../domain/upstream.ts'
import { gatewayError } from '../errors.ts'
import type { StatusOrder, SubmitOrder } from './authorize.ts'
import type { Context, SessionCall } from './call.ts'

/** A submit that is paid for: what it costs is set aside, and the key is chosen. */
export interface AdmittedSubmit extends SubmitOrder {
  readonly reservation: ReservationId
  readonly key: UpstreamKey
}

const minuteMs = 60_000
/** When to ask again for a slot: nobody knows when a task ends, and a status call frees it. */
const slotRetrySeconds = 5

/** *admit* for submits: request rate, then a slot and credits, in one atomic step and before anything is sent. */
export function admitSubmit (app: FastifyInstance, ledger: TaskLedger, keys: KeyRing, now: () => number) {
  const underRate = perSubject(app, call => call.plan.requestsPerMinute)

  return async (order: SubmitOrder, context: Context): Promise<AdmittedSubmit> => {
    const { call } = context
    await underRate(context)
    const key = order.keyId === undefined ? keys.choose(order.model) : keys.byId(order.keyId)
    if (key === undefined) throw noKey()
    call.keyId = key.id
    const reserved = await ledger.reserve({
      subject: call.session.subject,
      operation: 'generateTask',
      model: order.model,
      keyId: key.id,
      ...order.price,
      periodStart: periodAt(call.plan.period, now()).start,
      creditLimit: call.plan.credits,
      taskLimit: call.plan.concurrentTasks
    })
    if (reserved.granted) return { ...order, reservation: reserved.id, key }
    throw reserved.lacks === 'slot'
      ? gatewayError('GW_TOO_MANY_TASKS', { retryAfterSeconds: slotRetrySeconds })
      : gatewayError('GW_CREDITS_EXHAUSTED', { shouldRetry: false })
  }
}

/** *admit* for status calls: a budget of their own. */
export function admitStatus (app: FastifyInstance) {
  const underRate = perSubject(app, call => call.plan.pollsPerMinute)

  return async (order: StatusOrder, context: Context): Promise<StatusOrder> => {
    await underRate(context)
    return order
  }
}

/** No key may be used now, or the one that made a task has left the ring. A benched one is asked about by then. */
export function noKey () {
  return gatewayError('GW_NO_KEY', { retryAfterSeconds: probeIntervalMs / 1000 })
}

/**
 * One budget per subject and minute, shared by all routes that use this one limit. A fixed window: at most twice the
 * limit in any minute. Headers as in draft-ietf-httpapi-ratelimit-headers-03, which clients know best.
 */
function perSubject (app: FastifyInstance, limitOf: (call: SessionCall) => number) {
  const count = app.createRateLimit({
    max: request => limitOf(request.call as SessionCall),
    timeWindow: minuteMs,
    keyGenerator: (request: FastifyRequest) => (request.call as SessionCall).session.subject
  })
  return async ({ request, reply }: Context): Promise<void> => {
    const budget = await count(request)
    /* c8 ignore next - a type's other half: without an allow list nothing is ever exempt */
    if (budget.isAllowed) return
    writeBudget(reply, budget)
    if (budget.isExceeded) throw gatewayError('GW_RATE_LIMITED', { retryAfterSeconds: budget.ttlInSeconds })
  }
}

function writeBudget (reply: FastifyReply, budget: { max: number, remaining: number, ttlInSeconds: number }): void {
  reply
    .header('ratelimit-limit', budget.max)
    .header('ratelimit-remaining', budget.remaining)
    .header('ratelimit-reset', budget.ttlInSeconds)
}
