import type { CallbackSecrets } from '../../domain/callbacks/callback-secrets.ts'
import type { LedgerTerms, ReservationId } from '../../domain/ledger/ledger.ts'
import type { Commands } from './commands.ts'
import { keepMs } from './key-lifetimes.ts'
import { type KeyNames, placeOf } from './key-names.ts'
import type { Tasks } from './tasks.ts'

/** As owners of task ids: a key in a slot of its own, written before the reservation knows of it. */
export interface RedisCallbackSecrets extends CallbackSecrets {
  set (secretHash: string, id: ReservationId): Promise<void>
}

export function redisCallbackSecrets ({ ask }: Commands, tasks: Tasks, keys: KeyNames, terms: LedgerTerms): RedisCallbackSecrets {
  return {
    async set (secretHash, id) { await ask(client => client.set(keys.callback(secretHash), id, 'PX', keepMs(terms))) },
    async reservationOf (secretHash) {
      const id = await ask(client => client.get(keys.callback(secretHash)))
      const place = id === null ? null : placeOf(id)
      if (place === null) return null
      const found = await tasks.at(place)
      if (found === null || found.callbackHash !== secretHash) return null
      const { subject, model, keyId, task } = found
      return { reservation: id!, subject, model, keyId, task }
    }
  }
}
