import rateLimit from '@fastify/rate-limit'
import {
  createServer, IncomingMessage, type RequestListener, type Server, type ServerOptions, ServerResponse, STATUS_CODES
} from 'node:http'
import { Socket } from 'node:net'
import { gatewayError, type GatewayError } from '../errors.ts'

export interface SocketLimits {
  /** Open connections, per address. */
  readonly socketsPerAddress: number
  /** A connection whose caller takes nothing of an answer for so long is ended, ms. */
  readonly stallMs: number
  /** Of a body that nobody wants, at most this much is taken, so that its sender comes to read why. */
  readonly unwantedBytes: number
}

/** What a caller can make of a connection: how many there are, what waits on one, how it ends. No route is left out. */
export interface Sockets {
  readonly createServer: (serve: RequestListener, options: ServerOptions) => Server
  /** A last word on a connection from which no more requests can be read: said when those before it are answered. */
  readonly atLast: <Reason>(say: (reason: Reason, socket: Socket) => void) => (reason: Reason, socket: Socket) => void
}

/**
 * Requests that may be sent ahead on one connection while an answer is being made or taken. No browser and no proxy
 * sends any ahead; programs that have undici do it allow ten or so.
 */
const maxAhead = 32
/** How often connections are checked for callers that take nothing, ms. */
const lookMs = 1000
/** A body that is being read brings so much in so many looks, or it is given up: bytes, and about as many seconds. */
const leastBytes = 8192
const patientLooks = 5
/** How long the sender of an unwanted body, or of what is no HTTP, has for reading why, ms. */
const lingerMs = 3000
/** Unwanted bodies that are taken at a time; the connections of others are ended at once. */
const maxLingering = 256
/** A body as short as this is waited for, so that its connection can be used again, bytes. */
const shortBodyBytes = 65_536
/** Connections above the limit that are told so, per address; others are ended without a word. */
const maxTold = 50

/**
 * One caller's connection. Its requests are served one after the other, each when the answer before it has been taken.
 */
interface Connection {
  readonly socket: Socket
  current: Exchange | null
  /** What comes after the current request. */
  readonly ahead: Array<() => void>
  /** It takes no more requests: it ends with what it has. */
  isOver: boolean
  /** Somebody is to take an answer, and has a time for that. */
  isTimed: boolean
  /** Bytes that had been read from it when its body last made progress, and looks since then. */
  readBytes: number
  idleLooks: number
}

interface Exchange { readonly request: IncomingMessage, readonly response: ServerResponse }

/**
 * A connection ends after the answer to what was asked on it, and so that its caller sees that answer: a body that is
 * still being sent is read for a moment, or the reset that follows on unread bytes would throw the answer away (RFC
 * 9112 section 9.6). A caller that pipelines and reads nothing has one answer in memory, and not hundreds.
 */
export function sockets ({ socketsPerAddress, stallMs, unwantedBytes }: SocketLimits): Sockets {
  const connections = new Map<Socket, Connection>()
  const countOf = addressCounts()
  const linger = lingering(unwantedBytes)

  const arrive = (request: IncomingMessage, response: ServerResponse, serve: RequestListener): void => {
    const connection = connections.get(request.socket)
    /* c8 ignore next: what Node had parsed before the end; d2-unread-answers.test.ts sends it by the thousand */
    if (connection === undefined || connection.isOver) return
    const begin = (): void => {
      connection.current = { request, response }
      response.on('close', () => goOn(connection)) // which comes once; to say so would make four objects more
      if (hasBody(request)) linger(connection, connection.current)
      serve(request, response)
    }
    if (connection.current === null) begin()
    else if (connection.ahead.length < maxAhead) connection.ahead.push(begin)
    else endCrowded(connection, connection.current)
  }
  const atLast: Sockets['atLast'] = say => (reason, socket) => {
    const connection = connections.get(socket)
    if (connection === undefined || connection.isOver) {
      socket.pause() // its end is on its way, and more of the same comes in
      return
    }
    connection.isOver = true
    const { current, ahead } = connection
    const end = (): void => endGently(socket, () => say(reason, socket))
    // The body of the current request is what is wrong: nobody else will answer it.
    const isCurrent = current !== null && !current.request.complete && !current.response.headersSent
    if (current === null || isCurrent) end()
    else ahead.push(end)
  }
  const sayTo = atLast(sayError)
  const open = (socket: Socket): void => {
    connections.set(socket, newConnection(socket))
    socket.on('close', () => connections.delete(socket))
    const surplus = countOf(socket) - socketsPerAddress
    /* c8 ignore next: a crowd that a test does not open */
    if (surplus > maxTold) socket.destroy()
    else if (surplus > 0) sayTo(gatewayError('GW_OVERLOADED', { retryAfterSeconds: 1 }), socket)
  }

  return {
    atLast,
    createServer (serve, options) {
      const server = createServer({ ...options, ...unlessOver(connections) }, (request, response) =>
        arrive(request, response, serve)
      )
      server.on('connection', open)
      server.on('checkContinue', (request: IncomingMessage, response: ServerResponse) => {
        continueWhenRead(request, response)
        arrive(request, response, serve)
      })
      server.on('checkExpectation', (request: IncomingMessage, response: ServerResponse) => {
        arrive(request, response, () => { response.writeHead(417, { 'content-length': 0 }).end() })
      })
      server.on('connect', (_request: IncomingMessage, socket: Socket) => {
        socket.on('error', () => { /* Node no longer cares for it; 'close' follows */ })
        sayTo(gatewayError('GW_METHOD_NOT_ALLOWED'), socket)
      })
      return server.once('listening', () => {
        const look = (): void => { for (const connection of connections.values()) lookAt(connection, server, stallMs) }
        const timer = setInterval(look, Math.min(lookMs, stallMs)).unref()
        server.once('close', () => clearInterval(timer))
      })
    }
  }
}

