import type { FastifyRequest } from 'fastify'
import { type Above, levelOf } from '../domain/ceilings.ts'
import { type KeyChoice, type KeyTrouble, keyTrouble, probeIntervalMs } from '../domain/key-ring.ts'
import type { LedgerClient } from '../domain/ledger-client.ts'
import type {
  NoRoom, ReservationId, Reserved, ReservedAll, ReserveRequest, StoredResponse, Task
} from '../domain/ledger.ts'
import { periodAt } from '../domain/policy.ts'
import { budgetOf } from '../domain/session.ts'
import type { SlotSearch, StatusPoller } from '../domain/status-poller.ts'
import type { StatusReport } from '../domain/task-status.ts'
import { after, type Awaitable, instant, retryAfterSeconds } from '../domain/time.ts'
import {
  type NotAccepted, type Operation, readSubmitAnswer, readSubmitFailure, type SubmitOutcome, type Upstream,
  type UpstreamAnswer, type UpstreamKey, upstreamPath
} from '../domain/upstream.ts'
import { type ErrorCode, gatewayError } from '../errors.ts'
import type { AuthorizedSubmit } from './authorize.ts'
import {
  type Answer, answerFrom, type RequestContext, type RequestState, type SessionRequestState, storedAnswer
} from './context.ts'
import { type Delivery, keptFrom, type Outcome, type Repeatable, replay, tellsTask, watchRepeat } from './repeats.ts'
import type { Services } from './services.ts'

/**
 * Answers a repeat with what its first has come to. It counts as a poll; one that is too many leaves the answer to the
 * next.
 */
export async function replayEarlier (
  { repeats, rates }: Pick<Services, 'repeats' | 'rates'>,
  { repeat }: Repeatable,
  earlier: Outcome,
  context: RequestContext,
  idName: 'taskId' | 'batchId' = 'taskId'
): Promise<Answer> {
  try {
    await rates.replays(context)
  } catch (error) {
    if (repeat !== undefined) watchRepeat(repeats, repeat, false, context)
    throw error
  }
  if (repeat !== undefined) watchRepeat(repeats, repeat, tellsTask(earlier), context)
  return replay(earlier, context, idName)
}

/** What a guest has to show for a submit. Throws `GW_SCOPE_DENIED` and `GW_STORE_DOWN`. */
export type ProveGuest = (context: RequestContext) => Promise<void>

/** Guest sessions are disabled, including ones issued earlier. */
export const refuseGuest: ProveGuest = async () => {
  throw gatewayError('GW_SCOPE_DENIED', { about: 'Guests make no tasks here any more.' })
}

/** The key that made the task a submit goes on with, else the next in turn. Throws `GW_NO_KEY`. */
export function keyFor ({ keyId, model }: Pick<AuthorizedSubmit, 'keyId' | 'model'>, keys: KeyChoice): UpstreamKey {
  const key = keyId === undefined ? keys.choose(model) : keys.byId(keyId)
  if (key === undefined) throw noKey(keyId === undefined ? keys.readyInMs() : probeIntervalMs)
  return key
}

/** No key may be used now, or the one that made a task has left the ring. A benched one is asked about by then. */
export function noKey (waitMs = probeIntervalMs) {
  return gatewayError('GW_NO_KEY', { retryAfterSeconds: Math.ceil(waitMs / 1000) })
}

/** What is above the caller's subject: nothing, as long as nothing is set. */
export function aboveOf (
  ceilings: Services['ceilings'], { session, plan }: Pick<SessionRequestState, 'session' | 'plan'>, now: number
): Above | null {
  return ceilings && ceilings.above(plan.name, session.pool ?? plan.pool, now)
}

/** What is reserved for: a submit, unless `operation` names another kind of call. */
interface Payable extends Pick<AuthorizedSubmit, 'model' | 'price' | 'idempotency' | 'repeat' | 'deliverTo'> {
  readonly operation?: string
}

