import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { ResultSource } from '../../domain/results/results.ts'
import type { ResultTickets } from '../../domain/results/tickets.ts'
import { gatewayError } from '../../errors.ts'
import type { ReadRoute } from '../read-route.ts'
import { resultSender } from '../results/result-sender.ts'

export interface ResultRoutesOptions {
  readonly readRoute: ReadRoute
  readonly results: ResultSource
  readonly tickets: ResultTickets
  /** Pages of other origins may call us, and so show what a ticket opens. */
  readonly hasForeignPages: boolean
  readonly now: () => number
}

/**
 * The bytes of results, from the gateway's own origin: by session, for scripts; by ticket, for `<img>` and `<video>`,
 * which send no header.
 */
export function resultRoutes (app: FastifyInstance, options: ResultRoutesOptions): void {
  const { readRoute, tickets, hasForeignPages } = options
  const send = resultSender(options)

  readRoute(app, {
    url: '/gateway/tasks/:taskId/results/:index',
    operation: 'result',
    scope: 'tasks:read',
    query: ['download'],
    task: 'own'
  }, async ({ request, reply, task }) => {
    const { index } = request.params as { index: string }
    return await send(request, reply, { task, index: indexOf(index), shownBy: 'same-origin' })
  })

  app.get('/gateway/results/:ticket', { config: { operation: 'ticketResult', opensWith: 'ticket' } }, async (request: FastifyRequest, reply: FastifyReply) => {
    request.call.stage = 'authorize'
    const opened = await tickets.open((request.params as { ticket: string }).ticket)
    // A ticket that opens nothing is an address that does not exist.
    if (opened === null) throw gatewayError('GW_NOT_FOUND')
    // The ticket is the authority: whoever has it may show what it opens, in a plain <img> too.
    return await send(request, reply, { ...opened, shownBy: hasForeignPages ? 'cross-origin' : 'same-origin' })
  })
}

/** One way to write each number. Whatever else stands there is an index that no task has. */
function indexOf (text: string): number {
  return /^(?:0|[1-9]\d{0,3})$/.test(text) ? Number(text) : Infinity
}
