import { lookup as resolveName } from 'node:dns'
import { pipeline, type Readable, Transform, type TransformCallback } from 'node:stream'
import { Agent, type Dispatcher } from 'undici'
import { guardedLookup, isWithin, type Reach, type Resolve, resultHosts } from '../../domain/egress.ts'
import { freedPieces, type ResultAnswer, type ResultAsk, type ResultSource } from '../../domain/results.ts'
import { type ErrorCode, gatewayError, isGatewayError } from '../../errors.ts'
import { type CallFailure, type ClientOptions, connectionOptions, failureOf } from './upstream.ts'

export interface UndiciResultsOptions extends ClientOptions {
  /** As in `results.hosts`. */
  readonly hosts: readonly string[]
  readonly maxBytes: number
  readonly resolve?: Resolve | undefined
  /** Whether a connection may lead to this address. */
  readonly isAllowed?: ((reach: Reach, address: string) => boolean) | undefined
}

/**
 * Results over undici. It has no key to lose: what it sends is a list of its own, and none of it is secret. It follows
 * no redirect, and each new connection is held against the addresses its name leads to at that moment.
 */
export function undiciResults (options: UndiciResultsOptions): ResultSource {
  const { maxBytes } = options
  const targetOf = resultHosts({ hosts: options.hosts, ownOrigin: new URL(options.baseUrl).origin })
  const agents: Readonly<Record<Reach, Agent>> = {
    public: agent('public', options), loopback: agent('loopback', options), any: agent('any', options)
  }

  return {
    async fetch ({ url }, ask, signal) {
      const target = targetOf(url)
      if (target === null) throw invalid(`results.hosts does not let a result be fetched from ${hostIn(url)}`)
      const headers = headersFor(ask, options.userAgent)
      const call = agents[target.reach].request({
        origin: target.origin,
        path: target.path,
        method: 'GET',
        headers,
        signal
      })
      const response = await call.catch(refuse)
      try {
        const answer = readAnswer(response, ask, maxBytes)
        if (answer?.body) await begun(answer.body)
        return answer
      } catch (error) {
        discard(response)
        return refuse(error)
      }
    },
    async close () {
      await Promise.all(Object.values(agents).map(agent => agent.destroy()))
    }
  }
}

function agent (
  reach: Reach, { resolve = resolveName, isAllowed = isWithin, ...options }: UndiciResultsOptions
): Agent {
  return new Agent(connectionOptions(options, guardedLookup(resolve, address => isAllowed(reach, address))))
}

/** Built from a list of our own: no cookie, no referrer and no credential can be in it. */
function headersFor (
  { range, ifRange, ifNoneMatch }: ResultAsk,
  userAgent: string
): Record<string, string | undefined> {
  return {
    accept: '*/*',
    'accept-encoding': 'identity',
    'user-agent': userAgent,
    range,
    'if-range': range === undefined ? undefined : ifRange,
    'if-none-match': ifNoneMatch
  }
}

const codes: Readonly<Record<CallFailure, ErrorCode>> = {
  'connect-timeout': 'GW_UPSTREAM_UNREACHABLE',
  timeout: 'GW_UPSTREAM_TIMEOUT',
  broken: 'GW_UPSTREAM_INVALID',
  unreachable: 'GW_UPSTREAM_UNREACHABLE'
}

function refuse (cause: unknown): never {
  throw isGatewayError(cause) ? cause : gatewayError(codes[failureOf(cause as Error)], { cause })
}

function readAnswer (response: Dispatcher.ResponseData, ask: ResultAsk, maxBytes: number): ResultAnswer | null {
  const { statusCode, body } = response
  const header = (name: string): string => String(response.headers[name] ?? '')
  if (statusCode === 403 || statusCode === 404 || statusCode === 410) {
    discard(response)
    return null
  }
  const status = wantedStatus(statusCode, ask)
  if (status === null) throw invalid(`it answered ${statusCode}`)
  if (!/^(?:identity)?$/i.test(header('content-encoding'))) throw invalid('it is compressed, though asked for plain')
  const contentRange = /^bytes (?:\d{1,15}-\d{1,15}|\*)\/(?:(\d{1,15})|\*)$/.exec(header('content-range'))
  if (status === 206 && contentRange === null) throw invalid('it is a part that does not say which')
  if (status === 304 || status === 416) discard(response)
  const length = /^\d{1,15}$/.test(header('content-length')) ? Number(header('content-length')) : null
  if (Math.max(length ?? 0, Number(contentRange?.[1] ?? 0)) > maxBytes) {
    throw invalid('it is longer than results.maxBytes')
  }
  return {
    status,
    contentType: header('content-type'),
    length,
    contentRange: status === 206 || status === 416 ? contentRange?.[0] ?? null : null,
    acceptsRanges: /^bytes$/i.test(header('accept-ranges')),
    etag: /^(?:W\/)?"[\x21\x23-\x7e]{0,256}"$/.exec(header('etag'))?.[0] ?? null,
    lastModified:
      /^[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT$/.exec(header('last-modified'))?.[0] ?? null,
    // A length that was announced is kept by HTTP itself; one that was not is counted.
    body: status === 304 || status === 416 ? null : freedPieces(length === null ? cutAt(maxBytes, response) : body)
  }
}

/** The statuses that may be passed on are those that were asked for. A redirect is none: it leads past every check. */
function wantedStatus (status: number, { range, ifNoneMatch }: ResultAsk): ResultAnswer['status'] | null {
  if (status === 200) return status
  if (status === 206 || status === 416) return range === undefined ? null : status
  return status === 304 && ifNoneMatch !== undefined ? status : null
}

/**
 * Waits for the first bytes, or the end when there are none: what goes wrong before them can still be a plain error.
 */
function begun (body: Readable): Promise<void> {
  return new Promise((resolve, reject) => {
    body.once('readable', resolve).once('end', resolve).once('error', reject)
  })
}

/** Ends with an error, and ends the connection, after that many bytes. */
function cutAt (maxBytes: number, { body }: Dispatcher.ResponseData): Transform {
  let bytes = 0
  const meter = new Transform({
    transform (chunk: Buffer, _encoding, done: TransformCallback) {
      bytes += chunk.length
      if (bytes > maxBytes) done(invalid('it is longer than results.maxBytes'))
      else done(null, chunk)
    }
  })
  return pipeline(body, meter, () => { /* either's error ends the other; the reader hears of it from the meter */ })
}

/** Closes the connection rather than reading what nobody wants. */
function discard ({ body }: Dispatcher.ResponseData): void {
  body.on('error', () => { /* it was ended by us */ }).destroy()
}

function invalid (why: string) {
  return gatewayError('GW_UPSTREAM_INVALID', { cause: new Error(`a result can not be passed on: ${why}`) })
}

/** For the operator's log: the name alone, since whoever has the whole URL has the file. */
function hostIn (url: string): string {
  return JSON.stringify(URL.parse(url)?.hostname.slice(0, 253) ?? 'no URL')
}
