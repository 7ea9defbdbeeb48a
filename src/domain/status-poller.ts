import type { GoneKeys } from './gone-keys.ts'
import type { KeyChoice } from './key-ring.ts'
import type { Task, TaskLedger } from './ledger.ts'
import { recent } from './recent.ts'
import type { TaskRecords } from './records.ts'
import {
  askUpstream, eventFrom, failed, hasEnded, type LastStatus, ledgerStatus, type StatusOutcome, type StatusReport,
  type TaskEvents
} from './task-status.ts'
import type { Clock, Timers } from './time.ts'
import { batchRow, isFinal, operationOf, type Upstream } from './upstream.ts'

/**
 * The one place where the gateway asks how a task is: for status calls, event streams, callbacks, the slot search and
 * the reconciler. Polls of one task at the same time share one answer, and the upstream is asked at most once per
 * interval and task, by all replicas together. A final state ends the task in the ledger before the poll resolves, the
 * first one wins, and each change is published.
 */
export interface StatusPoller {
  poll (task: Task, options?: PollOptions): Poll
}

interface PollOptions {
  /** The upstream says by itself that the task has ended: worth a call before its time, once per interval. */
  readonly hasNews?: boolean
}

/** A poll under way, perhaps shared with others. */
interface Poll {
  /** Rejects with `GW_STORE_DOWN` and nothing else. */
  readonly report: Promise<StatusReport>
  /** The caller waits no longer. The upstream call is cancelled when nobody waits. Harmless afterwards. */
  cancel (): void
}

interface StatusPollerOptions extends Clock {
  readonly upstream: Upstream
  readonly keys: KeyChoice
  readonly goneKeys: GoneKeys
  readonly ledger: Pick<TaskLedger, 'settle' | 'taskOf'>
  readonly leases: PollLeases
  readonly events: TaskEvents
  /** Least time between two upstream calls for a task of this model, ms. */
  readonly intervalOf: (model: string) => number
  /** How long the first answer may take on its way to another replica, ms. */
  readonly answerMs: number
  readonly timers: Timers
}

/** Which of all replicas asks the upstream about a task: one, at most once per interval. */
export interface PollLeases {
  /**
   * One atomic step: of N calls at a time, one acquires the lease, until it is released or expires. Throws
   * `GW_STORE_DOWN`.
   *
   * `hasNews`: the upstream has announced that the task has ended. That acquires the lease before the interval is over,
   * unless news has done so within the interval, or the upstream is being asked.
   */
  acquire (taskId: string, intervalMs: number, hasNews?: boolean): Promise<PollLease>
  /**
   * Releases the lease: its answer is shared for `intervalMs` from now; with `null` (no answer came) the lease is free
   * at once. Throws `GW_STORE_DOWN`.
   */
  release (taskId: string, last: LastStatus | null, intervalMs: number): Promise<void>
}

type PollLease =
  /** Ask the upstream now, and release the lease with what it said. */
  | { readonly acquired: true }
  /**
   * `last` is `null` while the first answer is still on its way to another replica. `nextInMs` is 0 while the upstream
   * is being asked: an answer is due at any time.
   */
  | { readonly acquired: false, readonly last: LastStatus | null, readonly nextInMs: number }

/** Tasks whose last state is remembered. Of one that was forgotten, a state may be published twice. */
const maxStates = 50_000
/** How often a replica looks whether another one has its first answer, ms: soon at first. */
const pauses = { firstMs: 50, longestMs: 1000 } as const
const operation = operationOf('statusTask')

export function statusPoller (options: StatusPollerOptions): StatusPoller {
  return new Poller(options)
}

class Poller implements StatusPoller {
  readonly #options: StatusPollerOptions
  readonly #pending = new Map<string, PendingPoll>()
  readonly #published = recent<string>(maxStates)

  constructor (options: StatusPollerOptions) {
    this.#options = options
  }

  poll (task: Task, { hasNews = false }: PollOptions = {}): Poll {
    if (task.finalAnswer !== null) {
      return { report: Promise.resolve(ledgerStatus(task.finalAnswer, task.taskId)), cancel () {} }
    }
    return (this.#pending.get(task.taskId) ?? this.#start(task, hasNews)).join()
  }

  #start (task: Task, hasNews: boolean): PendingPoll {
    const { taskId } = task
    const forget = (): void => {
      // An abandoned poll may be followed by another one before it is over.
      if (this.#pending.get(taskId) === poll) this.#pending.delete(taskId)
    }
    const poll = new PendingPoll(
      signal => this.#withLease(task, hasNews, signal, () => this.#ask(task, signal)),
      forget
    )
    this.#pending.set(taskId, poll)
    return poll
  }

  /** Runs `ask` if this replica acquires the lease; if not, says what the upstream said last. */
  async #withLease (
    task: Task,
    hasNews: boolean,
    signal: AbortSignal,
    ask: () => Promise<StatusReport>
  ): Promise<StatusReport> {
    const { leases, intervalOf, answerMs, timers, elapsed } = this.#options
    const intervalMs = intervalOf(task.model)
    const deadline = elapsed() + answerMs
    for (let pauseMs: number = pauses.firstMs; ; pauseMs = Math.min(pauseMs * 2, pauses.longestMs)) {
      const lease = await leases.acquire(task.taskId, intervalMs, hasNews)
      if (lease.acquired) return await this.#askAndShare(task, intervalMs, ask)
      if (lease.last !== null) return cachedStatus(lease.last, lease.nextInMs)
      if (signal.aborted || elapsed() + pauseMs > deadline) return failed('timeout')
      await new Promise<void>(resolve => { timers.after(pauseMs, resolve) })
    }
  }

