import Fastify, { type FastifyInstance, LogController } from 'fastify'
import type { Logger } from 'pino'
import type { BeginCall } from './beginning.ts'
import { answerBrokenHttp, answerUnrouted, maxParamLength, renderErrors } from './error-handler.ts'
import { requestIds } from './request-ids.ts'
import { type SocketLimits, sockets } from './sockets.ts'

export interface ServerOptions extends Omit<SocketLimits, 'unwantedBytes'> {
  readonly log: Logger
  /** Addresses whose `x-forwarded-*` counts. */
  readonly trustProxy: readonly string[]
  readonly bodyBytes: number
  readonly begin: BeginCall
  readonly allowedOrigins: readonly string[]
}

/** Node's own limits on a slow caller, ms: https://nodejs.org/api/http.html#serverrequesttimeout */
const requestMs = 120_000
const requestHeadersMs = 20_000
const connectionsCheckMs = 5000
/** Longer than the proxy before it keeps one: what it sends must not meet a connection that is being closed, ms. */
const keepAliveMs = 72_000
/** Of an unwanted body, beyond the longest one there may be: whoever sends a little too much gets to read so, bytes. */
const excessBytes = 1024 * 1024

/** A Fastify without routes, in which nothing that matters is left to a default. */
export function server ({ log, trustProxy, bodyBytes, socketsPerAddress, stallMs, begin, allowedOrigins }: ServerOptions): FastifyInstance {
  const newId = requestIds()
  const bounded = sockets({ socketsPerAddress, stallMs, unwantedBytes: bodyBytes + excessBytes })
  const app: FastifyInstance = Fastify({
    loggerInstance: log,
    logController: new LogController({ disableRequestLogging: true }), // one access line of our own instead
    childLoggerFactory: parent => parent, // a child logger a request costs more than it says: each line carries the id
    genReqId: newId,
    trustProxy: trustProxy.length === 0 ? false : [...trustProxy],
    bodyLimit: bodyBytes,
    serverFactory: serve => bounded.createServer(serve, {
      requestTimeout: requestMs,
      headersTimeout: requestHeadersMs,
      connectionsCheckingInterval: connectionsCheckMs,
      keepAliveTimeout: keepAliveMs
    }),
    forceCloseConnections: 'idle',
    return503OnClosing: false, // `receive` says it in our own words
    exposeHeadRoutes: true,
    routerOptions: { maxParamLength },
    clientErrorHandler: bounded.atLast(answerBrokenHttp({ app: () => app, newId, allowedOrigins })),
    frameworkErrors: answerUnrouted(() => app, begin),
    ajv: { customOptions: { coerceTypes: false, removeAdditional: false } }
  }) as unknown as FastifyInstance
  renderErrors(app)
  return app
}
