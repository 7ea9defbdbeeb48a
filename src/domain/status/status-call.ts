import type { ErrorCode } from '../../errors.ts'
import { type Envelope, readEnvelope } from '../bodies/envelope.ts'
import { effectiveStatus } from '../bodies/outcome.ts'
import { keyTrouble } from '../keys/key-trouble.ts'
import type { KeyChoice } from '../keys/keys.ts'
import type { Task } from '../ledger/ledger.ts'
import { type Operation, upstreamPath } from '../policy/catalog.ts'
import { type FailureReason, type Upstream, type UpstreamAnswer, UpstreamFailure } from '../upstream.ts'

/** What came of asking the upstream: an answer that may be passed on, or why there is none. */
export type StatusOutcome =
  | { readonly kind: 'answered', readonly answer: UpstreamAnswer, readonly envelope: Envelope }
  | { readonly kind: 'failed', readonly code: ErrorCode, readonly cause?: unknown }

/** A status call on its way. */
export interface StatusCall {
  readonly outcome: Promise<StatusOutcome>
  /** To be called when nobody waits for it any more; harmless afterwards. */
  cancel (): void
}

export interface StatusCallOptions {
  readonly upstream: Upstream
  readonly keys: KeyChoice
}

/** Asks the upstream once, with the key that made the task: only its account knows of it. */
export function statusCall ({ upstream, keys }: StatusCallOptions, operation: Operation, task: Pick<Task, 'taskId' | 'model' | 'keyId'>): StatusCall {
  const key = keys.byId(task.keyId)
  if (key === undefined) return { outcome: Promise.resolve({ kind: 'failed', code: 'GW_NO_KEY' }), cancel () {} }
  const exchange = upstream.send({ method: 'GET', path: upstreamPath(operation, task.model, task.taskId), key })
  let isOver = false

  const read = async (): Promise<StatusOutcome> => {
    const answer = await exchange.answer.catch((failure: UpstreamFailure) => failure)
    isOver = true
    if (answer instanceof UpstreamFailure) return failed(answer.reason, answer)
    const envelope = readEnvelope(answer.body)
    if (envelope === null || isRedirect(answer.status) || answer.leaksKey) return { kind: 'failed', code: 'GW_UPSTREAM_INVALID' }
    const trouble = await keyTrouble({ status: effectiveStatus(answer.status, envelope), envelope }, key, keys)
    return trouble === null ? { kind: 'answered', answer, envelope } : { kind: 'failed', code: trouble.code }
  }
  return { outcome: read(), cancel () { if (!isOver) exchange.cancel() } }
}

/** What a read answers with when there is no complete answer; a submit is then nothing sent, or unknown. */
const failureCodes: Readonly<Record<FailureReason, ErrorCode>> = {
  unreachable: 'GW_UPSTREAM_UNREACHABLE',
  timeout: 'GW_UPSTREAM_TIMEOUT',
  broken: 'GW_UPSTREAM_INVALID',
  'too-long': 'GW_UPSTREAM_INVALID',
  encoded: 'GW_UPSTREAM_INVALID',
  cancelled: 'GW_UPSTREAM_INVALID'
}

/** The outcome of a call without a complete answer. */
export function failed (reason: FailureReason, cause?: unknown): StatusOutcome {
  return { kind: 'failed', code: failureCodes[reason], cause }
}

export function isRedirect (status: number): boolean {
  return status >= 300 && status < 400
}
