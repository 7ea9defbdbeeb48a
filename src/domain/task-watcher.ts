import { isFinal } from './answers.ts'
import type { Task, TaskLedger } from './ledger.ts'
import type { TaskEnd, TaskRecord, TaskRecords } from './records.ts'
import {
  endOf, eventFrom, type Poll, type StatusPoller, type StatusReport, type TaskEvent, type TaskEvents
} from './status-poller.ts'
import type { Timers } from './time.ts'
import { batchRow } from './upstream.ts'

export type TaskWatcher = (event: TaskEvent) => void

export interface SubjectWatcher {
  /** Any event of the subject's tasks, also that one has just been made. */
  readonly changed: (event: TaskEvent) => void
  /** Events may have been lost. */
  readonly onGap: () => void
}

/** Which tasks are watched on this replica. Each is asked about by one timer, however many watch it. */
export interface TaskWatchers {
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
  readonly desk: StatusPoller
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

export function taskWatchers ({ desk, events, ledger, intervalOf, timers, now }: WatchingOptions): TaskWatchers {
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
    const inquiry: Poll = desk.ask(entry.task)
    entry.stop = inquiry.cancel
    inquiry.report.then(report => {
      const event = eventFrom(report, entry.task, now())
      if (event !== null) deliver(entry, event)
      askAgain(entry, waitAfter(report, intervalOf(entry.task.model)))
    }, () => askAgain(entry, intervalOf(entry.task.model))) // the store is down: it is asked again
  }

