import type { Task, TaskLedger } from './ledger.ts'
import { recent } from './recent.ts'
import type { TaskRecords } from './records.ts'
import type { RefreshTask } from './status-poller.ts'
import { hasEnded } from './task-status.ts'
import type { Clock, Timers } from './time.ts'

/** Looks for slots that are taken by tasks which have ended, and which have not been polled since. */
export interface SlotSearch {
  /**
   * Polls the subject's unfinished tasks, `most` of them, each within its interval. Calls at the same time share one
   * search; it resolves after a few seconds at the latest. Throws `GW_STORE_DOWN`.
   */
  search (subject: string, most: number): Promise<void>
  /** When a search may find a slot again, ms. */
  nextInMs (subject: string): number
}

interface SlotSearchOptions extends Pick<Clock, 'elapsed'> {
  readonly records: Pick<TaskRecords, 'tasksOf'>
  readonly ledger: Pick<TaskLedger, 'taskOf'>
  readonly refreshTask: RefreshTask
  /** Least time between two upstream calls for a task of this model, ms. */
  readonly intervalOf: (model: string) => number
  readonly timers: Timers
}

/** How long a submit waits for a slot to be found, ms. */
const searchMs = 3000
/** When to search again after a search that was not over in time: the answers that were out may have come, ms. */
const soonMs = 1000
/** When to search again where there is nothing to poll: the answers of submits are still out, ms. */
const idleMs = 5000
const pollsAtOnce = 10
/** How far a search goes back: this many of the subject's newest tasks, in pages. Older ones are the reconciler's. */
const searchDepth = 1000
const pageLength = 100
/** Subjects whose last search is remembered. For one that is forgotten there may be one search too many. */
const maxSubjects = 10_000

export function slotSearch (options: SlotSearchOptions): SlotSearch {
  const { timers, elapsed } = options
  const running = new Map<string, Promise<void>>()
  const nextAt = recent<number>(maxSubjects)

  const run = async (subject: string, most: number): Promise<void> => {
    const overdue = new AbortController()
    const tooLate = Promise.withResolvers<number>()
    const stopTimer = timers.after(searchMs, () => tooLate.resolve(soonMs))
    try {
      const nextInMs = await Promise.race([pollAll(options, subject, most, overdue.signal), tooLate.promise])
      nextAt.set(subject, nextInMs + elapsed())
    } finally {
      overdue.abort()
      stopTimer()
    }
  }

  return {
    async search (subject, most) {
      let search = running.get(subject)
      if (search === undefined) {
        if ((nextAt.get(subject) ?? -Infinity) > elapsed()) return
        search = run(subject, most).finally(() => running.delete(subject))
        running.set(subject, search)
      }
      await search
    },
    nextInMs: subject => Math.max(0, (nextAt.get(subject) ?? -Infinity) - elapsed())
  }
}

/** Resolves to when the first of those that have not ended may be polled again, ms. No poll begins after `signal`. */
async function pollAll (
  options: SlotSearchOptions,
  subject: string,
  most: number,
  signal: AbortSignal
): Promise<number> {
  const { refreshTask, intervalOf } = options
  const tasks = (await unfinishedOf(options, subject, most)).values()
  let leastMs = Infinity
  const work = async (): Promise<void> => {
    for (const task of tasks) {
      if (signal.aborted) return
      const report = await refreshTask(task)
      if (hasEnded(report)) continue
      leastMs = Math.min(leastMs, report.source === 'cached' ? report.nextInMs : intervalOf(task.model))
    }
  }
  await Promise.all(Array.from({ length: pollsAtOnce }, work))
  return leastMs === Infinity ? idleMs : leastMs
}

async function unfinishedOf (
  { records, ledger }: Pick<SlotSearchOptions, 'records' | 'ledger'>,
  subject: string,
  most: number
): Promise<Task[]> {
  const found: Task[] = []
  let cursor: string | null = null
  for (let seen = 0; seen < searchDepth; seen += pageLength) {
    const { items, next } = await records.tasksOf(subject, { cursor, limit: pageLength })
    for (const { stage, taskId } of items) {
      const task = stage === 'claimed' && found.length < most ? await ledger.taskOf(taskId!) : null
      if (task !== null) found.push(task)
    }
    if (next === null || found.length >= most) break
    cursor = next
  }
  return found
}
