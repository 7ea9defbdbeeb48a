import Fastify, { type FastifyInstance, LogController } from 'fastify'
import type { Logger } from 'pino'
import type { BeginCall } from './beginning.ts'
import { answerBrokenHttp, answerUnrouted, maxParamLength, renderErrors } from './error-handler.ts'
import { requestIds } from './request-ids.ts'
import { limitSockets } from './sockets.ts'

export interface ServerOptions {
  readonly log: Logger
  /** Addresses whose `x-forwarded-*` counts. */
  readonly trustProxy: readonly string[]
  readonly bodyBytes: number
  readonly socketsPerAddress: number
  readonly begin: BeginCall
  readonly allowedOrigins: readonly string[]
}

/** Node's own limits on a slow caller, ms: https://nodejs.org/api/http.html#serverrequesttimeout */
const requestMs = 120_000
const requestHeadersMs = 20_000
const connectionsCheckMs = 5000

/** A Fastify without routes, in which nothing that matters is left to a default. */
export function server ({ log, trustProxy, bodyBytes, socketsPerAddress, begin, allowedOrigins }: ServerOptions): FastifyInstance {
  const newId = requestIds()
  const app: FastifyInstance = Fastify({
    loggerInstance: log,
    logController: new LogController({ disableRequestLogging: true }), // one access line of our own instead
    childLoggerFactory: parent => parent, // a child logger a request costs more than it says: each line carries the id
    genReqId: newId,
    trustProxy: trustProxy.length === 0 ? false : [...trustProxy],
    bodyLimit: bodyBytes,
    requestTimeout: requestMs,
    http: { headersTimeout: requestHeadersMs, connectionsCheckingInterval: connectionsCheckMs },
    forceCloseConnections: 'idle',
    return503OnClosing: false, // `receive` says it in our own words
    exposeHeadRoutes: true,
    routerOptions: { maxParamLength },
    clientErrorHandler: answerBrokenHttp({ app: () => app, newId, allowedOrigins }),
    frameworkErrors: answerUnrouted(() => app, begin),
    ajv: { customOptions: { coerceTypes: false, removeAdditional: false } }
  }) as unknown as FastifyInstance
  limitSockets(app.server, socketsPerAddress)
  renderErrors(app)
  return app
}
