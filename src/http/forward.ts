import { type Operation, upstreamPath } from '../domain/catalog.ts'
import { type Envelope, readEnvelope } from '../domain/envelope.ts'
import { castsDoubt, type KeyRing } from '../domain/keys.ts'
import type { TaskLedger } from '../domain/ledger.ts'
import { effectiveStatus, readSubmitAnswer, readSubmitFailure, type SubmitOutcome } from '../domain/outcome.ts'
import { type Exchange, type FailureReason, type Upstream, type UpstreamAnswer, UpstreamFailure, type UpstreamKey } from '../domain/upstream.ts'
import { type ErrorCode, gatewayError } from '../errors.ts'
import type { AdmittedSubmit } from './admit.ts'
import type { StatusOrder } from './authorize.ts'
import type { Call, Context } from './call.ts'

/** What came of a submit, seen from outside: as read, or that it was our key the upstream did not want. */
export type ForwardedSubmit = SubmitOutcome | { readonly kind: 'our-key', readonly code: ErrorCode }

export type ForwardedStatus =
  | { readonly kind: 'answered', readonly answer: UpstreamAnswer, readonly envelope: Envelope }
  | { readonly kind: 'kept', readonly body: Buffer }
  | { readonly kind: 'failed', readonly code: ErrorCode, readonly cause?: unknown }

interface ForwardOptions {
  readonly operation: Operation
  readonly upstream: Upstream
  readonly keys: KeyRing
}

/**
 * *forward* for submits. It runs to its end whether or not the caller waits. It is never repeated, but for one case: a
 * complete 401 or 402, where nothing was accepted, may be tried once with another key.
 */
export function forwardSubmit ({ operation, upstream, keys }: ForwardOptions, ledger: TaskLedger) {
  const attempt = async (order: AdmittedSubmit, key: UpstreamKey, call: Call): Promise<SubmitOutcome> => {
    call.keyId = key.id
    if (!await ledger.advance(order.reservation, { to: 'sent', keyId: key.id })) {
      throw gatewayError('GW_OVERLOADED', { retryAfterSeconds: 1 }) // it lapsed while it waited
    }
    const exchange = upstream.send({ method: 'POST', path: upstreamPath(operation, order.model), body: order.body, key })
    return await timed(call, exchange).then(readSubmitAnswer, readSubmitFailure)
  }

  return async (order: AdmittedSubmit, { call }: Context): Promise<ForwardedSubmit> => {
    const first = await attempt(order, order.key, call)
    const trouble = first.kind === 'refused' ? await keyTrouble(first, order.key, keys, order.model) : null
    if (trouble === null) return first
    const other = trouble.mayTryAnother && order.keyId === undefined ? keys.choose(order.model, order.key) : undefined
    if (other === undefined) return { kind: 'our-key', code: trouble.code }
    const second = await attempt(order, other, call)
    const again = second.kind === 'refused' ? await keyTrouble(second, other, keys, order.model) : null
    return again === null ? second : { kind: 'our-key', code: again.code }
  }
}

/** *forward* for status calls: from the ledger when the task has ended, else asked, and cancelled with its caller. */
export function forwardStatus ({ operation, upstream, keys }: ForwardOptions) {
  return async ({ task }: StatusOrder, { call, reply }: Context): Promise<ForwardedStatus> => {
    if (task.finalAnswer !== null) return { kind: 'kept', body: task.finalAnswer }
    const key = keys.byId(task.keyId) // benched or not: only its account knows the task
    if (key === undefined) return { kind: 'failed', code: 'GW_NO_KEY' }
    call.keyId = key.id
    const exchange = upstream.send({ method: 'GET', path: upstreamPath(operation, task.model, task.taskId), key })
    const hungUp = () => exchange.cancel()
    reply.raw.once('close', hungUp)
    try {
      const answer = await timed(call, exchange).catch((failure: UpstreamFailure) => failure)
      if (answer instanceof UpstreamFailure) return { kind: 'failed', code: failureCodes[answer.reason], cause: answer }
      const envelope = readEnvelope(answer.body)
      if (envelope === null || isRedirect(answer.status)) return { kind: 'failed', code: 'GW_UPSTREAM_INVALID' }
      const trouble = await keyTrouble({ status: effectiveStatus(answer.status, envelope), envelope }, key, keys)
      return trouble === null ? { kind: 'answered', answer, envelope } : { kind: 'failed', code: trouble.code }
    } finally {
      reply.raw.off('close', hungUp)
    }
  }
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

/** As much of an answer as casts doubt on a key. */
interface Doubtful { readonly status: number, readonly envelope: Envelope }
interface KeyTrouble { readonly code: ErrorCode, readonly mayTryAnother: boolean }

/**
 * Our key's trouble is not the caller's, and the caller's is not our key's. A doubtful answer makes the ring probe the
 * key. `null`: the answer is the caller's own business and passes.
 */
async function keyTrouble ({ status, envelope }: Doubtful, key: UpstreamKey, keys: KeyRing, model?: string): Promise<KeyTrouble | null> {
  if (!castsDoubt(status, envelope.message)) return null
  const verdict = await keys.doubt(key)
  const mayTryAnother = status === 401 || status === 402
  if (verdict === 'empty') return { code: 'GW_NO_KEY', mayTryAnother }
  if (verdict === 'refused') return { code: 'GW_UPSTREAM_REFUSED_KEY', mayTryAnother }
  if (!mayTryAnother) return null
  // The key works, but not for this (nor does its money reach, perhaps): never a 401 to a caller, whose SDK would log
  // out. Only a submit's 401 is about the model; a 402 may be about this one caller's price, and must not shut out others.
  if (verdict === 'fine' && model !== undefined && status === 401) keys.rest(key, model)
  return { code: 'GW_UPSTREAM_REFUSED_KEY', mayTryAnother }
}

async function timed (call: Call, exchange: Exchange): Promise<UpstreamAnswer> {
  const start = performance.now()
  try {
    return await exchange.answer
  } finally {
    call.upstreamMs += performance.now() - start
  }
}

function isRedirect (status: number): boolean {
  return status >= 300 && status < 400
}
