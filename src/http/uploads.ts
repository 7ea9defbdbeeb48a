import type { FastifyReply, FastifyRequest } from 'fastify'
import { badRequest, gatewayError } from '../errors.ts'
import type { Call, SessionCall } from './call.ts'
import { addressOf } from './receive.ts'

/** Bounds the bytes of request bodies that are in memory at once. */
export interface Uploads {
  /** Route hook, after authentication and before the body is read: waits, the socket paused, until the body has room. */
  admit (request: FastifyRequest, reply: FastifyReply): Promise<void>
  /** Gives the call's bytes back. */
  release (call: Call): void
  readonly inFlight: number
}

interface Waiting { readonly call: SessionCall, readonly holders: Holders, readonly bytes: number, readonly turn: PromiseWithResolvers<void> }

/** Those whose shares a body counts in. */
type Holders = readonly [subject: string, address: string]

/** Uploads that may wait for room, of all and of one subject; the next one is sent away. */
const maxWaiting = 1000
const maxWaitingPerSubject = 50
/** The parts of the room that one subject and one address may take: a few slow uploads must not keep everybody else's out. */
const subjectShare = 1 / 4
const addressShare = 1 / 2
/** A body as short as this waits for nobody: slow ones are large, and most submits are some hundred bytes. */
const shortBytes = 65_536

/**
 * Fifty uploads of 5 MB, parsed and forwarded at once, were measured at half a gigabyte. A body counts with the length
 * it announces, and one that announces none with the most it may have; one that does not come, or a byte at a time, is
 * given up within seconds (server/sockets.ts).
 */
export function uploads ({ bodyBytes, bodyBytesInFlight }: { bodyBytes: number, bodyBytesInFlight: number }): Uploads {
  const shares = [subjectShare, addressShare].map(share => Math.max(bodyBytes, bodyBytesInFlight * share))
  const held = [new Map<string, number>(), new Map<string, number>()] as const
  const holdersOf = new WeakMap<Call, Holders>()
  const queue: Waiting[] = []
  let inFlight = 0

  const hasRoom = (bytes: number): boolean => inFlight === 0 || inFlight + bytes <= bodyBytesInFlight
  const hasShare = (holders: Holders, bytes: number): boolean =>
    holders.every((holder, index) => (held[index]!.get(holder) ?? 0) + bytes <= shares[index]!)
  const count = (holders: Holders, bytes: number): void => {
    inFlight += bytes
    for (const [index, holder] of holders.entries()) {
      const sum = (held[index]!.get(holder) ?? 0) + bytes
      if (sum === 0) held[index]!.delete(holder)
      else held[index]!.set(holder, sum)
    }
  }
  const take = (call: SessionCall, holders: Holders, bytes: number): void => {
    call.heldBytes = bytes
    holdersOf.set(call, holders)
    count(holders, bytes)
  }
  /** Lets in who may, in order; one whose own share is in the way is passed by, one for whom there is no room is not. */
  const next = (): void => {
    for (let index = 0; index < queue.length;) {
      const { call, holders, bytes, turn } = queue[index]!
      if (!call.closed && !hasShare(holders, bytes)) {
        index++
        continue
      }
      if (!call.closed && !hasRoom(bytes)) return
      queue.splice(index, 1)
      if (call.closed) continue // hung up while it waited
      take(call, holders, bytes)
      turn.resolve()
    }
  }
  const refuseCrowd = (call: SessionCall): void => {
    const own = queue.filter(waiting => waiting.call.session.subject === call.session.subject).length
    if (queue.length >= maxWaiting || own >= maxWaitingPerSubject) throw gatewayError('GW_OVERLOADED', { retryAfterSeconds: 1 })
  }

  return {
    async admit (request) {
      const bytes = announcedBytes(request, bodyBytes)
      const call = request.call as SessionCall
      // Gone while its token was verified: nothing is spent on an answer that nobody waits for. What it took now it
      // would keep for ever, for its release has been.
      if (call.closed) throw badRequest('The connection was closed.')
      if (bytes <= Math.min(shortBytes, bodyBytes / 16)) return
      const holders: Holders = [call.session.subject, addressOf(request)]
      if (queue.length === 0 && hasRoom(bytes) && hasShare(holders, bytes)) return take(call, holders, bytes)
      refuseCrowd(call)
      const turn = Promise.withResolvers<void>()
      queue.push({ call, holders, bytes, turn })
      next()
      await turn.promise
    },
    release (call) {
      const holders = holdersOf.get(call)
      if (holders !== undefined) count(holders, -call.heldBytes)
      holdersOf.delete(call)
      call.heldBytes = 0
      next()
    },
    get inFlight () { return inFlight }
  }
}

function announcedBytes (request: FastifyRequest, most: number): number {
  const length = request.headers['content-length']
  if (length === undefined) return request.headers['transfer-encoding'] === undefined ? 0 : most
  return Math.min(Number(length), most)
}