/** What a call takes of its subject's slots and credits, of its session's own limits, and of what is above them. */
export function reserveRequest (
  { operation = 'generateTask', model, price, idempotency, repeat, deliverTo }: Payable,
  call: SessionRequestState,
  key: UpstreamKey,
  { ceilings, clock }: Pick<Services, 'ceilings' | 'clock'>
): ReserveRequest {
  const { session, plan } = call
  const now = clock.now()
  const above = aboveOf(ceilings, call, now)
  return {
    subject: session.subject,
    operation,
    model,
    keyId: key.id,
    microcredits: price.microcredits,
    refundable: price.refundable,
    periodStart: periodAt(plan.period, now).start,
    creditLimit: plan.credits,
    taskLimit: plan.concurrentTasks,
    idempotency,
    repeat,
    session: budgetOf(session),
    deliverTo,
    holds: above?.holds,
    runningLimits: above?.runningLimits
  }
}

/**
 * Reserves for a submit; once more when no slot is free, after the subject's unfinished tasks were asked about: what
 * has ended, and nobody has noticed, must not keep its caller waiting. Each try is one atomic step.
 */
export function reserve (
  ledger: Pick<LedgerClient, 'reserve'>, slots: SlotSearch, request: ReserveRequest
): Awaitable<Reserved> {
  return after(ledger.reserve(request), reserved => lacksSlot(reserved)
    ? slots.search(request.subject, request.taskLimit).then(() => ledger.reserve(request))
    : reserved)
}

/** Whether it was refused for want of a slot, which a look at the subject's tasks may free. */
export function lacksSlot (reserved: Reserved | ReservedAll): boolean {
  return !reserved.granted && (reserved.reason === 'slot' || reserved.reason === 'running')
}

/** What the ledger had no room for. `slotInMs`: when there may be a slot. */
export function lacking (refused: NoRoom, slotInMs: number) {
  switch (refused.reason) {
    case 'uses': return gatewayError('GW_SESSION_SPENT', { shouldRetry: false })
    case 'credits': return gatewayError('GW_CREDITS_EXHAUSTED', { shouldRetry: false })
    case 'ceiling': return ceilingReached(refused)
    case 'slot': return gatewayError('GW_TOO_MANY_TASKS', { retryAfterSeconds: Math.ceil(slotInMs / 1000) })
    case 'running': return gatewayError('GW_TOO_MANY_TASKS', {
      about: `Too many unfinished tasks of ${levelNames[levelOf(refused.account)]}: wait until one has ended.`,
      retryAfterSeconds: Math.ceil(slotInMs / 1000)
    })
  }
}

const levelNames = { gateway: 'the whole gateway', pool: 'this pool', plan: 'this plan' } as const

/** The credits of an account above the subject are used up. Its level is told, its name and its figures are not. */
export function ceilingReached (
  { account, resetsAt }: Pick<Extract<NoRoom, { readonly reason: 'ceiling' }>, 'account' | 'resetsAt'>
) {
  const level = levelOf(account)
  const until = resetsAt === null ? 'until the operator adds some' : `until ${instant(resetsAt)}`
  const about = `The credits of ${levelNames[level]} are used up ${until}.`
  return gatewayError('GW_CREDITS_EXHAUSTED', { about, shouldRetry: false, ceiling: { level, resetsAt } })
}

/** The upstream did not want our key; nothing was accepted. */
export interface KeyRefused {
  readonly kind: 'our-key'
  readonly code: ErrorCode
}

/**
 * Makes one attempt. It is never repeated, but for one case: after a complete 401 or 402, where nothing was accepted,
 * there is one more with another key. A submit that goes on with an earlier task has only that task's key.
 */
