import type { FastifyInstance, FastifyRequest, RouteOptions } from 'fastify'
import { randomUUID } from 'node:crypto'
import { type LedgerClient, throwFirst } from '../../domain/ledger-client.ts'
import {
  fingerprintOf, type ReservationId, type ReservedAll, type ReserveRequest, type StoredResponse, type Task
} from '../../domain/ledger.ts'
import { periodAt, type Plan } from '../../domain/policy.ts'
import type { Price } from '../../domain/prices.ts'
import { recent } from '../../domain/recent.ts'
import { budgetOf, isGuest } from '../../domain/session.ts'
import { endBatch, type RefreshTask, refreshTask } from '../../domain/status-poller.ts'
import { askUpstream, type StatusOutcome } from '../../domain/task-status.ts'
import {
  batchOperations, batchRow, type Operation, readSubmitFailure, type Upstream, type UpstreamKey, upstreamPath
} from '../../domain/upstream.ts'
import { badRequest, gatewayError, isGatewayError } from '../../errors.ts'
import {
  type AuthorizedSubmit, checkOperation, findOwnTask, keyOfReferences, type OwnershipServices
} from '../../http/authorize.ts'
import type { Answer, RequestContext, RequestState, SessionRequestState } from '../../http/context.ts'
import { proxyRoute, type ProxyServices } from '../../http/pipeline.ts'
import { tellNearEnds } from '../../http/left.ts'
import { largeBodies } from '../../http/rates.ts'
import { idempotencyKeyOf, repeatOf, watchDelivery } from '../../http/repeats.ts'
import type { Services } from '../../http/services.ts'
import {
  aboveOf, acceptedAnswer, answerToKeep, keyFor, type KeyRefused, lacking, lacksSlot, type OpenReservation,
  replayEarlier, sentOrThrow, settleWithoutTask, statusAnswer, timed, unknownOutcome, withKeyFailover
} from '../../http/stages.ts'
import {
  type BatchAccepted, type BatchOutcome, endedTaskIds, maxBatchItems, readBatchAnswer, readBatchBody
} from './body.ts'

/** Up to fifty tasks in one call. These routes exist only when the operator opens them. */
export function batchRoutes (app: FastifyInstance, services: ProxyServices): void {
  for (const operation of batchOperations) {
    app.route(operation.kind === 'submit' ? batchRoute(operation, services) : batchStatusRoute(operation, services))
  }
}

/**
 * A batch takes the steps of a submit: ten tasks are ten requests, ten slots and ten prices, all of them or nothing,
 * and one call. The batch's own reservation says whose it is; it carries the idempotency key, costs nothing, and is
 * over when its tasks begin.
 */
function batchRoute (operation: Operation, services: ProxyServices): RouteOptions {
  const { rates, ledger, repeats, earliest, upstream, keys, slots } = services

  return proxyRoute(operation, services, largeBodies(services), async (context): Promise<Answer> => {
    const { call } = context
    call.enter('authorize')
    const batch = await authorizeBatch(context, operation, services)

    call.enter('admit')
    const earlier = await earliest(batch, context)
    if (earlier !== null) return await replayEarlier(services, batch, earlier, context, 'batchId')
    refuseEndlessWait(batch.items.length, call.plan)
    for (let count = 0; count < batch.items.length; count++) await rates.submits(context)
    const key = keyFor(batch, keys)
    call.keyId = key.id
    const requests = reserveRequests(batch, call, key, services)
    let reserved = await reserveBatch(services, requests, call)
    while (!reserved.granted) {
      if (reserved.reason !== 'duplicate') throw lacking(reserved, slots.nextInMs(call.session.subject))
      const made = await earliest(batch, context) // it was new a moment ago
      if (made !== null) return await replayEarlier(services, batch, made, context, 'batchId')
      reserved = await reserveBatch(services, requests, call)
    }
    const { ids } = reserved
    const [items, id] = [ids.slice(0, -1), ids.at(-1)!]
    const delivery = batch.repeat === undefined ? null : watchDelivery(repeats, id, context)
    const reservation: OpenReservation = { id, idempotency: batch.idempotency, delivery }

    call.enter('forward')
    const outcome = await withKeyFailover(keys, batch, key, async key => {
      call.keyId = key.id
      await sentOrThrow(ledger.markAllSent(ids, key.id), delivery)
      return await sendBatch(upstream, operation, batch, key, call)
    })

    call.enter('settle')
    if (outcome.kind !== 'accepted') return await settleWithoutTasks(services, reservation, items, outcome)
    const { batchId, taskIds, answer } = outcome
    tellUnknownItems(outcome, services)
    call.madeTaskIds = taskIds.filter(taskId => taskId !== null)
    await claimItems(ledger, reservation, items, outcome, call.session.subject)
    await claimBatch(ledger, reservation, outcome, context)
    call.taskId = batchId
    if (reserved.near !== undefined) tellNearEnds(services, reserved.near, context)
    return acceptedAnswer(reservation, answer)
  })
}

