import type { Demand, ReservationId, Reserved, TaskLedger } from '../../domain/ledger/ledger.ts'
import type { PatientLedger } from '../../domain/ledger/patient-ledger.ts'
import { gatewayError } from '../../errors.ts'

type Refused = Extract<Reserved, { readonly granted: false }>

/** The reservations of one batch: all of them take a step, or all are given back. */
export interface Reservations {
  /**
   * Asked for in one go, so that of two batches with room for one the ledger sees first the whole of the one. What is
   * refused is told; a used idempotency key before anything else.
   */
  reserve (demands: readonly Demand[]): Promise<readonly ReservationId[] | Refused>
  /** Notes that all are being sent. Throws what kept it from one of them. */
  send (ids: readonly ReservationId[], keyId: string): Promise<void>
}

export function reservations (ledger: TaskLedger, patient: PatientLedger): Reservations {
  /** A store that fails here is told when it is back. */
  const giveBack = async (ids: readonly ReservationId[]): Promise<void> => {
    await Promise.all(ids.map(id => ledger.advance(id, { to: 'released' }).catch(() => patient.owe(id, { to: 'released' }))))
  }

  return {
    async reserve (demands) {
      const asked = await Promise.allSettled(demands.map(demand => ledger.reserve(demand)))
      const answers = asked.flatMap(one => one.status === 'fulfilled' ? one.value : [])
      const ids = answers.flatMap(answer => answer.granted ? answer.id : [])
      if (ids.length === demands.length) return ids
      await giveBack(ids)
      throwFirst(asked)
      const refused = answers.filter(answer => !answer.granted)
      return refused.find(({ lacks }) => lacks === 'novelty') ?? refused[0]!
    },
    async send (ids, keyId) {
      const noted = await Promise.allSettled(ids.map(id => ledger.advance(id, { to: 'sent', keyId })))
      if (noted.every(one => one.status === 'fulfilled' && one.value)) return
      await giveBack(ids)
      throwFirst(noted)
      throw gatewayError('GW_OVERLOADED', { retryAfterSeconds: 1 }) // one lapsed while it waited
    }
  }
}

/** Throws what the first of them failed with, if any did. */
export function throwFirst (results: ReadonlyArray<PromiseSettledResult<unknown>>): void {
  const failed = results.find(result => result.status === 'rejected')
  if (failed !== undefined) throw failed.reason
}
