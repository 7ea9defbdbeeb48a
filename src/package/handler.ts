import { type ClientRequest, type IncomingMessage, request as httpRequest, type ServerResponse } from 'node:http'
import { isIP } from 'node:net'
import { type Duplex, Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type { ReadableStream } from 'node:stream/web'
import { isDeepStrictEqual } from 'node:util'
import type { Gateway } from '../gateway.ts'
import { isOwnPath } from '../http/server.ts'
import { type Settings, SettingsError } from '../settings.ts'
import { connection, type Peer } from './connection.ts'
import { type GatewaySettings, guestSettings, openGuest } from './guest.ts'

export interface HandlerSettings extends GatewaySettings {
  /**
   * `false`: the host can't tell who calls. Then nothing counts by address, and what would have to is refused: guests,
   * and limits per address of the config file. By default each call must come with its address.
   */
  readonly addresses?: boolean | undefined
}

export interface CallOrigin {
  /** The IP address at the other end of the caller's connection. Never what the caller says of itself. */
  readonly address?: string | undefined
}

/** Answers a request in the words of the web's fetch. Rejects with a `SettingsError` until its settings are right. */
export interface Handler {
  (request: Request, origin?: CallOrigin): Promise<Response>
  /** The same for frameworks on Node's own requests, of which nothing has been read. */
  serve (request: IncomingMessage, response: ServerResponse): Promise<void>
  /** Whether a path, without its query, is the gateway's. */
  isOwn (path: string): boolean
  /** Lets what runs end, and closes the store, for good. */
  close (): Promise<void>
}

/** What a process has of it, whatever reloads or bundles its modules twice: two would not share their limits. */
interface Instance {
  readonly settings: HandlerSettings
  gateway: Promise<Gateway> | null
  isClosed: boolean
}

const place = Symbol.for('apixo-gateway.handler')
const shared = globalThis as { [place]?: Instance }

/** Variables of hosts that stop or freeze a process after a response, when submits may still run. */
const shortLived = {
  AWS_LAMBDA_FUNCTION_NAME: 'AWS Lambda',
  VERCEL: 'Vercel',
  NETLIFY: 'Netlify',
  FUNCTIONS_WORKER_RUNTIME: 'Azure Functions',
  FUNCTION_TARGET: 'Cloud Functions'
} as const

/**
 * The gateway as a function for a server that has one already: `createHandler({ env, config })`. Opens nothing before
 * the first request, and one per process. Throws where the process does not live on between requests: there submits
 * would be cut off, and the ledger opened anew for each.
 *
 * The host bounds how long a request's headers and body may take and how many connections there are.
 */
export function createHandler (settings: HandlerSettings = {}): Handler {
  assertLongLived()
  const instance = shared[place] ??= { settings, gateway: null, isClosed: false }
  if (!isDeepStrictEqual(instance.settings, settings)) {
    throw new Error('apixo-gateway: this process has a handler with other settings. Make one and export it, or ' +
      'restart after a change.')
  }
  const open = async (): Promise<Gateway> => {
    if (instance.isClosed) throw new Error('apixo-gateway: this handler is closed.')
    instance.gateway ??= opened(settings).catch(error => {
      instance.gateway = null // what is wrong may be put right before the next request
      throw error
    })
    return await instance.gateway
  }
  const handler = async (request: Request, { address }: CallOrigin = {}): Promise<Response> => {
    assertAddress(address, settings)
    return await answerOf(await open(), request, address)
  }
  return Object.assign(handler, {
    isOwn: isOwnPath,
    async serve (request: IncomingMessage, response: ServerResponse) {
      (await open()).app.routing(request, response)
    },
    async close () {
      instance.isClosed = true
      if (shared[place] === instance) delete shared[place]
      await (await instance.gateway)?.close()
    }
  })
}

function assertLongLived (): void {
  const name = Object.keys(shortLived).find(name => process.env[name]) as keyof typeof shortLived | undefined
  const edge = process.env.NEXT_RUNTIME === 'edge' ? 'the edge runtime' : undefined
  const where = edge ?? (name === undefined ? undefined : `${shortLived[name]} (${name} is set)`)
  if (where === undefined) return
  throw new Error(`apixo-gateway: it needs a Node process that lives on between requests, and this is ${where}. Run ` +
    'the gateway by itself, or where the server keeps running.')
}

function assertAddress (address: string | undefined, { addresses = true }: HandlerSettings): void {
  if (address === undefined ? !addresses : isIP(address) !== 0) return
  throw new TypeError(address === undefined
    ? 'apixo-gateway: call handler(request, { address }) with the IP address of the caller, or make the handler with ' +
      'addresses: false, without guests and limits per address.'
    : 'apixo-gateway: the address is no IP address. Take that of the connection, and nothing else of the line that ' +
      'a proxy sends.')
}

async function opened (settings: HandlerSettings): Promise<Gateway> {
  const read = guestSettings(settings)
  const guest = await openGuest(settings.addresses === false ? withoutAddresses(read) : read)
  await guest.app.ready()
  return guest
}

const perAddress = ['addressRequestsPerMinute', 'addressFailuresPerMinute', 'socketsPerAddress'] as const

/** All would count as one caller. Throws a `SettingsError` for what an operator has asked for and would not get. */
export function withoutAddresses (settings: Settings): Settings {
  const { file, origins } = settings
  const asked = perAddress.map(name => `limits.${name}`).filter(name => origins.get(name) !== 'default')
  if (file.guests.enabled) asked.push('guests.enabled')
  if (asked.length > 0) {
    throw new SettingsError(asked.map(setting => ({
      setting,
      source: origins.get(setting)!,
      problem: 'counts by address, and this handler is made with addresses: false',
      expected: 'calls with { address }, or no such setting'
    })))
  }
  const unbounded = Object.fromEntries(perAddress.map(name => [name, Number.MAX_SAFE_INTEGER]))
  return { ...settings, file: { ...file, limits: { ...file.limits, ...unbounded } } }
}

/**
 * A connection in memory, which Node's own server takes as it takes one of the network. So what the gateway does for a
 * caller that hangs up, sends too much or reads slowly holds here too, and bodies are streams with back-pressure both
 * ways. (`inject` would be cheaper, by imitations of Node's request and response that are made for tests.)
 */
function connectionTo ({ app: { server } }: Gateway, peer: Peer): Duplex {
  const { near, far } = connection(peer)
  server.emit('connection', far)
  return near
}

type HeaderValues = Record<string, string | string[]>

/** They are about a connection, and this one is another than the caller's. */
const ofConnections = new Set([
  'connection', 'content-length', 'expect', 'keep-alive', 'proxy-connection', 'te', 'trailer', 'transfer-encoding',
  'upgrade'
])
/** `Headers` joins what came twice; apart again, the gateway refuses it in its own words. No credential has a comma. */
const credentials = new Set(['authorization', 'x-api-key', 'x-goog-api-key'])

/** Bytes; `null`: not announced. */
function lengthOf (headers: Headers): number | null {
  const length = headers.get('content-length') ?? ''
  return /^\d+$/.test(length) ? Number(length) : null
}

function requestHeaders (headers: Headers, host: string, framing: HeaderValues): HeaderValues {
  const sent = [...headers].filter(([name]) => !ofConnections.has(name))
  const values = sent.map(([name, value]) => [name, credentials.has(name) ? value.split(/, */) : value])
  return { host, ...Object.fromEntries(values), ...framing, connection: 'close' }
}

/** How a body's end is known. Said for every method: of DELETE and OPTIONS `node:http` would send bare bytes. */
function framingOf (body: ReadableStream | null, length: number | null): HeaderValues {
  if (body === null) return {}
  return length === null ? { 'transfer-encoding': 'chunked' } : { 'content-length': String(length) }
}

async function answerOf (guest: Gateway, request: Request, address: string | undefined): Promise<Response> {
  const { pathname, search, host, protocol } = new URL(request.url)
  const body = request.body as ReadableStream<Uint8Array> | null
  const length = body === null ? null : lengthOf(request.headers)
  const outgoing = httpRequest({
    createConnection: () => connectionTo(guest, { remoteAddress: address, encrypted: protocol === 'https:' }),
    method: request.method,
    path: pathname + search,
    headers: requestHeaders(request.headers, host, framingOf(body, length)),
    signal: request.signal // a submit whose body has come runs on in the gateway, whatever becomes of its caller
  })
  return responseFrom(await answerTo(outgoing, send(outgoing, body, length)), request.method)
}

function answerTo (outgoing: ClientRequest, sent: Promise<void>): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    outgoing.once('response', resolve).on('error', reject)
    sent.catch(error => {
      reject(error)
      outgoing.destroy(error)
    })
  })
}

