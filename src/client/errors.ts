import type { GatewayCode } from './api.ts'

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
