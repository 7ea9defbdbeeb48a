import { LRUCache } from 'lru-cache'
import type { Task, TaskLedger } from '../ledger/ledger.ts'
import type { TaskRecord, TaskRecords } from '../ledger/records.ts'
import { batchRow } from '../policy/catalog.ts'
import type { TaskEvent } from './events.ts'
import { endOf } from './status-desk.ts'
import type { Watching } from './watching.ts'

export interface FeedRequest {
  readonly subject: string
  /** Models that the session may use. */
  readonly permits: (model: string) => boolean
  /** Every end after this is told, Unix ms; `null`: those from now on. */
  readonly since: number | null
  /** `mark`, Unix ms: every end before it has been told. It is the `since` of who comes back. */
  readonly tell: (event: TaskEvent, mark: number) => void
}

/** All of a subject's tasks: the state of each unfinished one, then each change, and each end once. */
export interface SubjectFeed {
  /** Looks into the ledger for what no event has told. A look that fails is made good by the next one. */
  look (): void
  stop (): void
}

export interface SubjectFeedOptions {
  readonly watching: Watching
  readonly ledger: Pick<TaskLedger, 'taskOf'>
  readonly records: Pick<TaskRecords, 'tasksOf'>
  readonly now: () => number
}

/** How far the first look goes back: this many of the subject's newest tasks, in pages. */
export const feedDepth = 500
const pageLength = 100
/** Clocks of two replicas may differ by so much, and a row be written so long after the instant in it, ms. */
const slackMs = 10_000
/** Ends that a feed knows it has told. */
const maxTold = 2 * feedDepth

export function subjectFeed ({ watching, ledger, records, now }: SubjectFeedOptions) {
  return ({ subject, permits, since, tell }: FeedRequest): SubjectFeed => {
    const begin = since ?? now()
    // Whoever comes for the first time is owed nothing older, and hears of what ends from here on.
    const endedAfter = since === null ? begin : since - slackMs
    const followed = new Map<string, () => void>()
    const told = new LRUCache<string, true>({ max: maxTold })
    let mark = begin
    let depth = feedDepth
    let isLooking = false
    let isStopped = false

    const emit = (event: TaskEvent): void => {
      if (isStopped || told.has(event.taskId)) return
      if (event.isFinal) {
        told.set(event.taskId, true)
        followed.delete(event.taskId)
      }
      tell(event, mark)
    }
    const follow = (task: Task): void => {
      if (isStopped || task.subject !== subject || task.operation === batchRow || !permits(task.model) || followed.has(task.taskId)) return
      const end = endOf(task, now())
      if (end === null) followed.set(task.taskId, watching.task(task, emit))
      else emit(end)
    }
    const adopt = async (taskId: string): Promise<void> => {
      const task = await ledger.taskOf(taskId)
      if (task !== null) follow(task)
    }

    const isNew = ({ taskId, operation, stage, endedAt }: TaskRecord): boolean =>
      taskId !== null && operation !== batchRow && !followed.has(taskId) && !told.has(taskId) &&
      (stage === 'claimed' || (stage === 'settled' && endedAt! > endedAfter))
    const read = async (): Promise<void> => {
      const start = now()
      let cursor: string | null = null
      for (let seen = 0; seen < depth; seen += pageLength) {
        const page = await records.tasksOf(subject, { cursor, limit: pageLength })
        for (const record of page.items) if (isNew(record)) await adopt(record.taskId!)
        cursor = page.next
        if (cursor === null) break
      }
      mark = start
      depth = pageLength
    }

    const look = (): void => {
      if (isLooking) return
      isLooking = true
      const over = (): void => { isLooking = false }
      read().then(over, over)
    }
    const forget = watching.subject(subject, {
      changed: ({ taskId }) => {
        if (!followed.has(taskId) && !told.has(taskId)) adopt(taskId).catch(() => { /* the next look finds it */ })
      },
      missed: () => {
        depth = feedDepth
        look()
      }
    })

    return {
      look,
      stop () {
        isStopped = true
        forget()
        for (const end of followed.values()) end()
        followed.clear()
      }
    }
  }
}