/** An answer may come before the end of the body, which is then not wanted any more. */
async function send (
  outgoing: ClientRequest, body: ReadableStream<Uint8Array> | null, length: number | null
): Promise<void> {
  if (body === null) outgoing.end()
  else await pipeline(body, exactly(length), outgoing)
}

/** Bytes beyond the length that was announced would be read as another request, and missing ones be waited for. */
function exactly (length: number | null) {
  return async function * (body: AsyncIterable<Uint8Array>) {
    let left = length ?? Infinity
    for await (const chunk of body) {
      left -= chunk.length
      if (left < 0) break
      yield chunk
    }
    if (length !== null && left !== 0) throw new TypeError('apixo-gateway: the body has another length than announced.')
  }
}

const withoutBody = new Set([204, 205, 304])

function responseFrom (incoming: IncomingMessage, method: string): Response {
  const headers = new Headers()
  for (let index = 0; index < incoming.rawHeaders.length; index += 2) {
    const name = incoming.rawHeaders[index]!.toLowerCase()
    if (name === 'content-length' || !ofConnections.has(name)) headers.append(name, incoming.rawHeaders[index + 1]!)
  }
  const status = incoming.statusCode!
  if (method === 'HEAD' || withoutBody.has(status)) {
    incoming.resume()
    return new Response(null, { status, headers })
  }
  return new Response(Readable.toWeb(incoming) as BodyInit, { status, headers })
}
