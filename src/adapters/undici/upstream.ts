import { promisify } from 'node:util'
import { brotliDecompress, gunzip, inflate, inflateRaw } from 'node:zlib'
import { type Dispatcher, Pool } from 'undici'
import type { Lookup } from '../../domain/egress.ts'
import {
  type CredentialHeader, type Exchange, type FailureReason, keepAliveMarginMs, type Upstream, type UpstreamAnswer,
  UpstreamFailure, type UpstreamKey, type UpstreamRequest
} from '../../domain/upstream.ts'

/** How the upstream and the hosts of its results are called. */
export interface ClientOptions {
  /** `https://api.apixo.ai`, with a path prefix if there is one, without `/api/v1`. */
  readonly baseUrl: string
  readonly connectMs: number
  readonly headersMs: number
  readonly bodyIdleMs: number
  readonly keepAliveMs: number
  readonly userAgent: string
  /** For a certificate authority of the operator's own, in PEM. */
  readonly ca?: string | undefined
}

/** Sockets to one host. A submit holds one until its answer. */
const maxConnections = 512

/** `lookup`: resolves names of hosts in place of the system. */
export function connectionOptions (
  { connectMs, headersMs, bodyIdleMs, keepAliveMs, ca }: ClientOptions, lookup?: Lookup
): Pool.Options {
  return {
    connections: maxConnections,
    pipelining: 1,
    connect: { timeout: connectMs, ca, ...(lookup === undefined ? {} : { lookup }) },
    headersTimeout: headersMs,
    bodyTimeout: bodyIdleMs,
    // Shorter than a server's own, so that a submit rarely meets a socket that is being closed on it.
    keepAliveTimeout: keepAliveMs,
    keepAliveMaxTimeout: keepAliveMs,
    keepAliveTimeoutThreshold: keepAliveMarginMs,
    // One connection for all, and its loss were the loss of all.
    allowH2: false
  }
}

/** How a call to another server has failed. `unreachable`: there was no connection, and so nothing was sent. */
export type CallFailure = 'connect-timeout' | 'timeout' | 'broken' | 'unreachable'

/**
 * What undici says itself comes after the connection stood, but for the wait for one; names, addresses and certificates
 * have codes of the system's own.
 */
export function failureOf ({ code, name }: { readonly code?: unknown, readonly name?: unknown }): CallFailure {
  if (code === 'UND_ERR_CONNECT_TIMEOUT') return 'connect-timeout'
  if (name === 'TimeoutError' || code === 'UND_ERR_HEADERS_TIMEOUT' || code === 'UND_ERR_BODY_TIMEOUT') return 'timeout'
  const wasConnected =
    name === 'AbortError' || name === 'HTTPParserError' || /^UND_ERR_|^(?:ECONNRESET|EPIPE)$/.test(String(code))
  return wasConnected ? 'broken' : 'unreachable'
}

/** Task answers are collected up to this length, and decoded up to it: a status is some hundred bytes. */
export const maxAnswerBytes = 1024 * 1024
/** Texts inside of texts that are looked at for the key: an error's own JSON may be a text in another's. */
const maxNesting = 4

/** The upstream over undici's `dispatch`, which costs half of `request()` and a fifth of `fetch`. */
export function undiciUpstream (options: ClientOptions): Upstream {
  const { origin, pathname } = new URL(options.baseUrl)
  const prefix = pathname.replace(/\/+$/, '')
  const pool = new Pool(origin, connectionOptions(options))
  const credentialOf = credentials(options.userAgent)

  return {
    send ({ method, path, body, key, idempotencyKey }: UpstreamRequest): Exchange {
      const { bytes, readHeaders, submitHeaders } = credentialOf(key)
      const collector = new Collector(bytes)
      const headers = body === undefined ? readHeaders : submitHeaders
      pool.dispatch({
        method,
        path: prefix + path,
        headers: idempotencyKey === undefined ? headers : ['idempotency-key', idempotencyKey, ...headers],
        body: body ?? null,
        idempotent: false
      }, collector)
      return collector
    },
    close: () => pool.destroy()
  }
}

interface Credential {
  /** What no answer may contain. */
  readonly bytes: Buffer
  /** The key in one header, name and value. */
  readonly headers: Readonly<Record<CredentialHeader, readonly [name: string, value: string]>>
  /** Of calls without a body, and with one. */
  readonly readHeaders: string[]
  readonly submitHeaders: string[]
}

/**
 * The one place where a key is more than a `Secret`. Headers are made once for each key, from a list of our own: no
 * header of a caller's can reach the upstream, and `Authorization` is the last, so that nothing can replace it.
 */
export function credentials (userAgent: string): (key: UpstreamKey) => Credential {
  const made = new WeakMap<UpstreamKey, Credential>()
  const common = ['accept', 'application/json', 'accept-encoding', 'identity', 'user-agent', userAgent]

  return key => {
    let credential = made.get(key)
    if (credential === undefined) {
      const value = key.secret.reveal()
      const authorization = ['authorization', `Bearer ${value}`] as const
      credential = {
        bytes: Buffer.from(value),
        headers: { authorization, 'x-api-key': ['x-api-key', value], 'x-goog-api-key': ['x-goog-api-key', value] },
        readHeaders: [...common, ...authorization],
        submitHeaders: [...common, 'content-type', 'application/json', ...authorization]
      }
      made.set(key, credential)
    }
    return credential
  }
}

