import Fastify, {
  type FastifyContextConfig, type FastifyInstance, type FastifyReply, type FastifyRequest, LogController
} from 'fastify'
import { randomBytes } from 'node:crypto'
import { METHODS } from 'node:http'
import { Readable } from 'node:stream'
import { setTimeout as wait } from 'node:timers/promises'
import type { Logger } from 'pino'
import { readJson } from '../domain/json.ts'
import { gatewayError } from '../errors.ts'
import { type OnRequestEnd, type StartRequest, requestStarter, type RequestState, type Stage } from './context.ts'
import { answerBrokenHttp, answerUnrouted, maxParamLength, renderErrors } from './error-handler.ts'
import { receive, type ReceiveOptions } from './receive.ts'
import { type SocketLimits, sockets } from './sockets.ts'

/**
 * Ids that no two requests share, across replicas and restarts: a random part drawn once, and a counter. The caller's
 * own `x-request-id` is not taken over: it would let a caller write into the operator's log.
 */
function requestIds (): () => string {
  const prefix = randomBytes(6).toString('base64url')
  let count = 0
  return () => `${prefix}-${(++count).toString(36)}`
}

interface ServerOptions extends Omit<SocketLimits, 'unwantedBytes'> {
  readonly log: Logger
  /** Addresses whose `x-forwarded-*` counts. */
  readonly trustProxy: readonly string[]
  readonly bodyBytes: number
  readonly begin: StartRequest
  readonly allowedOrigins: readonly string[]
}

/** The gateway answers there and below, whoever serves the rest of the origin: what it does not know is its own 404. */
export const ownPrefixes = ['/api/v1', '/v1', '/v1beta', '/gateway', '/livez', '/readyz', '/metrics'] as const

/** Whether a path, without its query, is the gateway's. */
export function isOwnPath (path: string): boolean {
  return ownPrefixes.some(prefix => path === prefix || path.startsWith(`${prefix}/`))
}

/** Node's own limits on a slow caller, ms: https://nodejs.org/api/http.html#serverrequesttimeout */
const requestMs = 120_000
const requestHeadersMs = 20_000
const connectionsCheckMs = 5000
/** Longer than the proxy before it keeps one: what it sends must not meet a connection that is being closed, ms. */
const keepAliveMs = 72_000
/**
 * Of an unwanted body, beyond the longest one there may be: so that a caller that sends a little too much can read the
 * refusal, bytes.
 */
const excessBytes = 1024 * 1024

/** A Fastify without routes, in which nothing that matters is left to a default. */
function server ({
  log,
  trustProxy,
  bodyBytes,
  socketsPerAddress,
  stallMs,
  begin,
  allowedOrigins
}: ServerOptions): FastifyInstance {
  const newId = requestIds()
  const bounded = sockets({ socketsPerAddress, stallMs, unwantedBytes: bodyBytes + excessBytes })
  const app: FastifyInstance = Fastify({
    logController: new LogController({ disableRequestLogging: true }), // one access line of our own instead
    // Not `loggerInstance`, for which every response would be listened to; and a child logger a request costs more than
    // it says: each line carries the id.
    childLoggerFactory: () => log,
    genReqId: newId,
    trustProxy: trustProxy.length === 0 ? false : [...trustProxy],
    bodyLimit: bodyBytes,
    serverFactory: serve => bounded.createServer(serve, {
      requestTimeout: requestMs,
      headersTimeout: requestHeadersMs,
      connectionsCheckingInterval: connectionsCheckMs,
      keepAliveTimeout: keepAliveMs,
      optimizeEmptyRequests: true // no stream for what has no body
    }),
    forceCloseConnections: 'idle',
    return503OnClosing: false, // `receive` says it in our own words
    exposeHeadRoutes: true,
    routerOptions: { maxParamLength },
    clientErrorHandler: bounded.atLast(answerBrokenHttp({ app: () => app, newId, allowedOrigins })),
    frameworkErrors: answerUnrouted(() => app, begin),
    // Our own schemas are typed: to check them against JSON Schema's costs more of a start than to compile them.
    ajv: { customOptions: { coerceTypes: false, removeAdditional: false, validateSchema: false } }
  }) as unknown as FastifyInstance
  app.log = log
  app.addHook('preParsing', ({ headers }, _reply, payload, next) => {
    // A content type without a body would be waited for: where there is no stream it has no end.
    next(null, payload.readableEnded && headers['content-type'] !== undefined ? Readable.from([]) : undefined)
  })
  renderErrors(app)
  return app
}

