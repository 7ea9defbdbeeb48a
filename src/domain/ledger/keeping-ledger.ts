import type { TaskLedger } from './ledger.ts'

/** A ledger that has the results of each task kept, once, by whichever replica ended it. The task's end waits for nothing. */
export function keepingLedger (ledger: TaskLedger, keep: (taskId: string) => void): TaskLedger {
  return {
    ...ledger,
    async settle (ending) {
      const isFirst = await ledger.settle(ending)
      if (isFirst && ending.state === 'success') keep(ending.taskId)
      return isFirst
    }
  }
}
