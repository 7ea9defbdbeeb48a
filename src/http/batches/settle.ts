import type { BatchAccepted } from '../../domain/bodies/batch-answer.ts'
import type { TaskLedger } from '../../domain/ledger/ledger.ts'
import type { PatientLedger } from '../../domain/ledger/patient-ledger.ts'
import { batchRow } from '../../domain/policy/catalog.ts'
import { endBatch } from '../../domain/status/task-ending.ts'
import { gatewayError } from '../../errors.ts'
import type { Context } from '../call.ts'
import { keptFrom } from '../idempotency.ts'
import { type Answer, answerFrom } from '../reply.ts'
import { settleSubmit } from '../settle.ts'
import type { AdmittedBatch } from './admit.ts'
import { claims } from './claims.ts'
import type { ForwardedBatch } from './forward.ts'
import { throwFirst } from './reservations.ts'

/**
 * *settle* for batches. When none was accepted, or none is known to be, the batch is one submit with many reservations;
 * else each item has its own fate.
 */
export function settleBatch (ledger: TaskLedger, patient: PatientLedger) {
  const settleWhole = settleSubmit(patient)
  const accept = acceptBatch(ledger, patient)
  return async (outcome: ForwardedBatch, order: AdmittedBatch, context: Context): Promise<Answer> => {
    if (outcome.kind === 'accepted') return await accept(outcome, order, context)
    const to = outcome.kind === 'unknown' ? 'unknown' : 'released'
    const items = order.itemReservations.map(id => patient.advance(id, { to }))
    const [whole] = await Promise.allSettled([settleWhole(outcome, order, context), ...items])
    if (whole.status === 'rejected') throw whole.reason
    return whole.value
  }
}

function acceptBatch (ledger: TaskLedger, patient: PatientLedger) {
  const claim = claims(ledger, patient)

  const settleItems = async ({ taskIds }: BatchAccepted, { itemReservations, reservation }: AdmittedBatch, subject: string): Promise<void> => {
    const settled = await Promise.allSettled(itemReservations.map((item, index) => {
      const id = taskIds[index] ?? null
      return id === null ? patient.advance(item, { to: 'unknown' }) : claim(item, { id, operation: 'generateTask', subject })
    }))
    if (settled.every(item => item.status === 'fulfilled' && item.value)) return
    // An answer with a task that has no owner yet, or another one, is not told, now or when it is asked for again.
    await ledger.advance(reservation, { to: 'unknown' }).catch(() => patient.owe(reservation, { to: 'unknown' }))
    throwFirst(settled)
    throw gatewayError('GW_OUTCOME_UNKNOWN', { shouldRetry: false })
  }

  /** Comes after the items: with this row the idempotency key gives the answer again. */
  const settleOwn = async ({ batchId, answer }: BatchAccepted, order: AdmittedBatch, { request, call }: Context): Promise<void> => {
    const { reservation, idempotency, delivery } = order
    const answerKept = idempotency === undefined ? delivery?.keep(answer) : keptFrom(answer)
    const kept = answerKept === undefined ? {} : { answer: answerKept }
    if (batchId === null) {
      // Without an id no row stays that a repeat could be answered from; so, if there may be one, it is told what is true.
      /* c8 ignore next: an answer in a form that no document has, whose caller has gone meanwhile */
      const step = delivery?.isLost === true ? { to: 'unknown' } as const : { to: 'released', ...kept } as const
      await patient.advance(reservation, step)
      return
    }
    if (!await claim(reservation, { id: batchId, operation: batchRow, subject: call.session.subject, ...kept })) {
      delivery?.discard()
      throw gatewayError('GW_OUTCOME_UNKNOWN', { shouldRetry: false })
    }
    await endBatch(ledger, batchId)
      .catch(error => request.log.warn({ err: error, batchId }, 'the row of a batch has not ended; it takes a slot until it has'))
  }

  return async (outcome: BatchAccepted, order: AdmittedBatch, context: Context): Promise<Answer> => {
    const { batchId, taskIds, answer } = outcome
    const lost = taskIds.filter(taskId => taskId === null).length
    if (lost > 0) context.request.log.error({ alarm: 'unknown-outcome', batchId, count: lost }, 'items of a batch may have been accepted')
    context.call.madeTaskIds = taskIds.filter(taskId => taskId !== null)
    await settleItems(outcome, order, context.call.session.subject)
    await settleOwn(outcome, order, context)
    context.call.taskId = batchId
    // As for a submit: the tasks run, and their owner finds them in the list of its tasks.
    if (answer.leaksKey) throw gatewayError('GW_UPSTREAM_INVALID', { shouldRetry: false })
    order.delivery?.told()
    return answerFrom(answer)
  }
}
