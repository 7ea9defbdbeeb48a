import { STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { quoted } from '../../domain/bodies/json.ts'
import { longestRetryAfter, retryAfterSeconds } from '../../domain/retry-after.ts'
import { badRequest, gatewayError, type GatewayError, isGatewayError } from '../../errors.ts'
import { withoutBudget } from '../reply.ts'
import type { BeginCall } from './beginning.ts'

/** What the framework refuses by itself, in our words. Any other 4xx of its own is a bad request. */
const frameworkErrors: Readonly<Record<string, (limit: string) => GatewayError>> = {
  FST_ERR_CTP_BODY_TOO_LARGE: limit => gatewayError('GW_TOO_LARGE', { about: limit }),
  FST_ERR_CTP_INVALID_MEDIA_TYPE: () => gatewayError('GW_UNSUPPORTED_MEDIA_TYPE', { about: 'Send content-type: application/json.' }),
  FST_ERR_BAD_URL: () => badRequest('The path has a broken percent-encoding.')
}

/** The one place where an error becomes an answer. */
export function renderErrors (app: FastifyInstance): void {
  app.setErrorHandler(async (error: FastifyError, request, reply) => {
    const ours = asGatewayError(error, request)
    if (ours.statusCode >= 500) request.log[ours.statusCode === 500 ? 'error' : 'warn']({ err: error, requestId: request.id }, 'request failed')
    if (ours.statusCode === 401 || ours.statusCode === 404) await app.countFailure(request)
    return render(ours, request, reply)
  })
  app.setNotFoundHandler(() => {
    throw gatewayError('GW_NOT_FOUND')
  })
}

/** A URL that can't be decoded never reaches a hook: the router gives it up before there is a route. */
export function answerBrokenUrl (begin: BeginCall) {
  return (error: FastifyError, request: FastifyRequest, reply: FastifyReply): void => {
    begin(request, reply)
    render(asGatewayError(error, request), request, reply)
  }
}

function asGatewayError (error: FastifyError, request: FastifyRequest): GatewayError {
  if (isGatewayError(error)) return error
  const known = frameworkErrors[error.code]
  if (known !== undefined) return known(String(request.routeOptions.bodyLimit))
  if (error.validation !== undefined) return badRequest(validationSentence(error))
  return error.statusCode !== undefined && error.statusCode >= 400 && error.statusCode < 500
    ? gatewayError('GW_BAD_REQUEST', { about: 'The request could not be read.', cause: error })
    : gatewayError('GW_INTERNAL', { cause: error })
}

/** `In the body: ttlSeconds must be integer.` The schema's words, with the field they are about. */
function validationSentence ({ validation, validationContext }: FastifyError): string {
  const { instancePath, message, params } = validation![0]!
  const field = instancePath.slice(1).replaceAll('/', '.')
  const extra = typeof params.additionalProperty === 'string' ? ` (${quoted(params.additionalProperty)})` : ''
  return `In the ${validationContext}: ${field === '' ? 'it' : field} ${message}${extra}.`
}

function render (error: GatewayError, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const { code, statusCode, detail } = error
  request.call.code = code
  reply.code(statusCode).header('x-gateway-error', code)
  const longWait = longWaitOf(error)
  if (detail.retryAfterSeconds !== undefined && longWait === null) reply.header('retry-after', retryAfterSeconds(detail.retryAfterSeconds * 1000))
  if (detail.shouldRetry === false || longWait !== null) reply.header('x-should-retry', 'false')
  if (code !== 'GW_RATE_LIMITED') withoutBudget(reply)
  if (detail.allow !== undefined) reply.header('allow', detail.allow)
  // RFC 6750 section 3: what to send, and never a redirect to a login page.
  if (statusCode === 401) reply.header('www-authenticate', 'Bearer realm="apixo-gateway"')
  // The body of a refused request may still be coming: an end to the connection is cheaper than reading it to the end.
  if (code === 'GW_OVERLOADED') reply.header('connection', 'close')
  return reply.type('application/json; charset=utf-8').send(envelope(error, request.id))
}

/** Seconds, when it is more than the minute that a window of ours lasts at the most. */
function longWaitOf ({ detail: { retryAfterSeconds = 0 } }: GatewayError): number | null {
  return retryAfterSeconds > longestRetryAfter + 1 ? retryAfterSeconds : null
}

/** APIXO's envelope with ours beside it. */
function envelope (error: GatewayError, requestId: string): string {
  const { code, statusCode, message } = error
  const longWait = longWaitOf(error)
  return JSON.stringify({
    code: statusCode,
    message: longWait === null ? message : `${message} Wait ${longWait} seconds.`,
    data: null,
    error: { code, requestId, ...(longWait !== null && { retryAfterSeconds: longWait }) }
  })
}

/**
 * Bytes that are no HTTP never become a request; Node hands over the bare socket. One answer, and the connection ends:
 * what follows on it can't be trusted to begin where a request begins (RFC 9112 section 11.2).
 */
export function answerBrokenHttp (error: NodeJS.ErrnoException, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy()
    return
  }
  const ours = badRequest('This is not a valid HTTP request.')
  const status = brokenHttpStatus[String(error.code)] ?? 400
  const body = JSON.stringify({ code: status, message: ours.message, data: null, error: { code: ours.code } })
  socket.end(`HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\ncontent-type: application/json; charset=utf-8\r\n` +
    `x-gateway-error: ${ours.code}\r\ncache-control: no-store\r\nconnection: close\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`)
}

const brokenHttpStatus: Readonly<Record<string, number>> = {
  ERR_HTTP_REQUEST_TIMEOUT: 408,
  HPE_HEADER_OVERFLOW: 431
}
