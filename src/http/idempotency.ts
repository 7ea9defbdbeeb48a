import { type Earlier, fingerprintOf, type IdempotencyKey, type KeptAnswer, readIdempotencyKey } from '../domain/ledger/idempotency.ts'
import type { Operation } from '../domain/policy/catalog.ts'
import type { UpstreamAnswer } from '../domain/upstream.ts'
import { gatewayError } from '../errors.ts'
import type { Context } from './call.ts'
import { answerFrom, type Replay } from './reply.ts'

const header = 'idempotency-key'

/** When to ask again for an answer that is on its way, seconds. */
const pendingRetrySeconds = 1

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

/** Answers what was asked before. Throws what the caller has to know when there is no answer to give again. */
export function replay (earlier: Earlier, { reply }: Context): Replay {
  if (earlier.kind === 'mismatch') throw gatewayError('GW_IDEMPOTENCY_MISMATCH')
  if (earlier.kind === 'pending') throw gatewayError('GW_IDEMPOTENCY_PENDING', { retryAfterSeconds: pendingRetrySeconds })
  reply.header('idempotency-replayed', 'true')
  if (earlier.kind === 'unknown') throw gatewayError('GW_OUTCOME_UNKNOWN', { shouldRetry: false })
  if (earlier.answer.body.length === 0) throw gatewayError('GW_UPSTREAM_INVALID', { shouldRetry: false })
  return { replayed: { ...earlier.answer, retryAfter: undefined } }
}
