import type { FastifyReply, FastifyRequest } from 'fastify'
import { gatewayError } from '../errors.ts'
import type { Call } from './call.ts'

/** Bounds the bytes of request bodies that are in memory at once. */
export interface Uploads {
  /** Route hook, after authentication and before the body is read: waits, the socket paused, until the body has room. */
  admit (request: FastifyRequest, reply: FastifyReply): Promise<void>
  /** Gives the call's bytes back. */
  release (call: Call): void
  readonly inFlight: number
}

interface Waiting { readonly call: Call, readonly bytes: number, readonly turn: PromiseWithResolvers<void> }

/** Callers that may wait for room; the next one is sent away. */
const maxWaiting = 1000

/**
 * Fifty uploads of 5 MB, parsed and forwarded at once, were measured at half a gigabyte. A body counts with the length
 * it announces, and one that announces none with the most it may have.
 */
export function uploads ({ bodyBytes, bodyBytesInFlight }: { bodyBytes: number, bodyBytesInFlight: number }): Uploads {
  const queue: Waiting[] = []
  let inFlight = 0

  const hasRoom = (bytes: number): boolean => inFlight === 0 || inFlight + bytes <= bodyBytesInFlight
  const take = (call: Call, bytes: number): void => {
    inFlight += bytes
    call.heldBytes = bytes
  }
  const next = (): void => {
    while (queue.length > 0 && hasRoom(queue[0]!.bytes)) {
      const { call, bytes, turn } = queue.shift()!
      if (call.closed) continue // hung up while it waited
      take(call, bytes)
      turn.resolve()
    }
  }

  return {
    async admit (request) {
      const bytes = announcedBytes(request, bodyBytes)
      const { call } = request
      // Gone while its token was verified: nothing is spent on an answer that nobody waits for. What it took now it
      // would keep for ever, for its release has been.
      if (call.closed) throw gatewayError('GW_BAD_REQUEST', { about: 'The connection was closed.' })
      if (bytes === 0) return
      if (queue.length === 0 && hasRoom(bytes)) return take(call, bytes)
      if (queue.length >= maxWaiting) throw gatewayError('GW_OVERLOADED', { retryAfterSeconds: 1 })
      const turn = Promise.withResolvers<void>()
      queue.push({ call, bytes, turn })
      await turn.promise
    },
    release (call) {
      inFlight -= call.heldBytes
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
