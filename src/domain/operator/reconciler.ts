import type { UnfinishedTasks } from '../ledger/ledger.ts'
import type { EndTask } from '../status/task-ending.ts'

/**
 * Ends tasks that nobody polls any more: a closed tab must not keep its subject's slot, or a failed task its credits,
 * for a whole day.
 */
export interface Reconciler {
  /** Asks the upstream about the next few old tasks, and starts over when it has asked about all. */
  round (): Promise<void>
}

export interface ReconcilerOptions {
  readonly unfinished: UnfinishedTasks
  readonly end: EndTask
  readonly now: () => number
}

/** Younger tasks are left to their callers, ms. */
export const patienceWithCallersMs = 120_000
/** Tasks a round: with a round every five seconds, one status call a second at the most. */
const tasksPerRound = 5

export function reconciler ({ unfinished, end, now }: ReconcilerOptions): Reconciler {
  let cursor: string | null = null

  return {
    async round () {
      const { items, next } = await unfinished.page(cursor, now() - patienceWithCallersMs, tasksPerRound)
      cursor = next
      await Promise.all(items.map(end))
    }
  }
}
