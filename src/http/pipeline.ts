import type { FastifyReply, FastifyRequest, preParsingHookHandler, RouteOptions } from 'fastify'
import type { Operation } from '../domain/upstream.ts'
import { type Answer, type RequestContext, contextOf, isReplay, type Replay, replyWith } from './context.ts'
import type { Services } from './services.ts'

/** When a body has taken longer than this, ms, its caller is looked at again. */
const slowBodyMs = 500

type Look = (request: FastifyRequest, reply: FastifyReply) => Promise<void>

/**
 * Route hooks: a caller is looked at before a byte of body is read, and again after a body that has taken its time,
 * which may
 * be as long as its sender likes. Else submits are parked until their session has ended, and made then; and whoever has
 * a
 * leaked secret keeps a body coming until that secret is gone, and is given a session under the next one.
 */
export function reauthenticateAfterSlowBody (
  look: Look,
  elapsed: () => number
): { readonly onRequest: Look, readonly preHandler: Look } {
  return {
    async onRequest (request, reply) {
      await look(request, reply)
      request.call.authenticatedAt = elapsed()
    },
    async preHandler (request, reply) {
      if (elapsed() - request.call.authenticatedAt > slowBodyMs) await look(request, reply)
    }
  }
}

/**
 * READ THIS FIRST. Every mirrored request goes down one line:
 *
 *     receive → authenticate → authorize → admit → forward → settle → reply
 *
 * receive       request id, CORS, throttle per address                 receive.ts
 * authenticate  credential → session, before a byte of body is read    authenticate.ts
 * authorize     body, operation, model, ownership                      rates.ts, authorize.ts
 * admit         idempotency, rates, slots, credits: before the call    repeats.ts, admit.ts
 * forward       the upstream call, with the server's key               forward.ts
 * settle        the task recorded, credits kept or given back          settle.ts
 * reply         the upstream's own answer, or one rendered error       context.ts, error-handler.ts
 *
 * A stage returns the next one's input or throws a row of errors.ts. `forward` alone does not throw for what went wrong
 * upstream: it returns an outcome, so that nothing it has begun gets past `settle`. The line has one short cut, from
 * `admit` to `reply`: what was answered before, under the same idempotency key, is answered with that.
 */
export interface Stages<Order extends object, Admitted extends Order, Outcome> {
  /** Route hook: what of *admit* is looked at before the body is read. */
  readonly beforeBody: preParsingHookHandler | null
  authorize (context: RequestContext): Promise<Order>
  admit (order: Order, context: RequestContext): Promise<Admitted | Replay>
  forward (admitted: Admitted, context: RequestContext): Promise<Outcome>
  settle (outcome: Outcome, admitted: Admitted, context: RequestContext): Promise<Answer>
}

export function proxyRoute<Order extends object, Admitted extends Order, Outcome> (
  operation: Operation,
  { authenticate, bodyBudget, clock: { elapsed } }: Pick<Services, 'authenticate' | 'bodyBudget' | 'clock'>,
  line: Stages<Order, Admitted, Outcome>
): RouteOptions {
  const run = async (context: RequestContext): Promise<Answer> => {
    const { call } = context
    call.stage = 'authorize'
    const order = await line.authorize(context)
    call.stage = 'admit'
    const admitted = await line.admit(order, context)
    call.granted = true
    if (isReplay(admitted)) return admitted.replayed
    call.stage = 'forward'
    const outcome = await line.forward(admitted, context)
    call.stage = 'settle'
    return await line.settle(outcome, admitted, context)
  }

  return {
    method: operation.method,
    url: operation.url,
    config: { operation: operation.name },
    ...reauthenticateAfterSlowBody(authenticate, elapsed),
    preParsing: line.beforeBody === null ? bodyBudget.admit : [line.beforeBody, bodyBudget.admit],
    handler: async (request: FastifyRequest, reply: FastifyReply) => {
      const context = contextOf(request, reply)
      const { call } = context
      call.running = true
      try {
        const answer = await run(context)
        call.stage = 'reply'
        /* c8 ignore next: a stop has answered in our place, since the store outlasted it: no test can time that */
        if (reply.sent) return reply
        return replyWith(reply, answer)
      } finally {
        call.running = false
        call.finish()
      }
    }
  }
}