/** The status of a batch: asked each time, and cancelled with its caller. */
function batchStatusRoute (operation: Operation, services: ProxyServices): RouteOptions {
  const { rates, upstream, keys, ledger, poller } = services
  const ended = endedTasks(ledger, refreshTask({ ledger, poller }))

  return proxyRoute(operation, services, null, async (context): Promise<Answer> => {
    const { call, request } = context
    call.enter('authorize')
    const row = await authorizeBatchStatus(context, operation, services)

    call.enter('admit')
    await rates.polls(context)

    call.enter('forward')
    call.keyId = row.keyId
    const outcome = await askForBatch({ upstream, keys }, operation, row, context)

    call.enter('settle')
    const answer = statusAnswer(outcome)
    if (outcome.source === 'upstream') {
      ended.refresh(endedTaskIds(outcome.answer, maxBatchItems), call.session.subject, request)
    }
    return answer
  })
}

/** A batch that may be made: a submit that costs nothing itself, and the tasks in it. */
interface AuthorizedBatch extends AuthorizedSubmit {
  readonly items: ReadonlyArray<{ readonly clientItemId: string, readonly price: Price }>
  /** The `Idempotency-Key` that the upstream wants. */
  readonly batchKey: string
}

/** *authorize* for batches: what holds for a submit holds for each item, and all earlier tasks are of one account. */
async function authorizeBatch (
  context: RequestContext, operation: Operation, services: OwnershipServices & Pick<Services, 'submitRules'>
): Promise<AuthorizedBatch> {
  const { quoteOf, enforceCaps } = services.submitRules
  const model = checkOperation(operation, context)
  const { request: { body: bytes }, call: { session: { subject } } } = context
  if (isGuest(subject)) {
    throw gatewayError('GW_SCOPE_DENIED', { about: 'Guests submit one task at a time, with a proof for each.' })
  }
  if (!Buffer.isBuffer(bytes)) throw badRequest('Send a JSON body with a list of items.')
  const idempotency = idempotencyKeyOf(context, operation, bytes)
  const body = readBatchBody(bytes, {
    keyOf: key => fingerprintOf('batch-item', subject, key),
    hold: (input, index) => naming(`items.${index}`, () => enforceCaps(model, { input }))
  })
  const items = body.items.map(({ clientItemId, input }, index) =>
    ({ clientItemId, price: naming(`items.${index}`, () => quoteOf(model, { input }).price) }))
  return {
    model,
    items,
    price: { microcredits: 0, refundable: false },
    body: body.bytes,
    keyId: await keyOfReferences(services, context, body),
    idempotency,
    repeat: idempotency === undefined ? repeatOf(context, operation, bytes) : undefined,
    batchKey: idempotency === undefined
      ? randomUUID()
      : fingerprintOf('batch', subject, idempotency.key, idempotency.fingerprint)
  }
}

/** Runs a rule, and says in which item it was broken. */
export function naming<Result> (item: string, rule: () => Result): Result {
  try {
    return rule()
  } catch (error) {
    if (!isGatewayError(error)) throw error
    throw gatewayError(error.code, { ...error.detail, about: `In ${item}: ${error.detail.about}` })
  }
}

