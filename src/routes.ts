import type { FastifyInstance } from 'fastify'
import { deliveryRoutes } from './features/callbacks/outbound.ts'
import { eventRoutes } from './features/events/routes.ts'
import { pageRoutes } from './features/pages/pages.ts'
import { resultRoutes } from './features/results/routes.ts'
import { invitationRoutes } from './features/tokens/tokens.ts'
import { healthRoutes, metricsRoutes } from './http/observe.ts'
import { proxyRoutes } from './http/pipeline.ts'
import { abandonRoute } from './http/routes/abandonment.ts'
import { balanceRoute, modelRoutes, quoteRoute, taskRoutes, usageRoute } from './http/routes/account.ts'
import { cookieSessionRoutes, sessionRoutes } from './http/routes/sessions.ts'
import { readBodies, withMethods } from './http/server.ts'
import type { Services } from './http/services.ts'
import type { Features } from './features.ts'
import type { Settings } from './settings.ts'

/**
 * All that the main port answers: which routes there are, and what is open. Each line is given what it needs; what the
 * operator has not opened is not loaded.
 */
export async function registerRoutes (
  app: FastifyInstance, settings: Settings, services: Services, features: Features
): Promise<void> {
  const { adminPort, staticDir, file: { batches, tasks } } = settings
  const { callbacks, deliveries, events, guests, llm, results } = features
  await withMethods(app, async () => {
    healthRoutes(app, services)

    // The upstream's own addresses, and what a submit would cost. Their bodies are bytes.
    await app.register(async scope => {
      readBodies(scope, 'bytes')
      proxyRoutes(scope, services)
      balanceRoute(scope, services)
      quoteRoute(scope, services)
      if (batches.enabled) (await import('./features/batches/batches.ts')).batchRoutes(scope, services)
      if (llm !== null) (await import('./features/llm/routes.ts')).llmRoutes(scope, services, llm)
    })
    if (callbacks !== null) {
      const { callbackRoutes } = await import('./features/callbacks/inbound.ts')
      await app.register(async scope => callbackRoutes(scope, callbacks))
    }

    // Our own, below /gateway. Their bodies are JSON.
    await app.register(async scope => {
      readBodies(scope, 'object')
      sessionRoutes(scope, services)
      cookieSessionRoutes(scope, services)
      taskRoutes(scope, services)
      abandonRoute(scope, services)
      usageRoute(scope, services, tasks)
      modelRoutes(scope, services)
      pageRoutes(scope, { hasFrontEnd: staticDir !== undefined })
      invitationRoutes(scope, services)
      eventRoutes(scope, services, events)
      resultRoutes(scope, services, results)
      deliveryRoutes(scope, services, deliveries)
      if (guests !== null) (await import('./features/guests/guests.ts')).guestRoutes(scope, services, guests)
    })
    if (adminPort === undefined) {
      // Without an admin token `/metrics` is only where the network decides who gets there.
      if (services.authenticateOperator !== null) metricsRoutes(app, services, services.authenticateOperator)
      await registerAdminApi(app, services, features)
    }
  })
  // Not under `withMethods`: what is no route of ours stays a 404, and does not become a 405.
  if (llm !== null) (await import('./features/llm/routes.ts')).wrongPaths(app)
  if (staticDir !== undefined) {
    const { staticFileRoutes } = await import('./features/static-files/static-files.ts')
    staticFileRoutes(app, staticDir)
  }
}

/** All that the admin port answers. */
export async function registerAdminRoutes (
  app: FastifyInstance, services: Services, features: Features
): Promise<void> {
  await withMethods(app, async () => {
    healthRoutes(app, services)
    metricsRoutes(app, services, null)
    await registerAdminApi(app, services, features)
  })
}

async function registerAdminApi (app: FastifyInstance, services: Services, features: Features): Promise<void> {
  const { authenticateOperator } = services
  if (authenticateOperator === null) return
  const { adminRoutes } = await import('./features/admin/routes.ts')
  const { tokenRoutes } = await import('./features/tokens/routes.ts')
  await app.register(async scope => {
    readBodies(scope, 'object')
    adminRoutes(scope, services, features.operator, authenticateOperator)
    tokenRoutes(scope, services, authenticateOperator)
  })
}
