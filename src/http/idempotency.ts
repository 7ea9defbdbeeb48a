import { fingerprintOf, type IdempotencyKey, type KeptAnswer, readIdempotencyKey } from '../domain/ledger/idempotency.ts'
import type { Operation } from '../domain/policy/catalog.ts'
import type { UpstreamAnswer } from '../domain/upstream.ts'
import { gatewayError } from '../errors.ts'
import type { Context } from './call.ts'
import type { Outcome } from './repeats.ts'
import { answerFrom, keptAnswer, type Replay } from './reply.ts'

const header = 'idempotency-key'

/**
 * The idempotency key of a submit, with what it was sent for: this method, route, model and body, byte for byte.
 * `undefined` when it has none. It reads the raw headers: Node makes one value of two. Throws `GW_BAD_REQUEST`.
 */
export function idempotencyKeyOf ({ request, call }: Context, { method, url }: Operation, body: Buffer): IdempotencyKey | undefined {
  if (request.headers[header] === undefined) return undefined
  const { rawHeaders } = request.raw
  const values = rawHeaders.filter((_, index) => index % 2 === 1 && rawHeaders[index - 1]!.toLowerCase() === header)
  return { key: readIdempotencyKey(values), fingerprint: fingerprintOf(method, url, String(call.model), body) }
}

/** Stands for an answer that repeats our key. One that may be passed on holds a task id or an error: it is never empty. */
const unfit: KeptAnswer = { status: 502, contentType: '', body: Buffer.alloc(0) }

/** The answer of an accepted or refused submit as its idempotency key gives it again. */
export function keptFrom (answer: UpstreamAnswer): KeptAnswer {
  if (answer.leaksKey) return unfit
  const { status, contentType, body } = answerFrom(answer)
  return { status, contentType, body }
}

/**
 * Answers what was asked before. A task whose answer is not known is told in the documented envelope, as `idName`.
 * Throws what the caller has to know when there is no answer to give again.
 */
export function replay (earlier: Outcome, { reply, call }: Context, idName: 'taskId' | 'batchId' = 'taskId'): Replay {
  if (earlier.kind === 'mismatch') throw gatewayError('GW_IDEMPOTENCY_MISMATCH')
  reply.header('idempotency-replayed', 'true')
  if (earlier.kind === 'unknown') throw gatewayError('GW_OUTCOME_UNKNOWN', { shouldRetry: false })
  if (earlier.kind === 'task') {
    call.taskId = earlier.taskId
    const envelope = { code: 200, message: 'success', data: { [idName]: earlier.taskId } }
    return { replayed: keptAnswer(Buffer.from(JSON.stringify(envelope))) }
  }
  if (!tellsTask(earlier)) throw gatewayError('GW_UPSTREAM_INVALID', { shouldRetry: false })
  return { replayed: { ...earlier.answer, retryAfter: undefined } }
}

/** Whoever gets it knows its task. */
export function tellsTask (earlier: Outcome): boolean {
  return earlier.kind === 'task' || (earlier.kind === 'answered' && earlier.answer.body.length > 0)
}
