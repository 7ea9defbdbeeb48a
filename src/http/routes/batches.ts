import type { FastifyInstance } from 'fastify'
import { batchOperations, type Operation } from '../../domain/policy/catalog.ts'
import { taskEnding } from '../../domain/status/task-ending.ts'
import { admitStatus } from '../admit.ts'
import { admitBatch } from '../batches/admit.ts'
import { authorizeBatch, authorizeBatchStatus } from '../batches/authorize.ts'
import { forwardBatch, forwardBatchStatus } from '../batches/forward.ts'
import { reservations } from '../batches/reservations.ts'
import { settleBatch } from '../batches/settle.ts'
import { settleBatchStatus } from '../batches/status.ts'
import { largeBodies } from '../large-bodies.ts'
import { ownership } from '../ownership.ts'
import { mirror } from '../pipeline.ts'
import type { MirrorOptions } from './mirror.ts'

/** Up to fifty tasks in one call. These routes exist only when the operator opens them. */
export function batchRoutes (app: FastifyInstance, options: MirrorOptions): void {
  const { entrance, upstream, keys, desk, slots, store: { ledger, repeats, accounts }, earliest, patient, rules, rates, now } = options
  const { submits, lookAtSubmits, polls, misses, replays } = rates
  const owners = ownership(ledger, misses)
  const together = reservations(ledger, patient)
  const end = taskEnding({ ledger, desk })

  const submit = (operation: Operation) => mirror(operation, entrance, {
    beforeBody: largeBodies({ lookAtRate: lookAtSubmits, accounts, isFree: rules.isFree, now }),
    authorize: authorizeBatch(operation, owners, rules),
    admit: admitBatch({ submits, replays, repeats, earliest, keys, slots, now }, together),
    forward: forwardBatch({ operation, upstream, keys }, together),
    settle: settleBatch(ledger, patient)
  })
  const status = (operation: Operation) => mirror(operation, entrance, {
    beforeBody: null,
    authorize: authorizeBatchStatus(operation, owners),
    admit: admitStatus(polls),
    forward: forwardBatchStatus({ operation, upstream, keys }),
    settle: settleBatchStatus(ledger, end)
  })
  for (const operation of batchOperations) app.route({ submit, status }[operation.kind](operation))
}
