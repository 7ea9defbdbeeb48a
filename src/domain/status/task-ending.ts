import { LRUCache } from 'lru-cache'
import type { Task, TaskLedger } from '../ledger/ledger.ts'
import type { TaskRecords } from '../ledger/records.ts'
import { batchRow } from '../policy/catalog.ts'
import type { Clock } from '../time.ts'
import type { Timers } from '../timers.ts'
import { eventFrom, type StatusDesk, type StatusReport } from './status-desk.ts'

/**
 * Ends a task in the ledger if the upstream says that it has ended; its caller need not ask. For a batch's own row nothing
 * is asked, and `null` is said. Throws `GW_STORE_DOWN`; an upstream that can't say leaves it as it is.
 */
export type EndTask = (task: Task) => Promise<StatusReport | null>

export interface TaskEndingOptions {
  readonly ledger: Pick<TaskLedger, 'settle'>
  readonly desk: StatusDesk
}

/** What a batch's own row ends with: the answer to nothing. */
const noAnswer = Buffer.from('{}')

export function taskEnding ({ ledger, desk }: TaskEndingOptions): EndTask {
  return async task => {
    if (task.operation !== batchRow) return await desk.ask(task).report
    await endBatch(ledger, task.taskId)
    return null
  }
}

/** A batch's own row is over once the batch was accepted. Throws `GW_STORE_DOWN`. */
export async function endBatch (ledger: Pick<TaskLedger, 'settle'>, batchId: string): Promise<void> {
  await ledger.settle({ taskId: batchId, state: 'success', answer: noAnswer })
}

/** Looks for slots that are taken by tasks which have ended, and which nobody has asked about. */
export interface SlotSearch {
  /**
   * Asks about the subject's unfinished tasks, `most` of them, each within its interval. Calls at the same time share one
   * search; it resolves after a few seconds at the latest. Throws `GW_STORE_DOWN`.
   */
  search (subject: string, most: number): Promise<void>
  /** When a search may find a slot again, ms. */
  nextInMs (subject: string): number
}

export interface SlotSearchOptions extends Pick<Clock, 'elapsed'> {
  readonly records: Pick<TaskRecords, 'tasksOf'>
  readonly ledger: Pick<TaskLedger, 'taskOf'>
  readonly end: EndTask
  /** As the desk's, ms. */
  readonly intervalOf: (model: string) => number
  readonly timers: Timers
}

/** How long a submit waits for a slot to be found, ms. */
const searchMs = 3000
/** When to look again after a search that was not over in time: the answers that were out may have come, ms. */
const soonMs = 1000
/** When to look again where there is nothing to ask about: the answers of submits are still out, ms. */
const idleMs = 5000
const askedAtOnce = 10
/** How far a search goes back: this many of the subject's newest tasks, in pages. Older ones are the reconciler's. */
const searchDepth = 1000
const pageLength = 100
/** Subjects whose last search is remembered. One that is forgotten is looked for once more. */
const maxSubjects = 10_000

export function slotSearch (options: SlotSearchOptions): SlotSearch {
  const { timers, elapsed } = options
  const running = new Map<string, Promise<void>>()
  const nextAt = new LRUCache<string, number>({ max: maxSubjects })

  const run = async (subject: string, most: number): Promise<void> => {
    const signal = { isOver: false }
    const found = askAll(options, subject, most, signal)
    const { promise: tooLate, resolve } = Promise.withResolvers<number>()
    const stop = timers.after(searchMs, () => resolve(soonMs))
    try {
      nextAt.set(subject, await Promise.race([found, tooLate]) + elapsed())
    } finally {
      signal.isOver = true
      stop()
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

/** Resolves to when the first of those that have not ended may be asked about again, ms. */
async function askAll (
  { end, intervalOf, ...options }: SlotSearchOptions, subject: string, most: number, signal: { readonly isOver: boolean }
): Promise<number> {
  const tasks = (await unfinishedOf(options, subject, most)).values()
  let leastMs = Infinity
  const work = async (): Promise<void> => {
    for (const task of tasks) {
      if (signal.isOver) return
      const report = await end(task)
      if (report === null || eventFrom(report, task, 0)?.isFinal === true) continue
      leastMs = Math.min(leastMs, report.kind === 'early' ? report.nextInMs : intervalOf(task.model))
    }
  }
  await Promise.all(Array.from({ length: askedAtOnce }, work))
  return leastMs === Infinity ? idleMs : leastMs
}

async function unfinishedOf ({ records, ledger }: Pick<SlotSearchOptions, 'records' | 'ledger'>, subject: string, most: number): Promise<Task[]> {
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
