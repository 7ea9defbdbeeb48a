import { LRUCache } from 'lru-cache'
import type { ErrorCode } from '../errors.ts'
import { effectiveStatus, type Envelope, finalState, isFinal, readEnvelope, statedState } from './answers.ts'
import type { GoneKeys } from './gone-keys.ts'
import { type KeyChoice, keyTrouble } from './key-ring.ts'
import type { Task, TaskLedger } from './ledger.ts'
import type { TaskRecords } from './records.ts'
import type { Clock, Timers } from './time.ts'
import {
  batchRow, type FailureReason, type Operation, operationOf, type Upstream, type UpstreamAnswer, UpstreamFailure,
  upstreamPath
} from './upstream.ts'

/** What came of asking the upstream: an answer that may be passed on, or why there is none. */
export type StatusOutcome =
  | { readonly kind: 'answered', readonly answer: UpstreamAnswer, readonly envelope: Envelope }
  | { readonly kind: 'failed', readonly code: ErrorCode, readonly cause?: unknown }

/** A status call on its way. */
export interface StatusCall {
  readonly outcome: Promise<StatusOutcome>
  /** To be called when nobody waits for it any more; harmless afterwards. */
  cancel (): void
}

export interface StatusCallOptions {
  readonly upstream: Upstream
  readonly keys: KeyChoice
}

/** Asks the upstream once, with the key that made the task: only its account knows of it. */
export function statusCall (
  { upstream, keys }: StatusCallOptions,
  operation: Operation,
  task: Pick<Task, 'taskId' | 'model' | 'keyId'>
): StatusCall {
  const key = keys.byId(task.keyId)
  if (key === undefined) return { outcome: Promise.resolve({ kind: 'failed', code: 'GW_NO_KEY' }), cancel () {} }
  const exchange = upstream.send({ method: 'GET', path: upstreamPath(operation, task.model, task.taskId), key })
  let isOver = false

  const read = async (): Promise<StatusOutcome> => {
    const answer = await exchange.answer.catch((failure: UpstreamFailure) => failure)
    isOver = true
    if (answer instanceof UpstreamFailure) return failed(answer.reason, answer)
    const envelope = readEnvelope(answer.body)
    if (envelope === null || isRedirect(answer.status) || answer.leaksKey) {
      return { kind: 'failed', code: 'GW_UPSTREAM_INVALID' }
    }
    const trouble = await keyTrouble({ status: effectiveStatus(answer.status, envelope), envelope }, key, keys)
    return trouble === null ? { kind: 'answered', answer, envelope } : { kind: 'failed', code: trouble.code }
  }
  return { outcome: read(), cancel () { if (!isOver) exchange.cancel() } }
}

/** What a read answers with when there is no complete answer; a submit is then nothing sent, or unknown. */
const failureCodes: Readonly<Record<FailureReason, ErrorCode>> = {
  unreachable: 'GW_UPSTREAM_UNREACHABLE',
  timeout: 'GW_UPSTREAM_TIMEOUT',
  broken: 'GW_UPSTREAM_INVALID',
  'too-long': 'GW_UPSTREAM_INVALID',
  encoded: 'GW_UPSTREAM_INVALID',
  cancelled: 'GW_UPSTREAM_INVALID'
}

/** The outcome of a call without a complete answer. */
export function failed (reason: FailureReason, cause?: unknown): StatusOutcome {
  return { kind: 'failed', code: failureCodes[reason], cause }
}

export function isRedirect (status: number): boolean {
  return status >= 300 && status < 400
}

/** What the desk says about a task. */
export type StatusReport =
  /** It has ended; this is the ledger's answer. */
  | { readonly kind: 'ended', readonly body: Buffer }
  /** The upstream was asked just now. */
  | StatusOutcome
  /** It was asked not long ago: the last answer, and when it may be asked again. */
  | { readonly kind: 'early', readonly last: LastStatus, readonly nextInMs: number }

/** A question on its way, perhaps shared with others. */
export interface Poll {
  /** Rejects with `GW_STORE_DOWN` and nothing else. */
  readonly report: Promise<StatusReport>
  /** Whoever asked has gone. The upstream call is cancelled when all who shared it have. */
  cancel (): void
}

/**
 * Where everybody asks how a task is: callers, event streams, the reconciler. Who asks at the same time shares one
 * answer, and the upstream is asked at most once per interval and task, by all replicas together. A final state ends
 * the task in the ledger before anybody hears of it, the first one wins, and each change is published.
 */
export interface StatusPoller {
  ask (task: Task, reason?: AskingReason): Poll
}

export interface AskingReason {
  /** The upstream says by itself that the task has ended: worth a call before its time, once per interval. */
  readonly hasNews?: boolean
}

export interface StatusPollerOptions extends Clock {
  readonly upstream: Upstream
  readonly keys: KeyChoice
  readonly gone: GoneKeys
  readonly ledger: Pick<TaskLedger, 'settle' | 'taskOf'>
  readonly turns: PollLeases
  readonly events: TaskEvents
  /** Least time between two upstream calls for a task of this model, ms. */
  readonly intervalOf: (model: string) => number
  /** How long the first answer may take on its way to another replica, ms. */
  readonly answerMs: number
  readonly timers: Timers
}

