import type { FastifyRequest } from 'fastify'
import type { TaskEvents } from '../domain/status/events.ts'

/**
 * Tells, when a submit is over, that its subject has a new task: streams that are open follow it from then on, also when
 * the caller has gone. Whether it was claimed is the ledger's to say.
 */
export function announcement ({ events, now }: { readonly events: TaskEvents, readonly now: () => number }) {
  return ({ call: { session, taskId, model }, routeOptions }: FastifyRequest): void => {
    if (routeOptions.config?.operation !== 'generateTask' || session === null || taskId === null || model === null) return
    events.publish({ subject: session.subject, taskId, model, state: '', isFinal: false, at: now(), body: Buffer.alloc(0) })
  }
}
