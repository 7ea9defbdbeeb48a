import type { FastifyInstance } from 'fastify'
import { type Metrics, metricsType } from '../server/metrics.ts'
import type { AuthenticateOperator } from '../sessions/operator.ts'

/** `authenticate`: absent on the admin port, whose callers have been let in by the network. */
export function metricsRoutes (app: FastifyInstance, metrics: Metrics, authenticate?: AuthenticateOperator): void {
  app.get('/metrics', {
    config: { operation: 'metrics', ...(authenticate !== undefined && { opensWith: 'admin token' }) },
    ...(authenticate !== undefined && { onRequest: authenticate })
  }, async (_request, reply) => {
    const text = await metrics.scrape()
    return reply.type(metricsType).send(text)
  })
}
