import type { TaskLedger } from './ledger.ts'
import type { PatientLedger } from './patient-ledger.ts'
import type { Reconciler } from './reconciler.ts'

/** What is done every few seconds, whether or not anybody calls. */
export interface Housekeeping {
  /** Writes what is owed, asks about old tasks, lets go what has overstayed. Only one round runs at a time. */
  round (): Promise<void>
}

export interface HousekeepingOptions {
  readonly patient: PatientLedger
  readonly reconciler: Reconciler
  readonly ledger: TaskLedger
  /** Told how many tasks have ended without a known end, when there are any. */
  readonly onUnknown: (count: number) => void
}

export function housekeeping ({ patient, reconciler, ledger, onUnknown }: HousekeepingOptions): Housekeeping {
  let current: Promise<void> | null = null

  const run = async (): Promise<void> => {
    await patient.retry()
    await reconciler.round()
    const { unknown } = await ledger.sweep()
    if (unknown > 0) onUnknown(unknown)
  }

  return {
    round () {
      current ??= run().finally(() => { current = null })
      return current
    }
  }
}
