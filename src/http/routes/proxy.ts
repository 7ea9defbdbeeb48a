import type { FastifyInstance } from 'fastify'
import { creditsFrom, creditsLeft, leastLeft, nothingSpent } from '../../domain/ledger.ts'
import { periodAt } from '../../domain/policy.ts'
import { refreshTask } from '../../domain/status-poller.ts'
import { balancePath, batchOperations, type Operation, operations } from '../../domain/upstream.ts'
import { admitStatus, admitSubmit, guestProver } from '../admit.ts'
import { authorizeStatus, authorizeSubmit, ownership } from '../authorize.ts'
import {
  admitBatch, authorizeBatch, authorizeBatchStatus, forwardBatch, forwardBatchStatus, settleBatch, settleBatchStatus
} from '../batches.ts'
import { forwardStatus, forwardSubmit } from '../forward.ts'
import { proxyRoute } from '../pipeline.ts'
import { largeBodies } from '../rates.ts'
import { readRoute, type ReadServices } from '../read-route.ts'
import type { Services } from '../services.ts'
import { settleStatus, settleSubmit } from '../settle.ts'

/** What submits and status calls work with. */
export type ProxyServices = Pick<
  Services,
  'authenticate' | 'bodyBudget' | 'submitRules' | 'rates' | 'guests' | 'ledger' | 'repeats' | 'earliest' |
  'accounts' | 'upstream' | 'keys' | 'poller' | 'slots' | 'clock'
>

/** The upstream's own routes: one for each row of the catalog, the balance, and no wildcard. */
export function mirrorRoutes (app: FastifyInstance, services: ProxyServices): void {
  const { submitRules: rules, rates, guests, ledger, repeats, earliest, accounts } = services
  const { upstream, keys, poller, slots, clock: { now } } = services
  const { submits, lookAtSubmits, polls, misses, replays } = rates
  const owners = ownership(ledger, misses)

  const submit = (operation: Operation) => proxyRoute(operation, services, {
    beforeBody: largeBodies({ lookAtRate: lookAtSubmits, accounts, isFree: rules.isFree, now }),
    authorize: authorizeSubmit(operation, owners, rules),
    admit: admitSubmit({ prove: guestProver(guests), submits, replays, ledger, repeats, earliest, keys, slots, now }),
    forward: forwardSubmit({ operation, upstream, keys }, ledger),
    settle: settleSubmit(ledger)
  })
  const status = (operation: Operation) => proxyRoute(operation, services, {
    beforeBody: null,
    authorize: authorizeStatus(operation, owners),
    admit: admitStatus(polls),
    forward: forwardStatus(poller),
    settle: settleStatus
  })
  for (const operation of operations) app.route({ submit, status }[operation.kind](operation))
  balanceRoute(app, services)
}

/**
 * Clients ask here for the balance of their key. A session stands in its place: the answer is what it may still spend.
 */
function balanceRoute (app: FastifyInstance, services: ReadServices & Pick<Services, 'accounts' | 'clock'>): void {
  const { accounts, clock: { now } } = services
  readRoute(
    app,
    services,
    { url: balancePath, operation: 'currentBalance', scope: null, query: [], task: null },
    async ({ context }) => {
      const { session, plan } = context.call
      const [balance, spent] = await Promise.all([
        accounts.balanceOf(session.subject, periodAt(plan.period, now()).start),
        session.credits === null ? nothingSpent : accounts.spentIn(session.subject, session.rootId)
      ])
      const left = leastLeft(creditsLeft(plan, balance), session.credits, spent.microcredits)
      return { code: 200, message: 'success', data: left === null ? null : creditsFrom(left) }
    }
  )
}

/** Up to fifty tasks in one call. These routes exist only when the operator opens them. */
export function batchRoutes (app: FastifyInstance, services: ProxyServices): void {
  const { submitRules: rules, rates, ledger, repeats, earliest, accounts } = services
  const { upstream, keys, poller, slots, clock: { now } } = services
  const { submits, lookAtSubmits, polls, misses, replays } = rates
  const owners = ownership(ledger, misses)
  const end = refreshTask({ ledger, poller })

  const submit = (operation: Operation) => proxyRoute(operation, services, {
    beforeBody: largeBodies({ lookAtRate: lookAtSubmits, accounts, isFree: rules.isFree, now }),
    authorize: authorizeBatch(operation, owners, rules),
    admit: admitBatch({ submits, replays, repeats, ledger, earliest, keys, slots, now }),
    forward: forwardBatch({ operation, upstream, keys }, ledger),
    settle: settleBatch(ledger)
  })
  const status = (operation: Operation) => proxyRoute(operation, services, {
    beforeBody: null,
    authorize: authorizeBatchStatus(operation, owners),
    admit: admitStatus(polls),
    forward: forwardBatchStatus({ operation, upstream, keys }),
    settle: settleBatchStatus(ledger, end)
  })
  for (const operation of batchOperations) app.route({ submit, status }[operation.kind](operation))
}
