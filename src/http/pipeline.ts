import type { FastifyReply, FastifyRequest, RouteOptions } from 'fastify'
import type { Operation } from '../domain/catalog.ts'
import type { Authenticate } from './authenticate.ts'
import type { Context, SessionCall } from './call.ts'
import { type Answer, replyWith } from './reply.ts'
import type { Uploads } from './uploads.ts'

/**
 * READ THIS FIRST. Every mirrored request goes down one line:
 *
 *     receive → authenticate → authorize → admit → forward → settle → reply
 *
 * receive       request id, CORS, throttle per address                 receive.ts
 * authenticate  credential → session, before a byte of body is read    authenticate.ts
 * authorize     body, operation, model, ownership                      authorize.ts
 * admit         rates, slots, credits: before the call                 admit.ts
 * forward       the upstream call, with the server's key               forward.ts
 * settle        the task recorded, credits kept or given back          settle.ts
 * reply         the upstream's own answer, or one rendered error       reply.ts, error-handler.ts
 *
 * A stage returns the next one's input or throws a row of errors.ts. `forward` alone does not throw for what went wrong
 * upstream: it returns an outcome, so that nothing it has begun gets past `settle`.
 */
export interface Line<Order, Admitted extends Order, Outcome> {
  authorize (context: Context): Promise<Order>
  admit (order: Order, context: Context): Promise<Admitted>
  forward (admitted: Admitted, context: Context): Promise<Outcome>
  settle (outcome: Outcome, admitted: Admitted, context: Context): Promise<Answer>
}

export interface Entrance {
  readonly authenticate: Authenticate
  readonly uploads: Uploads
}

export function mirror<Order, Admitted extends Order, Outcome> (
  operation: Operation, { authenticate, uploads }: Entrance, line: Line<Order, Admitted, Outcome>
): RouteOptions {
  const run = async (context: Context): Promise<Answer> => {
    const { call } = context
    call.stage = 'authorize'
    const order = await line.authorize(context)
    call.stage = 'admit'
    const admitted = await line.admit(order, context)
    call.granted = true
    call.stage = 'forward'
    const outcome = await line.forward(admitted, context)
    call.stage = 'settle'
    const answer = await line.settle(outcome, admitted, context)
    call.stage = 'reply'
    return answer
  }

  return {
    method: operation.method,
    url: operation.url,
    config: { operation: operation.name },
    onRequest: authenticate,
    preParsing: uploads.admit,
    handler: async (request: FastifyRequest, reply: FastifyReply) => {
      const call = request.call as SessionCall
      call.running = true
      try {
        return replyWith(reply, await run({ request, reply, call }))
      } finally {
        call.running = false
        call.finish()
      }
    }
  }
}
