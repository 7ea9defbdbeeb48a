import { type KeyChoice, probeIntervalMs } from '../domain/key-ring.ts'
import type { LedgerClient } from '../domain/ledger-client.ts'
import type { Reserved, ReservedAll, ReserveRequest } from '../domain/ledger.ts'
import { periodAt } from '../domain/policy.ts'
import { budgetOf } from '../domain/session.ts'
import type { SlotSearch } from '../domain/slot-search.ts'
import type { UpstreamKey } from '../domain/upstream.ts'
import { gatewayError } from '../errors.ts'
import type { AuthorizedSubmit } from './authorize.ts'
import type { Answer, RequestContext, SessionRequestState } from './context.ts'
import { type Outcome, type Repeatable, replay, tellsTask, watchRepeat } from './repeats.ts'
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

/** What a submit takes of its subject's slots and credits, and of its session's own limits. */
export function reserveRequest (
  { model, price, idempotency, repeat, deliverTo }: AuthorizedSubmit,
  { session, plan }: SessionRequestState,
  key: UpstreamKey,
  now: number
): ReserveRequest {
  return {
    subject: session.subject,
    operation: 'generateTask',
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
    deliverTo
  }
}

/**
 * Reserves for a submit; once more when no slot is free, after the subject's unfinished tasks were asked about: what
 * has ended, and nobody has noticed, must not keep its caller waiting. Each try is one atomic step.
 */
export async function reserve (
  ledger: Pick<LedgerClient, 'reserve'>, slots: SlotSearch, request: ReserveRequest
): Promise<Reserved> {
  const reserved = await ledger.reserve(request)
  if (!lacksSlot(reserved)) return reserved
  await slots.search(request.subject, request.taskLimit)
  return await ledger.reserve(request)
}

/** Whether it was refused for want of a slot, which a look at the subject's tasks may free. */
export function lacksSlot (reserved: Reserved | ReservedAll): boolean {
  return !reserved.granted && reserved.reason === 'slot'
}

/** What the ledger had no room for. `slotInMs`: when there may be a slot. */
export function lacking (reason: 'slot' | 'uses' | 'credits', slotInMs: number) {
  if (reason === 'slot') return gatewayError('GW_TOO_MANY_TASKS', { retryAfterSeconds: Math.ceil(slotInMs / 1000) })
  return gatewayError(reason === 'uses' ? 'GW_SESSION_SPENT' : 'GW_CREDITS_EXHAUSTED', { shouldRetry: false })
}
