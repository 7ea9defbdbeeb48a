import type { FastifyInstance } from 'fastify'
import type { ListedPrice, Model } from '../../domain/policy/models.ts'
import type { Authenticate } from '../authenticate.ts'
import { checkQuery } from '../authorize.ts'
import { contextOf } from '../call.ts'

export interface ModelRoutesOptions {
  readonly authenticate: Authenticate
  readonly models: readonly Model[]
  readonly priceOf: (model: Model) => ListedPrice | null
}

/** The models that this session may use: those the operator has written down, its plan and the session permit. */
export function modelRoutes (app: FastifyInstance, { authenticate, models, priceOf }: ModelRoutesOptions): void {
  const rows = models.map(model => ({ scope: model.category === 'text' ? 'llm' : 'tasks:write', shown: { ...model, price: priceOf(model) } }) as const)

  app.get('/gateway/models', { config: { operation: 'listModels' }, onRequest: authenticate }, async (request, reply) => {
    const { call, call: { session, plan } } = contextOf(request, reply)
    call.stage = 'authorize'
    checkQuery([], request)
    const mayUse = rows.filter(({ scope, shown: { id } }) => session.scopes.includes(scope) && session.permits(id) && plan.permits(id))
    return { models: mayUse.map(({ shown }) => shown) }
  })
}
