import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { TaskLedger } from '../../domain/ledger/ledger.ts'
import type { ResultSource } from '../../domain/results/results.ts'
import type { ResultTickets } from '../../domain/results/tickets.ts'
import { gatewayError } from '../../errors.ts'
import type { Authenticate } from '../authenticate.ts'
import type { SessionCall } from '../call.ts'
import { ownership } from '../ownership.ts'
import type { Rates } from '../rates.ts'
import { resultSender } from '../results/result-sender.ts'

export interface ResultRoutesOptions {
  readonly authenticate: Authenticate
  readonly ledger: TaskLedger
  readonly rates: Rates
  readonly results: ResultSource
  readonly tickets: ResultTickets
  /** A caller who takes no byte for this long is let go, ms. */
  readonly stallMs: number
  readonly now: () => number
}

/**
 * The bytes of results, from the gateway's own origin: by session, for scripts; by ticket, for `<img>` and `<video>`,
 * which send no header.
 */
export function resultRoutes (app: FastifyInstance, options: ResultRoutesOptions): void {
  const { authenticate, ledger, rates: { polls, misses }, tickets } = options
  const { own } = ownership(ledger, misses)
  const send = resultSender(options)

  app.get('/gateway/tasks/:taskId/results/:index', {
    config: { operation: 'result' },
    onRequest: authenticate
  }, async (request, reply) => {
    const { taskId, index } = request.params as { taskId: string, index: string }
    const call = request.call as SessionCall
    call.stage = 'authorize'
    const { session, plan } = call
    if (!session.scopes.includes('tasks:read')) throw gatewayError('GW_SCOPE_DENIED', { about: 'This session lacks the scope tasks:read.' })
    const context = { request, reply, call }
    const task = await own(taskId, context)
    if (!session.permits(task.model) || !plan.permits(task.model)) throw gatewayError('GW_MODEL_DENIED', { about: task.model })
    call.stage = 'admit'
    await polls(context)
    return await send(request, reply, task, indexOf(index))
  })

  app.get('/gateway/results/:ticket', { config: { operation: 'ticketResult' } }, async (request: FastifyRequest, reply: FastifyReply) => {
    request.call.stage = 'authorize'
    const opened = await tickets.open((request.params as { ticket: string }).ticket)
    // A ticket that opens nothing is an address that does not exist.
    if (opened === null) throw gatewayError('GW_NOT_FOUND')
    return await send(request, reply, opened.task, opened.index)
  })
}

/** One way to write each number. Whatever else stands there is an index that no task has. */
function indexOf (text: string): number {
  return /^(?:0|[1-9]\d{0,3})$/.test(text) ? Number(text) : Infinity
}
