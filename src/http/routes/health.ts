import type { FastifyInstance } from 'fastify'

/**
 * `/livez`: the process answers. `/readyz`: it may be given requests, since its store serves (`ping` does not throw).
 * Keys are not asked: a benched key is an alarm, and no reason to stop.
 */
export function healthRoutes (app: FastifyInstance, ping: () => Promise<void>): void {
  app.get('/livez', { config: { operation: 'livez', exempt: true } }, async () => ({ status: 'ok' }))

  app.get('/readyz', { config: { operation: 'readyz', exempt: true } }, async (_request, reply) => {
    const store = await ping().then(() => 'ok', () => 'down')
    return reply.code(store === 'ok' ? 200 : 503).send({ status: store === 'ok' ? 'ok' : 'unavailable', store })
  })
}
