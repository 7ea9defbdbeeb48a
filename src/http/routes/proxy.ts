import type { FastifyInstance } from 'fastify'
import type { Guests } from '../../domain/guests.ts'
import type { KeyRing } from '../../domain/key-ring.ts'
import type { PatientLedger } from '../../domain/ledger-client.ts'
import { creditsFrom, creditsLeft, leastLeft, nothingSpent } from '../../domain/ledger.ts'
import { periodAt } from '../../domain/policy.ts'
import { type SlotSearch, type StatusPoller, refreshTask } from '../../domain/status-poller.ts'
import type { Store } from '../../domain/store.ts'
import { balancePath, batchOperations, type Operation, operations, type Upstream } from '../../domain/upstream.ts'
import { admitStatus, admitSubmit, guestProver } from '../admit.ts'
import { authorizeStatus, authorizeSubmit, ownership, type SubmitRules } from '../authorize.ts'
import {
  admitBatch, authorizeBatch, authorizeBatchStatus, forwardBatch, forwardBatchStatus, reservations, settleBatch,
  settleBatchStatus
} from '../batches.ts'
import { forwardStatus, forwardSubmit } from '../forward.ts'
import { type Guards, proxyRoute } from '../pipeline.ts'
import { largeBodies, type Rates } from '../rates.ts'
import type { ReadRoute } from '../read-route.ts'
import type { Earliest } from '../repeats.ts'
import { settleStatus, settleSubmit } from '../settle.ts'

export interface MirrorOptions {
  readonly entrance: Guards
  readonly readRoute: ReadRoute
  readonly upstream: Upstream
  readonly keys: KeyRing
  readonly desk: StatusPoller
  readonly slots: SlotSearch
  readonly store: Pick<Store, 'ledger' | 'repeats' | 'accounts'>
  readonly earliest: Earliest
  readonly patient: PatientLedger
  readonly rules: SubmitRules
  readonly rates: Rates
  readonly guests: Guests | undefined
  readonly now: () => number
}

/** The upstream's own routes: one for each row of the catalog, the balance, and no wildcard. */
export function mirrorRoutes (app: FastifyInstance, options: MirrorOptions): void {
  const {
    entrance,
    upstream,
    keys,
    desk,
    slots,
    store: { ledger, repeats, accounts },
    earliest,
    patient,
    rules,
    rates,
    guests,
    now
  } = options
  const { submits, lookAtSubmits, polls, misses, replays } = rates
  const owners = ownership(ledger, misses)

  const submit = (operation: Operation) => proxyRoute(operation, entrance, {
    beforeBody: largeBodies({ lookAtRate: lookAtSubmits, accounts, isFree: rules.isFree, now }),
    authorize: authorizeSubmit(operation, owners, rules),
    admit: admitSubmit({ prove: guestProver(guests), submits, replays, ledger, repeats, earliest, keys, slots, now }),
    forward: forwardSubmit({ operation, upstream, keys }, ledger, patient),
    settle: settleSubmit(patient)
  })
  const status = (operation: Operation) => proxyRoute(operation, entrance, {
    beforeBody: null,
    authorize: authorizeStatus(operation, owners),
    admit: admitStatus(polls),
    forward: forwardStatus(desk),
    settle: settleStatus
  })
  for (const operation of operations) app.route({ submit, status }[operation.kind](operation))
  balanceRoute(app, options)
}

/**
 * Clients ask here for the balance of their key. A session stands in its place: the answer is what it may still spend.
 */
function balanceRoute (app: FastifyInstance, { readRoute, store: { accounts }, now }: MirrorOptions): void {
  readRoute(
    app,
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
export function batchRoutes (app: FastifyInstance, options: MirrorOptions): void {
  const {
    entrance,
    upstream,
    keys,
    desk,
    slots,
    store: { ledger, repeats, accounts },
    earliest,
    patient,
    rules,
    rates,
    now
  } = options
  const { submits, lookAtSubmits, polls, misses, replays } = rates
  const owners = ownership(ledger, misses)
  const together = reservations(ledger, patient)
  const end = refreshTask({ ledger, desk })

  const submit = (operation: Operation) => proxyRoute(operation, entrance, {
    beforeBody: largeBodies({ lookAtRate: lookAtSubmits, accounts, isFree: rules.isFree, now }),
    authorize: authorizeBatch(operation, owners, rules),
    admit: admitBatch({ submits, replays, repeats, earliest, keys, slots, now }, together),
    forward: forwardBatch({ operation, upstream, keys }, together),
    settle: settleBatch(ledger, patient)
  })
  const status = (operation: Operation) => proxyRoute(operation, entrance, {
    beforeBody: null,
    authorize: authorizeBatchStatus(operation, owners),
    admit: admitStatus(polls),
    forward: forwardBatchStatus({ operation, upstream, keys }),
    settle: settleBatchStatus(ledger, end)
  })
  for (const operation of batchOperations) app.route({ submit, status }[operation.kind](operation))
}
