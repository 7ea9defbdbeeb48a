import type { PatientLedger } from '../ledger/patient-ledger.ts'
import type { Store } from '../store.ts'
import type { Reconciler } from './reconciler.ts'

/** What is done every few seconds, whether or not anybody calls. */
export interface Housekeeping {
  /**
   * Writes what is owed; and, on one of all replicas, asks about old tasks, lets go what has overstayed and forgets what
   * is past its retention. Only one round runs at a time. Rejects with the first thing that failed; the rest is done.
   */
  round (): Promise<void>
}

export interface HousekeepingOptions {
  readonly patient: PatientLedger
  readonly reconciler: Reconciler
  readonly store: Pick<Store, 'ledger' | 'leads' | 'tidy'>
  /** Told how many tasks have ended without a known end, when there are any. */
  readonly onUnknown: (count: number) => void
  /** What else is done, on every replica. */
  readonly chores: ReadonlyArray<() => Promise<void>>
}

export function housekeeping ({ patient, reconciler, store, onUnknown, chores }: HousekeepingOptions): Housekeeping {
  let current: Promise<void> | null = null

  const keepLedger = async (): Promise<void> => {
    await patient.retry()
    if (!await store.leads()) return
    await reconciler.round()
    const { unknown } = await store.ledger.sweep()
    if (unknown > 0) onUnknown(unknown)
    await store.tidy()
  }
  const run = async (): Promise<void> => {
    const failures: unknown[] = []
    for (const chore of [keepLedger, ...chores]) await chore().catch(error => failures.push(error))
    if (failures.length > 0) throw failures[0]
  }

  return {
    round () {
      current ??= run().finally(() => { current = null })
      return current
    }
  }
}
