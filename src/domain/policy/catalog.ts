import type { Scope } from '../sessions/session.ts'

/** A submit spends money and runs to its end; a read does neither and is cancelled with its caller. */
export type OperationKind = 'submit' | 'status'

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
  { name: 'generateTask', kind: 'submit', method: 'POST', url: '/api/v1/generateTask/:model', scope: 'tasks:write', query: [] },
  // https://apixo.ai/docs/api-reference/status-task
  { name: 'statusTask', kind: 'status', method: 'GET', url: '/api/v1/statusTask/:model', scope: 'tasks:read', query: ['taskId'] }
]

/**
 * Rows that exist when the operator opens them (`batches.enabled`).
 *
 * https://apixo.ai/docs/mcp/guides/batch-integration-v1.json; the answers of both are documented nowhere.
 */
export const batchOperations: readonly Operation[] = [
  { name: 'generateBatch', kind: 'submit', method: 'POST', url: '/api/v1/generateTask/:model/batches', scope: 'tasks:write', query: [] },
  { name: 'statusBatch', kind: 'status', method: 'GET', url: '/api/v1/generateTask/:model/batches/:batchId', scope: 'tasks:read', query: [] }
]

/** In the ledger: the operation of a batch's own row, which says whose the batch is. Its tasks have rows like any other's. */
export const batchRow = 'batch'

export function operationOf (name: Operation['name']): Operation {
  return operations.find(operation => operation.name === name)!
}

/**
 * https://apixo.ai/docs/api-reference/system: the balance of a key. Our keys are probed with it; a caller who asks for it
 * is told of its own credits, and the upstream is not asked.
 */
export const balancePath = '/api/v1/apikeys/current-balance'

/** Capitals and dots exist upstream (`happyHorse`, `gpt-5.4`). A name that matches is its own URL encoding. */
export const modelPattern = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/

/** The upstream path of an operation, from parts that have been checked; `id` is a task's, or a batch's where the path has one. */
export function upstreamPath (operation: Operation, model: string, id?: string): string {
  const path = operation.url.replace(':model', model)
  if (id === undefined) return path
  const encoded = encodeURIComponent(id)
  return path.includes(':batchId') ? path.replace(':batchId', encoded) : `${path}?taskId=${encoded}`
}
