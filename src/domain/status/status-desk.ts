import { LRUCache } from 'lru-cache'
import type { ErrorCode } from '../../errors.ts'
import { isFinal, readEnvelope } from '../bodies/envelope.ts'
import { finalState, statedState } from '../bodies/outcome.ts'
import type { KeyChoice } from '../keys/keys.ts'
import type { Task, TaskLedger } from '../ledger/ledger.ts'
import { operationOf } from '../policy/catalog.ts'
import type { Clock } from '../time.ts'
import type { Timers } from '../timers.ts'
import type { Upstream } from '../upstream.ts'
import type { TaskEvent, TaskEvents } from './events.ts'
import type { GoneKeys } from './gone-keys.ts'
import { failed, statusCall, type StatusOutcome } from './status-call.ts'
import type { LastStatus, StatusTurns } from './status-turns.ts'

/** What the desk says about a task. */
export type StatusReport =
  /** It has ended; this is the ledger's answer. */
  | { readonly kind: 'ended', readonly body: Buffer }
  /** The upstream was asked just now. */
  | StatusOutcome
  /** It was asked not long ago: the last answer, and when it may be asked again. */
  | { readonly kind: 'early', readonly last: LastStatus, readonly nextInMs: number }

/** A question on its way, perhaps shared with others. */
export interface Inquiry {
  /** Rejects with `GW_STORE_DOWN` and nothing else. */
  readonly report: Promise<StatusReport>
  /** Whoever asked has gone. The upstream call is cancelled when all who shared it have. */
  leave (): void
}

/**
 * Where everybody asks how a task is: callers, event streams, the reconciler. Who asks at the same time shares one
 * answer, and the upstream is asked at most once per interval and task, by all replicas together. A final state ends
 * the task in the ledger before anybody hears of it, the first one wins, and each change is published.
 */
export interface StatusDesk {
  ask (task: Task, reason?: AskingReason): Inquiry
}

export interface AskingReason {
  /** The upstream says by itself that the task has ended: worth a call before its time, once per interval. */
  readonly hasNews?: boolean
}

export interface StatusDeskOptions extends Clock {
  readonly upstream: Upstream
  readonly keys: KeyChoice
  readonly gone: GoneKeys
  readonly ledger: Pick<TaskLedger, 'settle' | 'taskOf'>
  readonly turns: StatusTurns
  readonly events: TaskEvents
  /** Least time between two upstream calls for a task of this model, ms. */
  readonly intervalOf: (model: string) => number
  /** How long the first answer may take on its way to another replica, ms. */
  readonly answerMs: number
  readonly timers: Timers
}

interface Flight {
  readonly hasNews: boolean
  report: Promise<StatusReport>
  waiting: number
  cancel: () => void
}

/** Tasks whose last state is remembered. Of one that was forgotten, a state may be published twice. */
const maxStates = 50_000
const operation = operationOf('statusTask')

export function statusDesk (options: StatusDeskOptions): StatusDesk {
  const flights = new Map<string, Flight>()
  const run = turnTaker(options)

  const land = ({ taskId }: Task, flight: Flight): void => {
    if (flights.get(taskId) === flight) flights.delete(taskId)
  }
  const depart = (task: Task, hasNews: boolean): Flight => {
    const flight: Flight = { hasNews, report: null!, waiting: 0, cancel: () => {} }
    flights.set(task.taskId, flight)
    flight.report = Promise.resolve().then(() => run(task, flight)).finally(() => land(task, flight))
    return flight
  }

  return {
    ask (task, { hasNews = false } = {}) {
      if (task.finalAnswer !== null) return { report: Promise.resolve({ kind: 'ended', body: task.finalAnswer }), leave () {} }
      const flight = flights.get(task.taskId) ?? depart(task, hasNews)
      flight.waiting++
      const gone = Promise.withResolvers<StatusReport>()
      let waits = true
      return {
        report: Promise.race([flight.report, gone.promise]),
        leave () {
          if (!waits) return
          waits = false
          gone.resolve(failed('cancelled')) // at once, though others wait on
          if (--flight.waiting > 0) return
          land(task, flight)
          flight.cancel()
        }
      }
    }
  }
}

/** Asks the upstream when it is this task's turn, and says what was said last when it is not. */
function turnTaker (options: StatusDeskOptions) {
  const { turns, intervalOf, answerMs, timers, elapsed } = options
  const publish = publisher(options)

  const call = async (task: Task, flight: Flight): Promise<StatusOutcome> => {
    const own = statusCall(options, operation, task)
    flight.cancel = own.cancel
    const outcome = await own.outcome
    if (outcome.kind === 'answered' || !isForOurKey(outcome.code)) return outcome
    const others = options.gone.ask(task, outcome)
    flight.cancel = others.cancel
    return await others.outcome
  }

  const askInTurn = async (task: Task, flight: Flight): Promise<StatusReport> => {
    let last: LastStatus | null = null
    let report: StatusReport
    try {
      // Nothing is asked for who has gone while the turn was taken.
      report = flight.waiting === 0 ? failed('cancelled') : await conclude(options, task, await call(task, flight))
      last = lastOf(report, task.taskId)
    } finally {
      // An answer is not thrown away because the next turn could not be set: that comes free by itself.
      await turns.end(task.taskId, last, intervalOf(task.model)).catch(() => {})
    }
    publish(task, report)
    return report
  }

  return async (task: Task, flight: Flight): Promise<StatusReport> => {
    const deadline = elapsed() + answerMs
    for (let pauseMs = 50; ; pauseMs = Math.min(pauseMs * 2, 1000)) {
      const turn = await turns.take(task.taskId, intervalOf(task.model), flight.hasNews)
      if (turn.mine) return await askInTurn(task, flight)
      if (turn.last !== null) return early(turn.last, turn.nextInMs, task.taskId)
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
async function conclude ({ ledger }: StatusDeskOptions, task: Task, outcome: StatusOutcome): Promise<StatusReport> {
  if (outcome.kind !== 'answered') return outcome
  const { answer, envelope } = outcome
  const state = finalState(answer, envelope, task.taskId)
  if (state === null || await ledger.settle({ taskId: task.taskId, state, answer: answer.body })) return outcome
  const first = (await ledger.taskOf(task.taskId))?.finalAnswer ?? null
  return first === null ? outcome : { kind: 'ended', body: first }
}

/** What is everybody's until the next turn: that the task is in some state. Anything else is only theirs who waited for it. */
function lastOf (report: StatusReport, taskId: string): LastStatus | null {
  if (report.kind === 'ended') return { status: 200, contentType: 'application/json; charset=utf-8', body: report.body }
  if (report.kind !== 'answered') return null
  const { answer, envelope } = report
  const { status, contentType, body } = answer
  return statedState(answer, envelope, taskId) === null ? null : { status, contentType, body }
}

function early (last: LastStatus, nextInMs: number, taskId: string): StatusReport {
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

function publisher ({ events, now }: StatusDeskOptions) {
  const states = new LRUCache<string, string>({ max: maxStates })
  return (task: Task, report: StatusReport): void => {
    const event = eventFrom(report, task, now())
    if (event === null || states.get(task.taskId) === event.state) return
    states.set(task.taskId, event.state)
    events.publish(event)
  }
}
