/**
 * READ THIS FIRST. Every request to the upstream's own routes goes through the same stages:
 *
 *     receive → authenticate → authorize → admit → forward → settle → reply
 *
 * receive       request id, CORS, throttle per address                 receive.ts
 * authenticate  credential → session, before a byte of body is read    authenticate.ts
 * authorize     body, operation, model, ownership                      authorize.ts
 * admit         idempotency, rates, slots, credits: before the call    repeats.ts, rates.ts, stages.ts
 * forward       the upstream call, with the server's key               stages.ts, adapters/undici/upstream.ts
 * settle        the task gets its owner, credits are kept or given     here, stages.ts
 *               back (in the ledger: `claimed`, `released`, `unknown`)
 * reply         the upstream's own answer, or one rendered error       context.ts, error-handler.ts
 * at the end    access line, metrics, audit                            observe.ts, as gateway.ts lists them
 *
 * *receive* is a hook of the whole server, *authenticate* one of each route; and before a long body is read, it is
 * looked at whether *admit* would refuse it. A step that fails throws an error of errors.ts.
 */

import type {
  FastifyInstance, FastifyReply, FastifyRequest, onRequestHookHandler, preParsingHookHandler, RouteOptions
} from 'fastify'
import { isGuest } from '../domain/session.ts'
import { type Operation, operations } from '../domain/upstream.ts'
import { authorizeStatus, authorizeSubmit } from './authorize.ts'
import { type Answer, contextOf, replyWith, type RequestContext, storedAnswer } from './context.ts'
import { tellNearEnds } from './left.ts'
import { largeBodies } from './rates.ts'
import { watchDelivery } from './repeats.ts'
import type { Services } from './services.ts'
import {
  acceptedAnswer, answerToKeep, keyFor, lacking, type OpenReservation, pollStatus, replayEarlier, reserve,
  reserveRequest, sendSubmit, sentOrThrow, settleWithoutTask, statusAnswer, unknownOutcome, withKeyFailover
} from './stages.ts'

/** What submits and status calls work with. */
export type ProxyServices = Pick<
  Services,
  'authenticate' | 'bodyBudget' | 'submitRules' | 'rates' | 'proveGuest' | 'ledger' | 'repeats' | 'earliest' |
  'accounts' | 'ceilings' | 'creditNotices' | 'upstream' | 'keys' | 'poller' | 'slots' | 'clock' | 'alarms'
>

/**
 * A submit. What goes wrong upstream is an outcome and not an error, so that nothing that was begun gets past *settle*.
 * There is one short cut: what was answered before, under the same idempotency key or to a caller that had gone, is
 * answered with that.
 */
function submitRoute (operation: Operation, services: ProxyServices): RouteOptions {
  const { rates, proveGuest, ledger, repeats, earliest, upstream, keys, slots } = services

  return proxyRoute(operation, services, largeBodies(services), async (context): Promise<Answer> => {
    const { call } = context
    call.enter('authorize')
    const submit = await authorizeSubmit(context, operation, services)

    call.enter('admit')
    // Before the rate: a caller that asks again for a lost answer is told that, and not that it asks too often.
    const earlier = await earliest(submit, context)
    if (earlier !== null) return await replayEarlier(services, submit, earlier, context)
    if (isGuest(call.session.subject)) await proveGuest(context)
    await rates.submits(context)
    const firstKey = keyFor(submit, keys)
    call.keyId = firstKey.id
    const request = reserveRequest(submit, call, firstKey, services)
    let reserved = await reserve(ledger, slots, request)
    while (!reserved.granted) {
      if (reserved.reason !== 'duplicate') throw lacking(reserved, slots.nextInMs(request.subject))
      const made = await earliest(submit, context) // it was new a moment ago
      if (made !== null) return await replayEarlier(services, submit, made, context)
      reserved = await reserve(ledger, slots, request)
    }
    const { id } = reserved
    const delivery = submit.repeat === undefined ? null : watchDelivery(repeats, id, context)
    const reservation: OpenReservation = { id, idempotency: submit.idempotency, delivery }

    call.enter('forward') // from here to its end, whether or not its caller waits
    const outcome = await withKeyFailover(keys, submit, firstKey, async key => {
      call.keyId = key.id
      await sentOrThrow(ledger.markSent(id, key.id, submit.callbackHash), delivery)
      return await sendSubmit(upstream, operation, submit, key, call)
    })

    call.enter('settle')
    if (outcome.kind !== 'accepted') return await settleWithoutTask(services, reservation, outcome)
    const { taskId, answer } = outcome
    call.taskId = taskId
    call.madeTaskIds = [taskId]
    if (!await ledger.claim(id, taskId, answerToKeep(reservation, answer))) {
      // It belongs to whoever has it: the caller gets no task, and the charge stays until somebody looks.
      delivery?.discard()
      await ledger.markUnknown(id)
      throw unknownOutcome()
    }
    if (reserved.near !== undefined) tellNearEnds(services, reserved.near, context)
    return acceptedAnswer(reservation, answer)
  })
}

