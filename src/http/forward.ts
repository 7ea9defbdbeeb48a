import { type NotAccepted, readSubmitAnswer, readSubmitFailure, type SubmitOutcome } from '../domain/answers.ts'
import { type KeyChoice, type KeyTrouble, keyTrouble } from '../domain/key-ring.ts'
import type { Task } from '../domain/ledger.ts'
import type { StatusPoller } from '../domain/status-poller.ts'
import type { StatusReport } from '../domain/task-status.ts'
import { type Operation, type Upstream, type UpstreamKey, upstreamPath } from '../domain/upstream.ts'
import { type ErrorCode, gatewayError } from '../errors.ts'
import type { AuthorizedSubmit } from './authorize.ts'
import type { RequestContext, RequestState } from './context.ts'
import type { Delivery } from './repeats.ts'

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
async function troubleOf (
  outcome: { readonly kind: 'accepted' } | NotAccepted, key: UpstreamKey, keys: KeyChoice, model: string
): Promise<KeyTrouble | null> {
  if (outcome.kind === 'accepted') keys.learn(key, model, 'accepted')
  return outcome.kind === 'refused' ? await keyTrouble(outcome, key, keys, model) : null
}

/**
 * Nothing may be sent until this has resolved. Throws `GW_OVERLOADED` when the reservation has lapsed while it waited,
 * or what the store failed with; either way nothing will have been made that a repeat could ask for.
 */
export async function sentOrThrow (marking: Promise<boolean>, delivery: Delivery | null): Promise<void> {
  let isSent = false
  try {
    isSent = await marking
  } finally {
    if (!isSent) delivery?.released()
  }
  if (!isSent) throw gatewayError('GW_OVERLOADED', { retryAfterSeconds: 1 })
}

/**
 * Sends a submit, once, and runs to its end whether or not the caller waits. It does not throw for what went wrong
 * upstream: that is an outcome too, so that nothing it has begun gets past *settle*.
 */
export async function sendSubmit (
  upstream: Upstream, operation: Operation, { model, body }: AuthorizedSubmit, key: UpstreamKey, call: RequestState
): Promise<SubmitOutcome> {
  const { answer } = upstream.send({ method: 'POST', path: upstreamPath(operation, model), body, key })
  return await timed(call, answer).then(readSubmitAnswer, readSubmitFailure)
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
  const start = performance.now()
  try {
    return await said
  } finally {
    call.upstreamMs += performance.now() - start
  }
}
