import type { FastifyInstance } from 'fastify'
import { type Deliveries, type Delivery, hasArrived, messageId } from '../../domain/callbacks/deliveries.ts'
import { instant } from '../../domain/instant.ts'
import type { TaskLedger } from '../../domain/ledger/ledger.ts'
import { gatewayError } from '../../errors.ts'
import type { Authenticate } from '../authenticate.ts'
import { checkQuery, checkScope } from '../authorize.ts'
import { contextOf } from '../call.ts'
import { ownership } from '../ownership.ts'
import type { Rates } from '../rates.ts'

export interface DeliveryRoutesOptions {
  readonly authenticate: Authenticate
  readonly ledger: TaskLedger
  readonly deliveries: Deliveries
  readonly rates: Rates
}

/** How the delivery of a task's end went, for the task's owner. The URL is not repeated: it may hold a secret of the receiver's. */
export function deliveryRoutes (app: FastifyInstance, { authenticate, ledger, deliveries, rates: { polls, misses } }: DeliveryRoutesOptions): void {
  const { own } = ownership(ledger, misses)

  app.get('/gateway/tasks/:taskId/deliveries', { config: { operation: 'listDeliveries' }, onRequest: authenticate }, async (request, reply) => {
    const context = contextOf(request, reply)
    const { call, call: { session, plan } } = context
    call.stage = 'authorize'
    checkScope('tasks:read', session)
    checkQuery([], request)
    const { taskId, model } = await own((request.params as { taskId: string }).taskId, context)
    if (!session.permits(model) || !plan.permits(model)) throw gatewayError('GW_MODEL_DENIED', { about: model })
    Object.assign(call, { taskId, model })
    call.stage = 'admit'
    await polls(context)
    return shown(taskId, await deliveries.of(taskId))
  })
}

function shown (taskId: string, delivery: Delivery | null) {
  const { attempts = [], nextAt = null } = delivery ?? {}
  return {
    webhookId: delivery && messageId(taskId),
    state: delivery === null ? 'none' : stateOf(delivery),
    attempts: attempts.map(({ at, status, error }) => ({ at: instant(at), status, error })),
    nextAttemptAt: nextAt === null ? null : instant(nextAt)
  }
}

/** waiting: for the end of the task · due: sent soon, or once more at its time · delivered · given-up */
function stateOf ({ attempts, nextAt }: Delivery): string {
  if (nextAt !== null) return 'due'
  if (attempts.length === 0) return 'waiting'
  return attempts.some(hasArrived) ? 'delivered' : 'given-up'
}
