import type { KeyRing } from './key-ring.ts'
import type { LedgerClient } from './ledger-client.ts'
import type { TaskLedger, UnfinishedTasks } from './ledger.ts'
import type { TaskRecords } from './records.ts'
import type { RefreshTask } from './status-poller.ts'
import type { Store } from './store.ts'

/** What is done every few seconds, whether or not anybody calls. */
export interface Maintenance {
  /**
   * Writes what is owed; and, on one of all replicas, asks about old tasks, lets go what has overstayed and forgets
   * what
   * is past its retention. Only one round runs at a time. Rejects with the first thing that failed; the rest is done.
   */
  runOnce (): Promise<void>
}

export interface MaintenanceOptions {
  readonly ledger: Pick<LedgerClient, 'retry' | 'sweep'>
  readonly reconciler: Reconciler
  readonly store: Pick<Store, 'leads' | 'tidy'>
  /** Told how many tasks have ended without a known end, when there are any. */
  readonly onUnknown: (count: number) => void
  /** What else is done, on every replica. */
  readonly jobs: ReadonlyArray<() => Promise<void>>
}

export function maintenance ({ ledger, reconciler, store, onUnknown, jobs: chores }: MaintenanceOptions): Maintenance {
  let current: Promise<void> | null = null

  const keepLedger = async (): Promise<void> => {
    await ledger.retry()
    if (!await store.leads()) return
    await reconciler.runOnce()
    const { unknown } = await ledger.sweep()
    if (unknown > 0) onUnknown(unknown)
    await store.tidy()
  }
  const run = async (): Promise<void> => {
    const failures: unknown[] = []
    for (const chore of [keepLedger, ...chores]) await chore().catch(error => failures.push(error))
    if (failures.length > 0) throw failures[0]
  }

  return {
    runOnce () {
      current ??= run().finally(() => { current = null })
      return current
    }
  }
}

/**
 * Ends tasks that nobody polls any more: a closed tab must not keep its subject's slot, or a failed task its credits,
 * for a whole day.
 */
export interface Reconciler {
  /**
   * Asks the upstream about the next few old tasks, and starts over when it has asked about all. After a start, and
   * when a
   * key has come into the ring, it also asks once about those without a known end that this key has made.
   */
  runOnce (): Promise<void>
}

export interface ReconcilerOptions {
  readonly unfinished: UnfinishedTasks
  readonly records: Pick<TaskRecords, 'unknowns'>
  readonly ledger: Pick<TaskLedger, 'taskOf'>
  readonly keys: Pick<KeyRing, 'states' | 'byId'>
  readonly end: RefreshTask
  readonly now: () => number
}

/** Younger tasks are left to their callers, ms. */
export const patienceWithCallersMs = 120_000
/** Tasks a round: with a round every five seconds, one status call a second at the most. */
const tasksPerRound = 5
/** Rows a round, most of which are not to be asked about. */
const unknownsPerRound = 20

export function reconciler ({ unfinished, end, now, ...options }: ReconcilerOptions): Reconciler {
  const lookAgain = unknownsOfNewKeys(options, end)
  let cursor: string | null = null

  return {
    async runOnce () {
      const { items, next } = await unfinished.page(cursor, now() - patienceWithCallersMs, tasksPerRound)
      cursor = next
      await Promise.all(items.map(end))
      await lookAgain()
    }
  }
}

/** Without a key that was gone its tasks were given up: now that it is back, it knows how they have ended. */
function unknownsOfNewKeys (
  { records, ledger, keys }: Pick<ReconcilerOptions, 'records' | 'ledger' | 'keys'>,
  end: RefreshTask
) {
  let known = new Set<string>()
  let cursor: string | null = null
  let isOver = true

  return async (): Promise<void> => {
    const here = new Set(keys.states().map(({ keyId }) => keyId))
    if (here.difference(known).size > 0) {
      cursor = null
      isOver = false
    }
    known = here
    if (isOver) return
    const { items, next } = await records.unknowns({ cursor, limit: unknownsPerRound })
    cursor = next
    isOver = next === null
    await Promise.all(items.map(async ({ taskId }) => {
      const task = taskId === null ? null : await ledger.taskOf(taskId)
      if (task !== null && keys.byId(task.keyId) !== undefined) await end(task)
    }))
  }
}

/** Rows that are read at once. */
const pageLength = 100

/** How many unfinished tasks there are of each key that is not in the ring. Throws `GW_STORE_DOWN`. */
export async function tasksOfGoneKeys (
  { unfinished, keys, now }: Pick<ReconcilerOptions, 'unfinished' | 'keys' | 'now'>
): Promise<ReadonlyMap<string, number>> {
  const counts = new Map<string, number>()
  const before = now()
  let cursor: string | null = null
  do {
    const { items, next } = await unfinished.page(cursor, before, pageLength)
    for (const { keyId } of items) {
      if (keys.byId(keyId) === undefined) counts.set(keyId, (counts.get(keyId) ?? 0) + 1)
    }
    cursor = next
  } while (cursor !== null)
  return counts
}
