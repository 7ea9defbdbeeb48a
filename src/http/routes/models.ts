import type { FastifyInstance } from 'fastify'
import { creditsFrom, creditsLeft, leastLeft, nothingSpent } from '../../domain/ledger.ts'
import { type Microcredits, periodAt } from '../../domain/policy.ts'
import type { Quote } from '../../domain/prices.ts'
import { readSubmitBody } from '../../domain/submit.ts'
import { badRequest } from '../../errors.ts'
import { checkOperation, keyOfReferences } from '../authorize.ts'
import { contextOf, type RequestContext } from '../context.ts'
import { reauthenticateAfterSlowBody } from '../pipeline.ts'
import { readRoute, type ReadServices } from '../read-route.ts'
import { ownBodyBytes } from '../server.ts'
import type { Services } from '../services.ts'

/** The models that this session may use: those the operator has written down, its plan and the session permit. */
export function modelRoutes (
  app: FastifyInstance,
  services: ReadServices & Pick<Services, 'models' | 'listedPrice'>
): void {
  const { models, listedPrice } = services
  const rows = models.map(
    model =>
      ({
        scope: model.category === 'text' ? 'llm' : 'tasks:write',
        shown: { ...model, price: listedPrice(model) }
      }) as const
  )

  readRoute(
    app,
    services,
    { url: '/gateway/models', operation: 'listModels', scope: null, query: [], task: null },
    ({ context }) => {
      const { session, plan } = context.call
      const mayUse = rows.filter(
        ({ scope, shown: { id } }) => session.scopes.includes(scope) && session.permits(id) && plan.permits(id)
      )
      return { models: mayUse.map(({ shown }) => shown) }
    }
  )
}

type QuoteServices = ReadServices & Pick<Services, 'submitRules' | 'accounts' | 'clock'>

/**
 * What a submit with this body would cost, and whether there is enough left for it. It is held to all that the submit
 * would be held to, and costs a poll: nothing is set aside, sent or remembered. By the time of the submit, less may be
 * left.
 */
export function quoteRoute (app: FastifyInstance, services: QuoteServices): void {
  const { authenticate, rates, clock: { elapsed } } = services
  app.post('/gateway/quote/:model', {
    config: { operation: 'quote' },
    bodyLimit: ownBodyBytes,
    ...reauthenticateAfterSlowBody(authenticate, elapsed)
  }, async (request, reply) => {
    const context = contextOf(request, reply)
    const { call } = context
    call.enter('authorize')
    const { price, rule } = await authorizeQuote(context, services)
    call.enter('admit')
    await rates.polls(context)
    call.grant()
    const left = await creditsLeftIn(context, services)
    return {
      model: call.model,
      credits: creditsFrom(price.microcredits),
      refundable: price.refundable,
      rule,
      left: left === null ? null : creditsFrom(left),
      enough: left === null || price.microcredits <= left
    }
  })
}

/** *authorize* for quotes: as for the submit. Throws what that would throw. */
async function authorizeQuote (context: RequestContext, services: QuoteServices): Promise<Quote> {
  const { extraFields, mayBeOfficial, checkCallbackUrl, enforceCaps, quoteOf } = services.submitRules
  const model = checkOperation({ scope: 'tasks:write', query: [] }, context)
  const bytes = context.request.body
  if (!Buffer.isBuffer(bytes)) throw badRequest('Send a JSON body with an input object.')
  const body = readSubmitBody(bytes, {
    extraFields, mayBeOfficial: mayBeOfficial(model), checkCallbackUrl, upstreamTo: null
  })
  enforceCaps(model, body)
  const quote = quoteOf(model, body)
  await keyOfReferences(services, context, body)
  return quote
}

/** What the caller may still spend: its subject's credits, or those of its session. `null` is unlimited. */
export async function creditsLeftIn (
  { call: { session, plan } }: RequestContext, { accounts, clock }: Pick<Services, 'accounts' | 'clock'>
): Promise<Microcredits | null> {
  const [balance, spent] = await Promise.all([
    accounts.balanceOf(session.subject, periodAt(plan.period, clock.now()).start),
    session.credits === null ? nothingSpent : accounts.spentIn(session.subject, session.rootId)
  ])
  return leastLeft(creditsLeft(plan, balance), session.credits, spent.microcredits)
}
