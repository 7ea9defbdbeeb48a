import { LRUCache } from 'lru-cache'
import type { LedgerTerms, ReservationId } from '../../domain/ledger/ledger.ts'
import type { Commands } from './commands.ts'
import { keepMs } from './key-lifetimes.ts'
import { encoded, type KeyNames, placeOf } from './key-names.ts'

/**
 * Which reservation a task id belongs to. It stands in the slot of the task id, so it is written before the claim: who
 * dies in between leaves a task that has an owner, and that whoever comes next claims.
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
  const confirmed = new LRUCache<string, ReservationId>({ max: confirmedOwners })
  const own = async (taskId: string, id: ReservationId, instead: ReservationId | '' = ''): Promise<ReservationId | null> => {
    const other = await on(keys.owner(taskId), 'own', id, keepMs(terms), instead) as Buffer | null
    return other && String(other)
  }
  /** Who wrote itself down, and was refused or forgotten, may have died before it took that back. */
  const mayClaim = async (taskId: string, id: ReservationId): Promise<boolean> => {
    const { subject, number } = placeOf(id)!
    return await ofSubject(subject, 'mayClaim', number, encoded(taskId)) === 1
  }

  return {
    async set (taskId, id) {
      const other = await own(taskId, id)
      return other === null || (!await mayClaim(taskId, other) && await own(taskId, id, other) === null)
    },
    async of (taskId) {
      return confirmed.get(taskId) ?? await ask(client => client.get(keys.owner(taskId)))
    },
    async remove (taskId, id) { await on(keys.owner(taskId), 'disown', id) },
    confirm (taskId, id) { confirmed.set(taskId, id) }
  }
}
