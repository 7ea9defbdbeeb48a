import { LRUCache } from 'lru-cache'
import { randomUUID } from 'node:crypto'
import { readSubmitFailure } from '../domain/answers.ts'
import {
  type BatchAccepted, type BatchOutcome, endedTaskIds, maxBatchItems, readBatchAnswer, readBatchBody
} from '../domain/batch.ts'
import { isGuest } from '../domain/guests.ts'
import type { PatientLedger } from '../domain/ledger-client.ts'
import {
  type ReserveRequest, fingerprintOf, type StoredResponse, type ReservationId, type Reserved, type TaskLedger
} from '../domain/ledger.ts'
import { periodAt, type Plan, type Price } from '../domain/policy.ts'
import { budgetOf } from '../domain/session.ts'
import { endBatch, type RefreshTask, statusCall, type StatusOutcome } from '../domain/status-poller.ts'
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

/**
 * *admit* for batches: a batch of ten is ten requests, ten slots and ten prices, all of them or nothing. Its own
 * reservation says whose the batch is; it carries the idempotency key, costs nothing, and is over when its tasks begin.
 */
export function admitBatch (
  { submits, replays, repeats, earliest, keys, slots, now }: Omit<AdmitOptions, 'ledger' | 'prove'>,
  { reserve }: Reservations
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
    const limits = { creditLimit: plan.credits, taskLimit: plan.concurrentTasks, ...(session && { session }) }
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
      ...(idempotency && { idempotency }),
      ...(repeat && { repeat })
    }
    for (;;) {
      const reserved = await withSlots(slots, call, () => reserve([...demands, own])).catch(async (error: unknown) => {
        // One of the items has failed, and its own may have taken a first all the same.
        if (repeat !== undefined) await repeats.end(subject, repeat, false).catch(() => { /* it is owed */ })
        throw error
      })
      if (!('reason' in reserved)) {
        const reservation = reserved.at(-1)!
        const delivery = repeat === undefined ? null : watchDelivery(repeats, reservation, context)
        return { ...order, key, itemReservations: reserved.slice(0, -1), reservation, delivery }
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
  readonly answer?: StoredResponse
}

/**
 * Gives an accepted task its owner. `false`: it is somebody else's, and not to be told.
 *
 * Keys of items and batches are remembered upstream: a key that was used before gets the task that was made before. It
 * is paid for, and was not made again, so that its reservation is given back.
 */
export type ClaimTask = (reservation: ReservationId, claim: Claim) => Promise<boolean>

export function claims (ledger: TaskLedger, patient: PatientLedger): ClaimTask {
  return async (reservation, { id, operation, subject, answer }) => {
    const kept = answer === undefined ? {} : { answer }
    if (await patient.advance(reservation, { to: 'claimed', taskId: id, ...kept })) return true
    const holder = await ledger.taskOf(id).catch(() => null)
    const isOwn = holder?.subject === subject && holder.operation === operation
    await patient.advance(reservation, isOwn ? { to: 'released', ...kept } : { to: 'unknown' })
    return isOwn
  }
}

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
  return async ({ task }: AuthorizedStatus, { call, reply }: RequestContext): Promise<StatusOutcome> => {
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

type Refused = Extract<Reserved, { readonly granted: false }>

/** The reservations of one batch: all of them take a step, or all are given back. */
export interface Reservations {
  /**
   * Asked for in one go, so that of two batches with room for one the ledger sees first the whole of the one. What is
   * refused is told; a used idempotency key before anything else.
   */
  reserve (demands: readonly ReserveRequest[]): Promise<readonly ReservationId[] | Refused>
  /** Notes that all are being sent. Throws what kept it from one of them. */
  send (ids: readonly ReservationId[], keyId: string): Promise<void>
}

export function reservations (ledger: TaskLedger, patient: PatientLedger): Reservations {
  /** A store that fails here is told when it is back. */
  const giveBack = async (ids: readonly ReservationId[]): Promise<void> => {
    await Promise.all(
      ids.map(id => ledger.advance(id, { to: 'released' }).catch(() => patient.enqueue(id, { to: 'released' })))
    )
  }

  return {
    async reserve (demands) {
      const asked = await Promise.allSettled(demands.map(demand => ledger.reserve(demand)))
      const answers = asked.flatMap(one => one.status === 'fulfilled' ? one.value : [])
      const ids = answers.flatMap(answer => answer.granted ? answer.id : [])
      if (ids.length === demands.length) return ids
      await giveBack(ids)
      throwFirst(asked)
      const refused = answers.filter(answer => !answer.granted)
      return refused.find(({ reason }) => reason === 'duplicate') ?? refused[0]!
    },
    async send (ids, keyId) {
      const noted = await Promise.allSettled(ids.map(id => ledger.advance(id, { to: 'sent', keyId })))
      if (noted.every(one => one.status === 'fulfilled' && one.value)) return
      await giveBack(ids)
      throwFirst(noted)
      throw gatewayError('GW_OVERLOADED', { retryAfterSeconds: 1 }) // one lapsed while it waited
    }
  }
}

/** Throws what the first of them failed with, if any did. */
export function throwFirst (results: ReadonlyArray<PromiseSettledResult<unknown>>): void {
  const failed = results.find(result => result.status === 'rejected')
  if (failed !== undefined) throw failed.reason
}

/**
 * *settle* for batches. When none was accepted, or none is known to be, the batch is one submit with many reservations;
 * else each item has its own fate.
 */
export function settleBatch (ledger: TaskLedger, patient: PatientLedger) {
  const settleWhole = settleSubmit(patient)
  const accept = acceptBatch(ledger, patient)
  return async (outcome: ForwardedBatch, order: AdmittedBatch, context: RequestContext): Promise<Answer> => {
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

  const settleItems = async (
    { taskIds }: BatchAccepted,
    { itemReservations, reservation }: AdmittedBatch,
    subject: string
  ): Promise<void> => {
    const settled = await Promise.allSettled(
      itemReservations.map((item, index) => {
        const id = taskIds[index] ?? null
        return id === null
          ? patient.advance(item, { to: 'unknown' })
          : claim(item, { id, operation: 'generateTask', subject })
      })
    )
    if (settled.every(item => item.status === 'fulfilled' && item.value)) return
    // An answer with a task that has no owner yet, or another one, is not told, now or when it is asked for again.
    await ledger.advance(reservation, { to: 'unknown' }).catch(() => patient.enqueue(reservation, { to: 'unknown' }))
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
    const answerKept = idempotency === undefined ? delivery?.keep(answer) : keptFrom(answer)
    const kept = answerKept === undefined ? {} : { answer: answerKept }
    if (batchId === null) {
      // Without an id no row stays that a repeat could be answered from; so, if there may be one, it is told what is
      // true.
      /* c8 ignore next: an answer in a form that no document has, whose caller has gone meanwhile */
      const step = delivery?.isLost === true ? { to: 'unknown' } as const : { to: 'released', ...kept } as const
      await patient.advance(reservation, step)
      return
    }
    if (!await claim(reservation, { id: batchId, operation: batchRow, subject: call.session.subject, ...kept })) {
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
export function settleBatchStatus (ledger: TaskLedger, end: RefreshTask) {
  const asked = new LRUCache<string, true>({ max: maxAsked })

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
    if (outcome.kind === 'answered') {
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
