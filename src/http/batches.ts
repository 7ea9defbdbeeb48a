import { randomUUID } from 'node:crypto'
import { readSubmitFailure } from '../domain/answers.ts'
import {
  type BatchAccepted, type BatchOutcome, endedTaskIds, maxBatchItems, readBatchAnswer, readBatchBody
} from '../domain/batch.ts'
import { isGuest } from '../domain/guests.ts'
import { type LedgerClient, throwFirst } from '../domain/ledger-client.ts'
import { type ReserveRequest, fingerprintOf, type StoredResponse, type ReservationId } from '../domain/ledger.ts'
import { periodAt, type Plan, type Price } from '../domain/policy.ts'
import { recent } from '../domain/recent.ts'
import { budgetOf } from '../domain/session.ts'
import { endBatch, type RefreshTask } from '../domain/status-poller.ts'
import { askUpstream, type StatusOutcome } from '../domain/task-status.ts'
import { batchRow, type Operation, upstreamPath } from '../domain/upstream.ts'
import { badRequest, gatewayError, isGatewayError } from '../errors.ts'
import { type AdmitOptions, type ReservedSubmit, answerAgain, keyFor, lacking, withSlots } from './admit.ts'
import {
  checkOperation,
  type Ownership,
  type AuthorizedStatus,
  type AuthorizedSubmit,
  type SubmitRules
} from './authorize.ts'
import { type Answer, answerFrom, type RequestContext, type Replay } from './context.ts'
import { type ForwardOptions, type OurKey, timed, withKeys } from './forward.ts'
import { idempotencyKeyOf, keptFrom, repeatOf, watchDelivery } from './repeats.ts'
import { settleStatus, settleSubmit } from './settle.ts'

/** A batch whose every task is paid for. `reservation` is the batch's own. */
export interface AdmittedBatch extends ReservedSubmit, BatchOrder {
  /** One for each item, in their order. */
  readonly itemReservations: readonly ReservationId[]
}

export interface BatchAdmitOptions extends Omit<AdmitOptions, 'ledger' | 'prove'> {
  readonly ledger: Pick<LedgerClient, 'reserveAll'>
}

/**
 * *admit* for batches: a batch of ten is ten requests, ten slots and ten prices, all of them or nothing. Its own
 * reservation says whose the batch is; it carries the idempotency key, costs nothing, and is over when its tasks begin.
 */
