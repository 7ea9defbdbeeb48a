import { isObject, jsonValue } from './json.ts'
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
 * undone · leaks-key: it repeats our key · cancelled: by us, because the caller had gone.
 */
export type FailureReason =
  'unreachable' | 'timeout' | 'broken' | 'too-long' | 'encoded' | 'leaks-key' | 'cancelled'

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

/** Where an upstream takes a key of ours. */
export type CredentialHeader = 'authorization' | 'x-api-key' | 'x-goog-api-key'

/** A POST whose answer is handed on as it comes. */
export interface PassingRequest {
  /** Path and query, made of checked parts. */
  readonly path: string
  /** Names and values in turn, checked; beside those that every call has. */
  readonly headers: readonly string[]
  readonly body: Buffer
  readonly key: UpstreamKey
  /** The header that the key goes into. */
  readonly credential: CredentialHeader
}

/** An answer that has begun. No other header is read. */
export interface AnswerHead {
  readonly status: number
  readonly contentType: string
  readonly retryAfter: string | undefined
}

/** Told of an answer as it comes: its head, its bytes, and then its end or its failure; nothing after that. */
export interface AnswerReceiver {
  begin (head: AnswerHead): void
  take (bytes: Buffer): void
  end (): void
  /** `leaks-key`: it repeats our key, and no byte of that was handed on. */
  fail (failure: UpstreamFailure): void
}

/** An answer on its way. */
export interface PassingCall {
  /** Nothing more is read from the upstream until `resume`. What has been read may still come. */
  pause (): void
  resume (): void
  /** Ends the call; the receiver's `fail` is told, unless it has heard of an end before. */
  cancel (): void
}

/** Carries calls whose answers may be long, adding the key at the last moment. Follows no redirect, repeats nothing. */
export interface PassingUpstream {
  send (request: PassingRequest, receiver: AnswerReceiver): PassingCall
  /** As `Upstream.close`. */
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

/** What the gateway needs to know of an APIXO answer. It is read for bookkeeping and never written anew. */
export interface Envelope {
  /** The body's own `code`; absent on abbreviated answers. */
  readonly code: number | undefined
  readonly message: string
  /** At `data.taskId`, or at the top level as one client has seen. Opaque. */
  readonly taskId: string | undefined
  /** `success` and `failed` are final; any other word, known or not, is a task still running. */
  readonly state: string | undefined
  readonly data: unknown
}

/** Reads a body; `null` when it is no JSON object. */
export function readEnvelope (body: Buffer): Envelope | null {
  const value = jsonValue(body.toString())
  if (!isObject(value)) return null
  const data = isObject(value.data) ? value.data : {}
  return {
    code: typeof value.code === 'number' ? value.code : undefined,
    message: typeof value.message === 'string' ? value.message : '',
    taskId: taskIdOf(data.taskId) ?? taskIdOf(value.taskId),
    state: typeof data.state === 'string' ? data.state : undefined,
    data: value.data
  }
}

export type FinalState = 'success' | 'failed'

export function isFinal (state: string | null | undefined): state is FinalState {
  return state === 'success' || state === 'failed'
}

/** Longer than any id seen (36 characters), short enough to store and to put into a URL. */
export const maxTaskIdLength = 256

function taskIdOf (value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' && value.length <= maxTaskIdLength ? value : undefined
}

/**
 * What became of a submit.
 *
 * accepted: a task exists · refused: none does, the answer may be passed on · invalid: none does, and the answer is no
 * JSON · nothing-sent · unknown: the upstream may have a task of ours, so nothing is sent again and the charge is kept.
 */
export type SubmitOutcome =
  | { readonly kind: 'accepted', readonly taskId: string, readonly answer: UpstreamAnswer }
  | { readonly kind: 'refused', readonly status: number, readonly envelope: Envelope, readonly answer: UpstreamAnswer }
  | { readonly kind: 'invalid' }
  | { readonly kind: 'nothing-sent', readonly cause: unknown }
  | { readonly kind: 'unknown', readonly reason: string }

/** No task is known to exist. */
export type NotAccepted = Exclude<SubmitOutcome, { readonly kind: 'accepted' }>

export function readSubmitAnswer (answer: UpstreamAnswer): SubmitOutcome {
  const success = answer.status >= 200 && answer.status < 300
  const envelope = readEnvelope(answer.body)
  if (success && envelope?.taskId !== undefined) return { kind: 'accepted', taskId: envelope.taskId, answer }
  const status = effectiveStatus(answer.status, envelope)
  const final = (status >= 400 && status < 500) || status === 500 || status === 503
  if (envelope === null) {
    // A 4xx without a body of the API's own is still a refusal by somebody on the way; a 5xx page from a proxy is not.
    return answer.status >= 400 && answer.status < 500 ? { kind: 'invalid' } : unknown(`${answer.status}, no JSON`)
  }
  if (final && (status < 500 || envelope.code !== undefined)) return { kind: 'refused', status, envelope, answer }
  return unknown(success ? `${answer.status} without a task id` : String(answer.status))
}

export function readSubmitFailure (failure: unknown): NotAccepted {
  if (failure instanceof UpstreamFailure && failure.reason === 'unreachable') {
    return { kind: 'nothing-sent', cause: failure }
  }
  return unknown(failure instanceof UpstreamFailure ? failure.reason : 'error')
}

/** The HTTP status, or the body's code where HTTP says 200 and the body disagrees. */
export function effectiveStatus (status: number, envelope: Envelope | null): number {
  return status >= 200 && status < 300 && envelope?.code !== undefined ? envelope.code : status
}

/** An answer, as far as it says how a task is. */
type Statement = Pick<UpstreamAnswer, 'status'>

/**
 * The state that an answer gives of a task, in the upstream's own word; `null` when it gives none, or is about
 * something else.
 */
export function statedState ({ status }: Statement, envelope: Envelope | null, taskId: string): string | null {
  if (envelope === null || effectiveStatus(status, envelope) !== 200) return null
  const isAboutIt = (envelope.taskId ?? taskId) === taskId
  return isAboutIt && envelope.state ? envelope.state : null
}

function unknown (reason: string): NotAccepted {
  return { kind: 'unknown', reason }
}