/** Longest body of the gateway's own routes. They are read outside the bound on bytes in flight, so they are small. */
export const ownBodyBytes = 65_536

/**
 * How the routes of this scope get their bodies: JSON in UTF-8 and never compressed, for a bomb needs a decoder.
 * Mirrored routes take the bytes as they came, the gateway's own the parsed object. An empty body is no body.
 */
export function readBodies (app: FastifyInstance, as: 'bytes' | 'object'): void {
  app.addHook('preParsing', (request, _reply, _payload, next) => {
    const encoding = request.headers['content-encoding']
    if (encoding === undefined || encoding === 'identity') next(null)
    else next(gatewayError('GW_UNSUPPORTED_MEDIA_TYPE', { about: 'Send the body without content-encoding.' }))
  })
  if (as === 'object') app.addHook('onRoute', route => { route.bodyLimit ??= ownBodyBytes })
  app.removeAllContentTypeParsers()
  const read = (body: Buffer): unknown => as === 'bytes' ? body : readJson(body).value
  app.addContentTypeParser<Buffer>('application/json', { parseAs: 'buffer' }, (_request, body, next) => {
    try {
      next(null, body.length === 0 ? undefined : read(body))
    } catch (error) {
      next(error as Error)
    }
  })
}

/** How a listener stops. */
export interface Drain {
  /** Running calls may take this long to end by themselves. */
  readonly drainMs: number
  /** Resolves when somebody is in a hurry: what runs is cut off as if its time were over. */
  readonly hurried: Promise<void>
  /**
   * Ends what keeps calls at work: the calls to the upstream, the waits for the store. From its synchronous part on
   * nothing is sent any more.
   */
  cutOff (): void
}

/** Knows the calls at work, so that a stop can wait for them: also for submits whose caller has gone. */
interface Lifecycle {
  readonly begun: (request: FastifyRequest, reply: FastifyReply) => void
  readonly ended: (request: FastifyRequest) => void
  readonly isStopping: () => boolean
  /**
   * Refuses new requests and resolves when the running ones are done. No caller is left without an answer: without one
   * a browser sends a submit again by itself, without telling its page.
   */
  drain (app: FastifyInstance, drain: Drain): Promise<void>
}

/** After the cut every call has its outcome; the ledger takes this long at most to note it, ms. */
const settleMs = 1000
/** From an answer that is written to the end of its connection, ms: a caller that is still sending reads it first. */
const farewellMs = 250

function lifecycle (): Lifecycle {
  const idle = Promise.withResolvers<void>()
  // No map: each table that it has outgrown holds on to the next one, so that whatever was ever in it at such a moment,
  // which is all that waits for something, would stay in memory until the next full collection.
  const running: FastifyReply[] = []
  let stopping = false

  /** Answers all that are at work in a way that `errorFor` names; `null`: not yet. */
  const answer = (errorFor: (request: FastifyRequest) => Error | null): void => {
    for (const reply of [...running]) {
      /* c8 ignore next: answered or gone in the moment of the cut, which no test can time */
      if (reply.sent || reply.request.call.closed) continue
      const error = errorFor(reply.request)
      if (error !== null) reply.send(error)
    }
  }
  const closeConnections = async ({ server }: FastifyInstance, mayRead: boolean): Promise<void> => {
    if (mayRead) await wait(farewellMs)
    server.closeAllConnections()
  }

  return {
    begun: ({ call }, reply) => { call.place = running.push(reply) - 1 },
    ended ({ call: { place } }) {
      const last = running.pop()!
      if (place < running.length) {
        running[place] = last
        last.request.call.place = place
      }
      if (stopping && running.length === 0) idle.resolve()
    },
    isStopping: () => stopping,
    async drain (app, { drainMs, hurried, cutOff }) {
      stopping = true
      for (const { raw } of running) raw.shouldKeepAlive = false
      if (running.length === 0) idle.resolve()
      const closed = app.close()
      // Not for `closed`: to Node a socket that has never sent a request (a browser opens such) is not idle, and one of
      // them would hold up every stop.
      await within(drainMs, [idle.promise, hurried])
      const isCut = running.length > 0
      if (isCut) {
        answer(({ call }) => isBeforeForward(call) ? busy() : null)
        cutOff()
        await within(settleMs, [idle.promise])
        /* c8 ignore next: a store that outlasts the cut, and a read beside it: no test can time both */
        answer(({ call, method }) => method === 'POST' && !isBeforeForward(call) ? unknownOutcome() : busy())
      }
      await closeConnections(app, isCut)
      await closed
    }
  }
}

