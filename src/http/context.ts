import type { FastifyContextConfig, FastifyReply, FastifyRequest, onRequestHookHandler } from 'fastify'
import { isUtf8 } from 'node:buffer'
import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import type { Plan } from '../domain/policy.ts'
import type { Session } from '../domain/session.ts'
import type { Awaitable } from '../domain/time.ts'
import type { UpstreamAnswer } from '../domain/upstream.ts'
import type { ErrorCode, GatewayError } from '../errors.ts'

/** The line. Each request stands at one of these words; where it ended is in its access line and metric. */
export type Stage = 'receive' | 'authenticate' | 'authorize' | 'admit' | 'forward' | 'settle' | 'reply'

/** Whoever got there has passed *authenticate*, *authorize* and *admit*. */
const grantedStages: ReadonlySet<Stage> = new Set(['forward', 'settle', 'reply'])

/** A turn of the event loop, from its first request on. */
interface Turn {
  /** What is sent at its end; `null`: it is over. */
  answers: Array<() => void> | null
}

let latest: Turn = { answers: null }

function turnNow (): Turn {
  if (latest.answers === null) {
    latest = { answers: [] }
    setImmediate(endTurn)
  }
  return latest
}

function endTurn (): void {
  const { answers } = latest
  latest.answers = null
  for (const send of answers!) send()
}

/** What the gateway knows of one request while it runs. Nothing in it is a secret, a prompt or a URL of a result. */
export class RequestState {
  /** `performance.now()` at arrival. */
  readonly startedAt = performance.now()
  /** What its route says of itself. Kept, since the framework makes `routeOptions` anew whenever it is read. */
  config: Readonly<FastifyContextConfig> = {}
  /** The pattern that its URL fits, never the URL: that may carry a task id, a ticket, or a token. */
  route = 'none'
  /** Who is throttled: the address, or the /64 it is in. */
  address: string | undefined = undefined
  /** Seconds until that address may fail again; `null`: it has not failed too often. */
  shutOutSeconds: number | null = null
  /** When its caller was authenticated, before the body was read, monotonic ms. */
  authenticatedAt = 0
  code: ErrorCode | 'OK' = 'OK'
  model: string | null = null
  taskId: string | null = null
  /** Of tasks that the upstream has made for this call. Whether they were claimed is the ledger's to say. */
  madeTaskIds: readonly string[] = []
  keyId: string | null = null
  /** Time spent waiting for the upstream, ms. */
  upstreamMs = 0
  /** Among the calls at work. */
  place = 0
  /** Bytes of request body this call may hold in memory. */
  heldBytes = 0
  /** From its arrival to the end of all work, ms; 0 until then. */
  durationMs = 0

  readonly #turn = turnNow()
  #stage: Stage = 'receive'
  #isGranted = false
  #session: Session | null = null
  #plan: Plan | null = null
  #isHandled = false
  #isClosed = false
  #onClosed: Array<() => void> | null = null
  #onEnd: (() => void) | null

  /** `onEnd`: called once, when the response is out, or the caller gone, and the handler is done. */
  constructor (onEnd: () => void) {
    this.#onEnd = onEnd
  }

  /** As in logs and metrics. */
  get operation (): string { return this.config.operation ?? 'none' }