interface PendingPoll {
  readonly hasNews: boolean
  report: Promise<StatusReport>
  waiting: number
  cancel: () => void
}

/** Tasks whose last state is remembered. Of one that was forgotten, a state may be published twice. */
const maxStates = 50_000
const operation = operationOf('statusTask')

export function statusPoller (options: StatusPollerOptions): StatusPoller {
  const flights = new Map<string, PendingPoll>()
  const run = leasedPolls(options)

  const finish = ({ taskId }: Task, flight: PendingPoll): void => {
    if (flights.get(taskId) === flight) flights.delete(taskId)
  }
  const start = (task: Task, hasNews: boolean): PendingPoll => {
    const flight: PendingPoll = { hasNews, report: null!, waiting: 0, cancel: () => {} }
    flights.set(task.taskId, flight)
    flight.report = Promise.resolve().then(() => run(task, flight)).finally(() => finish(task, flight))
    return flight
  }

  return {
    ask (task, { hasNews = false } = {}) {
      if (task.finalAnswer !== null) {
        return { report: Promise.resolve({ kind: 'ended', body: task.finalAnswer }), cancel () {} }
      }
      const flight = flights.get(task.taskId) ?? start(task, hasNews)
      flight.waiting++
      const gone = Promise.withResolvers<StatusReport>()
      let waits = true
      return {
        report: Promise.race([flight.report, gone.promise]),
        cancel () {
          if (!waits) return
          waits = false
          gone.resolve(failed('cancelled')) // at once, though others wait on
          if (--flight.waiting > 0) return
          finish(task, flight)
          flight.cancel()
        }
      }
    }
  }
}

/** Asks the upstream when it is this task's turn, and says what was said last when it is not. */
function leasedPolls (options: StatusPollerOptions) {
  const { turns, intervalOf, answerMs, timers, elapsed } = options
  const publish = publisher(options)

  const call = async (task: Task, flight: PendingPoll): Promise<StatusOutcome> => {
    const own = statusCall(options, operation, task)
    flight.cancel = own.cancel
    const outcome = await own.outcome
    if (outcome.kind === 'answered' || !isForOurKey(outcome.code)) return outcome
    const others = options.gone.ask(task, outcome)
    flight.cancel = others.cancel
    return await others.outcome
  }

  const askWithLease = async (task: Task, flight: PendingPoll): Promise<StatusReport> => {
    let last: LastStatus | null = null
    let report: StatusReport
    try {
      // Nothing is asked for who has gone while the turn was taken.
      report = flight.waiting === 0 ? failed('cancelled') : await conclude(options, task, await call(task, flight))
      last = lastOf(report, task.taskId)
    } finally {
      // An answer is not thrown away because the next turn could not be set: that comes free by itself.
      await turns.release(task.taskId, last, intervalOf(task.model)).catch(() => {})
    }
    publish(task, report)
    return report
  }

  return async (task: Task, flight: PendingPoll): Promise<StatusReport> => {
    const deadline = elapsed() + answerMs
    for (let pauseMs = 50; ; pauseMs = Math.min(pauseMs * 2, 1000)) {
      const turn = await turns.acquire(task.taskId, intervalOf(task.model), flight.hasNews)
      if (turn.mine) return await askWithLease(task, flight)
      if (turn.last !== null) return cached(turn.last, turn.nextInMs, task.taskId)
      if (flight.waiting === 0 || elapsed() + pauseMs > deadline) return failed('timeout')
      await new Promise<void>(resolve => { timers.after(pauseMs, resolve) })
    }
  }
}

/** We have the key no more, or the upstream refuses it. */
function isForOurKey (code: ErrorCode): boolean {
  return code === 'GW_NO_KEY' || code === 'GW_UPSTREAM_REFUSED_KEY'
}

/** Ends the task in the ledger when the answer says so. Whoever was told another end before it stays right. */
async function conclude ({ ledger }: StatusPollerOptions, task: Task, outcome: StatusOutcome): Promise<StatusReport> {
  if (outcome.kind !== 'answered') return outcome
  const { answer, envelope } = outcome
  const state = finalState(answer, envelope, task.taskId)
  if (state === null || await ledger.settle({ taskId: task.taskId, state, answer: answer.body })) return outcome
  const first = (await ledger.taskOf(task.taskId))?.finalAnswer ?? null
  return first === null ? outcome : { kind: 'ended', body: first }
}

/**
 * What is everybody's until the next turn: that the task is in some state. Anything else is only theirs who waited for
 * it.
 */
function lastOf (report: StatusReport, taskId: string): LastStatus | null {
  if (report.kind === 'ended') return { status: 200, contentType: 'application/json; charset=utf-8', body: report.body }
  if (report.kind !== 'answered') return null
  const { answer, envelope } = report
  const { status, contentType, body } = answer
  return statedState(answer, envelope, taskId) === null ? null : { status, contentType, body }
}

