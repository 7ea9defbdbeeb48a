import type { LedgerTerms, ReservationId } from '../../domain/ledger.ts'
import { recent } from '../../domain/recent.ts'
import type { Commands } from './client.ts'
import { encoded, keepMs, type KeyNames, placeOf } from './keys.ts'

/**
 * Which reservation a task id belongs to. It stands in the slot of the task id, so it is written before the claim: a
 * replica that dies in between leaves a task that has an owner, and that the next replica claims.
 */
export interface TaskOwners {
  /** `false`: it is another reservation's. */
  set (taskId: string, id: ReservationId): Promise<boolean>
  of (taskId: string): Promise<ReservationId | null>
  /** The claim was not open to it after all. */
  remove (taskId: string, id: ReservationId): Promise<void>
  /** The claim was made: this does not change any more. */
  confirm (taskId: string, id: ReservationId): void
}

const confirmedOwners = 20_000

export function taskOwners ({ on, ask, ofSubject }: Commands, keys: KeyNames, terms: LedgerTerms): TaskOwners {
  const confirmed = recent<ReservationId>(confirmedOwners)
  const own = async (
    taskId: string,
    id: ReservationId,
    takenFrom?: ReservationId
  ): Promise<ReservationId | null> => {
    const request = { owner: id, keptMs: keepMs(terms), takenFrom }
    const other = await on(keys.owner(taskId), 'setOwner', request) as Buffer | null
    return other && String(other)
  }
  /** A reservation that wrote itself down, and was refused or forgotten, may have died before that was taken back. */
  const mayClaim = async (taskId: string, id: ReservationId): Promise<boolean> => {
    const { subject, number } = placeOf(id)!
    return await ofSubject(subject, 'mayClaim', { number, task: encoded(taskId) }) === 1
  }

  return {
    async set (taskId, id) {
      const other = await own(taskId, id)
      return other === null || (!await mayClaim(taskId, other) && await own(taskId, id, other) === null)
    },
    async of (taskId) {
      return confirmed.get(taskId) ?? await ask(client => client.get(keys.owner(taskId)))
    },
    async remove (taskId, id) { await on(keys.owner(taskId), 'deleteValue', { value: id }) },
    confirm (taskId, id) { confirmed.set(taskId, id) }
  }
}
