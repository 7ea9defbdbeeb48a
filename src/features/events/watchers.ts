import type { Task, TaskLedger } from '../../domain/ledger.ts'
import type { TaskEnd, TaskRecord, TaskRecords } from '../../domain/records.ts'
import type { StatusPoller } from '../../domain/status-poller.ts'
import { endOf, eventFrom, type TaskEvent, type TaskEvents } from '../../domain/task-status.ts'
import { type Clock, type Slices, slices, type Timers } from '../../domain/time.ts'
import { batchRow } from '../../domain/upstream.ts'

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
  let leave: (() => void) | null = null
  /** Listens while anybody does here: most events are of tasks that nobody watches. */
  const listen = (): void => { leave ??= options.events.subscribe(onEvent, onGap) }
  const leaveIfAlone = (): void => {
    if (watchers.size > 0 || subjects.size > 0) return
    leave?.()
    leave = null
  }
  const start = (task: Task): TaskWatcher => {
    listen()
    const watcher = new TaskWatcher(task, options, turns, () => {
      watchers.delete(task.taskId)
      leaveIfAlone()
    })
    watchers.set(task.taskId, watcher)
    return watcher
  }

  return {
    watchTask: (task, listener) => (watchers.get(task.taskId) ?? start(task)).join(listener),
    watchSubject (subject, listener) {
      listen()
      const listeners = subjects.get(subject) ?? new Set()
      subjects.set(subject, listeners.add(listener))
      return () => {
        listeners.delete(listener)
        if (listeners.size === 0 && subjects.get(subject) === listeners) subjects.delete(subject)
        leaveIfAlone()
      }
    },
    close () {
      leave?.()
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
    Promise.try(() => ledger.taskOf(this.#task.taskId)).then(task => {
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

/**
 * Where a reader of a subject's events is: it has had every completion up to `slackMs` before `at` (Unix ms), and that
 * of the task whose event came with the cursor. A reader that reconnects sends its last cursor as `since`.
 */
export interface EventCursor { readonly at: number, readonly taskId: string }

export interface SubjectEventsRequest {
  readonly subject: string
  /** Models that the session may use. */
  readonly permits: (model: string) => boolean
  /** Every completion after this is emitted, the oldest first; `null`: those from now on. */
  readonly since: EventCursor | null
  /**
   * `at`: the cursor is made of it and of the event's own task. `null`: there is room for the next event; else it
   * resolves when there is, also when the reader has gone.
   */
  readonly emit: (event: TaskEvent, at: number) => Promise<void> | null
  /**
   * Called once, when `since` is too long ago: completions before `from` (Unix ms) are not emitted, though the reader
   * may not have had them.
   */
  readonly resync: (from: number, at: number) => void
}

/** All of a subject's tasks: the state of each unfinished one, then each change, and each completion once. */
export interface SubjectEvents {
  /** Reads from the ledger what no event has told. What a refresh fails to read the next one reads. */
  refresh (): void
  stop (): void
}

interface SubjectEventsOptions {
  readonly watchers: TaskWatchers
  readonly ledger: Pick<TaskLedger, 'taskOf'>
  readonly records: Pick<TaskRecords, 'tasksOf' | 'endsOf'>
  readonly now: () => number
}

/** How far the first refresh goes back for unfinished tasks: this many of the subject's newest ones, in pages. */
export const firstDepth = 500
const pageLength = 100
/** Completions of one page, each of which costs about 0.1 ms: the event loop is never busy for long. */
export const endsPerPage = 20
/** How old a completion may be that a reconnected reader still gets, ms. A store knows them a little longer. */
export const replayMs = 24 * 3600_000
/** Clocks of two replicas may differ by so much, and a row be written so long after the instant in it, ms. */
export const slackMs = 10_000
/** Completions that are remembered as emitted. */
const maxEmitted = 10_000

export function subjectEvents (options: SubjectEventsOptions) {
  return (request: SubjectEventsRequest): SubjectEvents => new SubjectStream(options, request)
}

/**
 * A slow reader is not sent more than it takes: the next completion of the past is read when there is room, and of what
 * happens meanwhile the latest event of each task waits.
 */
class SubjectStream implements SubjectEvents {
  readonly #options: SubjectEventsOptions
  readonly #request: SubjectEventsRequest
  /** Completions up to this time are not emitted, Unix ms. */
  readonly #replaysAfter: number
  /** The reader has had all completions up to this time, Unix ms. */
  readonly #seenUntil: number
  /** Where the next refresh begins: every completion before it has been emitted. */
  #next: TaskEnd
  /** Tasks whose completion has been emitted, the latest last. */
  readonly #emitted = new Set<string>()
  /** The tasks that are watched, and how each watch ends. */
  readonly #watched = new Map<string, () => void>()
  /** The latest event of each task that waits for room. */
  readonly #waiting = new Map<string, TaskEvent>()
  /** Resolves when the reader has room; `null` while it has. */
  #room: Promise<void> | null = null
  #depth = firstDepth
  #isRefreshing = false
  #isStopped = false
  #isFirstRefresh = true
  readonly #leaveSubject: () => void

  constructor (options: SubjectEventsOptions, request: SubjectEventsRequest) {
    const { watchers, now } = options
    const { subject, since } = request
    this.#options = options
    this.#request = request
    const openedAt = now()
    const oldest = openedAt - replayMs
    // A new reader gets nothing that is older than its connection.
    this.#seenUntil = since === null ? openedAt : Math.min(since.at - slackMs, openedAt)
    this.#replaysAfter = Math.max(this.#seenUntil, oldest)
    this.#next = since === null || this.#seenUntil < oldest
      ? { endedAt: this.#replaysAfter + 1, taskId: '' }
      : { endedAt: this.#seenUntil, taskId: since.taskId }
    this.#leaveSubject = watchers.watchSubject(subject, {
      onEvent: ({ taskId }) => {
        if (this.#watched.has(taskId) || this.#emitted.has(taskId)) return
        this.#watch(taskId).catch(() => { /* the next refresh finds it */ })
      },
      onGap: () => {
        this.#depth = firstDepth
        this.refresh()
      }
    })
  }

  refresh (): void {
    if (this.#isRefreshing) return
    this.#isRefreshing = true
    const over = (): void => { this.#isRefreshing = false }
    this.#refresh().then(over, over)
  }

  stop (): void {
    this.#isStopped = true
    this.#leaveSubject()
    for (const leaveTask of this.#watched.values()) leaveTask()
    this.#watched.clear()
    this.#waiting.clear()
  }

  /** The cursor's time for an event that is emitted now. */
  get #cursorAt (): number {
    return this.#next.endedAt - 1 + slackMs
  }

  async #refresh (): Promise<void> {
    // A later completion may not be written yet.
    const safe = this.#options.now() - slackMs
    await this.#replay(safe)
    this.#advance(safe + 1)
    await this.#findUnseen()
    this.#depth = pageLength
  }

  /** Emits completions in their order: a reader that loses its connection goes on where it was. */
  async #replay (safe: number): Promise<void> {
    const { records } = this.#options
    let last = this.#next
    for (let isMore = true; isMore;) {
      const ends = await records.endsOf(this.#request.subject, last, endsPerPage)
      for (last of ends) {
        const at = Math.max(Math.min(last.endedAt, safe) + slackMs, this.#cursorAt)
        if (!this.#emitted.has(last.taskId)) await this.#emitEnd(last.taskId, at)
        if (this.#isStopped) return
        this.#advance(Math.min(last.endedAt, safe + 1))
      }
      isMore = ends.length === endsPerPage
    }
  }

  /** All completions before that time have been emitted, and perhaps some at it. */
  #advance (endedAt: number): void {
    if (endedAt > this.#next.endedAt) this.#next = { endedAt, taskId: '' }
  }

  async #emitEnd (taskId: string, at: number): Promise<void> {
    const task = await this.#ownTask(taskId)
    const end = task && endOf(task, this.#options.now())
    if (end === null) return
    while (this.#room !== null) await this.#room
    if (!this.#isStopped && !this.#emitted.has(taskId)) this.#emit(end, at)
  }

  /**
   * Watches the tasks that no event has told of, and emits those of them that have ended: a replica of an older
   * version, beside this one for a while, writes no order of completions into Redis.
   */
  async #findUnseen (): Promise<void> {
    const { records } = this.#options
    let cursor: string | null = null
    let hasSkipped = false
    for (let seen = 0; seen < this.#depth && !this.#isStopped; seen += pageLength) {
      const page = await records.tasksOf(this.#request.subject, { cursor, limit: pageLength })
      for (const record of page.items) {
        if (this.#isUnseen(record)) await this.#watch(record.taskId!)
        hasSkipped ||= this.#isSkipped(record)
      }
      cursor = page.next
      if (cursor === null) break
    }
    // Beyond the depth there may be others.
    if (this.#isFirstRefresh && this.#seenUntil < this.#replaysAfter && (hasSkipped || cursor !== null)) {
      this.#request.resync(this.#replaysAfter, this.#cursorAt)
    }
    this.#isFirstRefresh = false
  }

  #isSkipped ({ stage, model, endedAt }: TaskRecord): boolean {
    return stage === 'settled' && endedAt! > this.#seenUntil && endedAt! <= this.#replaysAfter &&
      this.#request.permits(model)
  }

  #isUnseen ({ taskId, operation, stage, endedAt }: TaskRecord): boolean {
    return taskId !== null && operation !== batchRow && !this.#watched.has(taskId) && !this.#emitted.has(taskId) &&
      (stage === 'claimed' || (stage === 'settled' && endedAt! > this.#replaysAfter))
  }

  /** Watches a task of this subject's, or emits its completion if it has ended. */
  async #watch (taskId: string): Promise<void> {
    const task = await this.#ownTask(taskId)
    if (task === null || this.#isStopped || this.#watched.has(taskId)) return
    const end = endOf(task, this.#options.now())
    if (end !== null) this.#onEvent(end)
    else this.#watched.set(taskId, this.#options.watchers.watchTask(task, event => this.#onEvent(event)))
  }

  async #ownTask (taskId: string): Promise<Task | null> {
    const task = await this.#options.ledger.taskOf(taskId)
    if (task === null || task.subject !== this.#request.subject || task.operation === batchRow) return null
    return this.#request.permits(task.model) ? task : null
  }

  #onEvent (event: TaskEvent): void {
    if (this.#isStopped) return
    if (event.isFinal) this.#watched.delete(event.taskId)
    this.#waiting.set(event.taskId, event)
    this.#emitWaiting()
  }

  #emitWaiting (): void {
    for (const [taskId, event] of this.#waiting) {
      if (this.#room !== null) return
      this.#waiting.delete(taskId)
      if (!this.#emitted.has(taskId)) this.#emit(event, this.#cursorAt)
    }
  }

  #emit (event: TaskEvent, at: number): void {
    if (event.isFinal && this.#emitted.add(event.taskId).size > maxEmitted) {
      const [oldest] = this.#emitted
      this.#emitted.delete(oldest!)
    }
    const room = this.#request.emit(event, at)
    if (room === null) return
    this.#room = room.then(() => {
      this.#room = null
      this.#emitWaiting()
    })
  }
}
