import { type BatchOutcome, readBatchAnswer } from '../../domain/bodies/batch-answer.ts'
import { readSubmitFailure } from '../../domain/bodies/outcome.ts'
import { upstreamPath } from '../../domain/policy/catalog.ts'
import { statusCall, type StatusOutcome } from '../../domain/status/status-call.ts'
import type { StatusOrder } from '../authorize.ts'
import type { Context } from '../call.ts'
import { type ForwardOptions, type OurKey, timed, withKeys } from '../forward.ts'
import type { AdmittedBatch } from './admit.ts'
import type { Reservations } from './reservations.ts'

export type ForwardedBatch = BatchOutcome | OurKey

/** *forward* for batches: one call for all tasks, by the rules of a submit. */
export function forwardBatch ({ operation, upstream, keys }: ForwardOptions, { send }: Reservations) {
  return withKeys(keys, async (order: AdmittedBatch, key, call): Promise<BatchOutcome> => {
    await send([...order.itemReservations, order.reservation], key.id).catch((error: unknown) => {
      order.delivery?.released()
      throw error
    })
    const exchange = upstream.send({
      method: 'POST', path: upstreamPath(operation, order.model), body: order.body, idempotencyKey: order.batchKey, key
    })
    const names = order.items.map(item => item.clientItemId)
    return await timed(call, exchange.answer).then(answer => readBatchAnswer(answer, names), readSubmitFailure)
  })
}

/** *forward* for the status of a batch: asked each time, and cancelled with its caller. */
export function forwardBatchStatus ({ operation, ...options }: ForwardOptions) {
  return async ({ task }: StatusOrder, { call, reply }: Context): Promise<StatusOutcome> => {
    call.keyId = task.keyId
    const { outcome, cancel } = statusCall(options, operation, task)
    reply.raw.once('close', cancel)
    try {
      return await timed(call, outcome)
    } finally {
      reply.raw.off('close', cancel)
    }
  }
}
