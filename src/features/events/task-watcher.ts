import type { Task, TaskLedger } from '../../domain/ledger.ts'
import { type Slices, slices } from '../../domain/slices.ts'
import type { StatusPoller } from '../../domain/status-poller.ts'
import { endOf, eventFrom, type TaskEvent, type TaskEvents } from '../../domain/task-status.ts'
import type { Clock, Timers } from '../../domain/time.ts'

export type TaskListener = (event: TaskEvent) => void

export interface SubjectListener {
  /** Any event of the subject's tasks, also that one has just been made. */
  readonly onEvent: (event: TaskEvent) => void
  /** Events may have been lost. */
  readonly onGap: () => void
}

/** Which listener on this replica hears which events. A watched task is polled by one timer for all its listeners. */
export interface TaskWatchers {
  /**
   * Gives the listener the task's state, as soon as it is known and perhaps at once, and then each change. The final
   * state is the last event. Returns the end of it.
   */
  watchTask (task: Task, listener: TaskListener): () => void
  /** Gives the listener all events of the subject's tasks. Returns the end of it. */
  watchSubject (subject: string, listener: SubjectListener): () => void
  /** No listener hears anything any more. */
  close (): void
}

interface TaskWatchersOptions extends Clock {
  readonly poller: StatusPoller
  readonly events: TaskEvents
  readonly ledger: Pick<TaskLedger, 'taskOf'>
  /** Least time between two upstream calls for a task of this model, ms. */
  readonly intervalOf: (model: string) => number
  readonly timers: Timers
}

const nobody: ReadonlySet<SubjectListener> = new Set()
/** While another replica asks the upstream, its answer is due at any time. */
const soonMs = 250

export function taskWatchers (options: TaskWatchersOptions): TaskWatchers {
  const watchers = new Map<string, TaskWatcher>()
  const subjects = new Map<string, Set<SubjectListener>>()
  const turns = slices(options)

  const start = (task: Task): TaskWatcher => {
    const watcher = new TaskWatcher(task, options, turns, () => { watchers.delete(task.taskId) })
    watchers.set(task.taskId, watcher)
    return watcher
  }
  const tell = (listeners: ReadonlySet<SubjectListener>, say: (listener: SubjectListener) => void): void => {
    turns.each(listeners, listener => { if (listeners.has(listener)) say(listener) })
  }
  const onEvent = (event: TaskEvent): void => {
    // That a task has just been made says nothing of its state.
    if (event.state !== '') watchers.get(event.taskId)?.onEvent(event)
    tell(subjects.get(event.subject) ?? nobody, listener => listener.onEvent(event))
  }
  const onGap = (): void => {
    turns.each(watchers.values(), watcher => watcher.resync())
    for (const listeners of subjects.values()) tell(listeners, listener => listener.onGap())
  }
  const leave = options.events.subscribe(onEvent, onGap)

  return {
    watchTask: (task, listener) => (watchers.get(task.taskId) ?? start(task)).join(listener),
    watchSubject (subject, listener) {
      const listeners = subjects.get(subject) ?? new Set()
      subjects.set(subject, listeners.add(listener))
      return () => {
        listeners.delete(listener)
        if (listeners.size === 0 && subjects.get(subject) === listeners) subjects.delete(subject)
      }
    },
    close () {
      leave()
      turns.clear()
    }
  }
}

/** One watched task: polls it while anybody listens, and passes each change on once, however it became known. */
class TaskWatcher {
  readonly #task: Task
  readonly #options: TaskWatchersOptions
  readonly #turns: Slices
  readonly #onStopped: () => void
  readonly #listeners = new Set<{ readonly onEvent: TaskListener }>()
  #latest: TaskEvent | null = null
  #isStopped = false
  /** Cancels what is under way: a poll, or the wait for the next. */
  #cancel: () => void

  /** Starts polling. */
  constructor (task: Task, options: TaskWatchersOptions, turns: Slices, onStopped: () => void) {
    this.#task = task
    this.#options = options
    this.#turns = turns
    this.#onStopped = onStopped
    this.#cancel = this.#poll()
  }

  /** Adds a listener, which hears the latest state at once. Returns its end; the watcher stops with the last one. */
  join (onEvent: TaskListener): () => void {
    const listener = { onEvent } // the same function may listen twice
    this.#listeners.add(listener)
    if (this.#latest !== null) onEvent(this.#latest)
    return () => {
      if (this.#listeners.delete(listener) && this.#listeners.size === 0 && !this.#isStopped) this.stop()
    }
  }

  onEvent (event: TaskEvent): void {
    if (this.#isStopped || !isNews(event, this.#latest)) return
    this.#latest = event
    if (event.isFinal) this.stop()
    this.#turns.each(this.#listeners, listener => { if (this.#listeners.has(listener)) listener.onEvent(event) })
  }

  /** Events may have been lost. The final one is in the ledger; any other comes with the next poll. */
  resync (): void {
    const { ledger, now } = this.#options
    ledger.taskOf(this.#task.taskId).then(task => {
      const end = task && endOf(task, now())
      if (end !== null) this.onEvent(end)
    }, () => { /* the next poll finds it */ })
  }

  stop (): void {
    this.#isStopped = true
    this.#onStopped()
    this.#cancel()
  }

  #poll (): () => void {
    const { poller, intervalOf, now } = this.#options
    const { report, cancel } = poller.poll(this.#task)
    const intervalMs = intervalOf(this.#task.model)
    report.then(report => {
      const event = eventFrom(report, this.#task, now())
      if (event !== null) this.onEvent(event)
      this.#pollIn(report.source === 'cached' ? Math.max(report.nextInMs, soonMs) : intervalMs)
    }, () => this.#pollIn(intervalMs)) // the store is down
    return cancel
  }

  #pollIn (waitMs: number): void {
    if (this.#isStopped) return
    this.#cancel = this.#options.timers.after(waitMs, () => { this.#cancel = this.#poll() })
  }
}

/** An event may come twice, once by itself and once with a poll, and later than one that happened after it. */
function isNews (event: TaskEvent, latest: TaskEvent | null): boolean {
  return latest === null || event.isFinal || (event.at >= latest.at && event.state !== latest.state)
}
