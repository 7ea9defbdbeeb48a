import type { FastifyReply, FastifyRequest, preParsingHookHandler } from 'fastify'
import type { IncomingMessage } from 'node:http'
import type { Timers } from '../domain/time.ts'
import { badRequest, gatewayError } from '../errors.ts'
import type { RequestState, SessionRequestState } from './context.ts'
import { addressOf } from './receive.ts'

/** Bounds the bytes of request bodies that are in memory at once. */
export interface BodyBudget {
  /** Route hook, after authentication and before the body is read: what is short waits for nobody. */
  readonly beforeBody: preParsingHookHandler
  /** Waits, the socket paused, until the body has room. */
  admit (request: FastifyRequest, reply: FastifyReply): Promise<void>
  /** Gives the bytes of a request back, as it ends. */
  release (request: Pick<FastifyRequest, 'call'>): void
  /** Bytes for which room is taken. */
  readonly inFlight: number
}

interface UploadsOptions {
  readonly bodyBytes: number
  readonly bodyBytesInFlight: number
  readonly timers: Timers
}

interface Body {
  readonly call: SessionRequestState
  readonly holders: Holders
  /** As announced. */
  readonly bytes: number
  readonly raw: IncomingMessage
  /** Bytes that had been read from its connection before those of the body. */
  readonly startsAt: number
}

interface Waiting extends Body { readonly turn: PromiseWithResolvers<void> }

/** The two whose shares a body counts in. */
type Holders = readonly [subject: string, address: string]

/** Uploads that may wait for room, of all and of one subject; the next one is sent away. */
const maxWaiting = 1000
const maxWaitingPerSubject = 50
/**
 * The parts of the room that one subject and one address may take: a few slow uploads must not keep everybody else's
 * out.
 */
const subjectShare = 1 / 4
const addressShare = 1 / 2
/** A body as short as this waits for nobody: slow ones are large, and most submits are some hundred bytes. */
const shortBytes = 65_536
/** How long a body waits for those before it to be as fast as they have announced, ms. */
const patienceMs = 100
/** What may still come of a body that is paused: what Node keeps ready, and one read on top of it, bytes. */
const windowBytes = 131_072

/**
 * Fifty uploads of 5 MB, parsed and forwarded at once, were measured at half a gigabyte. A body takes room for the
 * length it announces, and one that announces none for the most it may have: most come within milliseconds. When
 * somebody has waited for a moment, all give back what has not come yet, and take room as it comes (`metered`).
 *
 * A subject's and an address's share is always counted as announced, so a body that has been let in waits for room
 * alone.
 */
export function bodyBudget ({ bodyBytes, bodyBytesInFlight, timers }: UploadsOptions): BodyBudget {
  const shares = countedShares(
    [subjectShare, addressShare].map(share => Math.max(bodyBytes, bodyBytesInFlight * share))
  )
  const room = meteredRoom(bodyBytesInFlight)
  const bodies = new Map<RequestState, Body>()
  const queue: Waiting[] = []

  const take = (body: Body, isMetered: boolean): void => {
    bodies.set(body.call, body)
    shares.count(body, body.bytes)
    if (isMetered) room.meter(body)
    else room.reserve(body)
  }
  /**
   * Lets bodies in, in order. One whose own share is used up is passed over; one that finds no room stops the queue.
   */
  const next = (isMetered: boolean): void => {
    for (let index = 0; index < queue.length;) {
      const waiting = queue[index]!
      if (!waiting.call.closed && !shares.have(waiting)) {
        index++
        continue
      }
      if (!waiting.call.closed && !room.has(isMetered ? needOf(waiting) : waiting.bytes)) return
      queue.splice(index, 1)
      if (waiting.call.closed) continue // hung up while it waited
      take(waiting, isMetered)
      waiting.turn.resolve()
    }
  }
  const look = whileNeeded(timers, () => queue.length > 0, () => {
    for (const body of bodies.values()) room.meter(body)
    next(true)
  })

  const isShort = (bytes: number): boolean => bytes <= Math.min(shortBytes, bodyBytes / 16)

  const admit = async (request: FastifyRequest): Promise<void> => {
    const bytes = announcedBytes(request, bodyBytes)
    const call = request.call as SessionRequestState
    // Gone while its token was verified: nothing is spent on an answer that nobody waits for. What it took now it
    // would keep for ever, for its release has been.
    if (call.closed) throw badRequest('The connection was closed.')
    if (isShort(bytes)) return
    const body = bodyOf(request, bytes)
    if (queue.length === 0 && room.has(bytes) && shares.have(body)) return take(body, false)
    refuseCrowd(queue, call)
    const turn = Promise.withResolvers<void>()
    queue.push({ ...body, turn })
    next(false)
    look()
    await turn.promise
  }

  return {
    admit,
    beforeBody (request, _reply, _payload, done) {
      if (!request.call.closed && isShort(announcedBytes(request, bodyBytes))) done(null)
      else admit(request).then(() => done(null), done)
    },
    release ({ call }) {
      const body = bodies.get(call)
      if (body !== undefined) {
        bodies.delete(call)
        shares.count(body, -body.bytes)
        room.release(body)
      }
      next(false)
    },
    get inFlight () { return room.taken }
  }
}