export function admitBatch (
  { submits, replays, ledger, repeats, earliest, keys, slots, now }: BatchAdmitOptions
) {
  return async (order: BatchOrder, context: RequestContext): Promise<AdmittedBatch | Replay> => {
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
    const limits = { creditLimit: plan.credits, taskLimit: plan.concurrentTasks, session }
    const demands: ReserveRequest[] = order.items.map(({ price }) => ({
      ...common,
      ...limits,
      ...price,
      operation: 'generateTask'
    }))
    const { idempotency, repeat } = order
    const own: ReserveRequest = {
      ...common,
      ...order.price,
      ...noLimits,
      operation: batchRow,
      idempotency,
      repeat
    }
    for (;;) {
      const reserved = await withSlots(slots, call, () => ledger.reserveAll([...demands, own]))
        .catch(async (error: unknown) => {
          // One of the items has failed, and its own may have taken a first all the same.
          if (repeat !== undefined) await repeats.end(subject, repeat, false).catch(() => { /* it is owed */ })
          throw error
        })
      if (reserved.granted) {
        const reservation = reserved.ids.at(-1)!
        const delivery = repeat === undefined ? null : watchDelivery(repeats, reservation, context)
        return { ...order, key, itemReservations: reserved.ids.slice(0, -1), reservation, delivery }
      }
      if (reserved.reason !== 'duplicate') throw lacking(reserved.reason, slots.nextInMs(subject))
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

/** A batch that may be made: a submit that costs nothing itself, and the tasks in it. */
export interface BatchOrder extends AuthorizedSubmit {
  readonly items: ReadonlyArray<{ readonly clientItemId: string, readonly price: Price }>
  /** The `Idempotency-Key` that the upstream wants. */
  readonly batchKey: string
}

type Rules = Pick<SubmitRules, 'priceOf' | 'enforceCaps'>

/** *authorize* for batches: what holds for a submit holds for each item, and all earlier tasks are of one account. */
export function authorizeBatch (operation: Operation, { keyOfReferences }: Ownership, { priceOf, enforceCaps }: Rules) {
  return async (context: RequestContext): Promise<BatchOrder> => {
    const model = checkOperation(operation, context)
    const {
      request: { body: bytes },
      call: {
        session: { subject }
      }
    } = context
    if (isGuest(subject)) {
      throw gatewayError('GW_SCOPE_DENIED', { about: 'Guests submit one task at a time, with a proof for each.' })
    }
    if (!Buffer.isBuffer(bytes)) throw badRequest('Send a JSON body with a list of items.')
    const idempotency = idempotencyKeyOf(context, operation, bytes)
    const body = readBatchBody(bytes, key => fingerprintOf('batch-item', subject, key))
    const items = body.items.map(({ clientItemId, input }, index) => naming(`items.${index}`, () => {
      enforceCaps(model, input)
      return { clientItemId, price: priceOf(model, input) }
    }))
    return {
      model,
      items,
      price: { microcredits: 0, refundable: false },
      body: body.bytes,
      keyId: await keyOfReferences(body, context),
      idempotency,
      repeat: idempotency === undefined ? repeatOf(context, operation, bytes) : undefined,
      batchKey:
        idempotency === undefined
          ? randomUUID()
          : fingerprintOf('batch', subject, idempotency.key, idempotency.fingerprint)
    }
  }
}

/** *authorize* for the status of a batch: it is the caller's and was made with that model; else it does not exist. */
export function authorizeBatchStatus (operation: Operation, { own }: Ownership) {
  return async (context: RequestContext): Promise<AuthorizedStatus> => {
    const model = checkOperation(operation, context)
    const { batchId } = context.request.params as { batchId: string }
    const task = await own(batchId, context, model, batchRow)
    context.call.taskId = batchId
    // Its row ends when its tasks begin: what it ended with is nothing to answer with.
    return { task: { ...task, finalAnswer: null } }
  }
}

/** Runs a rule, and says in which item it was broken. */
function naming<Result> (item: string, rule: () => Result): Result {
  try {
    return rule()
  } catch (error) {
    if (!isGatewayError(error)) throw error
    throw gatewayError(error.code, { ...error.detail, about: `In ${item}: ${error.detail.about}` })
  }
}

export interface Claim {
  /** Of a task, or of the batch itself. */
  readonly id: string
  readonly operation: string
  readonly subject: string
  /** What the idempotency key gives again. */
  readonly answer?: StoredResponse | undefined
}

/**
 * Gives an accepted task its owner. `false`: it is somebody else's, and not to be told.
 *
 * Keys of items and batches are remembered upstream: a key that was used before gets the task that was made before. It
 * is paid for, and was not made again, so that its reservation is given back.
 */
export type ClaimTask = (reservation: ReservationId, claim: Claim) => Promise<boolean>

export function claims (ledger: LedgerClient): ClaimTask {
  return async (reservation, { id, operation, subject, answer }) => {
    if (await ledger.claim(reservation, id, answer)) return true
    const holder = await ledger.taskOf(id).catch(() => null)
    const isOwn = holder?.subject === subject && holder.operation === operation
    await (isOwn ? ledger.release(reservation, answer) : ledger.markUnknown(reservation))
    return isOwn
  }
}

export type ForwardedBatch = BatchOutcome | OurKey

/** *forward* for batches: one call for all tasks, by the rules of a submit. */
export function forwardBatch (
  { operation, upstream, keys }: ForwardOptions, ledger: Pick<LedgerClient, 'markAllSent'>
) {
  const note = async ({ itemReservations, reservation, delivery }: AdmittedBatch, keyId: string): Promise<boolean> => {
    let isNoted = false
    try {
      isNoted = await ledger.markAllSent([...itemReservations, reservation], keyId)
    } finally {
      if (!isNoted) delivery?.released()
    }
    return isNoted
  }

  return withKeys(keys, async (order: AdmittedBatch, key, call): Promise<BatchOutcome> => {
    if (!await note(order, key.id)) throw gatewayError('GW_OVERLOADED', { retryAfterSeconds: 1 }) // one lapsed while it waited
    const exchange = upstream.send({
      method: 'POST', path: upstreamPath(operation, order.model), body: order.body, idempotencyKey: order.batchKey, key
    })
    const names = order.items.map(item => item.clientItemId)
    return await timed(call, exchange.answer).then(answer => readBatchAnswer(answer, names), readSubmitFailure)
  })
}

/** *forward* for the status of a batch: asked each time, and cancelled with its caller. */
export function forwardBatchStatus ({ operation, ...options }: ForwardOptions) {
  return async ({ task }: AuthorizedStatus, { call, reply }: RequestContext): Promise<StatusOutcome> => {
    call.keyId = task.keyId
    const caller = new AbortController()
    const leave = (): void => caller.abort()
    reply.raw.once('close', leave)
    try {
      return await timed(call, askUpstream(options, operation, task, caller.signal))
    } finally {
      reply.raw.off('close', leave)
    }
  }
}

/**
 * *settle* for batches. When none was accepted, or none is known to be, the batch is one submit with many reservations;
 * else each item has its own fate.
 */
export function settleBatch (ledger: LedgerClient) {
  const settleWhole = settleSubmit(ledger)
  const accept = acceptBatch(ledger)
  return async (outcome: ForwardedBatch, order: AdmittedBatch, context: RequestContext): Promise<Answer> => {
    if (outcome.kind === 'accepted') return await accept(outcome, order, context)
    const end = outcome.kind === 'unknown' ? ledger.markUnknown : ledger.release
    const items = order.itemReservations.map(id => end(id))
    const [whole] = await Promise.allSettled([settleWhole(outcome, order, context), ...items])
    if (whole.status === 'rejected') throw whole.reason
    return whole.value
  }
}

function acceptBatch (ledger: LedgerClient) {
  const claim = claims(ledger)

  const settleItems = async (
    { taskIds }: BatchAccepted,
    { itemReservations, reservation }: AdmittedBatch,
    subject: string
  ): Promise<void> => {
    const settled = await Promise.allSettled(
      itemReservations.map((item, index) => {
        const id = taskIds[index] ?? null
        return id === null ? ledger.markUnknown(item) : claim(item, { id, operation: 'generateTask', subject })
      })
    )
    if (settled.every(item => item.status === 'fulfilled' && item.value)) return
    // An answer with a task that has no owner yet, or another one, is not told, now or when it is asked for again.
    await ledger.markUnknownLater(reservation)
    throwFirst(settled)
    throw gatewayError('GW_OUTCOME_UNKNOWN', { shouldRetry: false })
  }

  /** Comes after the items: with this row the idempotency key gives the answer again. */
  const settleOwn = async (
    { batchId, answer }: BatchAccepted,
    order: AdmittedBatch,
    { request, call }: RequestContext
  ): Promise<void> => {
    const { reservation, idempotency, delivery } = order
    const kept = idempotency === undefined ? delivery?.keep(answer) : keptFrom(answer)
    if (batchId === null) {
      // Without an id no row stays that a repeat could be answered from; so, if there may be one, it is told what is
      // true.
      /* c8 ignore next: an answer in a form that no document has, whose caller has gone meanwhile */
      await (delivery?.isLost === true ? ledger.markUnknown(reservation) : ledger.release(reservation, kept))
      return
    }
    if (!await claim(reservation, { id: batchId, operation: batchRow, subject: call.session.subject, answer: kept })) {
      delivery?.discard()
      throw gatewayError('GW_OUTCOME_UNKNOWN', { shouldRetry: false })
    }
    await endBatch(ledger, batchId).catch(error =>
      request.log.warn({ err: error, batchId }, 'the row of a batch has not ended; it takes a slot until it has')
    )
  }

  return async (outcome: BatchAccepted, order: AdmittedBatch, context: RequestContext): Promise<Answer> => {
    const { batchId, taskIds, answer } = outcome
    const lost = taskIds.filter(taskId => taskId === null).length
    if (lost > 0) {
      context.request.log.error(
        { alarm: 'unknown-outcome', batchId, count: lost },
        'items of a batch may have been accepted'
      )
    }
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

/** Tasks that are remembered as asked about. */
const maxAsked = 10_000

/**
 * *settle* for the status of a batch. That a task has ended is a hint here: the ledger keeps a task's own last answer,
 * byte for byte, and a batch's is not that, nor is its shape known. So each of the caller's tasks that it says have
 * ended
 * is asked about, once, one after the other and behind the caller's back: its slot is soon free. One that gave no end
 * then is left to its caller's status calls and to the reconciler.
 */
export function settleBatchStatus (ledger: Pick<LedgerClient, 'taskOf'>, end: RefreshTask) {
  const asked = recent<true>(maxAsked)

  const endTasks = async (taskIds: readonly string[], subject: string): Promise<void> => {
    for (const taskId of taskIds) {
      const task = await ledger.taskOf(taskId)
      if (task === null || task.subject !== subject || task.stage !== 'claimed' || asked.has(taskId)) continue
      asked.set(taskId, true)
      await end(task)
    }
  }

  return async (outcome: StatusOutcome, _order: AuthorizedStatus, context: RequestContext): Promise<Answer> => {
    const answer = await settleStatus(outcome)
    if (outcome.source === 'upstream') {
      const {
        request,
        call: {
          session: { subject }
        }
      } = context
      endTasks(endedTaskIds(outcome.answer, maxBatchItems), subject).catch(error =>
        request.log.warn({ err: error }, 'tasks of a batch that have ended are left to their own status calls')
      )
    }
    return answer
  }
}
