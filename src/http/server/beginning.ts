import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { newCall } from '../call.ts'
import { secureHeaders } from './security.ts'

/** Gives a request its call and its first headers. */
export type BeginCall = (request: FastifyRequest, reply: FastifyReply) => void

export interface BeginningOptions {
  /** Run once for each call, as it arrives. */
  readonly begun: (request: FastifyRequest, reply: FastifyReply) => void
  /** Run once for each call, when its response is out, or its caller gone, and its work is done. */
  readonly endings: ReadonlyArray<(request: FastifyRequest, reply: FastifyReply) => void>
}

export function beginCalls ({ begun, endings }: BeginningOptions): BeginCall {
  return (request, reply) => {
    let ended = false
    const call = newCall(() => {
      // Once: a handler may still be on its way to a caller who has gone.
      if (ended || !call.closed || call.running) return
      ended = true
      for (const end of endings) end(request, reply)
    })
    request.call = call
    noteBody(request)
    begun(request, reply)
    // 'close' comes after a complete response and after a broken one alike; 'onResponse' does not.
    reply.raw.once('close', () => {
      call.closed = true
      call.finish()
    })
    reply.headers(secureHeaders).header('x-request-id', request.id)
  }
}

/** The latest request with a body on each connection: when the body is late, there is only its socket to tell whose it was. */
const withBody = new WeakMap<Socket, IncomingMessage>()

function noteBody ({ raw }: FastifyRequest): void {
  if (raw.headers['content-length'] !== undefined || raw.headers['transfer-encoding'] !== undefined) withBody.set(raw.socket, raw)
}

/** The request whose body may be late on a connection. */
export function lateOn (socket: Socket): IncomingMessage | undefined {
  return withBody.get(socket)
}
