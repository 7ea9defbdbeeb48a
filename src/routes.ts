import type { FastifyInstance } from 'fastify'
import { adminKeyRoutes, adminRoutes } from './features/admin/routes.ts'
import { batchRoutes } from './features/batches/batches.ts'
import { callbackRoutes } from './features/callbacks/inbound.ts'
import { deliveryRoutes } from './features/callbacks/outbound.ts'
import { eventRoutes } from './features/events/routes.ts'
import { guestRoutes } from './features/guests/guests.ts'
import { pageRoutes } from './features/pages/pages.ts'
import { resultRoutes } from './features/results/routes.ts'
import { staticFileRoutes } from './features/static-files/static-files.ts'
import { invitationRoutes, tokenRoutes } from './features/tokens/routes.ts'
import { healthRoutes, metricsRoutes } from './http/observe.ts'
import { proxyRoutes } from './http/pipeline.ts'
import { cookieSessionRoutes, sessionRoutes } from './http/routes/sessions.ts'
import { balanceRoute, modelRoutes, taskRoutes } from './http/routes/tasks.ts'
import { readBodies, withMethods } from './http/server.ts'
import type { Services } from './http/services.ts'
import type { Settings } from './settings.ts'

/** All that the main port answers: which routes there are, and what is open. Each line is given what it needs. */
export async function registerRoutes (app: FastifyInstance, settings: Settings, services: Services): Promise<void> {
  const { adminPort, staticDir, file: { batches } } = settings
  const { callbacks, guests } = services
  await withMethods(app, async () => {
    healthRoutes(app, services)

    // The upstream's own addresses. Their bodies are bytes.
    await app.register(async scope => {
      readBodies(scope, 'bytes')
      proxyRoutes(scope, services)
      balanceRoute(scope, services)
      if (batches.enabled) batchRoutes(scope, services)
    })
    if (callbacks !== null) await app.register(async scope => callbackRoutes(scope, callbacks))

    // Our own, below /gateway. Their bodies are JSON.
    await app.register(async scope => {
      readBodies(scope, 'object')
      sessionRoutes(scope, services)
      cookieSessionRoutes(scope, services)
      if (guests !== null) guestRoutes(scope, services, guests)
      invitationRoutes(scope, services)
      pageRoutes(scope, { hasFrontEnd: staticDir !== undefined })
      taskRoutes(scope, services)
      deliveryRoutes(scope, services)
      modelRoutes(scope, services)
      eventRoutes(scope, services)
      resultRoutes(scope, services)
    })
    if (adminPort === undefined) {
      // Without an admin token `/metrics` is only where the network decides who gets there.
      if (services.authenticateOperator !== null) metricsRoutes(app, services, services.authenticateOperator)
      await registerAdminApi(app, services)
    }
  })
  // Not under `withMethods`: a POST to what is no route of ours stays a 404, and does not become a 405.
  if (staticDir !== undefined) staticFileRoutes(app, staticDir)
}

/** All that the admin port answers. */
export async function registerAdminRoutes (app: FastifyInstance, services: Services): Promise<void> {
  await withMethods(app, async () => {
    healthRoutes(app, services)
    metricsRoutes(app, services, null)
    await registerAdminApi(app, services)
  })
}

async function registerAdminApi (app: FastifyInstance, services: Services): Promise<void> {
  const { authenticateOperator } = services
  if (authenticateOperator === null) return
  await app.register(async scope => {
    readBodies(scope, 'object')
    adminRoutes(scope, services, authenticateOperator)
    tokenRoutes(scope, services, authenticateOperator)
    adminKeyRoutes(scope, services, authenticateOperator)
  })
}
