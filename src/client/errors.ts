import type { GatewayCode, TaskData } from './api.ts'

/**
 * Codes of the client's own. `UNREACHABLE`: no answer came, or not the whole of it. `REFUSED`: the answer is not the
 * gateway's but the upstream's, whose reason is in `reason`, or that of a proxy on the way. `TASK_FAILED`: the task was
 * made and has failed.
 */
export type ClientCode = 'UNREACHABLE' | 'REFUSED' | 'TASK_FAILED'

/** What is known of a failure. What is absent is not known. */
interface Failure {
  readonly code: GatewayCode | ClientCode
  readonly message: string
  readonly status?: number | undefined
  readonly requestId?: string | undefined
  readonly retryAfter?: number | undefined
  readonly shouldRetry?: boolean | undefined
  readonly reason?: string | undefined
  readonly reasonCode?: string | undefined
  readonly taskId?: string | undefined
  readonly cause?: unknown
}

/** All that the client throws, but for an abort, and what `getToken` itself throws. Compare codes, never text. */
export class GatewayError extends Error {
  override readonly name = 'GatewayError'
  readonly code: GatewayCode | ClientCode
  /** The HTTP status; 0 when there was no answer. */
  readonly status: number
  /** For whoever runs the gateway: it finds the request in the log. */
  readonly requestId: string | null
  /** Seconds to wait before another try makes sense; `null` when nobody has said. */
  readonly retryAfter: number | null
  /** Why the upstream would not do it, or could not, in its own words: to be shown. */
  readonly reason: string | null
  /** The upstream's name for that reason, such as `CONTENT_VIOLATION`. The list is open. */
  readonly reasonCode: string | null
  /** The task that it is about. */
  readonly taskId: string | null
  /** Whether the same call may be sent again: it may then come to something else, and costs nothing twice. */
  readonly isPassing: boolean

  constructor (failure: Failure) {
    const { code, message, status = 0, requestId, retryAfter, shouldRetry, reason, reasonCode, taskId, cause } = failure
    super(message, { cause })
    this.code = code
    this.status = status
    this.requestId = requestId ?? null
    this.retryAfter = retryAfter ?? null
    this.reason = reason ?? null
    this.reasonCode = reasonCode ?? null
    this.taskId = taskId ?? null
    this.isPassing = code === 'UNREACHABLE' || (shouldRetry ?? passing(code, status))
  }
}

/** By the status, as stock SDKs do; but an unknown outcome stays unknown, whatever a proxy has made of the headers. */
function passing (code: string, status: number): boolean {
  return code !== 'GW_OUTCOME_UNKNOWN' && code !== 'TASK_FAILED' &&
    (code === 'GW_IDEMPOTENCY_PENDING' || [408, 429, 502, 503, 504].includes(status))
}

type Json = Readonly<Record<string, any>> | null | undefined

/** No answer, or half of one. */
export function unreachable (cause: unknown): GatewayError {
  return new GatewayError({ code: 'UNREACHABLE', message: 'The connection to the gateway failed.', cause })
}

/** Reads an answer that is no success: the gateway's own, the upstream's envelope, or the page of a proxy. */
export async function errorFrom (response: Response): Promise<GatewayError> {
  const json: Json = await response.json().catch(() => null) // the page of a proxy
  return refusal(json, response)
}

/** The body of a good answer. Another page may stand where the gateway is looked for, and be as good as any. */
export async function readJson <T> (response: Response): Promise<T> {
  if (!response.headers.get('content-type')?.includes('json')) {
    throw refusal({ message: 'The answer is no JSON: look whether baseUrl leads to the gateway.' }, response)
  }
  return await response.json().catch(cause => { throw unreachable(cause) }) as T
}

/** `status`: in place of the answer's own, where an envelope has another one. */
export function refusal (json: Json, { status: sent, headers }: Response, status = sent): GatewayError {
  const own = json?.error?.code as unknown
  const code = headers.get('x-gateway-error') ?? (typeof own === 'string' && own.startsWith('GW_') ? own : 'REFUSED')
  const message = text(json?.message) ?? text(json?.error?.message) ?? `The answer was HTTP ${status}.`
  const shouldRetry = headers.get('x-should-retry')
  return new GatewayError({
    code: code as GatewayCode,
    message,
    status,
    requestId: headers.get('x-request-id') ?? text(json?.error?.requestId),
    retryAfter: seconds(headers.get('retry-after')) ?? json?.error?.retryAfterSeconds,
    shouldRetry: shouldRetry === null ? undefined : shouldRetry === 'true',
    reason: code === 'REFUSED' && json ? reasonIn(json.data) ?? message : undefined,
    reasonCode: text(json?.data?.failCode)
  })
}

/** What has become of a task that did not succeed. */
export function taskFailed (data: TaskData): GatewayError {
  const reason = reasonIn(data)
  return new GatewayError({
    code: 'TASK_FAILED',
    message: `The task has failed: ${reason ?? 'no reason was given'}`,
    status: 200,
    reason,
    reasonCode: text(data.failCode),
    taskId: data.taskId
  })
}

function reasonIn (data: Json): string | undefined {
  return text(data?.failMsg) ?? text(data?.error) ?? text(data?.error?.message)
}

function text (value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined
}

/** A date, which nobody sends here, is no number of seconds. */
function seconds (header: string | null): number | undefined {
  return header !== null && /^\d{1,6}$/.test(header) ? Number(header) : undefined
}