function newConnection (socket: Socket): Connection {
  return { socket, current: null, ahead: [], isOver: false, isTimed: false, readBytes: 0, idleLooks: 0 }
}

/**
 * Node ends a socket from which no byte has gone within its time. Where none waits there is no time: a submit may take
 * a minute.
 */
function lookAt (connection: Connection, server: Server, stallMs: number): void {
  const { socket, current } = connection
  if (current === null) return
  if (isLate(connection, current)) server.emit('clientError', lateBody(), socket)
  const isWaiting = socket.writableLength > 0
  if (isWaiting === connection.isTimed) return
  connection.isTimed = isWaiting
  /* c8 ignore next: a reader that is slow and then is not, between two looks */
  socket.setTimeout(isWaiting ? stallMs : 0)
}

/**
 * Node reads up to two thousand requests at one go, whatever becomes of their connection meanwhile, and each is 1.5 kB
 * of memory until it has closed: a few hundred connections that do so at once would be more than there is. Those on a
 * connection that takes no more are all the same one, of which nothing is kept.
 */
function unlessOver (connections: ReadonlyMap<Socket, Connection>) {
  const nothing = (): any => {}
  const spare = Object.assign(new IncomingMessage(new Socket()), {
    _addHeaderLines: nothing,
    push: nothing,
    on: nothing,
    once: nothing,
    destroy: nothing
  })
  const spareResponse = Object.assign(new ServerResponse(spare), {
    on: nothing,
    once: nothing,
    assignSocket: nothing,
    writeHead: nothing,
    end: nothing
  })
  return {
    IncomingMessage: class extends IncomingMessage {
      constructor (socket: Socket) {
        if (connections.get(socket)?.isOver === true) return spare
        super(socket)
      }
    },
    ServerResponse: class extends ServerResponse {
      constructor (...given: ConstructorParameters<typeof ServerResponse>) {
        if (given[0] === spare) return spareResponse as never
        super(...given)
      }
    }
  }
}

/** Somebody reads a body, and nothing comes, or a byte now and then. What waits for its turn to be read is not late. */
function isLate (connection: Connection, { request, response }: Exchange): boolean {
  const { bytesRead } = connection.socket
  const isRead = !request.complete && request.readableFlowing === true && !response.headersSent
  if (!isRead || bytesRead - connection.readBytes >= leastBytes) {
    connection.readBytes = bytesRead
    connection.idleLooks = 0
    return false
  }
  return ++connection.idleLooks >= patientLooks
}

/** As Node says it of a request that takes too long as a whole. */
function lateBody (): Error {
  return Object.assign(new Error('A body made no progress.'), { code: 'ERR_HTTP_REQUEST_TIMEOUT' })
}

/** The next request's turn. */
function goOn (connection: Connection): void {
  const { socket, ahead } = connection
  const next = ahead.shift()
  connection.current = null
  if (next === undefined || !socket.writable) return
  /* c8 ignore next: as above, when its answer ends in between */
  if (connection.isTimed) socket.setTimeout(0)
  connection.isTimed = false
  next()
}

/**
 * More has been sent ahead than may be. A submit that is being made is answered first. Any other connection ends at
 * once: what has been read from it would stay in memory until its answers are taken.
 */
