import type { KeptAnswer } from '../../domain/ledger/idempotency.ts'
import type { ReservationId, TaskLedger } from '../../domain/ledger/ledger.ts'
import type { PatientLedger } from '../../domain/ledger/patient-ledger.ts'

export interface Claim {
  /** Of a task, or of the batch itself. */
  readonly id: string
  readonly operation: string
  readonly subject: string
  /** What the idempotency key gives again. */
  readonly answer?: KeptAnswer
}

/**
 * Gives an accepted task its owner. `false`: it is somebody else's, and not to be told.
 *
 * Keys of items and batches are remembered upstream: a key that was used before gets the task that was made before. It
 * is paid for, and was not made again, so that its reservation is given back.
 */
export type ClaimTask = (reservation: ReservationId, claim: Claim) => Promise<boolean>

export function claims (ledger: TaskLedger, patient: PatientLedger): ClaimTask {
  return async (reservation, { id, operation, subject, answer }) => {
    const kept = answer === undefined ? {} : { answer }
    if (await patient.advance(reservation, { to: 'claimed', taskId: id, ...kept })) return true
    const holder = await ledger.taskOf(id).catch(() => null)
    const isOwn = holder?.subject === subject && holder.operation === operation
    await patient.advance(reservation, isOwn ? { to: 'released', ...kept } : { to: 'unknown' })
    return isOwn
  }
}
