import type { FastifyInstance } from 'fastify'
import { type Operation, operations } from '../../domain/catalog.ts'
import type { KeyRing } from '../../domain/keys.ts'
import type { TaskLedger } from '../../domain/ledger.ts'
import type { PatientLedger } from '../../domain/patient-ledger.ts'
import type { Upstream } from '../../domain/upstream.ts'
import { admitStatus, admitSubmit } from '../admit.ts'
import { authorizeStatus, authorizeSubmit, type SubmitRules } from '../authorize.ts'
import { forwardStatus, forwardSubmit } from '../forward.ts'
import { ownership } from '../ownership.ts'
import { type Entrance, mirror } from '../pipeline.ts'
import { subjectRates } from '../rates.ts'
import { settleStatus, settleSubmit } from '../settle.ts'

export interface MirrorOptions {
  readonly entrance: Entrance
  readonly upstream: Upstream
  readonly keys: KeyRing
  readonly ledger: TaskLedger
  readonly patient: PatientLedger
  readonly rules: SubmitRules
  readonly now: () => number
}

/** The upstream's own routes: one for each row of the catalog, and no wildcard. */
export function mirrorRoutes (app: FastifyInstance, options: MirrorOptions): void {
  const { entrance, upstream, keys, ledger, patient, rules, now } = options
  const { submits, polls, misses } = subjectRates(app)
  const owners = ownership(ledger, misses)

  const submit = (operation: Operation) => mirror(operation, entrance, {
    authorize: authorizeSubmit(operation, owners, rules),
    admit: admitSubmit(submits, ledger, keys, now),
    forward: forwardSubmit({ operation, upstream, keys }, ledger),
    settle: settleSubmit(patient)
  })
  const status = (operation: Operation) => mirror(operation, entrance, {
    authorize: authorizeStatus(operation, owners),
    admit: admitStatus(polls),
    forward: forwardStatus({ operation, upstream, keys }),
    settle: settleStatus(ledger)
  })
  for (const operation of operations) app.route({ submit, status }[operation.kind](operation))
}