export async function withKeyFailover<Accepted extends { readonly kind: 'accepted' }> (
  keys: KeyChoice,
  { model, keyId }: Pick<AuthorizedSubmit, 'model' | 'keyId'>,
  first: UpstreamKey,
  attempt: (key: UpstreamKey) => Promise<Accepted | NotAccepted>
): Promise<Accepted | NotAccepted | KeyRefused> {
  const outcome = await attempt(first)
  const trouble = await troubleOf(outcome, first, keys, model)
  if (trouble === null) return outcome
  const other = trouble.mayTryAnother && keyId === undefined ? keys.choose(model, first) : undefined
  if (other === undefined) return { kind: 'our-key', code: trouble.code }
  const second = await attempt(other)
  const again = await troubleOf(second, other, keys, model)
  return again === null ? second : { kind: 'our-key', code: again.code }
}

/** What an outcome says of our key; the ring learns it. */
function troubleOf (
  outcome: { readonly kind: 'accepted' } | NotAccepted, key: UpstreamKey, keys: KeyChoice, model: string
): Awaitable<KeyTrouble | null> {
  if (outcome.kind === 'accepted') keys.learn(key, model, 'accepted')
  return outcome.kind === 'refused' ? keyTrouble(outcome, key, keys, model) : null
}

/**
 * Nothing may be sent until this has resolved. Throws `GW_OVERLOADED` when the reservation has lapsed while it waited,
 * or what the store failed with; either way nothing will have been made that a repeat could ask for.
 */
export function sentOrThrow (marking: Promise<boolean>, delivery: Delivery | null): Promise<void> {
  const refuse = (error: unknown): never => {
    delivery?.released()
    throw error
  }
  return marking.then(isSent => {
    if (!isSent) refuse(gatewayError('GW_OVERLOADED', { retryAfterSeconds: 1 }))
  }, refuse)
}

/**
 * Sends a submit, once, and runs to its end whether or not the caller waits. It does not throw for what went wrong
 * upstream: that is an outcome too, so that nothing it has begun gets past *settle*.
 */
export function sendSubmit (
  upstream: Upstream, operation: Operation, { model, body }: AuthorizedSubmit, key: UpstreamKey, call: RequestState
): Promise<SubmitOutcome> {
  const { answer } = upstream.send({ method: 'POST', path: upstreamPath(operation, model), body, key })
  const note = noteWait(call)
  return answer.then(said => {
    note()
    return readSubmitAnswer(said)
  }, (error: unknown) => {
    note()
    return readSubmitFailure(error)
  })
}

/**
 * Asks how a task is, and shares the answer with all callers that ask meanwhile. A call that nobody waits for is
 * cancelled.
 */
export async function pollStatus (
  poller: StatusPoller, task: Task, { call, reply }: RequestContext
): Promise<StatusReport> {
  const { report, cancel } = poller.poll(task)
  reply.raw.once('close', cancel)
  try {
    return await timed(call, report)
  } finally {
    reply.raw.off('close', cancel)
  }
}

/** What the upstream says, the wait for it counted. */
export async function timed<Said> (call: RequestState, said: Promise<Said>): Promise<Said> {
  const note = noteWait(call)
  try {
    return await said
  } finally {
    note()
  }
}

/** Begins a wait for the upstream; what is returned ends it. */
function noteWait (call: RequestState): () => void {
  const start = performance.now()
  return () => { call.upstreamMs += performance.now() - start }
}

/** What has been reserved for a submit, and by what its answer may be asked for again. */
export interface OpenReservation {
  readonly id: ReservationId
  readonly idempotency: Repeatable['idempotency']
  /** Of a submit without an idempotency key; `null`: a caller that has one asks again with it. */
  readonly delivery: Delivery | null
}

/**
 * *settle* for a submit of which no task is known: what the upstream may have accepted stays charged, what it refused
 * leaves no trace but the answer that its idempotency key gives again. A refusal that may pass with time frees the key.
 */
