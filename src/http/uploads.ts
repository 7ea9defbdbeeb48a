import type { FastifyReply, FastifyRequest } from 'fastify'
import { badRequest, gatewayError } from '../errors.ts'
import type { Call, SessionCall } from './call.ts'

/** Bounds the bytes of request bodies that are in memory at once. */
export interface Uploads {
  /** Route hook, after authentication and before the body is read: waits, the socket paused, until the body has room. */
  admit (request: FastifyRequest, reply: FastifyReply): Promise<void>
  /** Gives the call's bytes back. */
  release (call: Call): void
  readonly inFlight: number
}

interface Waiting { readonly call: SessionCall, readonly bytes: number, readonly turn: PromiseWithResolvers<void> }

/** Uploads that may wait for room, of all and of one subject; the next one is sent away. */
const maxWaiting = 1000
const maxWaitingPerSubject = 50
/** The part of the room that one subject may take: a few slow uploads must not keep everybody else's out. */
const subjectShare = 1 / 4

/**
 * Fifty uploads of 5 MB, parsed and forwarded at once, were measured at half a gigabyte. A body counts with the length
 * it announces, and one that announces none with the most it may have.
 */
export function uploads ({ bodyBytes, bodyBytesInFlight }: { bodyBytes: number, bodyBytesInFlight: number }): Uploads {
  const share = Math.max(bodyBytes, bodyBytesInFlight * subjectShare)
  const held = new Map<string, number>()
  const queue: Waiting[] = []
  let inFlight = 0

  const hasRoom = (bytes: number): boolean => inFlight === 0 || inFlight + bytes <= bodyBytesInFlight
  const hasShare = ({ session }: SessionCall, bytes: number): boolean => (held.get(session.subject) ?? 0) + bytes <= share
  const count = ({ session }: SessionCall, bytes: number): void => {
    inFlight += bytes
    const sum = (held.get(session.subject) ?? 0) + bytes
    if (sum === 0) held.delete(session.subject)
    else held.set(session.subject, sum)
  }
  const take = (call: SessionCall, bytes: number): void => {
    call.heldBytes = bytes
    count(call, bytes)
  }
  /** Lets in who may, in order; one whose own subject is in the way is passed by, one for whom there is no room is not. */
  const next = (): void => {
    for (let index = 0; index < queue.length;) {
      const { call, bytes, turn } = queue[index]!
      if (!call.closed && !hasShare(call, bytes)) {
        index++
        continue
      }
      if (!call.closed && !hasRoom(bytes)) return
      queue.splice(index, 1)
      if (call.closed) continue // hung up while it waited
      take(call, bytes)
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
      if (bytes === 0) return
      if (queue.length === 0 && hasRoom(bytes) && hasShare(call, bytes)) return take(call, bytes)
      refuseCrowd(call)
      const turn = Promise.withResolvers<void>()
      queue.push({ call, bytes, turn })
      next()
      await turn.promise
    },
    release (call) {
      if (call.heldBytes > 0) count(call as SessionCall, -call.heldBytes)
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
