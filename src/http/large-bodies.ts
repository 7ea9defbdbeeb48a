import { Transform, type Readable } from 'node:stream'
import type { preParsingHookHandler, FastifyRequest } from 'fastify'
import { creditsLeft, leastLeft } from '../domain/ledger/balance.ts'
import { type CreditAccounts, nothingSpent } from '../domain/ledger/credits.ts'
import { periodAt } from '../domain/policy/plan.ts'
import { budgetOf } from '../domain/sessions/session.ts'
import { gatewayError } from '../errors.ts'
import { type Context, contextOf } from './call.ts'
import type { Rate } from './rates.ts'

/**
 * Bodies up to this length are read from everybody, bytes: a subject that has nothing left may still ask again for an answer
 * it has paid for, and what it asks is only known from the body.
 */
export const replayBodyBytes = 65_536

export interface LargeBodiesOptions {
  /** Throws what a submit would be refused with by its rate, and counts nothing. */
  readonly lookAtRate: Rate
  readonly accounts: CreditAccounts
  /** Whether submits of that model cost nothing, whatever is in them. */
  readonly isFree: (model: string) => boolean
  /** Unix ms. */
  readonly now: () => number
}

/**
 * Route hook for submits, before the body is read: a body above `replayBodyBytes` is taken only from a subject that has
 * something left of its rate, credits and uses; else it is refused with what the submit would have been refused with. They
 * are looked at and not counted, since the body may be wrong. A body that announces no length is read up to that bound.
 *
 * Small bodies cost no look: the store would be asked twice for each of them, and they are read in a millisecond.
 */
export function largeBodies (options: LargeBodiesOptions): preParsingHookHandler {
  return (request, reply, payload, done) => {
    const length = announcedLength(request)
    if (length !== null && length <= replayBodyBytes) return done(null)
    look(options, contextOf(request, reply)).then(() => done(null), (refusal: Error) => {
      request.call.stage = 'admit'
      if (length !== null) done(refusal)
      else done(null, bounded(payload as Readable, refusal))
    })
  }
}

/** `null`: it is sent in chunks, as long as they come. */
function announcedLength ({ headers }: FastifyRequest): number | null {
  if (headers['transfer-encoding'] !== undefined) return null
  return Number(headers['content-length'] ?? 0)
}

/** Throws what a submit would be refused with now. */
async function look ({ lookAtRate, accounts, isFree: isFreeModel, now }: LargeBodiesOptions, context: Context): Promise<void> {
  await lookAtRate(context)
  const { call: { session, plan }, request } = context
  const budget = budgetOf(session)
  const isFree = isFreeModel((request.params as { readonly model: string }).model)
  if (budget === undefined && (isFree || plan.credits === null)) return
  const [balance, spent] = await Promise.all([
    accounts.balanceOf(session.subject, periodAt(plan.period, now()).start),
    budget === undefined ? nothingSpent : accounts.spentIn(session.subject, budget.id)
  ])
  if (session.uses !== null && spent.uses >= session.uses) throw gatewayError('GW_SESSION_SPENT', { shouldRetry: false })
  const left = leastLeft(creditsLeft(plan, balance), session.credits, spent.microcredits)
  if (!isFree && left === 0) throw gatewayError('GW_CREDITS_EXHAUSTED', { shouldRetry: false })
}

/** What comes, up to the bound; beyond it, the refusal. The connection stays whole, or the refusal could not be told. */
function bounded (payload: Readable, refusal: Error): Readable {
  let length = 0
  const part = new Transform({
    transform (chunk: Buffer, _encoding, next) {
      length += chunk.length
      if (length > replayBodyBytes) next(refusal)
      else next(null, chunk)
    }
  })
  payload.once('error', error => part.destroy(error)) // its caller has hung up
  return payload.pipe(part)
}