function cached (last: LastStatus, nextInMs: number, taskId: string): StatusReport {
  const hasEnded = finalState(last, readEnvelope(last.body), taskId) !== null
  return hasEnded ? { kind: 'ended', body: last.body } : { kind: 'early', last, nextInMs }
}

/** What a report tells of the task's state, as an event; `null` when it tells nothing. */
export function eventFrom (report: StatusReport, { subject, taskId, model }: Task, at: number): TaskEvent | null {
  const last = report.kind === 'early' ? report.last : lastOf(report, taskId)
  const state = last === null ? null : statedState(last, readEnvelope(last.body), taskId)
  return state === null ? null : { subject, taskId, model, state, isFinal: isFinal(state), at, body: last!.body }
}

/** The event of a task that has ended, from the ledger; `null` while it runs. */
export function endOf (task: Task, at: number): TaskEvent | null {
  return task.finalAnswer === null ? null : eventFrom({ kind: 'ended', body: task.finalAnswer }, task, at)
}

function publisher ({ events, now }: StatusPollerOptions) {
  const states = new LRUCache<string, string>({ max: maxStates })
  return (task: Task, report: StatusReport): void => {
    const event = eventFrom(report, task, now())
    if (event === null || states.get(task.taskId) === event.state) return
    states.set(task.taskId, event.state)
    events.publish(event)
  }
}

/** An answer to a status call, of a task that runs; or of one that has just ended, for who does not know it yet. */
export interface LastStatus {
  readonly status: number
  readonly contentType: string
  readonly body: Buffer
}

export type PollLease =
  /** Ask the upstream now, and say what it said. */
  | { readonly mine: true }
  /**
   * `last` is `null` while the first answer is still on its way to another replica. `nextInMs` is 0 while somebody
   * asks:
   * an answer is due at any time.
   */
  | { readonly mine: false, readonly last: LastStatus | null, readonly nextInMs: number }

/** Who of all replicas asks the upstream about a task: one, at most once per interval. */
export interface PollLeases {
  /**
   * One atomic step: of N calls at a time, one gets the turn, until it ends it or has had time enough. Throws
   * `GW_STORE_DOWN`.
   *
   * `hasNews`: somebody says that the task has ended. That gets a turn before the interval is over, unless one that had
   * news was taken within the interval, or somebody asks just now.
   */
  acquire (taskId: string, intervalMs: number, hasNews?: boolean): Promise<PollLease>
  /**
   * Ends a turn: its answer is everybody's for `intervalMs` from now; `null` (no answer came) makes the turn free
   * again.
   * Throws `GW_STORE_DOWN`.
   */
  release (taskId: string, last: LastStatus | null, intervalMs: number): Promise<void>
}

/**
 * Ends a task in the ledger if the upstream says that it has ended; its caller need not ask. For a batch's own row
 * nothing
 * is asked, and `null` is said. Throws `GW_STORE_DOWN`; an upstream that can't say leaves it as it is.
 */
export type RefreshTask = (task: Task) => Promise<StatusReport | null>

export interface RefreshTaskOptions {
  readonly ledger: Pick<TaskLedger, 'settle'>
  readonly desk: StatusPoller
}

/** What a batch's own row ends with: the answer to nothing. */
const noAnswer = Buffer.from('{}')

export function refreshTask ({ ledger, desk }: RefreshTaskOptions): RefreshTask {
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
   * Asks about the subject's unfinished tasks, `most` of them, each within its interval. Calls at the same time share
   * one
   * search; it resolves after a few seconds at the latest. Throws `GW_STORE_DOWN`.
   */
  search (subject: string, most: number): Promise<void>
  /** When a search may find a slot again, ms. */
  nextInMs (subject: string): number
}

export interface SlotSearchOptions extends Pick<Clock, 'elapsed'> {
  readonly records: Pick<TaskRecords, 'tasksOf'>
  readonly ledger: Pick<TaskLedger, 'taskOf'>
  readonly end: RefreshTask
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
  { end, intervalOf, ...options }: SlotSearchOptions,
  subject: string,
  most: number,
  signal: { readonly isOver: boolean }
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

/** A task's state has changed, or was seen for the first time; or a task has just been made. */
export interface TaskEvent {
  readonly subject: string
  readonly taskId: string
  readonly model: string
  /** The upstream's own word; empty when the task has just been made, and nobody has asked about it. */
  readonly state: string
  readonly isFinal: boolean
  /** When the gateway heard of it, Unix ms. */
  readonly at: number
  /** The envelope, byte for byte as the upstream gave it; empty when there is none yet. */
  readonly body: Buffer
}

/** Carries events between replicas: each to every listener on every replica, at most once. */
export interface TaskEvents {
  /** Never throws: who must not miss an event looks into the ledger as well. */
  publish (event: TaskEvent): void
  /** `onGap`: events may have been lost, and are over now. Returns the end of the subscription. */
  subscribe (listener: (event: TaskEvent) => void, onGap: () => void): () => void
}