/** A status call: the caller's task, one poll counted, and the upstream's answer, or the last one if that is fresh. */
function statusRoute (operation: Operation, services: ProxyServices): RouteOptions {
  const { rates, poller } = services

  return proxyRoute(operation, services, null, async (context): Promise<Answer> => {
    const { call } = context
    call.enter('authorize')
    const task = await authorizeStatus(context, operation, services)

    call.enter('admit')
    await rates.polls(context)
    if (task.finalAnswer !== null) return storedAnswer(task.finalAnswer)

    call.enter('forward')
    call.keyId = task.keyId
    const report = await pollStatus(poller, task, context)

    call.enter('settle') // a final state has ended the task by now
    return statusAnswer(report)
  })
}

/** One route for each of the upstream's operations, and no wildcard. */
export function proxyRoutes (app: FastifyInstance, services: ProxyServices): void {
  for (const operation of operations) {
    app.route(operation.kind === 'submit' ? submitRoute(operation, services) : statusRoute(operation, services))
  }
}

/**
 * A route of the upstream's. `beforeBody`: what of *admit* is looked at before the body is read. `run`: the stages from
 * *authorize* to *settle*.
 */
export function proxyRoute (
  operation: Operation,
  { authenticate, bodyBudget, clock: { elapsed } }: Pick<Services, 'authenticate' | 'bodyBudget' | 'clock'>,
  beforeBody: preParsingHookHandler | null,
  run: (context: RequestContext) => Promise<Answer>
): RouteOptions {
  const { onRequest, preHandler } = reauthenticateAfterSlowBody(authenticate, elapsed)
  const serve = async (context: RequestContext): Promise<void> => {
    const { call, reply } = context
    call.handlerStarted()
    try {
      const answer = await run(context)
      call.enter('reply')
      call.answer(reply, () => replyWith(reply, answer))
    } finally {
      call.handlerDone()
    }
  }
  return {
    method: operation.method,
    url: operation.url,
    config: { operation: operation.name, query: operation.query },
    onRequest,
    preParsing: beforeBody === null ? bodyBudget.beforeBody : [beforeBody, bodyBudget.beforeBody],
    preHandler,
    // No promise is handed on, at whose end the framework would answer.
    handler (request: FastifyRequest, reply: FastifyReply): void {
      serve(contextOf(request, reply)).catch((error: Error) => { reply.send(error) })
    }
  }
}

/** When a body has taken longer than this, ms, its caller is authenticated again. */
const slowBodyMs = 500

/**
 * Route hooks: a caller is authenticated before a byte of body is read, and again after a body that has taken its time,
 * which may be as long as its sender likes. Else submits are parked until their session has ended, and made then; and
 * whoever has a leaked secret keeps a body coming until that secret is gone, and is given a session under the next one.
 */
export function reauthenticateAfterSlowBody (
  authenticate: onRequestHookHandler,
  elapsed: () => number
): { readonly onRequest: onRequestHookHandler[], readonly preHandler: onRequestHookHandler } {
  return {
    onRequest: [authenticate, (request, _reply, next) => {
      request.call.authenticatedAt = elapsed()
      next()
    }],
    preHandler (request, reply, next) {
      if (elapsed() - request.call.authenticatedAt > slowBodyMs) authenticate.call(this, request, reply, next)
      else next()
    }
  }
}
