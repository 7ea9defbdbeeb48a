import type { Demand, ReservationId } from '../../domain/ledger/ledger.ts'
import { batchRow } from '../../domain/policy/catalog.ts'
import { periodAt, type Plan } from '../../domain/policy/plan.ts'
import { budgetOf } from '../../domain/sessions/session.ts'
import { gatewayError } from '../../errors.ts'
import { type AdmitOptions, type AdmittedSubmit, answerAgain, keyFor, lacking, withSlots } from '../admit.ts'
import type { Context } from '../call.ts'
import { watchDelivery } from '../repeats.ts'
import type { Replay } from '../reply.ts'
import type { BatchOrder } from './authorize.ts'
import type { Reservations } from './reservations.ts'

/** A batch whose every task is paid for. `reservation` is the batch's own. */
export interface AdmittedBatch extends AdmittedSubmit, BatchOrder {
  /** One for each item, in their order. */
  readonly itemReservations: readonly ReservationId[]
}

/**
 * *admit* for batches: a batch of ten is ten requests, ten slots and ten prices, all of them or nothing. Its own
 * reservation says whose the batch is; it carries the idempotency key, costs nothing, and is over when its tasks begin.
 */
export function admitBatch ({ submits, replays, repeats, earliest, keys, slots, now }: Omit<AdmitOptions, 'ledger' | 'prove'>, { reserve }: Reservations) {
  return async (order: BatchOrder, context: Context): Promise<AdmittedBatch | Replay> => {
    const { call } = context
    const { session: { subject }, plan } = call
    const earlier = await earliest(order, context)
    if (earlier !== null) return await answerAgain({ repeats, replays }, order, earlier, context, 'batchId')
    refuseEndlessWait(order.items.length, plan)
    for (let count = 0; count < order.items.length; count++) await submits(context)
    const key = keyFor(order, keys)
    call.keyId = key.id
    const common = { subject, model: order.model, keyId: key.id, periodStart: periodAt(plan.period, now()).start }
    const session = budgetOf(call.session)
    const limits = { creditLimit: plan.credits, taskLimit: plan.concurrentTasks, ...(session && { session }) }
    const demands: Demand[] = order.items.map(({ price }) => ({ ...common, ...limits, ...price, operation: 'generateTask' }))
    const { idempotency, repeat } = order
    const own: Demand = { ...common, ...order.price, ...noLimits, operation: batchRow, ...(idempotency && { idempotency }), ...(repeat && { repeat }) }
    for (;;) {
      const reserved = await withSlots(slots, call, () => reserve([...demands, own])).catch(async (error: unknown) => {
        // One of the items has failed, and its own may have taken a first all the same.
        if (repeat !== undefined) await repeats.end(subject, repeat, false).catch(() => { /* it is owed */ })
        throw error
      })
      if (!('lacks' in reserved)) {
        const reservation = reserved.at(-1)!
        const delivery = repeat === undefined ? null : watchDelivery(repeats, reservation, context)
        return { ...order, key, itemReservations: reserved.slice(0, -1), reservation, delivery }
      }
      if (reserved.lacks !== 'novelty') throw lacking(reserved.lacks, slots.nextInMs(subject))
      const made = await earliest(order, context) // it was new a moment ago
      if (made !== null) return await answerAgain({ repeats, replays }, order, made, context, 'batchId')
    }
  }
}

const noLimits = { creditLimit: null, taskLimit: Number.MAX_SAFE_INTEGER } as const

/** A batch larger than the plan never fits: it uses nothing up, and its caller need not wait. */
function refuseEndlessWait (count: number, { requestsPerMinute, concurrentTasks }: Plan): void {
  if (count > requestsPerMinute) throw gatewayError('GW_RATE_LIMITED', { shouldRetry: false })
  if (count > concurrentTasks) throw gatewayError('GW_TOO_MANY_TASKS', { shouldRetry: false })
}