/** *authorize* for the status of a batch: it is the caller's and was made with that model; else it does not exist. */
async function authorizeBatchStatus (
  context: RequestContext, operation: Operation, services: OwnershipServices
): Promise<Task> {
  const model = checkOperation(operation, context)
  const { batchId } = context.request.params as { batchId: string }
  const row = await findOwnTask(services, context, batchId, { model, operation: batchRow })
  context.call.taskId = batchId
  return row
}

/** A batch larger than the plan never fits: it uses nothing up, and its caller need not wait. */
function refuseEndlessWait (count: number, { requestsPerMinute, concurrentTasks }: Plan): void {
  if (count > requestsPerMinute) throw gatewayError('GW_RATE_LIMITED', { shouldRetry: false })
  if (count > concurrentTasks) throw gatewayError('GW_TOO_MANY_TASKS', { shouldRetry: false })
}

/** One for each item, in their order, and the batch's own as the last. */
function reserveRequests (
  { items, model, price, idempotency, repeat }: AuthorizedBatch,
  call: SessionRequestState,
  key: UpstreamKey,
  { ceilings, clock }: Pick<Services, 'ceilings' | 'clock'>
): readonly ReserveRequest[] {
  const { session, plan } = call
  const now = clock.now()
  const above = aboveOf(ceilings, call, now)
  const common = { subject: session.subject, model, keyId: key.id, periodStart: periodAt(plan.period, now).start }
  const limits = { creditLimit: plan.credits, taskLimit: plan.concurrentTasks, session: budgetOf(session) }
  const ofItems = items.map(({ price }) => ({ ...common, ...limits, ...price, ...above, operation: 'generateTask' }))
  const own = { ...common, ...price, ...noLimits, operation: batchRow, idempotency, repeat }
  return [...ofItems, own]
}

const noLimits = { creditLimit: null, taskLimit: Number.MAX_SAFE_INTEGER } as const

/** Reserves for all items and the batch itself, or for none. */
async function reserveBatch (
  { ledger, slots }: Pick<Services, 'ledger' | 'slots'>,
  requests: readonly ReserveRequest[],
  { session: { subject }, plan }: SessionRequestState
): Promise<ReservedAll> {
  const reserved = await ledger.reserveAll(requests)
  if (!lacksSlot(reserved)) return reserved
  await slots.search(subject, plan.concurrentTasks)
  return await ledger.reserveAll(requests)
}

/** *forward* for batches: one call for all tasks, by the rules of a submit. */
async function sendBatch (
  upstream: Upstream,
  operation: Operation,
  { model, body, batchKey, items }: AuthorizedBatch,
  key: UpstreamKey,
  call: RequestState
): Promise<BatchOutcome> {
  const { answer } = upstream.send({
    method: 'POST', path: upstreamPath(operation, model), body, idempotencyKey: batchKey, key
  })
  const names = items.map(item => item.clientItemId)
  return await timed(call, answer).then(said => readBatchAnswer(said, names), readSubmitFailure)
}

async function askForBatch (
  services: Pick<Services, 'upstream' | 'keys'>, operation: Operation, row: Task, { call, reply }: RequestContext
): Promise<StatusOutcome> {
  const caller = new AbortController()
  const leave = (): void => caller.abort()
  reply.raw.once('close', leave)
  try {
    return await timed(call, askUpstream(services, operation, row, caller.signal))
  } finally {
    reply.raw.off('close', leave)
  }
}

/**
 * *settle* for a batch of which no task is known: it is one submit with many reservations.
 */
async function settleWithoutTasks (
  services: Pick<Services, 'ledger' | 'alarms'>,
  reservation: OpenReservation,
  items: readonly ReservationId[],
  outcome: Exclude<BatchOutcome, BatchAccepted> | KeyRefused
): Promise<Answer> {
  const { ledger } = services
  const end = outcome.kind === 'unknown' ? ledger.markUnknown : ledger.release
  const ends = items.map(id => end(id))
  const [whole] = await Promise.allSettled([settleWithoutTask(services, reservation, outcome), ...ends])
  if (whole.status === 'rejected') throw whole.reason
  return whole.value
}

function tellUnknownItems ({ batchId, taskIds }: BatchAccepted, { alarms }: Pick<Services, 'alarms'>): void {
  const count = taskIds.filter(taskId => taskId === null).length
  if (count === 0) return
  alarms.raise({
    kind: 'unknown-outcome', about: '', fields: { batchId, count }, text: 'items of a batch may have been accepted'
  })
}