  const onEvent = (event: TaskEvent): void => {
    const entry = watched.get(event.taskId)
    if (entry !== undefined && event.state !== '') deliver(entry, event)
    for (const watcher of [...subjects.get(event.subject) ?? []]) watcher.changed(event)
  }
  const resync = (entry: Watched): void => {
    ledger.taskOf(entry.task.taskId).then(task => {
      const end = task && endOf(task, now())
      if (end !== null) deliver(entry, end)
    }, () => { /* its own timer asks again */ })
  }
  const close = events.subscribe(onEvent, () => {
    for (const entry of watched.values()) resync(entry)
    for (const watchers of subjects.values()) for (const watcher of [...watchers]) watcher.onGap()
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

/** How far a reader has heard: of every end before `mark` (Unix ms), and of that of the task that was told with it. */
export interface FeedCursor { readonly mark: number, readonly taskId: string }

export interface FeedRequest {
  readonly subject: string
  /** Models that the session may use. */
  readonly permits: (model: string) => boolean
  /** Every end after this is told, the oldest first; `null`: those from now on. */
  readonly since: FeedCursor | null
  /**
   * `mark`: with the event's own task it is the cursor of a reader that comes back. `null`: there is room for the next
   * event; else it resolves when there is, also when the reader has gone.
   */
  readonly tell: (event: TaskEvent, mark: number) => Promise<void> | null
  /** Called when `since` is too long ago, and ends before `from` (Unix ms) are not told though they may be news. */
  readonly resync: (from: number, mark: number) => void
}

/** All of a subject's tasks: the state of each unfinished one, then each change, and each end once. */
export interface SubjectEvents {
  /** Looks into the ledger for what no event has told. A look that fails is made good by the next one. */
  refresh (): void
  stop (): void
}

export interface SubjectFeedOptions {
  readonly watching: TaskWatchers
  readonly ledger: Pick<TaskLedger, 'taskOf'>
  readonly records: Pick<TaskRecords, 'tasksOf' | 'endsOf'>
  readonly now: () => number
}

/** How far the first look goes back for unfinished tasks: this many of the subject's newest ones, in pages. */
export const feedDepth = 500
const pageLength = 100
/** Ends of one page, each of which costs about 0.1 ms: short turns of the event loop. */
export const endsPerPage = 20
/** How long ago the ends are that a reader who comes back is told of, ms. A store knows them a little longer. */
export const replayMs = 24 * 3600_000
/** Clocks of two replicas may differ by so much, and a row be written so long after the instant in it, ms. */
export const slackMs = 10_000
/** Ends that a feed knows it has told. */
const maxTold = 10_000

export function subjectEvents (options: SubjectFeedOptions) {
  return (request: FeedRequest): SubjectEvents => new Feed(options, request)
}

/**
 * What a slow reader has not taken yet is not sent: of ends in the past the next one is read when there is room, and of
 * what happens meanwhile the latest of each task waits.
 */
class Feed implements SubjectEvents {
  readonly #options: SubjectFeedOptions
  readonly #request: FeedRequest
  /** Ends up to this time are not told, Unix ms. */
  readonly #began: number
  /** No end up to this time is news to the reader, Unix ms. */
  readonly #heardUntil: number
  /** Where the next look begins: every end before it has been told. */
  #next: TaskEnd
  /** Ends that have been told, the latest last. */
  readonly #told = new Set<string>()
  /** Ways to stop following a task. */
  readonly #followed = new Map<string, () => void>()
  /** What is to be told as soon as there is room. */
  readonly #waiting = new Map<string, TaskEvent>()
  #full: Promise<void> | null = null
  #depth = feedDepth
  #isLooking = false
  #isStopped = false
  #isResynced = false
  readonly #forget: () => void

  constructor (options: SubjectFeedOptions, request: FeedRequest) {
    const { watching, now } = options
    const { subject, since } = request
    this.#options = options
    this.#request = request
    const opened = now()
    const oldest = opened - replayMs
    // A reader that comes for the first time is owed nothing older, and hears of what ends from here on.
    this.#heardUntil = since === null ? opened : Math.min(since.mark - slackMs, opened)
    this.#began = Math.max(this.#heardUntil, oldest)
    this.#next = since === null || this.#heardUntil < oldest
      ? { endedAt: this.#began + 1, taskId: '' }
      : { endedAt: this.#heardUntil, taskId: since.taskId }
    this.#forget = watching.subject(subject, {
      changed: ({ taskId }) => {
        if (this.#followed.has(taskId) || this.#told.has(taskId)) return
        this.#adopt(taskId).catch(() => { /* the next look finds it */ })
      },
      onGap: () => {
        this.#depth = feedDepth
        this.refresh()
      }
    })
  }

  refresh (): void {
    if (this.#isLooking) return
    this.#isLooking = true
    const over = (): void => { this.#isLooking = false }
    this.#read().then(over, over)
  }

  stop (): void {
    this.#isStopped = true
    this.#forget()
    for (const end of this.#followed.values()) end()
    this.#followed.clear()
    this.#waiting.clear()
  }

  get #mark (): number {
    return this.#next.endedAt - 1 + slackMs
  }

  async #read (): Promise<void> {
    // A later end may not be written yet.
    const safe = this.#options.now() - slackMs
    await this.#replay(safe)
    this.#passed(safe + 1)
    await this.#findNew()
    this.#depth = pageLength
  }

  /** Tells the ends that have not been told, in their order, so that a reader that is cut goes on where it was. */
  async #replay (safe: number): Promise<void> {
    const { records } = this.#options
    let last = this.#next
    for (let isMore = true; isMore;) {
      const ends = await records.endsOf(this.#request.subject, last, endsPerPage)
      for (last of ends) {
        const mark = Math.max(Math.min(last.endedAt, safe) + slackMs, this.#mark)
        if (!this.#told.has(last.taskId)) await this.#tellEnd(last.taskId, mark)
        if (this.#isStopped) return
        this.#passed(Math.min(last.endedAt, safe + 1))
      }
      isMore = ends.length === endsPerPage
    }
  }

  /** All before that time have been told, and of those at it perhaps some. */
  #passed (endedAt: number): void {
    if (endedAt > this.#next.endedAt) this.#next = { endedAt, taskId: '' }
  }

  async #tellEnd (taskId: string, mark: number): Promise<void> {
    const task = await this.#ownTask(taskId)
    const end = task && endOf(task, this.#options.now())
    if (end === null) return
    while (this.#full !== null) await this.#full
    if (!this.#isStopped && !this.#told.has(taskId)) this.#tell(end, mark)
  }

  /**
   * Tasks that nobody has told of. Of those that have ended, too: a replica of an older version, beside this one for a
   * while, writes no order of the ends into Redis.
   */
  async #findNew (): Promise<void> {
    const { records } = this.#options
    let cursor: string | null = null
    let hasSkipped = false
    for (let seen = 0; seen < this.#depth && !this.#isStopped; seen += pageLength) {
      const page = await records.tasksOf(this.#request.subject, { cursor, limit: pageLength })
      for (const record of page.items) {
        if (this.#isNew(record)) await this.#adopt(record.taskId!)
        hasSkipped ||= this.#isSkipped(record)
      }
      cursor = page.next
      if (cursor === null) break
    }
    // What lies further back has not been looked at.
    if (!this.#isResynced && this.#heardUntil < this.#began && (hasSkipped || cursor !== null)) {
      this.#request.resync(this.#began, this.#mark)
    }
    this.#isResynced = true
  }

  #isSkipped ({ stage, model, endedAt }: TaskRecord): boolean {
    return stage === 'settled' && endedAt! > this.#heardUntil && endedAt! <= this.#began && this.#request.permits(model)
  }

  #isNew ({ taskId, operation, stage, endedAt }: TaskRecord): boolean {
    return taskId !== null && operation !== batchRow && !this.#followed.has(taskId) && !this.#told.has(taskId) &&
      (stage === 'claimed' || (stage === 'settled' && endedAt! > this.#began))
  }

  async #adopt (taskId: string): Promise<void> {
    const task = await this.#ownTask(taskId)
    if (task === null || this.#isStopped || this.#followed.has(taskId)) return
    const end = endOf(task, this.#options.now())
    if (end === null) this.#followed.set(taskId, this.#options.watching.task(task, event => this.#take(event)))
    else this.#take(end)
  }

  async #ownTask (taskId: string): Promise<Task | null> {
    const task = await this.#options.ledger.taskOf(taskId)
    if (task === null || task.subject !== this.#request.subject || task.operation === batchRow) return null
    return this.#request.permits(task.model) ? task : null
  }

  #take (event: TaskEvent): void {
    if (this.#isStopped) return
    if (event.isFinal) this.#followed.delete(event.taskId)
    this.#waiting.set(event.taskId, event)
    this.#tellWaiting()
  }

  #tellWaiting (): void {
    for (const [taskId, event] of this.#waiting) {
      if (this.#full !== null) return
      this.#waiting.delete(taskId)
      if (!this.#told.has(taskId)) this.#tell(event, this.#mark)
    }
  }

  #tell (event: TaskEvent, mark: number): void {
    if (event.isFinal && this.#told.add(event.taskId).size > maxTold) {
      const [oldest] = this.#told
      this.#told.delete(oldest!)
    }
    const room = this.#request.tell(event, mark)
    if (room === null) return
    this.#full = room.then(() => {
      this.#full = null
      this.#tellWaiting()
    })
  }
}
