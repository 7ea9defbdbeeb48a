import type { FastifyReply, FastifyRequest } from 'fastify'

/** When a body has taken longer than this, ms, its caller is looked at again. */
const slowBodyMs = 500

type Look = (request: FastifyRequest, reply: FastifyReply) => Promise<void>

/**
 * Route hooks: a caller is looked at before a byte of body is read, and again after a body that has taken its time, which may
 * be as long as its sender likes. Else submits are parked until their session has ended, and made then; and whoever has a
 * leaked secret keeps a body coming until that secret is gone, and is given a session under the next one.
 */
export function withSlowBodies (look: Look, elapsed: () => number): { readonly onRequest: Look, readonly preHandler: Look } {
  return {
    async onRequest (request, reply) {
      await look(request, reply)
      request.call.letInAt = elapsed()
    },
    async preHandler (request, reply) {
      if (elapsed() - request.call.letInAt > slowBodyMs) await look(request, reply)
    }
  }
}