/** Each item of an accepted batch has its own fate. Throws `GW_OUTCOME_UNKNOWN` when one of them has no owner. */
async function claimItems (
  ledger: LedgerClient,
  { id: own }: OpenReservation,
  items: readonly ReservationId[],
  { taskIds }: BatchAccepted,
  subject: string
): Promise<void> {
  const settled = await Promise.allSettled(items.map((item, index) => {
    const taskId = taskIds[index] ?? null
    if (taskId === null) return ledger.markUnknown(item)
    return claim(ledger, item, { taskId, subject, operation: 'generateTask', answer: undefined })
  }))
  if (settled.every(item => item.status === 'fulfilled' && item.value)) return
  // An answer with a task that has no owner yet, or another one, is not told, now or when it is asked for again.
  await ledger.markUnknownLater(own)
  throwFirst(settled)
  throw unknownOutcome()
}

/** Comes after the items: with this row the idempotency key gives the answer again. */
async function claimBatch (
  ledger: LedgerClient,
  reservation: OpenReservation,
  { batchId, answer }: BatchAccepted,
  { request, call }: RequestContext
): Promise<void> {
  const { id, delivery } = reservation
  const kept = answerToKeep(reservation, answer)
  if (batchId === null) {
    // Without an id no row stays that a repeat could be answered from; so, if there may be one, it is told what is
    // true.
    /* c8 ignore next: an answer in a form that no document has, whose caller has gone meanwhile */
    await (delivery?.isLost() === true ? ledger.markUnknown(id) : ledger.release(id, kept))
    return
  }
  const { subject } = call.session
  if (!await claim(ledger, id, { taskId: batchId, subject, operation: batchRow, answer: kept })) {
    delivery?.discard()
    throw unknownOutcome()
  }
  await endBatch(ledger, batchId).catch(error =>
    request.log.warn({ err: error, batchId }, 'the row of a batch has not ended; it takes a slot until it has')
  )
}

/** What was accepted, for whom. */
interface Claim extends Pick<Task, 'taskId' | 'subject' | 'operation'> {
  /** What the idempotency key gives again. */
  readonly answer: StoredResponse | undefined
}

/**
 * Gives an accepted task, or the batch, its owner. `false`: it is somebody else's, and not to be told.
 *
 * Keys of items and batches are remembered upstream: a key that was used before gets the task that was made before. It
 * is paid for, and was not made again, so that its reservation is given back.
 */
async function claim (
  ledger: LedgerClient, id: ReservationId, { taskId, subject, operation, answer }: Claim
): Promise<boolean> {
  if (await ledger.claim(id, taskId, answer)) return true
  const holder = await Promise.try(() => ledger.taskOf(taskId)).catch(() => null)
  const isOwn = holder?.subject === subject && holder.operation === operation
  await (isOwn ? ledger.release(id, answer) : ledger.markUnknown(id))
  return isOwn
}

/** Tasks that are remembered as asked about. */
const maxAsked = 10_000

/**
 * Tasks that the status of a batch says have ended. That is a hint: the ledger keeps a task's own last answer, byte for
 * byte, and a batch's is not that, nor is its shape known. So each of the caller's tasks is asked about, once, one
 * after the other and behind the caller's back: its slot is soon free. One that gave no end then is left to its
 * caller's status calls and to the reconciler.
 */
function endedTasks (ledger: Pick<LedgerClient, 'taskOf'>, refresh: RefreshTask) {
  const asked = recent<true>(maxAsked)

  const refreshAll = async (taskIds: readonly string[], subject: string): Promise<void> => {
    for (const taskId of taskIds) {
      const task = await ledger.taskOf(taskId)
      if (task === null || task.subject !== subject || task.stage !== 'claimed' || asked.has(taskId)) continue
      asked.set(taskId, true)
      await refresh(task)
    }
  }

  return {
    refresh (taskIds: readonly string[], subject: string, { log }: FastifyRequest): void {
      refreshAll(taskIds, subject).catch(error =>
        log.warn({ err: error }, 'tasks of a batch that have ended are left to their own status calls')
      )
    }
  }
}
