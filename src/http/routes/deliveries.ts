import type { FastifyInstance } from 'fastify'
import { type Deliveries, type Delivery, hasArrived, messageId } from '../../domain/callbacks/deliveries.ts'
import { instant } from '../../domain/instant.ts'
import type { ReadRoute } from '../read-route.ts'

export interface DeliveryRoutesOptions {
  readonly readRoute: ReadRoute
  readonly deliveries: Deliveries
}

/** How the delivery of a task's end went, for the task's owner. The URL is not repeated: it may hold a secret of the receiver's. */
export function deliveryRoutes (app: FastifyInstance, { readRoute, deliveries }: DeliveryRoutesOptions): void {
  readRoute(app, {
    url: '/gateway/tasks/:taskId/deliveries', operation: 'listDeliveries', scope: 'tasks:read', query: [], task: 'own'
  }, async ({ task: { taskId } }) => shown(taskId, await deliveries.of(taskId)))
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
