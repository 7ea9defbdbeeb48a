import type { KeyRing } from './key-ring.ts'
import type { LedgerClient } from './ledger-client.ts'
import type { TaskLedger, UnfinishedTasks } from './ledger.ts'
import type { TaskRecords } from './records.ts'
import type { RefreshTask } from './status-poller.ts'
import type { Store } from './store.ts'

/** What is done every few seconds, whether or not requests come. */
export interface Maintenance {
  /**
   * Retries what the store has not taken; and, on one of all replicas, polls old tasks, ends what has lasted too long
   * and deletes what is past its retention. Only one run at a time. Rejects with the first error; the rest is done all
   * the same.
   */
  runOnce (): Promise<void>
}

interface MaintenanceOptions {
  readonly ledger: Pick<LedgerClient, 'retry' | 'sweep'>
  readonly reconciler: Reconciler
  readonly store: Pick<Store, 'leads' | 'tidy'>
  /** Called with how many tasks have become unknown, when there are any. */
  readonly onUnknown: (count: number) => void
  /** What else is done, on every replica. */
  readonly jobs: ReadonlyArray<() => Promise<void>>
}

export function maintenance ({ ledger, reconciler, store, onUnknown, jobs }: MaintenanceOptions): Maintenance {
  let current: Promise<void> | null = null

  const maintainLedger = async (): Promise<void> => {
    await ledger.retry()
    if (!await store.leads()) return
    await reconciler.runOnce()
    const { unknown } = await ledger.sweep()
    if (unknown > 0) onUnknown(unknown)
    await store.tidy()
  }
  const run = async (): Promise<void> => {
    const errors: unknown[] = []
    for (const job of [maintainLedger, ...jobs]) await job().catch(error => errors.push(error))
    if (errors.length > 0) throw errors[0]
  }

  return {
    runOnce () {
      current ??= run().finally(() => { current = null })
      return current
    }
  }
}

/**
 * Finds out how tasks have ended that are no longer polled: a closed tab must not keep its subject's slot, or a failed
 * task its credits, for a whole day.
 */
interface Reconciler {
  /**
   * Polls the next few old tasks, and starts over after the last one. After a start, and when a key has come into the
   * ring, it also polls once the tasks without a known end that this key has made.
   */
  runOnce (): Promise<void>
}

interface ReconcilerOptions {
  readonly unfinished: UnfinishedTasks
  readonly records: Pick<TaskRecords, 'unknowns'>
  readonly ledger: Pick<TaskLedger, 'taskOf'>
  readonly keys: Pick<KeyRing, 'states' | 'byId'>
  readonly refreshTask: RefreshTask
  readonly now: () => number
}

/** Younger tasks are left to their callers, ms. */
export const patienceWithCallersMs = 120_000
/** Tasks a run: with a run every five seconds, one status call a second at the most. */
const tasksPerRun = 5
/** Rows a run, most of which are not to be polled. */
const unknownsPerRun = 20

export function reconciler ({ unfinished, records, ledger, keys, refreshTask, now }: ReconcilerOptions): Reconciler {
  const unknowns = new UnknownsOfNewKeys({ records, ledger, keys, refreshTask })
  let cursor: string | null = null

  return {
    async runOnce () {
      const { items, next } = await unfinished.page(cursor, now() - patienceWithCallersMs, tasksPerRun)
      cursor = next
      await Promise.all(items.map(refreshTask))
      await unknowns.runOnce()
    }
  }
}

/** Tasks that were given up because their key was gone: when it is back in the ring, it knows how they have ended. */
class UnknownsOfNewKeys {
  readonly #options: Pick<ReconcilerOptions, 'records' | 'ledger' | 'keys' | 'refreshTask'>
  #keyIds = new Set<string>()
  #cursor: string | null = null
  #isOver = true

  constructor (options: Pick<ReconcilerOptions, 'records' | 'ledger' | 'keys' | 'refreshTask'>) {
    this.#options = options
  }

  /** Starts over when a key has come, and does nothing more once it has been through. */
  async runOnce (): Promise<void> {
    const { records, keys } = this.#options
    const keyIds = new Set(keys.states().map(({ keyId }) => keyId))
    if (keyIds.difference(this.#keyIds).size > 0) {
      this.#cursor = null
      this.#isOver = false
    }
    this.#keyIds = keyIds
    if (this.#isOver) return
    const { items, next } = await records.unknowns({ cursor: this.#cursor, limit: unknownsPerRun })
    this.#cursor = next
    this.#isOver = next === null
    await Promise.all(items.map(async ({ taskId }) => { if (taskId !== null) await this.#refresh(taskId) }))
  }

  async #refresh (taskId: string): Promise<void> {
    const { ledger, keys, refreshTask } = this.#options
    const task = await ledger.taskOf(taskId)
    if (task !== null && keys.byId(task.keyId) !== undefined) await refreshTask(task)
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
