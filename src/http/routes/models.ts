import type { FastifyInstance } from 'fastify'
import type { ListedPrice, Model } from '../../domain/policy/models.ts'
import type { ReadRoute } from '../read-route.ts'

export interface ModelRoutesOptions {
  readonly readRoute: ReadRoute
  readonly models: readonly Model[]
  readonly priceOf: (model: Model) => ListedPrice | null
}

/** The models that this session may use: those the operator has written down, its plan and the session permit. */
export function modelRoutes (app: FastifyInstance, { readRoute, models, priceOf }: ModelRoutesOptions): void {
  const rows = models.map(model => ({ scope: model.category === 'text' ? 'llm' : 'tasks:write', shown: { ...model, price: priceOf(model) } }) as const)

  readRoute(app, { url: '/gateway/models', operation: 'listModels', scope: null, query: [], task: null }, ({ context }) => {
    const { session, plan } = context.call
    const mayUse = rows.filter(({ scope, shown: { id } }) => session.scopes.includes(scope) && session.permits(id) && plan.permits(id))
    return { models: mayUse.map(({ shown }) => shown) }
  })
}