function endCrowded (connection: Connection, { request, response }: Exchange): void {
  connection.isOver = true
  connection.ahead.length = 0
  if (request.method !== 'POST' || !request.complete || response.headersSent) {
    connection.socket.destroy()
    return
  }
  response.shouldKeepAlive = false
  connection.socket.pause()
}

/** Says a last word, and leaves the caller time to read it. */
function endGently (socket: Socket, say: () => void): void {
  say()
  socket.resume()
  const timer = setTimeout(() => socket.destroy(), lingerMs).unref()
  socket.once('end', () => socket.destroy()).once('close', () => clearTimeout(timer))
}

/** Where there is no request to answer. */
function sayError ({ code, statusCode, message, detail: { retryAfterSeconds } }: GatewayError, socket: Socket): void {
  const body = JSON.stringify({ code: statusCode, message, data: null, error: { code } })
  socket.end(
    `HTTP/1.1 ${statusCode} ${STATUS_CODES[statusCode]}\r\ncontent-type: application/json; charset=utf-8\r\n` +
      `x-gateway-error: ${code}\r\ncache-control: no-store\r\n${retryAfterSeconds === undefined ? '' : `retry-after: ${retryAfterSeconds}\r\n`}` +
      `connection: close\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`
  )
}

/** Node would say 100 by itself. It is said when somebody begins to read: a refused caller sends no body. */
function continueWhenRead (request: IncomingMessage, response: ServerResponse): void {
  const begin = (name: string | symbol): void => {
    if (name !== 'data') return
    request.off('newListener', begin)
    if (!response.headersSent) response.writeContinue()
  }
  request.on('newListener', begin)
}

function hasBody ({ headers }: IncomingMessage): boolean {
  const length = headers['content-length']
  return length === undefined ? headers['transfer-encoding'] !== undefined : length !== '0'
}

/** All of a body is read: the connection ends now, if it was to, and is one like any other if not. */
function letGo (socket: Socket): void {
  if (socket.writableEnded) socket.destroy()
  else Reflect.deleteProperty(socket, 'destroySoon')
}

/**
 * After an answer that came before the end of the request's body, Node would read on for as long as a request may take,
 * or end the connection, upon which the caller's system throws the answer away. Here the rest is taken for a moment.
 */
function lingering (unwantedBytes: number) {
  let count = 0

  /** Before Node's own listener looks: it would let go of a body that nobody reads, and none of it would be counted. */
  const countRest = ({ socket }: Connection, { request }: Exchange): void => {
    let left = unwantedBytes
    request.on('data', (chunk: Buffer) => {
      left -= chunk.length
      if (left < 0) socket.destroy()
    }).resume()
  }
  const takeRest = ({ socket }: Connection, { request }: Exchange): void => {
    const timer = setTimeout(() => socket.destroy(), lingerMs).unref()
    const stop = (): void => {
      clearTimeout(timer)
      count--
    }
    socket.once('close', stop)
    request.once('end', () => {
      socket.off('close', stop)
      stop()
      letGo(socket)
    })
  }

  return (connection: Connection, exchange: Exchange): void => {
    const { request, response } = exchange
    const { socket } = connection
    const { shouldKeepAlive } = response
    if (!(Number(request.headers['content-length']) <= shortBodyBytes)) {
      // An answer that comes before the end of the body is the last on its connection, and says so.
      response.shouldKeepAlive = false
      request.once('end', () => { response.shouldKeepAlive = shouldKeepAlive })
    }
    // Before Node's own listener, which ends the connection where this answer is its last.
    response.prependOnceListener('finish', () => {
      if (request.complete || count >= maxLingering) return
      socket.destroySoon = () => {
        connection.isOver = true
        socket.end()
      }
      count++
      countRest(connection, exchange)
      // Most bodies come with their headers: an answer that took no time is out before they are read, but not for long.
      setImmediate(() => {
        if (!request.complete && !socket.destroyed) return takeRest(connection, exchange)
        count--
        letGo(socket)
      })
    })
  }
}

/** Counts open sockets by their address. */
function addressCounts () {
  const open = new Map<string, number>()
  return (socket: Socket): number => {
    const address = socketHolder(socket.remoteAddress)
    const count = (open.get(address) ?? 0) + 1
    open.set(address, count)
    socket.on('close', () => {
      const left = open.get(address)! - 1
      if (left === 0) open.delete(address)
      else open.set(address, left)
    })
    return count
  }
}

/** What a socket is counted for: an address, or in IPv6 the /64 that it is in, which a household has to itself. */
export function socketHolder (remoteAddress = ''): string {
  return rateLimit.normalizeIP(remoteAddress)
}
