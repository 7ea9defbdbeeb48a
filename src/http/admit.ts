import type { FastifyRequest } from 'fastify'
import { type Guests, isGuest, proofHeader } from '../domain/guests.ts'
import { type KeyChoice, type KeyRing, probeIntervalMs } from '../domain/key-ring.ts'
import type { LedgerClient } from '../domain/ledger-client.ts'
import type { ReserveRequest, Repeats, ReservationId } from '../domain/ledger.ts'
import { periodAt } from '../domain/policy.ts'
import { budgetOf } from '../domain/session.ts'
import type { SlotSearch } from '../domain/slot-search.ts'
import type { UpstreamKey } from '../domain/upstream.ts'
import { gatewayError } from '../errors.ts'
import type { AuthorizedStatus, AuthorizedSubmit } from './authorize.ts'
import type { RequestContext, Replay, SessionRequestState } from './context.ts'
import type { Rate } from './rates.ts'
import { ipOf } from './receive.ts'
import {
  type Delivery, type Earliest, type Outcome, type Repeatable, replay, tellsTask, watchDelivery, watchRepeat
} from './repeats.ts'

/** A submit that is paid for: what it costs is set aside, and the key is chosen. */
export interface ReservedSubmit extends AuthorizedSubmit {
  readonly reservation: ReservationId
  readonly key: UpstreamKey
  /** Of a submit without an idempotency key; `null`: who has one asks again with it. */
  readonly delivery: Delivery | null
}

export interface AdmitOptions {
  readonly prove: Prove
  /** The budget of submits. */
  readonly submits: Rate
  /** The budget of answers that are given again. */
  readonly replays: Rate
  readonly ledger: Pick<LedgerClient, 'reserve'>
  readonly repeats: Repeats
  readonly earliest: Earliest
  readonly keys: KeyRing
  readonly slots: SlotSearch
  readonly now: () => number
}

/**
 * *admit* for submits: an idempotency key that is new, a guest's proof, the request rate, then a slot, a use and
 * credits,
 * in one atomic step and before anything is sent. What was made before, under this key or as a submit without one whose
 * answer was lost, has its answer, or its error, and costs no more than a poll.
 */
export function admitSubmit ({ prove, submits, replays, ledger, repeats, earliest, keys, slots, now }: AdmitOptions) {
  return async (order: AuthorizedSubmit, context: RequestContext): Promise<ReservedSubmit | Replay> => {
    const { call } = context
    const session = budgetOf(call.session)
    // Before the rate: who asks again for a lost answer is told, and not that it asks too often.
    const earlier = await earliest(order, context)
    if (earlier !== null) return await answerAgain({ repeats, replays }, order, earlier, context)
    await prove(context)
    await submits(context)
    const key = keyFor(order, keys)
    call.keyId = key.id
    const demand: ReserveRequest = {
      subject: call.session.subject,
      operation: 'generateTask',
      model: order.model,
      keyId: key.id,
      ...order.price,
      periodStart: periodAt(call.plan.period, now()).start,
      creditLimit: call.plan.credits,
      taskLimit: call.plan.concurrentTasks,
      idempotency: order.idempotency,
      repeat: order.repeat,
      session,
      deliverTo: order.deliverTo
    }
    for (;;) {
      const reserved = await withSlots(slots, call, () => ledger.reserve(demand))
      if (reserved.granted) {
        const delivery = order.repeat === undefined ? null : watchDelivery(repeats, reserved.id, context)
        return { ...order, reservation: reserved.id, key, delivery }
      }
      if (reserved.reason !== 'duplicate') throw lacking(reserved.reason, slots.nextInMs(call.session.subject))
      const made = await earliest(order, context) // it was new a moment ago
      if (made !== null) return await answerAgain({ repeats, replays }, order, made, context)
    }
  }
}

/**
 * Answers a repeat with what its first has come to. It counts as a poll; one that is too many leaves the answer to the
 * next.
 */
export async function answerAgain (
  { repeats, replays }: Pick<AdmitOptions, 'repeats' | 'replays'>,
  { repeat }: Repeatable,
  earlier: Outcome,
  context: RequestContext,
  idName?: 'taskId' | 'batchId'
): Promise<Replay> {
  try {
    await replays(context)
  } catch (error) {
    if (repeat !== undefined) watchRepeat(repeats, repeat, false, context)
    throw error
  }
  if (repeat !== undefined) watchRepeat(repeats, repeat, tellsTask(earlier), context)
  return replay(earlier, context, idName)
}

/** *admit* for status calls: a budget of their own. */
export function admitStatus (polls: Rate) {
  return async (order: AuthorizedStatus, context: RequestContext): Promise<AuthorizedStatus> => {
    await polls(context)
    return order
  }
}

/**
 * Reserves; and once more when a slot is lacking, after the subject's unfinished tasks have been asked about: what has
 * ended,
 * and nobody has noticed, must not keep its caller waiting.
 */
export async function withSlots<Said extends object> (
  slots: SlotSearch, { session: { subject }, plan }: SessionRequestState, reserve: () => Promise<Said>
): Promise<Said> {
  const said = await reserve()
  if (!('reason' in said) || said.reason !== 'slot') return said
  await slots.search(subject, plan.concurrentTasks)
  return await reserve()
}

/** What the ledger had no room for. `slotInMs`: when there may be a slot. */
export function lacking (what: 'slot' | 'uses' | 'credits', slotInMs: number) {
  if (what === 'slot') return gatewayError('GW_TOO_MANY_TASKS', { retryAfterSeconds: Math.ceil(slotInMs / 1000) })
  return gatewayError(what === 'uses' ? 'GW_SESSION_SPENT' : 'GW_CREDITS_EXHAUSTED', { shouldRetry: false })
}

/** The key that made the task a submit goes on with, else the next in turn. */
export function keyFor ({ keyId, model }: Pick<AuthorizedSubmit, 'keyId' | 'model'>, keys: KeyChoice): UpstreamKey {
  const key = keyId === undefined ? keys.choose(model) : keys.byId(keyId)
  if (key === undefined) throw noKey(keyId === undefined ? keys.readyInMs() : probeIntervalMs)
  return key
}

/** No key may be used now, or the one that made a task has left the ring. A benched one is asked about by then. */
export function noKey (waitMs = probeIntervalMs) {
  return gatewayError('GW_NO_KEY', { retryAfterSeconds: Math.ceil(waitMs / 1000) })
}

/** Part of *admit*: throws `GW_SCOPE_DENIED` unless the caller may submit now. A guest's proof is used up by asking. */
export type Prove = (context: RequestContext) => Promise<void>

/**
 * Each submit of a guest needs a proof of its own; of others none is asked. `null`: guests are off, also those of
 * yesterday.
 */
export function guestProver (guests: Guests | null): Prove {
  return async ({ request, call: { session: { subject } } }) => {
    if (!isGuest(subject)) return
    if (guests === null) throw gatewayError('GW_SCOPE_DENIED', { about: 'Guests make no tasks here any more.' })
    await guests.prove(proofOf(request), subject, ipOf(request))
  }
}

export function proofOf ({ headers }: FastifyRequest): string | undefined {
  return headers[proofHeader] as string | undefined
}
