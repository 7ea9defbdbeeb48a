import { isFinal } from '../bodies/envelope.ts'
import type { Task, TaskLedger } from '../ledger/ledger.ts'
import type { Timers } from '../timers.ts'
import type { TaskEvent, TaskEvents } from './events.ts'
import { endOf, eventFrom, type Inquiry, type StatusDesk, type StatusReport } from './status-desk.ts'

export type TaskWatcher = (event: TaskEvent) => void

export interface SubjectWatcher {
  /** Any event of the subject's tasks, also that one has just been made. */
  readonly changed: (event: TaskEvent) => void
  /** Events may have been lost. */
  readonly missed: () => void
}

/** Which tasks are watched on this replica. Each is asked about by one timer, however many watch it. */
export interface Watching {
  /**
   * Tells the task's state, as soon as it is known and perhaps at once, and then each change. The final state is the
   * last that is told. Returns the end of it.
   */
  task (task: Task, watcher: TaskWatcher): () => void
  subject (subject: string, watcher: SubjectWatcher): () => void
  /** Hears nothing any more. */
  close (): void
}

export interface WatchingOptions {
  readonly desk: StatusDesk
  readonly events: TaskEvents
  readonly ledger: Pick<TaskLedger, 'taskOf'>
  /** As the desk's, ms. */
  readonly intervalOf: (model: string) => number
  readonly timers: Timers
  readonly now: () => number
}

interface Watched {
  readonly task: Task
  readonly watchers: Set<{ readonly tell: TaskWatcher }>
  latest: TaskEvent | null
  /** Ends what is under way: a question, or the wait for the next. */
  stop: () => void
}

/** While another replica asks, its answer is due at any time. */
const soonMs = 250

export function watching ({ desk, events, ledger, intervalOf, timers, now }: WatchingOptions): Watching {
  const watched = new Map<string, Watched>()
  const subjects = new Map<string, Set<SubjectWatcher>>()
  const isWatched = (entry: Watched): boolean => watched.get(entry.task.taskId) === entry

  const drop = (entry: Watched): void => {
    watched.delete(entry.task.taskId)
    entry.stop()
  }

  const deliver = (entry: Watched, event: TaskEvent): void => {
    // An event may come twice, once by itself and once as an answer, and later than what came after it.
    if (!isWatched(entry) || !isNews(event, entry.latest)) return
    entry.latest = event
    if (event.isFinal) drop(entry)
    for (const watcher of [...entry.watchers]) watcher.tell(event)
  }

  const askAgain = (entry: Watched, waitMs: number): void => {
    if (isWatched(entry)) entry.stop = timers.after(waitMs, () => ask(entry))
  }
  const ask = (entry: Watched): void => {
    const inquiry: Inquiry = desk.ask(entry.task)
    entry.stop = inquiry.leave
    inquiry.report.then(report => {
      const event = eventFrom(report, entry.task, now())
      if (event !== null) deliver(entry, event)
      askAgain(entry, waitAfter(report, intervalOf(entry.task.model)))
    }, () => askAgain(entry, intervalOf(entry.task.model))) // the store is down: it is asked again
  }

  const hear = (event: TaskEvent): void => {
    const entry = watched.get(event.taskId)
    if (entry !== undefined && event.state !== '') deliver(entry, event)
    for (const watcher of [...subjects.get(event.subject) ?? []]) watcher.changed(event)
  }
  const catchUp = (entry: Watched): void => {
    ledger.taskOf(entry.task.taskId).then(task => {
      const end = task && endOf(task, now())
      if (end !== null) deliver(entry, end)
    }, () => { /* its own timer asks again */ })
  }
  const close = events.subscribe(hear, () => {
    for (const entry of watched.values()) catchUp(entry)
    for (const watchers of subjects.values()) for (const watcher of [...watchers]) watcher.missed()
  })

  return {
    task (task, tell) {
      let entry = watched.get(task.taskId)
      const watcher = { tell }
      if (entry === undefined) {
        entry = { task, watchers: new Set([watcher]), latest: null, stop: null! }
        watched.set(task.taskId, entry)
        ask(entry)
      } else {
        entry.watchers.add(watcher)
        if (entry.latest !== null) tell(entry.latest)
      }
      const joined = entry
      return () => {
        if (joined.watchers.delete(watcher) && joined.watchers.size === 0 && isWatched(joined)) drop(joined)
      }
    },
    subject (subject, watcher) {
      const watchers = subjects.get(subject) ?? new Set()
      subjects.set(subject, watchers.add(watcher))
      return () => {
        watchers.delete(watcher)
        if (watchers.size === 0 && subjects.get(subject) === watchers) subjects.delete(subject)
      }
    },
    close
  }
}

function isNews (event: TaskEvent, latest: TaskEvent | null): boolean {
  return latest === null || isFinal(event.state) || (event.at >= latest.at && event.state !== latest.state)
}

function waitAfter (report: StatusReport, intervalMs: number): number {
  return report.kind === 'early' ? Math.max(report.nextInMs, soonMs) : intervalMs
}
