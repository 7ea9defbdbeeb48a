import type { Secret } from './secret.ts'
import type { Scope } from './session.ts'

/**
 * An idle connection is given up this long before the other side's own hint says that it will be, ms. By undici's
 * default of two seconds no connection to a server that says `Keep-Alive: timeout=2` was ever used again.
 */
export const keepAliveMarginMs = 500

/** A key of ours at the upstream. Its id is the fingerprint: safe to log and to store. */
export interface UpstreamKey {
  readonly id: string
  readonly secret: Secret
}

export interface UpstreamRequest {
  readonly method: 'GET' | 'POST'
  /** Path and query, made of checked parts. The host is a setting and nothing else. */
  readonly path: string
  readonly body?: Buffer
  /** Printable ASCII, sent as `Idempotency-Key`: the one header of a request that is not always the same. */
  readonly idempotencyKey?: string
  readonly key: UpstreamKey
}

/** A complete answer. Only these headers are read; no other reaches the caller. */
export interface UpstreamAnswer {
  readonly status: number
  readonly contentType: string
  readonly retryAfter: string | undefined
  /** `retry-after-ms`, which SDKs obey before the other. */
  readonly retryAfterMs?: string | undefined
  readonly body: Buffer
  /** The answer repeats the key it was asked with, plain or escaped: never to be passed on. */
  readonly leaksKey: boolean
}

/**
 * Why there is no complete answer.
 *
 * unreachable: nothing was written (DNS, connect, TLS) · timeout: no headers, or no more body, in time · broken: the
 * connection ended, or what came was no HTTP · too-long: more than the limit · encoded: compressed in a way that is not
 * undone · cancelled: by us, because the caller had gone.
 */
export type FailureReason = 'unreachable' | 'timeout' | 'broken' | 'too-long' | 'encoded' | 'cancelled'

export class UpstreamFailure extends Error {
  readonly reason: FailureReason

  constructor (reason: FailureReason, cause?: unknown) {
    super(`upstream: ${reason}`, { cause })
    this.reason = reason
  }
}

/** A request on its way. `cancel` is for reads alone: a submit is never cancelled, its task may exist already. */
export interface Exchange {
  /** Rejects with `UpstreamFailure` and nothing else. */
  readonly answer: Promise<UpstreamAnswer>
  cancel (): void
}

/** Carries one request to the upstream, adding the key at the last moment. Follows no redirect, repeats nothing. */
export interface Upstream {
  send (request: UpstreamRequest): Exchange
  /**
   * Waits for nothing: a request that still runs ends as `broken`, one that waits for its connection as `unreachable`.
   */
  close (): Promise<void>
}

/** A submit spends money and runs to its end; a read does neither and is cancelled with its caller. */
type OperationKind = 'submit' | 'status'

/** One upstream operation that the gateway mirrors. What has no row here can't be reached. */
export interface Operation {
  /** As in logs and metrics. */
  readonly name: 'generateTask' | 'statusTask' | 'generateBatch' | 'statusBatch'
  readonly kind: OperationKind
  readonly method: 'GET' | 'POST'
  /** The route's pattern, the same on both sides. */
  readonly url: string
  readonly scope: Scope
  /** Query names that pass; a repeated or any other name is a 400. */
  readonly query: readonly string[]
}

export const operations: readonly Operation[] = [
  // https://apixo.ai/docs/api-reference/generate-task
  {
    name: 'generateTask',
    kind: 'submit',
    method: 'POST',
    url: '/api/v1/generateTask/:model',
    scope: 'tasks:write',
    query: []
  },
  // https://apixo.ai/docs/api-reference/status-task
  {
    name: 'statusTask',
    kind: 'status',
    method: 'GET',
    url: '/api/v1/statusTask/:model',
    scope: 'tasks:read',
    query: ['taskId']
  }
]

/**
 * Rows that exist when the operator opens them (`batches.enabled`).
 *
 * https://apixo.ai/docs/mcp/guides/batch-integration-v1.json; the answers of both are documented nowhere.
 */
export const batchOperations: readonly Operation[] = [
  {
    name: 'generateBatch',
    kind: 'submit',
    method: 'POST',
    url: '/api/v1/generateTask/:model/batches',
    scope: 'tasks:write',
    query: []
  },
  {
    name: 'statusBatch',
    kind: 'status',
    method: 'GET',
    url: '/api/v1/generateTask/:model/batches/:batchId',
    scope: 'tasks:read',
    query: []
  }
]

/**
 * In the ledger: the operation of a batch's own row, which says whose the batch is. Its tasks have rows as any other.
 */
export const batchRow = 'batch'

export function operationOf (name: Operation['name']): Operation {
  return operations.find(operation => operation.name === name)!
}

/**
 * https://apixo.ai/docs/api-reference/system: the balance of a key. Our keys are probed with it; a caller that asks for
 * it gets its own credits, and the upstream is not asked.
 */
export const balancePath = '/api/v1/apikeys/current-balance'

/** Capitals and dots exist upstream (`happyHorse`, `gpt-5.4`). A name that matches is its own URL encoding. */
export const modelPattern = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/

/**
 * The upstream path of an operation, from parts that have been checked; `id` is a task's, or a batch's where the path
 * has one.
 */
export function upstreamPath (operation: Operation, model: string, id?: string): string {
  const path = operation.url.replace(':model', model)
  if (id === undefined) return path
  const encoded = encodeURIComponent(id)
  return path.includes(':batchId') ? path.replace(':batchId', encoded) : `${path}?taskId=${encoded}`
}
