import type { FastifyRequest } from 'fastify'
import type { TaskEvents } from '../../domain/status/events.ts'

/**
 * Tells, when a submit or a batch is over, that its subject has new tasks: streams that are open follow them from then on,
 * also when the caller has gone.
 */
export function announcement ({ events, now }: { readonly events: TaskEvents, readonly now: () => number }) {
  return ({ call: { session, madeTaskIds, model } }: FastifyRequest): void => {
    for (const taskId of madeTaskIds) {
      // Where tasks were made there are a session and a model.
      events.publish({ subject: session!.subject, taskId, model: model!, state: '', isFinal: false, at: now(), body: Buffer.alloc(0) })
    }
  }
}
