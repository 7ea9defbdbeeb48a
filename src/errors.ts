import createError, { type FastifyErrorConstructor } from '@fastify/error'

/**
 * Every error the gateway can answer with: its HTTP status and its sentence. Compare codes, never text. The README's
 * table is checked against this one, both ways.
 */
const rows = {
  GW_BAD_REQUEST: [400, '%s'],
  GW_NO_SESSION: [401, 'Send a session token: Authorization: Bearer <token>, or x-api-key, or x-goog-api-key.'],
  GW_BAD_SESSION: [401, 'The session token is malformed, forged, expired or revoked. Get a new one.'],
  GW_SESSION_SPENT: [402, 'The uses of this session are spent.'],
  GW_CREDITS_EXHAUSTED: [402, 'The credits of this period, or of this session, are used up.'],
  GW_SCOPE_DENIED: [403, '%s'],
  GW_MODEL_DENIED: [403, 'This session may not use the model %s.'],
  GW_ORIGIN_DENIED: [403, '%s'],
  GW_CALLBACK_DENIED: [403, '%s is not accepted here: poll the status of the task instead.'],
  GW_NOT_FOUND: [404, 'There is no such route.'],
  GW_TASK_NOT_FOUND: [404, 'There is no such task.'],
  GW_METHOD_NOT_ALLOWED: [405, 'This route does not take that method.'],
  GW_IDEMPOTENCY_PENDING: [409, 'The first of these requests is still running, and others wait for it already.'],
  GW_RESULT_EXPIRED: [410, 'The result is past its expiry.'],
  GW_TOO_LARGE: [413, 'The body is longer than the limit of %s bytes.'],
  GW_UNSUPPORTED_MEDIA_TYPE: [415, '%s'],
  GW_IDEMPOTENCY_MISMATCH: [422, 'This idempotency key was used with another request.'],
  GW_THROTTLED: [429, 'Too many requests from this address.'],
  GW_RATE_LIMITED: [429, 'Too many requests in this session.'],
  GW_TOO_MANY_TASKS: [429, 'Too many unfinished tasks: wait until one has ended.'],
  GW_INTERNAL: [500, 'Something went wrong in the gateway.'],
  GW_UPSTREAM_UNREACHABLE: [502, 'The upstream could not be reached. Nothing was sent, nothing was charged.'],
  GW_UPSTREAM_INVALID: [502, 'The upstream gave an answer that can not be passed on.'],
  GW_UPSTREAM_REFUSED_KEY: [502, "The upstream refused the gateway's own credential. The operator has been told."],
  GW_OUTCOME_UNKNOWN: [
    502,
    'The upstream may have accepted this task, but its answer was lost. For two minutes the same request gets this answer again; a new Idempotency-Key makes it anew.'
  ],
  GW_NO_KEY: [503, 'No upstream key is usable right now.'],
  GW_STORE_DOWN: [503, 'The gateway\'s store does not answer. Nothing was sent.'],
  GW_OVERLOADED: [503, 'The gateway is busy or stopping.'],
  GW_UPSTREAM_TIMEOUT: [504, 'The upstream did not answer in time.']
} as const satisfies Record<string, readonly [status: number, message: string]>

export type ErrorCode = keyof typeof rows

/** What an error may say beyond its row. */
interface ErrorDetail {
  /**
   * Fills the `%s` of the row's sentence, or stands in its place. Never a secret, a prompt, a URL of a result or a path
   * of this machine.
   */
  readonly about?: string
  /**
   * Whole seconds, sent as `retry-after` (RFC 9110 section 10.2.3) when it is at most a minute. A longer wait is told
   * in the body, and no client is asked to try again by itself.
   */
  readonly retryAfterSeconds?: number
  /** `false` tells stock SDKs not to retry by themselves (`x-should-retry`). */
  readonly shouldRetry?: false
  /** Methods for the `allow` header of a 405 (RFC 9110 section 15.5.6). */
  readonly allow?: string
  /** Which account above the subject has no room, and until when: Unix ms, `null` for ever. Told in the body. */
  readonly ceiling?: { readonly level: 'gateway' | 'pool' | 'plan', readonly resetsAt: number | null }
  readonly cause?: unknown
}

export interface GatewayError extends Error {
  readonly code: ErrorCode
  readonly statusCode: number
  readonly detail: ErrorDetail
}

interface Row { readonly make: FastifyErrorConstructor, readonly takesAbout: boolean }

const made = new Map<string, Row>(
  Object.entries(rows).map(([code, [status, message]]) => [code, {
    // No stack for what a caller did wrong: it says nothing, and taking it costs more than refusing the request.
    make: createError(code, message, status, Error, status === 500),
    takesAbout: message.includes('%s')
  }])
)

export const errorTable: ReadonlyArray<{ readonly code: ErrorCode, readonly status: number }> =
  Object.entries(rows).map(([code, [status]]) => ({ code: code as ErrorCode, status }))

/** Makes the error of a row. Throw it; the error handler of `http/` renders it once. */
export function gatewayError (code: ErrorCode, detail: ErrorDetail = {}): GatewayError {
  const { make: Constructor, takesAbout } = made.get(code)!
  const args: unknown[] = takesAbout ? [detail.about] : []
  if (detail.cause !== undefined) args.push({ cause: detail.cause })
  const error = Object.assign(new Constructor(...args), { detail }) as unknown as GatewayError
  if (!takesAbout && detail.about !== undefined) error.message = detail.about
  return error
}

/** `GW_BAD_REQUEST`, with a sentence that names what to change. */
export function badRequest (about: string): GatewayError {
  return gatewayError('GW_BAD_REQUEST', { about })
}

/** `GW_BAD_REQUEST`: what is wrong within a body, as the rest of a sentence. */
export function badBody (problem: string): GatewayError {
  return badRequest(`In the body: ${problem}.`)
}

export function isGatewayError (error: unknown): error is GatewayError {
  return error instanceof Error && 'code' in error && made.has(String(error.code))
}