  /** Shares what `ask` finds out: with the other replicas' polls, and as an event. */
  async #askAndShare (task: Task, intervalMs: number, ask: () => Promise<StatusReport>): Promise<StatusReport> {
    let report: StatusReport | null = null
    try {
      report = await ask()
    } finally {
      // An answer is not thrown away because the lease could not be released: that expires by itself.
      await this.#options.leases.release(task.taskId, shared(report), intervalMs).catch(() => {})
    }
    this.#publish(task, report)
    return report
  }

  async #ask (task: Task, signal: AbortSignal): Promise<StatusReport> {
    // All waiting callers may have gone while the lease was acquired.
    if (signal.aborted) return failed('cancelled')
    const outcome = await askUpstream(this.#options, operation, task, signal)
    const isKeyGone = outcome.source === 'none' &&
      (outcome.code === 'GW_NO_KEY' || outcome.code === 'GW_UPSTREAM_REFUSED_KEY')
    return await this.#settleIfFinal(
      task, isKeyGone ? await this.#options.goneKeys.ask(task, outcome, signal) : outcome
    )
  }

  /** Ends the task in the ledger when the upstream says that it has ended. An end that was told before stays right. */
  async #settleIfFinal (task: Task, outcome: StatusOutcome): Promise<StatusReport> {
    const { ledger } = this.#options
    const { taskId } = task
    if (outcome.source === 'none' || !isFinal(outcome.state)) return outcome
    const { state, answer: { body } } = outcome
    if (await ledger.settle({ taskId, state, answer: body })) return outcome
    const first = (await ledger.taskOf(taskId))?.finalAnswer ?? null
    return first === null ? outcome : ledgerStatus(first, taskId)
  }

  #publish (task: Task, report: StatusReport): void {
    const { events, now } = this.#options
    const event = eventFrom(report, task, now())
    if (event === null || this.#published.get(task.taskId) === event.state) return
    this.#published.set(task.taskId, event.state)
    events.publish(event)
  }
}

/** One poll, and how many wait for it. */
class PendingPoll {
  readonly #report: Promise<StatusReport>
  readonly #abandoned = new AbortController()
  readonly #onOver: () => void
  #waiting = 0

  /** `signal` is aborted when nobody waits any more. `onOver`: nobody can join it from now on. */
  constructor (run: (signal: AbortSignal) => Promise<StatusReport>, onOver: () => void) {
    this.#onOver = onOver
    this.#report = run(this.#abandoned.signal).finally(onOver)
  }

  join (): Poll {
    this.#waiting++
    const cancelled = Promise.withResolvers<StatusReport>()
    let isWaiting = true
    return {
      report: Promise.race([this.#report, cancelled.promise]),
      cancel: () => {
        if (!isWaiting) return
        isWaiting = false
        cancelled.resolve(failed('cancelled')) // at once, though others wait on
        if (--this.#waiting > 0) return
        this.#onOver()
        this.#abandoned.abort()
      }
    }
  }
}

/**
 * What replicas share until the next call: that the task is in some state. Anything else is for the waiting callers.
 */
function shared (report: StatusReport | null): LastStatus | null {
  if (report?.source === 'ledger') {
    const { state, answer: { body } } = report
    return { status: 200, contentType: 'application/json; charset=utf-8', body, state }
  }
  if (report?.source !== 'upstream' || report.state === null) return null
  const { state, answer: { status, contentType, body } } = report
  return { status, contentType, body, state }
}

function cachedStatus (last: LastStatus, nextInMs: number): StatusReport {
  const report = { source: 'cached', state: last.state, answer: last, nextInMs } as const
  return hasEnded(report) ? { source: 'ledger', state: last.state, answer: last } : report
}

/**
 * Ends a task in the ledger if the upstream says that it has ended; its caller need not ask. For a batch's own row
 * nothing is asked. Throws `GW_STORE_DOWN`; an upstream that can't say leaves the task as it is.
 */
export type RefreshTask = (task: Task) => Promise<StatusReport>

interface RefreshTaskOptions {
  readonly ledger: Pick<TaskLedger, 'settle'>
  readonly poller: StatusPoller
}

/** A batch's own row ends with this: it has no answer of its own. */
const noAnswer = Buffer.from('{}')

export function refreshTask ({ ledger, poller }: RefreshTaskOptions): RefreshTask {
  return async task => {
    if (task.operation !== batchRow) return await poller.poll(task).report
    await endBatch(ledger, task.taskId)
    return { source: 'ledger', state: 'success', answer: { body: noAnswer } }
  }
}

/** A batch's own row is over once the batch was accepted. Throws `GW_STORE_DOWN`. */
export async function endBatch (ledger: Pick<TaskLedger, 'settle'>, batchId: string): Promise<void> {
  await ledger.settle({ taskId: batchId, state: 'success', answer: noAnswer })
}

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
    for (const { stage, taskId, abandonedAt } of items) {
      const takesSlot = stage === 'claimed' && abandonedAt === null
      const task = takesSlot && found.length < most ? await ledger.taskOf(taskId!) : null
      if (task !== null) found.push(task)
    }
    if (next === null || found.length >= most) break
    cursor = next
  }
  return found
}
