import type { TaskLedger, UnfinishedTasks } from './ledger.ts'
import type { Revocations } from './session.ts'

/** All that outlives a restart, behind one technology. */
export interface Store {
  /** Submits of an earlier process that were under way when it died, and are *unknown* now. */
  readonly lost: number
  readonly ledger: TaskLedger
  readonly unfinished: UnfinishedTasks
  readonly revocations: Revocations
  /** Throws `GW_STORE_DOWN` while the store can't serve. */
  ping (): Promise<void>
  close (): Promise<void>
}
