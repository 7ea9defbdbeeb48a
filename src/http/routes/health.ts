import type { FastifyInstance } from 'fastify'

export interface HealthOptions {
  /** Throws while the store can't serve. Keys are not asked: a benched key is a metric and an alarm, no reason to stop. */
  readonly ping: () => Promise<void>
  readonly isStopping: () => boolean
}

/** `/livez`: the process answers. `/readyz`: it may be given requests. */
export function healthRoutes (app: FastifyInstance, { ping, isStopping }: HealthOptions): void {
  app.get('/livez', { config: { operation: 'livez', exempt: true } }, async () => ({ status: 'ok' }))

  app.get('/readyz', { config: { operation: 'readyz', exempt: true } }, async (_request, reply) => {
    const store = await ping().then(() => 'ok', () => 'down')
    const ready = store === 'ok' && !isStopping()
    return reply.code(ready ? 200 : 503).send({ status: ready ? 'ok' : 'unavailable', store })
  })
}
