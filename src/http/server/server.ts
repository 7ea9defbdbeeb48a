import Fastify, { type FastifyInstance, LogController } from 'fastify'
import type { Logger } from 'pino'
import type { BeginCall } from './beginning.ts'
import { answerBrokenHttp, answerBrokenUrl, renderErrors } from './error-handler.ts'
import { requestIds } from './request-ids.ts'
import { limitSockets } from './sockets.ts'

export interface ServerOptions {
  readonly log: Logger
  /** Addresses whose `x-forwarded-*` counts. */
  readonly trustProxy: readonly string[]
  readonly bodyBytes: number
  readonly socketsPerAddress: number
  readonly begin: BeginCall
}

/** Node's own limits on a slow caller, ms: https://nodejs.org/api/http.html#serverrequesttimeout */
const requestMs = 120_000
const requestHeadersMs = 20_000
const connectionsCheckMs = 5000

/** Of a part of a path: a reservation's name may hold its subject, and a subject 160 characters of any script. */
const maxParamLength = 2048

/** A Fastify without routes, in which nothing that matters is left to a default. */
export function server ({ log, trustProxy, bodyBytes, socketsPerAddress, begin }: ServerOptions): FastifyInstance {
  const app = Fastify({
    loggerInstance: log,
    logController: new LogController({ disableRequestLogging: true }), // one access line of our own instead
    childLoggerFactory: parent => parent, // a child logger a request costs more than it says: each line carries the id
    genReqId: requestIds(),
    trustProxy: trustProxy.length === 0 ? false : [...trustProxy],
    bodyLimit: bodyBytes,
    requestTimeout: requestMs,
    http: { headersTimeout: requestHeadersMs, connectionsCheckingInterval: connectionsCheckMs },
    forceCloseConnections: 'idle',
    return503OnClosing: false, // `receive` says it in our own words
    exposeHeadRoutes: false,
    routerOptions: { maxParamLength },
    clientErrorHandler: answerBrokenHttp,
    frameworkErrors: answerBrokenUrl(begin),
    ajv: { customOptions: { coerceTypes: false, removeAdditional: false } }
  }) as unknown as FastifyInstance
  limitSockets(app.server, socketsPerAddress)
  renderErrors(app)
  return app
}