/** Collects one answer. It is a class because undici calls the methods of one object for one request. */
class Collector implements Dispatcher.DispatchHandler, Exchange {
  readonly answer: Promise<UpstreamAnswer>
  readonly #key: Buffer
  readonly #settled: PromiseWithResolvers<UpstreamAnswer> = Promise.withResolvers()
  readonly #chunks: Buffer[] = []
  #length = 0
  #status = 0
  #contentType = ''
  #decode: Decode | null = null
  #retryAfter: string | undefined
  #retryAfterMs: string | undefined
  #controller: Dispatcher.DispatchController | null = null
  #failure: FailureReason | null = null

  constructor (key: Buffer) {
    this.#key = key
    this.answer = this.#settled.promise
  }

  cancel (): void {
    this.#fail('cancelled')
  }

  /** undici calls this when the request goes onto a connected socket: from here on something may have been written. */
  onRequestStart (controller: Dispatcher.DispatchController): void {
    this.#controller = controller
    if (this.#failure !== null) controller.abort(new UpstreamFailure(this.#failure))
  }

  onResponseStart (
    _: Dispatcher.DispatchController,
    status: number,
    headers: Record<string, string | string[] | undefined>
  ): void {
    this.#status = status
    this.#contentType = String(headers['content-type'] ?? '')
    this.#retryAfter = headers['retry-after']?.toString()
    this.#retryAfterMs = headers['retry-after-ms']?.toString()
    const encoding = String(headers['content-encoding'] ?? '').trim().toLowerCase()
    if (encoding === '' || encoding === 'identity') return
    this.#decode = decoders.get(encoding) ?? null
    if (this.#decode === null) this.#fail('encoded')
  }

  onResponseData (_: Dispatcher.DispatchController, chunk: Buffer): void {
    this.#length += chunk.length
    if (this.#length > maxAnswerBytes) this.#fail('too-long')
    else this.#chunks.push(chunk)
  }

  onResponseEnd (): void {
    const body = this.#chunks.length === 1 ? this.#chunks[0]! : Buffer.concat(this.#chunks)
    if (this.#decode === null || body.length === 0) return this.#resolve(body)
    this.#decode(body).then(plain => this.#resolve(plain), error => {
      const reason = error.code === 'ERR_BUFFER_TOO_LARGE' ? 'too-long' : 'broken'
      this.#settled.reject(new UpstreamFailure(reason, error))
    })
  }

  #resolve (body: Buffer): void {
    this.#settled.resolve({
      status: this.#status,
      contentType: this.#contentType,
      retryAfter: this.#retryAfter,
      retryAfterMs: this.#retryAfterMs,
      body,
      leaksKey: holds(body, this.#key)
    })
  }

  onResponseError (_: Dispatcher.DispatchController | null, error: Error): void {
    this.#settled.reject(new UpstreamFailure(this.#failure ?? reasonOf(error, this.#controller !== null), error))
  }

  #fail (reason: FailureReason): void {
    this.#failure = reason
    this.#controller?.abort(new UpstreamFailure(reason))
  }
}

type Decode = (body: Buffer) => Promise<Buffer>

/**
 * What proxies compress with though they were asked for plain: the id of a task that is paid for may be inside. Other
 * codings, and one upon another, are not undone.
 */
const decoders: ReadonlyMap<string, Decode> = new Map(Object.entries({
  gzip: bounded(gunzip), 'x-gzip': bounded(gunzip), br: bounded(brotliDecompress), deflate: inflateAny
}))

type Decompress = (
  body: Buffer,
  options: { readonly maxOutputLength: number },
  done: (error: Error | null, plain: Buffer) => void
) => void

/** Rejects with `ERR_BUFFER_TOO_LARGE` as soon as there is more than an answer may have: a bomb is not unpacked. */
function bounded (decompress: Decompress): Decode {
  const run = promisify(decompress)
  return body => run(body, { maxOutputLength: maxAnswerBytes })
}

/** Some send the bare data, without the frame that RFC 9110 section 8.4.1.2 wants and that begins like this. */
function inflateAny (body: Buffer): Promise<Buffer> {
  return bounded((body[0]! & 0x0f) === 8 ? inflate : inflateRaw)(body)
}

/**
 * Whether a body has these bytes in it, written out or escaped, as a name, a value, or inside of JSON that is a text in
 * JSON. It goes by the text: of a name given twice a parser would see the last alone, and the caller gets both.
 */
export function holds (body: Buffer, key: Buffer): boolean {
  if (body.includes(key)) return true
  if (!body.includes('\\')) return false // nearly all of them
  const wanted = key.toString()
  let text = body.toString()
  for (let depth = 0; depth < maxNesting && text.includes('\\'); depth++) {
    text = text.replace(/\\(?:u([0-9a-f]{4})|(.))/gis, (_, unit: string | undefined, plain: string) =>
      unit === undefined ? plain : String.fromCharCode(parseInt(unit, 16)))
    if (text.includes(wanted)) return true
  }
  return false
}

/** Once it has begun on a connection, something may have been sent, whatever undici says of the end. */
export function reasonOf (error: Error, started: boolean): FailureReason {
  if (!started) return 'unreachable'
  return failureOf(error) === 'timeout' ? 'timeout' : 'broken'
}