/** Runs it in a moment, and again each moment while it is needed. */
function whileNeeded (timers: Timers, isNeeded: () => boolean, run: () => void): () => void {
  let isWaiting = false
  const again = (): void => {
    if (isWaiting) return
    isWaiting = true
    timers.after(patienceMs, () => {
      isWaiting = false
      if (!isNeeded()) return
      run()
      if (isNeeded()) again()
    })
  }
  return again
}

function bodyOf (request: FastifyRequest, bytes: number): Body {
  const { raw } = request
  const call = request.call as SessionRequestState
  const startsAt = raw.socket.bytesRead - raw.readableLength
  return { call, bytes, raw, startsAt, holders: [call.session.subject, addressOf(request)] }
}

function refuseCrowd (queue: readonly Waiting[], { session: { subject } }: SessionRequestState): void {
  const own = queue.filter(({ call }) => call.session.subject === subject).length
  if (queue.length >= maxWaiting || own >= maxWaitingPerSubject) {
    throw gatewayError('GW_OVERLOADED', { retryAfterSeconds: 1 })
  }
}

/** What each holder has of its share. */
function countedShares (most: readonly number[]) {
  const held = most.map(() => new Map<string, number>())
  return {
    have: ({ holders, bytes }: Body): boolean =>
      holders.every((holder, index) => (held[index]!.get(holder) ?? 0) + bytes <= most[index]!),
    count ({ holders }: Body, bytes: number): void {
      for (const [index, holder] of holders.entries()) {
        const sum = (held[index]!.get(holder) ?? 0) + bytes
        if (sum === 0) held[index]!.delete(holder)
        else held[index]!.set(holder, sum)
      }
    }
  }
}

/** What has come of a body, and what comes of it even if it is paused now. */
function needOf ({ bytes, raw, startsAt }: Body): number {
  return Math.min(bytes, raw.socket.bytesRead - startsAt + windowBytes)
}

/**
 * Room for bodies, some of which take it as they come. One that finds none is paused. Of these the one with the least
 * to come goes on all the same, until its call has ended: else all would wait for each other. So one body may be above
 * the limit.
 */
function meteredRoom (limit: number) {
  const metered = new Map<Body, () => void>()
  const paused = new Set<Body>()
  let first: Body | null = null
  let taken = 0

  const set = ({ call }: Body, bytes: number): void => {
    taken += bytes - call.heldBytes
    call.heldBytes = bytes
  }
  const grow = (body: Body): boolean => {
    const more = needOf(body) - body.call.heldBytes
    if (more > 0 && body !== first && taken + more > limit) return false
    set(body, body.call.heldBytes + Math.max(0, more))
    return true
  }
  const leftOf = ({ bytes, call }: Body): number => bytes - call.heldBytes
  const resume = (): void => {
    if (first === null) for (const body of paused) if (first === null || leftOf(body) < leftOf(first)) first = body
    for (const body of paused) {
      if (!grow(body)) continue
      paused.delete(body)
      body.raw.resume()
    }
  }

  return {
    /** Whether somebody new may come in: not before those that are paused. */
    has: (bytes: number): boolean => paused.size === 0 && (taken === 0 || taken + bytes <= limit),
    reserve: (body: Body): void => set(body, body.bytes),
    meter (body: Body): void {
      if (metered.has(body)) return
      set(body, needOf(body))
      const { raw } = body
      const take = (): void => {
        if (grow(body)) return
        raw.pause()
        paused.add(body)
        resume()
      }
      const listen = (): void => { if (metered.has(body)) raw.on('data', take) }
      metered.set(body, take)
      // Before somebody reads it, a listener would make it flow, and what flows would be lost.
      if (raw.readableFlowing === true) listen()
      else raw.once('resume', listen)
    },
    release (body: Body): void {
      set(body, 0)
      const take = metered.get(body)
      if (take !== undefined) body.raw.off('data', take)
      metered.delete(body)
      if (paused.delete(body)) body.raw.resume() // what nobody wants is taken for a moment
      if (first === body) first = null
      resume()
    },
    get taken () { return taken }
  }
}

function announcedBytes (request: FastifyRequest, most: number): number {
  const length = request.headers['content-length']
  if (length === undefined) return request.headers['transfer-encoding'] === undefined ? 0 : most
  return Math.min(Number(length), most)
}