  get stage (): Stage { return this.#stage }

  enter (stage: Stage): void {
    this.#stage = stage
    if (grantedStages.has(stage)) this.#isGranted = true
  }

  /** Passed *authenticate*, *authorize* and *admit*: what fails from then on is no refusal. */
  get granted (): boolean { return this.#isGranted }

  /** Passed *admit*, on a route that has no later stage. */
  grant (): void { this.#isGranted = true }

  /** Refused in *admit* after all. */
  refuse (): void { this.#isGranted = false }

  get session (): Session | null { return this.#session }
  get plan (): Plan | null { return this.#plan }

  /** Passed *authenticate*. */
  identify (session: Session, plan: Plan): void {
    this.#session = session
    this.#plan = plan
  }

  /** The response has been sent, or the caller has gone. */
  get closed (): boolean { return this.#isClosed }

  /** Calls back when it is. One listener at the response is enough: each costs as much as a request's state. */
  onClosed (listener: () => void): void {
    if (this.#onClosed === null) this.#onClosed = [listener]
    else this.#onClosed.push(listener)
  }

  connectionClosed (): void {
    this.#isClosed = true
    this.#endWhenOver()
    for (const listener of this.#onClosed ?? []) listener()
  }

  /** The stages are at work. They may be so after the caller has gone: a submit runs to its end. */
  handlerStarted (): void { this.#isHandled = true }

  handlerDone (): void {
    this.#isHandled = false
    this.#endWhenOver()
  }

  /**
   * Sends the answer, unless there was one. Answers that had to wait for nothing go together, at the end of the turn in
   * which their requests came: the first write wakes the program that reads it, and the others find it awake. To wake
   * it for each answer costs as much as to make most of them.
   */
  answer (reply: FastifyReply, send: () => void): void {
    const sendOnce = (): void => {
      try {
        if (!reply.sent) send()
      } catch (error) {
        reply.send(error)
      }
    }
    const { answers } = this.#turn
    if (answers === null) sendOnce()
    else answers.push(sendOnce)
  }

  #endWhenOver (): void {
    // Once: a handler may still be on its way to a caller who has gone.
    const end = this.#onEnd
    if (!this.#isClosed || this.#isHandled || end === null) return
    this.#onEnd = null
    this.durationMs = performance.now() - this.startedAt
    end()
  }
}

/** The call of a request whose session has been verified. */
export type SessionRequestState = RequestState & { readonly session: Session, readonly plan: Plan }

/** What a stage gets besides its value. */
export interface RequestContext {
  readonly request: FastifyRequest
  readonly reply: FastifyReply
  readonly call: SessionRequestState
}

/** For routes behind `authenticate`. */
export function contextOf (request: FastifyRequest, reply: FastifyReply): RequestContext {
  return { request, reply, call: request.call as SessionRequestState }
}

/**
 * What is to be true of a request before it goes on. Throws why it is not, or returns it where that may come as a
 * flood: V8 never compiles a function that always ends with a throw. A promise only where it has to wait.
 */
type Check = (request: FastifyRequest, reply: FastifyReply) => Awaitable<GatewayError | void>

/** As a hook of the framework, which takes each promise for a reason to wait. */
export function asHook (check: Check): onRequestHookHandler {
  return (request, reply, next) => {
    const refusal = check(request, reply) // what it throws is caught by the framework
    if (refusal instanceof Promise) refusal.then(late => next(late ?? undefined), next)
    else next(refusal ?? undefined)
  }
}

/** What opens a route in the place of a session. */
export type OtherSecret = 'issuer token' | 'admin token' | 'proof' | 'invitation' | 'callback' | 'ticket'

/** What is told of an error, whatever the shape of its body. */
export interface ErrorFacts {
  /** One of ours, or `apixo_…` with the status of the upstream's own. */
  readonly code: string
  readonly status: number
  readonly message: string
  readonly requestId: string
}

declare module 'fastify' {
  interface FastifyRequest { call: RequestState }
  interface FastifyContextConfig {
    /** Prints the body of an error where that is not APIXO's envelope. */
    errorBody?: (error: ErrorFacts, request: FastifyRequest) => string
    /** As in logs and metrics. */
    operation?: string
    /** Names that its query may have, where no schema says so: for the reference. */
    query?: readonly string[]
    /** Not throttled, and its errors don't count against an address: health routes. */
    exempt?: boolean
    /** Its errors don't count against an address: callbacks. */
    uncounted?: boolean
    /**
     * The secret that opens it, where that is no session. Of an address that has failed too often the issuer token
     * alone is still looked at; all others are refused before they are compared, so that nobody goes on guessing.
     */
    opensWith?: OtherSecret
    /** `false`: the plugin for CORS passes it by. */
    cors?: false
  }
}

/**
 * On every answer: none is stored by a cache that others share, none is sniffed into a page, framed or run. A page of
 * the gateway's own replaces what it must.
 */
const secureHeaders = {
  'cache-control': 'no-store',
  'content-security-policy': "default-src 'none'; sandbox",
  'x-content-type-options': 'nosniff'
} as const

/**
 * Of a stream of events. Each keeps a proxy from holding events back that the others do not: one that compresses
 * (`no-transform` for the common ones, an encoding for those that look at nothing else), and one that buffers.
 */
export const streamHeaders = {
  'content-type': 'text/event-stream',
  'cache-control': 'no-store, no-transform',
  'content-encoding': 'identity',
  'x-accel-buffering': 'no'
} as const

/** What is left of a subject's budget: draft-ietf-httpapi-ratelimit-headers-03. */
const budgetHeaders = ['ratelimit-limit', 'ratelimit-remaining', 'ratelimit-reset'] as const

/** On submits, of credits that are nearly used up (`tellNearEnds`). */
export const creditsHeader = 'x-gateway-credits'

/** Read by pages of other origins; to a script a header that is not among them is not there. */
export const exposedHeaders = [
  'x-gateway-error', 'x-request-id', 'request-id', ...budgetHeaders, creditsHeader, 'retry-after', 'x-should-retry',
  'etag', 'allow', 'content-disposition', 'idempotency-replayed', 'content-range'
] as const

type Headers = Readonly<Record<string, string>>

/**
 * The headers that every answer begins with, by the `Origin` of its request: `secureHeaders`, and CORS as @fastify/cors
 * writes it. They are made once.
 */
export function firstHeaders (allowedOrigins: readonly string[]): (origin: string | undefined) => Headers {
  const toAnybody: Headers = { ...secureHeaders, vary: 'Origin' }
  const toListed = new Map(allowedOrigins.map((origin): [string, Headers] => [origin, {
    ...toAnybody,
    'access-control-allow-origin': origin,
    'access-control-expose-headers': exposedHeaders.join(', ')
  }]))
  return origin => (origin === undefined ? undefined : toListed.get(origin)) ?? toAnybody
}

/** An upstream answer as the caller gets it: status and body unchanged, and no header but these. */
export interface Answer {
  readonly status: number
  readonly contentType: string
  readonly retryAfter: string | undefined
  readonly retryAfterMs?: string | undefined
  readonly body: Buffer
}

/** Most status answers. */
const shortBytes = 4096

const json = 'application/json; charset=utf-8'

/**
 * Lets an answer through. A content type that is no JSON is replaced (the body was checked to be JSON, and a browser
 * shall not take it for a page); a `retry-after` passes when it has a form of RFC 9110 section 10.2.3, and unchanged,
 * so that nobody waits longer or shorter than the upstream has asked.
 */
export function answerFrom ({
  status,
  contentType,
  retryAfter,
  retryAfterMs,
  body
}: Omit<UpstreamAnswer, 'leaksKey'>): Answer {
  return {
    status,
    contentType: /^application\/json *(?:; *charset="?utf-8"?)?$/i.test(contentType) ? contentType : json,
    retryAfter:
      retryAfter !== undefined && /^(?:\d{1,7}|[A-Z][a-z]{2}, [\w: ]{20,24})$/.test(retryAfter)
        ? retryAfter
        : undefined,
    retryAfterMs: retryAfterMs !== undefined && /^\d{1,9}(?:\.\d{1,6})?$/.test(retryAfterMs) ? retryAfterMs : undefined,
    body
  }
}

/** A finished task, from the ledger. */
export function storedAnswer (body: Buffer): Answer {
  return { status: 200, contentType: json, retryAfter: undefined, body }
}

export function replyWith (
  reply: FastifyReply,
  { status, contentType, retryAfter, retryAfterMs, body }: Answer
): FastifyReply {
  reply.code(status).header('content-type', contentType)
  if (retryAfter !== undefined) reply.header('retry-after', retryAfter)
  if (retryAfterMs !== undefined) reply.header('retry-after-ms', retryAfterMs)
  if (status >= 400) withoutBudget(reply)
  // Node sends a short text in one piece with its headers; a buffer is a second piece, and the system call dearer. Only
  // valid UTF-8 survives being read as text.
  return reply.send(body.length <= shortBytes && isUtf8(body) ? body.toString() : body)
}

/**
 * Takes the subject's budget off an answer that says no for another reason. Some clients wait for its reset when there
 * is no `retry-after`: up to a minute, where a failure of the upstream may be over in a moment.
 */
export function withoutBudget (reply: FastifyReply): void {
  for (const name of budgetHeaders) reply.removeHeader(name)
}

/** Gives a request its call and its first headers. */
export type StartRequest = (request: FastifyRequest, reply: FastifyReply) => void

/** Runs once for each call, when its response is out, or its caller gone, and its work is done. */
export type OnRequestEnd = (request: FastifyRequest, reply: FastifyReply) => void

interface RequestStarterOptions {
  readonly allowedOrigins: readonly string[]
  /** Run once for each call, as it arrives. */
  readonly begun: (request: FastifyRequest, reply: FastifyReply) => void
  readonly onRequestEnd: readonly OnRequestEnd[]
}

export function requestStarter (
  { allowedOrigins, begun, onRequestEnd: endings }: RequestStarterOptions
): StartRequest {
  const headersFor = firstHeaders(allowedOrigins)

  return (request, reply) => {
    const call = new RequestState(() => {
      for (const end of endings) end(request, reply)
    })
    const { config, url } = request.routeOptions
    if (config !== undefined) call.config = config
    if (url !== undefined) call.route = url
    request.call = call
    noteBody(request)
    begun(request, reply)
    // 'close' comes after a complete response and after a broken one alike; 'onResponse' does not.
    reply.raw.on('close', () => call.connectionClosed())
    reply.headers(headersFor(request.headers.origin)).header('x-request-id', request.id)
  }
}

/**
 * The latest request with a body on each connection: when the body is late, there is only its socket to tell whose it
 * was.
 */
const withBody = new WeakMap<Socket, IncomingMessage>()

function noteBody ({ raw }: FastifyRequest): void {
  if (raw.headers['content-length'] !== undefined || raw.headers['transfer-encoding'] !== undefined) {
    withBody.set(raw.socket, raw)
  }
}

/** The request whose body may be late on a connection. */
export function lateOn (socket: Socket): IncomingMessage | undefined {
  return withBody.get(socket)
}
