import type { ConnectionError, FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { type IncomingHttpHeaders, maxHeaderSize, STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import { quoted } from '../domain/json.ts'
import { instant, longestRetryAfter, retryAfterSeconds } from '../domain/time.ts'
import { badRequest, gatewayError, type GatewayError, isGatewayError } from '../errors.ts'
import { type StartRequest, firstHeaders, lateOn, withoutBudget } from './context.ts'
import { shutOut } from './receive.ts'

/** Of a part of a path: a reservation's name may hold its subject, and a subject 160 characters of any script. */
export const maxParamLength = 2048

/** What the framework refuses by itself, in our words. Any other 4xx of its own is a bad request. */
const frameworkErrors: Readonly<Record<string, (limit: string) => GatewayError>> = {
  FST_ERR_CTP_BODY_TOO_LARGE: limit => gatewayError('GW_TOO_LARGE', { about: limit }),
  FST_ERR_CTP_INVALID_MEDIA_TYPE: () =>
    gatewayError('GW_UNSUPPORTED_MEDIA_TYPE', { about: 'Send content-type: application/json.' }),
  FST_ERR_BAD_URL: () => badRequest('The path has a broken percent-encoding.'),
  FST_ERR_MAX_PARAM_LENGTH: () => badRequest(`A part of the path is longer than ${maxParamLength} characters.`)
}

/** The one place where an error becomes an answer. */
export function renderErrors (app: FastifyInstance): void {
  app.setErrorHandler((error: FastifyError, request, reply) => {
    let ours = asGatewayError(error, request)
    if (ours.statusCode >= 500) {
      request.log[ours.statusCode === 500 ? 'error' : 'warn']({ err: error, requestId: request.id }, 'request failed')
    }
    if (ours.statusCode === 401 || ours.statusCode === 404) {
      app.countFailure(request)
      // A session goes on from an address that has failed too often, and guesses no better than anybody there.
      if (request.call.shutOutSeconds !== null) ours = shutOut(request.call.shutOutSeconds)
    }
    request.call.answer(reply, () => render(ours, request, reply))
  })
  app.setNotFoundHandler(request => {
    request.call.route = 'none' // an OPTIONS that is no preflight came by the route of the plugin for CORS
    throw gatewayError('GW_NOT_FOUND')
  })
}

/**
 * A URL that can't be decoded, or has too long a part, reaches no hook: the router gives it up before there is a route.
 */
export function answerUnrouted (app: () => FastifyInstance, begin: StartRequest) {
  return (error: FastifyError, request: FastifyRequest, reply: FastifyReply): void => {
    begin(request, reply)
    const answer = (error: FastifyError) => render(asGatewayError(error, request), request, reply)
    app().receiveUnrouted(request).then(() => answer(error), answer).catch(app().log.error.bind(app().log))
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
  if (detail.retryAfterSeconds !== undefined && longWait === null) {
    reply.header('retry-after', retryAfterSeconds(detail.retryAfterSeconds * 1000))
  }
  if (detail.shouldRetry === false || longWait !== null) reply.header('x-should-retry', 'false')
  if (code !== 'GW_RATE_LIMITED') withoutBudget(reply)
  if (detail.allow !== undefined) reply.header('allow', detail.allow)
  // RFC 6750 section 3: what to send, and never a redirect to a login page.
  if (statusCode === 401) reply.header('www-authenticate', 'Bearer realm="apixo-gateway"')
  // The body of a refused request may still be coming: an end to the connection is cheaper than reading it to the end.
  if (code === 'GW_OVERLOADED') reply.header('connection', 'close')
  const { errorBody } = request.call.config
  if (errorBody === undefined) {
    return reply.type('application/json; charset=utf-8').send(envelope(error, longWait, request.id))
  }
  const message = sentenceOf(error, longWait)
  return reply.type('application/json; charset=utf-8').header('request-id', request.id)
    .send(errorBody({ code, status: statusCode, message, requestId: request.id }, request))
}

/** Seconds, when it is more than the minute that a window of ours lasts at the most. */
function longWaitOf ({ detail: { retryAfterSeconds = 0 } }: GatewayError): number | null {
  return retryAfterSeconds > longestRetryAfter + 1 ? retryAfterSeconds : null
}

function sentenceOf ({ message }: GatewayError, longWait: number | null): string {
  return longWait === null ? message : `${message} Wait ${longWait} seconds.`
}

/** APIXO's envelope with ours beside it. */
function envelope (error: GatewayError, longWait: number | null, requestId: string): string {
  const { code, statusCode, detail: { ceiling } } = error
  const sentence = sentenceOf(error, longWait)
  const wait = longWait === null ? '' : `,"retryAfterSeconds":${longWait}`
  const { level, resetsAt = null } = ceiling ?? {}
  const above = level === undefined
    ? ''
    : `,"level":"${level}","resetsAt":${resetsAt === null ? null : `"${instant(resetsAt)}"`}`
  return `{"code":${statusCode},"message":${JSON.stringify(sentence)},"data":null,` +
    `"error":{"code":"${code}","requestId":"${requestId}"${wait}${above}}}`
}

/**
 * Bytes that are no HTTP never become a request; Node hands over the bare socket. One answer, and the connection ends:
 * what follows on it can't be trusted to begin where a request begins (RFC 9112 section 11.2).
 */
export function answerBrokenHttp ({ app, newId, allowedOrigins }: BrokenHttpOptions) {
  const headersFor = firstHeaders(allowedOrigins)
  return (error: ConnectionError, socket: Socket): void => {
    if (error.code === 'ECONNRESET' || !socket.writable) {
      socket.destroy()
      return
    }
    const [status, about] = brokenHttp[String(error.code)] ?? [400, 'This is not a valid HTTP request.']
    // Bytes, whatever the framework's type of it says.
    const known = headersOf(error.rawPacket as unknown as Buffer | undefined, socket)
    if (status === 431) app().receiveBroken(socket, known)
    const ours = badRequest(about)
    const requestId = newId()
    const body = JSON.stringify({
      code: status,
      message: ours.message,
      data: null,
      error: { code: ours.code, requestId }
    })
    const headers = {
      ...headersFor(known.origin),
      'content-type': 'application/json; charset=utf-8',
      'content-length': Buffer.byteLength(body),
      'x-gateway-error': ours.code,
      'x-request-id': requestId,
      connection: 'close'
    }
    const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`)
    socket.end(`HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n${lines.join('')}\r\n${body}`)
  }
}

interface BrokenHttpOptions {
  readonly app: () => FastifyInstance
  readonly newId: () => string
  readonly allowedOrigins: readonly string[]
}

const brokenHttp: Readonly<Record<string, readonly [status: number, about: string]>> = {
  ERR_HTTP_REQUEST_TIMEOUT: [408, 'This request did not arrive in time.'],
  HPE_HEADER_OVERFLOW: [431, `The path and the headers are longer than ${maxHeaderSize} bytes.`]
}

/**
 * Of what could not be read to its end, as much as is known: from the bytes at hand, or of the request whose body is
 * late.
 */
function headersOf (rawPacket: Buffer | undefined, socket: Socket): IncomingHttpHeaders {
  if (rawPacket === undefined) return lateOn(socket)?.headers ?? {}
  const headers: Record<string, string> = {}
  for (const line of rawPacket.toString('latin1').split('\r\n')) {
    const colon = line.indexOf(':')
    if (colon > 0 && colon <= maxNameLength) {
      headers[line.slice(0, colon).toLowerCase()] ??= line.slice(colon + 1).trim()
    }
  }
  return headers
}

/** Of the headers that are looked at. */
const maxNameLength = 32
