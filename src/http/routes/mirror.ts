import type { FastifyInstance } from 'fastify'
import type { KeyRing } from '../../domain/keys/keys.ts'
import { creditsFrom, creditsLeft, leastLeft } from '../../domain/ledger/balance.ts'
import { nothingSpent } from '../../domain/ledger/credits.ts'
import type { PatientLedger } from '../../domain/ledger/patient-ledger.ts'
import { balancePath, type Operation, operations } from '../../domain/policy/catalog.ts'
import { periodAt } from '../../domain/policy/plan.ts'
import type { Guests } from '../../domain/sessions/guests.ts'
import type { StatusDesk } from '../../domain/status/status-desk.ts'
import type { SlotSearch } from '../../domain/status/task-ending.ts'
import type { Store } from '../../domain/store.ts'
import type { Upstream } from '../../domain/upstream.ts'
import { admitStatus, admitSubmit } from '../admit.ts'
import { authorizeStatus, authorizeSubmit, type SubmitRules } from '../authorize.ts'
import { forwardStatus, forwardSubmit } from '../forward.ts'
import { largeBodies } from '../large-bodies.ts'
import { ownership } from '../ownership.ts'
import { type Entrance, mirror } from '../pipeline.ts'
import type { Rates } from '../rates.ts'
import type { ReadRoute } from '../read-route.ts'
import type { Earliest } from '../repeats.ts'
import { guestProver } from '../sessions/guest-proofs.ts'
import { settleStatus, settleSubmit } from '../settle.ts'

export interface MirrorOptions {
  readonly entrance: Entrance
  readonly readRoute: ReadRoute
  readonly upstream: Upstream
  readonly keys: KeyRing
  readonly desk: StatusDesk
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
  const { entrance, upstream, keys, desk, slots, store: { ledger, repeats, accounts }, earliest, patient, rules, rates, guests, now } = options
  const { submits, lookAtSubmits, polls, misses, replays } = rates
  const owners = ownership(ledger, misses)

  const submit = (operation: Operation) => mirror(operation, entrance, {
    beforeBody: largeBodies({ lookAtRate: lookAtSubmits, accounts, isFree: rules.isFree, now }),
    authorize: authorizeSubmit(operation, owners, rules),
    admit: admitSubmit({ prove: guestProver(guests), submits, replays, ledger, repeats, earliest, keys, slots, now }),
    forward: forwardSubmit({ operation, upstream, keys }, ledger, patient),
    settle: settleSubmit(patient)
  })
  const status = (operation: Operation) => mirror(operation, entrance, {
    beforeBody: null,
    authorize: authorizeStatus(operation, owners),
    admit: admitStatus(polls),
    forward: forwardStatus(desk),
    settle: settleStatus
  })
  for (const operation of operations) app.route({ submit, status }[operation.kind](operation))
  balanceRoute(app, options)
}

/** Clients ask here for the balance of their key. A session stands in its place: the answer is what it may still spend. */
function balanceRoute (app: FastifyInstance, { readRoute, store: { accounts }, now }: MirrorOptions): void {
  readRoute(app, { url: balancePath, operation: 'currentBalance', scope: null, query: [], task: null }, async ({ context }) => {
    const { session, plan } = context.call
    const [balance, spent] = await Promise.all([
      accounts.balanceOf(session.subject, periodAt(plan.period, now()).start),
      session.credits === null ? nothingSpent : accounts.spentIn(session.subject, session.rootId)
    ])
    const left = leastLeft(creditsLeft(plan, balance), session.credits, spent.microcredits)
    return { code: 200, message: 'success', data: left === null ? null : creditsFrom(left) }
  })
}