const before: ReadonlySet<Stage> = new Set(['receive', 'authenticate', 'authorize', 'admit'])

/** Nothing of it has been sent, and nothing will be. */
function isBeforeForward ({ stage }: RequestState): boolean {
  return before.has(stage)
}

function busy (): Error {
  return gatewayError('GW_OVERLOADED', { retryAfterSeconds: 1 })
}

/** Where the store does not say within time what has become of a submit. */
function unknownOutcome (): Error {
  return gatewayError('GW_OUTCOME_UNKNOWN', { shouldRetry: false })
}

async function within (ms: number, ends: ReadonlyArray<Promise<void>>): Promise<void> {
  const timer = new AbortController()
  await Promise.race([...ends, wait(ms, undefined, { signal: timer.signal }).catch(() => {})])
  timer.abort()
}

interface ListenerOptions extends Omit<ServerOptions, 'begin'>, Omit<ReceiveOptions, 'begin' | 'isStopping'> {
  readonly onRequestEnd: readonly OnRequestEnd[]
}

/** A port of ours: a server whose every request goes through *receive*, and that stops with grace. */
export interface Listener {
  readonly app: FastifyInstance
  /** Refuses new calls and resolves when the running ones are answered: by themselves, or when their time is over. */
  drain (drain: Drain): Promise<void>
}

export async function listener ({ onRequestEnd, ...options }: ListenerOptions): Promise<Listener> {
  const life = lifecycle()
  const begin = requestStarter({
    allowedOrigins: options.allowedOrigins,
    begun: life.begun,
    onRequestEnd: [...onRequestEnd, life.ended]
  })
  const app = server({ ...options, begin })
  await receive(app, { ...options, begin, isStopping: life.isStopping })
  return { app, drain: drain => life.drain(app, drain) }
}

const operation = 'methodNotAllowed'
type ErrorBody = NonNullable<FastifyContextConfig['errorBody']>

/**
 * Registers routes so that every other method on their URLs is a 405 with `allow` (RFC 9110 section 15.5.6), said
 * before anybody reads a body. OPTIONS is left to CORS.
 */
export async function withMethods (app: FastifyInstance, register: () => Promise<void>): Promise<void> {
  for (const method of METHODS) {
    // CONNECT never arrives as a request.
    if (method !== 'CONNECT' && !app.supportedMethods.includes(method)) app.addHttpMethod(method, { hasBody: true })
  }
  const allowed = new Map<string, { readonly methods: readonly string[], readonly errorBody: ErrorBody | undefined }>()
  app.addHook('onRoute', ({ url, method, config }) => {
    if (config?.operation === operation) return
    const known = allowed.get(url)
    allowed.set(url, {
      methods: [...known?.methods ?? [], ...[method].flat()], errorBody: known?.errorBody ?? config?.errorBody
    })
  })
  await register()
  for (const [url, { methods, errorBody }] of allowed) {
    const refuse = async () => { throw gatewayError('GW_METHOD_NOT_ALLOWED', { allow: methods.join(', ') }) }
    app.route({
      url,
      method: app.supportedMethods.filter(method => method !== 'OPTIONS' && !methods.includes(method)),
      config: errorBody === undefined ? { operation } : { operation, errorBody },
      onRequest: refuse,
      handler: refuse
    })
  }
}
