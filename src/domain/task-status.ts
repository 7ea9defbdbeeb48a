import type { ErrorCode } from '../errors.ts'
import { type KeyChoice, keyTrouble } from './key-ring.ts'
import type { Task } from './ledger.ts'
import {
  effectiveStatus, type Envelope, type Exchange, type FailureReason, isFinal, type Operation, readEnvelope, statedState,
  type Upstream, type UpstreamAnswer, UpstreamFailure, upstreamPath
} from './upstream.ts'

/** The upstream was asked just now. The answer may be passed on. */
export interface UpstreamStatus {
  readonly source: 'upstream'
  /** The task's state in the upstream's own word; `null` when the answer gives none, or is about something else. */
  readonly state: string | null
  readonly answer: UpstreamAnswer
  readonly envelope: Envelope
}

/** The upstream was asked less than an interval ago, perhaps by another replica. */
interface CachedStatus {
  readonly source: 'cached'
  readonly state: string | null
  readonly answer: LastStatus
  /** When the upstream may be asked again, ms; 0 while a new answer is on its way. */
  readonly nextInMs: number
}

/** The task has ended. */
interface LedgerStatus {
  readonly source: 'ledger'
  readonly state: string | null
  /** The body alone is stored: the final answer, byte for byte. */
  readonly answer: Pick<LastStatus, 'body'>
}

/** There is no answer. */
export interface StatusFailure {
  readonly source: 'none'
  readonly code: ErrorCode
  readonly cause?: unknown
}

/** What came of asking the upstream once. */
export type StatusOutcome = UpstreamStatus | StatusFailure

/** How a task is, and where that is known from. An answer is parsed once, when it comes: `state` is what it says. */
export type StatusReport = StatusOutcome | CachedStatus | LedgerStatus

/** The last answer to a status call about a task that runs, or has just ended. */
export interface LastStatus {
  readonly status: number
  readonly contentType: string
  readonly body: Buffer
  readonly state: string | null
}

/** An answer that comes from a shared store: it is parsed again, on this replica. */
export function lastStatus (answer: Omit<LastStatus, 'state'>, taskId: string): LastStatus {
  const { status, contentType, body } = answer
  return { status, contentType, body, state: statedState(answer, readEnvelope(body), taskId) }
}

/** `body`: the task's final answer. */
export function ledgerStatus (body: Buffer, taskId: string): LedgerStatus {
  return { source: 'ledger', state: statedState({ status: 200 }, readEnvelope(body), taskId), answer: { body } }
}

export function hasEnded (report: StatusReport): boolean {
  return report.source !== 'none' && isFinal(report.state)
}

/** The code that a status call fails with when the upstream gave no complete answer. */
const failureCodes: Readonly<Record<FailureReason, ErrorCode>> = {
  unreachable: 'GW_UPSTREAM_UNREACHABLE',
  timeout: 'GW_UPSTREAM_TIMEOUT',
  broken: 'GW_UPSTREAM_INVALID',
  'too-long': 'GW_UPSTREAM_INVALID',
  encoded: 'GW_UPSTREAM_INVALID',
  'leaks-key': 'GW_UPSTREAM_INVALID',
  cancelled: 'GW_UPSTREAM_INVALID'
}

/** The outcome of a status call without a complete answer. */
export function failed (reason: FailureReason, cause?: unknown): StatusFailure {
  return { source: 'none', code: failureCodes[reason], cause }
}

interface StatusCallOptions {
  readonly upstream: Upstream
  readonly keys: KeyChoice
}

/**
 * Asks the upstream once, with the key that made the task: only its account knows of it. `signal` cancels the call; it
 * then fails like one that broke off.
 */
export async function askUpstream (
  { upstream, keys }: StatusCallOptions,
  operation: Operation,
  task: Pick<Task, 'taskId' | 'model' | 'keyId'>,
  signal?: AbortSignal
): Promise<StatusOutcome> {
  const key = keys.byId(task.keyId)
  if (key === undefined) return { source: 'none', code: 'GW_NO_KEY' }
  const path = upstreamPath(operation, task.model, task.taskId)
  const answer = await answerOf(upstream.send({ method: 'GET', path, key }), signal)
  if (answer instanceof UpstreamFailure) return failed(answer.reason, answer)
  const status = readStatus(answer, task.taskId)
  if (status === null) return { source: 'none', code: 'GW_UPSTREAM_INVALID' }
  const { envelope } = status
  const trouble = await keyTrouble({ status: effectiveStatus(answer.status, envelope), envelope }, key, keys)
  return trouble === null ? status : { source: 'none', code: trouble.code }
}

/** The answer of an exchange, or why there is none. The exchange is cancelled when `signal` is aborted. */
export async function answerOf (
  exchange: Exchange,
  signal: AbortSignal | undefined
): Promise<UpstreamAnswer | UpstreamFailure> {
  const cancel = (): void => exchange.cancel()
  signal?.addEventListener('abort', cancel)
  const answer = await exchange.answer.catch((failure: UpstreamFailure) => failure)
  signal?.removeEventListener('abort', cancel)
  return answer
}

/** `null`: it must not be passed on. It is no JSON object, or a redirect, or it repeats our key. */
export function readStatus (answer: UpstreamAnswer, taskId: string): UpstreamStatus | null {
  const envelope = readEnvelope(answer.body)
  const isRedirect = answer.status >= 300 && answer.status < 400
  if (envelope === null || isRedirect || answer.leaksKey) return null
  return { source: 'upstream', state: statedState(answer, envelope, taskId), answer, envelope }
}

/** A task's state has changed, or was seen for the first time; or a task has just been made. */
export interface TaskEvent {
  readonly subject: string
  readonly taskId: string
  readonly model: string
  /** The upstream's own word; empty when the task has just been made, and the upstream has not been asked about it. */
  readonly state: string
  readonly isFinal: boolean
  /** When the gateway learnt of it, Unix ms. */
  readonly at: number
  /** The envelope, byte for byte as the upstream gave it; empty when there is none yet. */
  readonly body: Buffer
}

/** Carries events between replicas: each to every listener on every replica, at most once. */
export interface TaskEvents {
  /** Never throws. Events may get lost: a listener that must not miss one reads the ledger as well. */
  publish (event: TaskEvent): void
  /** `onGap`: events may have been lost, and come again from now on. Returns the end of the subscription. */
  subscribe (listener: (event: TaskEvent) => void, onGap: () => void): () => void
}

/** The state that a report gives, as an event; `null` when it gives none. `at`: Unix ms. */
export function eventFrom (report: StatusReport, { subject, taskId, model }: Task, at: number): TaskEvent | null {
  if (report.source === 'none' || report.state === null) return null
  const { state, answer: { body } } = report
  return { subject, taskId, model, state, isFinal: isFinal(state), at, body }
}

/** The final event of a task that has ended, from the ledger; `null` while it runs. */
export function endOf (task: Task, at: number): TaskEvent | null {
  return task.finalAnswer === null ? null : eventFrom(ledgerStatus(task.finalAnswer, task.taskId), task, at)
}