export async function settleWithoutTask (
  { ledger, alarms }: Pick<Services, 'ledger' | 'alarms'>,
  { id, idempotency, delivery }: OpenReservation,
  outcome: NotAccepted | KeyRefused
): Promise<Answer> {
  const release = async (answer?: StoredResponse): Promise<void> => {
    await ledger.release(id, answer)
    delivery?.released()
  }
  switch (outcome.kind) {
    case 'refused':
      await release(idempotency !== undefined && isLasting(outcome) ? keptFrom(outcome.answer) : undefined)
      return passable(outcome.answer)
    case 'invalid':
      await release()
      throw gatewayError('GW_UPSTREAM_INVALID')
    case 'nothing-sent':
      await release()
      throw gatewayError('GW_UPSTREAM_UNREACHABLE', { cause: outcome.cause })
    case 'our-key':
      await release()
      throw ourTrouble(outcome.code)
    case 'unknown':
      alarms.raise({
        kind: 'unknown-outcome',
        about: '',
        fields: { reservation: id, reason: outcome.reason },
        text: 'a submit may have been accepted'
      })
      await ledger.markUnknown(id)
      throw unknownOutcome()
  }
}

/** Only answers the caller sees are stored for replay, and only if a retry would get the same. */
function isLasting ({ status, answer }: Extract<NotAccepted, { kind: 'refused' }>): boolean {
  return status < 500 && status !== 429 && !answer.leaksKey
}

/** What an accepted submit's idempotency key gives again; or its repeat, when its caller has gone already. */
export function answerToKeep (
  { idempotency, delivery }: OpenReservation, answer: UpstreamAnswer
): StoredResponse | undefined {
  return idempotency === undefined ? delivery?.keep(answer) : keptFrom(answer)
}

/**
 * The answer to a submit whose task has its owner. One that repeats our key is not shown: the task runs, and its owner
 * finds it in the list of its tasks; a retry gets this refusal again.
 */
export function acceptedAnswer ({ delivery }: OpenReservation, answer: UpstreamAnswer): Answer {
  if (answer.leaksKey) throw gatewayError('GW_UPSTREAM_INVALID', { shouldRetry: false })
  delivery?.told()
  return answerFrom(answer)
}

/** The upstream may have made a task that has no owner: a caller that repeats its submit may pay twice. */
export function unknownOutcome () {
  return gatewayError('GW_OUTCOME_UNKNOWN', { shouldRetry: false })
}

/**
 * *settle* for status calls: a final state has ended the task in the ledger before this caller, or anybody, hears of
 * it. A caller that asks too early gets the last answer, and when to come again.
 */
export function statusAnswer (report: StatusReport): Answer {
  switch (report.source) {
    case 'ledger':
      return storedAnswer(report.answer.body)
    case 'cached':
      return answerFrom({
        ...report.answer,
        retryAfter: String(retryAfterSeconds(report.nextInMs)),
        retryAfterMs: undefined
      })
    case 'upstream':
      return answerFrom(report.answer)
    case 'none':
      throw ourTrouble(report.code, report.cause)
  }
}

function ourTrouble (code: ErrorCode, cause?: unknown) {
  if (code === 'GW_NO_KEY') return noKey()
  return gatewayError(code, code === 'GW_OUTCOME_UNKNOWN' ? { shouldRetry: false } : { cause })
}

function passable (answer: UpstreamAnswer): Answer {
  if (answer.leaksKey) throw gatewayError('GW_UPSTREAM_INVALID')
  return answerFrom(answer)
}

/**
 * Tells, when a submit or a batch is over, that its subject has new tasks: streams that are open follow them from then
 * on, also when the caller has gone.
 */
export function announcement ({ events, clock: { now } }: Pick<Services, 'events' | 'clock'>) {
  return ({ call: { session, madeTaskIds, model } }: FastifyRequest): void => {
    for (const taskId of madeTaskIds) {
      // Where tasks were made there are a session and a model.
      events.publish({
        subject: session!.subject,
        taskId,
        model: model!,
        state: '',
        isFinal: false,
        at: now(),
        body: Buffer.alloc(0)
      })
    }
  }
}
