import { readSubmitAnswer, readSubmitFailure, type SubmitOutcome } from '../domain/answers.ts'
import type { BatchOutcome } from '../domain/batch.ts'
import { type KeyRing, keyTrouble } from '../domain/key-ring.ts'
import type { LedgerClient } from '../domain/ledger-client.ts'
import type { StatusPoller } from '../domain/status-poller.ts'
import type { LedgerStatus, StatusReport } from '../domain/task-status.ts'
import { type Operation, type Upstream, type UpstreamKey, upstreamPath } from '../domain/upstream.ts'
import { type ErrorCode, gatewayError } from '../errors.ts'
import type { ReservedSubmit } from './admit.ts'
import type { AuthorizedStatus } from './authorize.ts'
import type { RequestState, RequestContext } from './context.ts'

/** What came of a submit, seen from outside: as read, or that it was our key the upstream did not want. */
export type ForwardedSubmit = SubmitOutcome | OurKey

export interface OurKey {
  readonly kind: 'our-key'
  readonly code: ErrorCode
}

export interface ForwardOptions {
  readonly operation: Operation
  readonly upstream: Upstream
  readonly keys: KeyRing
}

/**
 * *forward* for submits. It runs to its end whether or not the caller waits. It is never repeated, but for one case: a
 * complete 401 or 402, where nothing was accepted, may be tried once with another key.
 */
export function forwardSubmit ({ operation, upstream, keys }: ForwardOptions, ledger: Pick<LedgerClient, 'markSent'>) {
  const note = async ({ reservation, callbackHash, delivery }: ReservedSubmit, keyId: string): Promise<boolean> => {
    let isNoted = false
    try {
      isNoted = await ledger.markSent(reservation, keyId, callbackHash)
    } finally {
      if (!isNoted) delivery?.released()
    }
    return isNoted
  }

  return withKeys(keys, async (order: ReservedSubmit, key, call): Promise<SubmitOutcome> => {
    if (!(await note(order, key.id))) throw gatewayError('GW_OVERLOADED', { retryAfterSeconds: 1 }) // it lapsed while it waited
    const exchange = upstream.send({
      method: 'POST',
      path: upstreamPath(operation, order.model),
      body: order.body,
      key
    })
    return await timed(call, exchange.answer).then(readSubmitAnswer, readSubmitFailure)
  })
}

/** Makes one attempt, and after a complete 401 or 402 one more with another key. */
export function withKeys<Order extends ReservedSubmit, Outcome extends SubmitOutcome | BatchOutcome> (
  keys: KeyRing, attempt: (order: Order, key: UpstreamKey, call: RequestState) => Promise<Outcome>
) {
  const judged = async (order: Order, key: UpstreamKey, call: RequestState) => {
    call.keyId = key.id
    const outcome = await attempt(order, key, call)
    if (outcome.kind === 'accepted') keys.learn(key, order.model, 'accepted')
    return { outcome, trouble: outcome.kind === 'refused' ? await keyTrouble(outcome, key, keys, order.model) : null }
  }

  return async (order: Order, { call }: RequestContext): Promise<Outcome | OurKey> => {
    const { outcome, trouble } = await judged(order, order.key, call)
    if (trouble === null) return outcome
    const other = trouble.mayTryAnother && order.keyId === undefined ? keys.choose(order.model, order.key) : undefined
    if (other === undefined) return { kind: 'our-key', code: trouble.code }
    const second = await judged(order, other, call)
    return second.trouble === null ? second.outcome : { kind: 'our-key', code: second.trouble.code }
  }
}

/** The final answer of a task that had ended before: it need not be parsed. */
export type StoredEnd = Omit<LedgerStatus, 'state'>

/** *forward* for status calls: in turn with all who ask about that task; a call that nobody waits for is cancelled. */
export function forwardStatus (desk: StatusPoller) {
  return async ({ task }: AuthorizedStatus, { call, reply }: RequestContext): Promise<StatusReport | StoredEnd> => {
    if (task.finalAnswer !== null) return { source: 'ledger', answer: { body: task.finalAnswer } }
    call.keyId = task.keyId
    const { report, cancel: leave } = desk.poll(task)
    reply.raw.once('close', leave)
    try {
      return await timed(call, report)
    } finally {
      reply.raw.off('close', leave)
    }
  }
}

/** What the upstream says, the wait for it counted. */
export async function timed<Said> (call: RequestState, said: Promise<Said>): Promise<Said> {
  const start = performance.now()
  try {
    return await said
  } finally {
    call.upstreamMs += performance.now() - start
  }
}
