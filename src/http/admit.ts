import { type KeyRing, probeIntervalMs } from '../domain/keys.ts'
import type { ReservationId, TaskLedger } from '../domain/ledger.ts'
import { periodAt } from '../domain/plan.ts'
import type { UpstreamKey } from '../domain/upstream.ts'
import { gatewayError } from '../errors.ts'
import type { StatusOrder, SubmitOrder } from './authorize.ts'
import type { Context } from './call.ts'
import type { Rate } from './rates.ts'

/** A submit that is paid for: what it costs is set aside, and the key is chosen. */
export interface AdmittedSubmit extends SubmitOrder {
  readonly reservation: ReservationId
  readonly key: UpstreamKey
}

/** When to ask again for a slot: nobody knows when a task ends, and a status call frees it. */
const slotRetrySeconds = 5

/** *admit* for submits: request rate, then a slot and credits, in one atomic step and before anything is sent. */
export function admitSubmit (submits: Rate, ledger: TaskLedger, keys: KeyRing, now: () => number) {
  return async (order: SubmitOrder, context: Context): Promise<AdmittedSubmit> => {
    const { call } = context
    await submits(context)
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
export function admitStatus (polls: Rate) {
  return async (order: StatusOrder, context: Context): Promise<StatusOrder> => {
    await polls(context)
    return order
  }
}

/** No key may be used now, or the one that made a task has left the ring. A benched one is asked about by then. */
export function noKey () {
  return gatewayError('GW_NO_KEY', { retryAfterSeconds: probeIntervalMs / 1000 })
}
