import { randomBytes } from 'node:crypto'
import { systemTimers, type Timers } from '../domain/time.ts'
import { success } from './responses.ts'
import { type SandboxTask, statusData } from './tasks.ts'

/** What becomes of the callback of a task; it is sent at its end when there is no such word. */
export type CallbackFate =
  | 'lost'
  | 'twice'
  /** A minute after the end. */
  | 'late'
  /** It names a task that does not exist. */
  | 'foreign'
  /** It says that the task is still pending. */
  | 'impossible'

/** A callback as it was sent. */
export interface RecordedCallback {
  readonly url: string
  readonly body: string
  /** HTTP status of its answer; `null` when none came. */
  readonly status: number | null
}

export interface CallbackSender {
  /** Sends the callback of a task that has just been made when its time has come. */
  schedule (task: SandboxTask): void
  /** Sends nothing any more. */
  close (): void
}

interface CallbackSenderOptions {
  readonly timers: Timers
  /** Unix milliseconds. */
  readonly now: () => number
  /** Scheme, host and port that are called in place of those in the URL; those when `undefined`. */
  readonly callbacksTo: () => string | undefined
  readonly resultUrl: (name: string) => string
  readonly record: (callback: RecordedCallback) => void
}

/** Documented: a 200 within half a minute, or it is sent again after these pauses, and then abandoned. */
const answerMs = 30_000
const retriesMs: readonly number[] = [30_000, 120_000, 600_000]
const lateMs = 60_000

/** @see https://apixo.ai/docs/concepts/webhooks */
function callbackSender (
  { timers, now, callbacksTo, resultUrl, record }: CallbackSenderOptions
): CallbackSender {
  const closing = new AbortController()

  const post = async (url: string, body: string): Promise<number | null> => {
    const signal = AbortSignal.any([closing.signal, AbortSignal.timeout(answerMs)])
    const headers = { 'content-type': 'application/json' }
    const response = await fetch(url, { method: 'POST', headers, body, redirect: 'manual', signal }).catch(() => null)
    await response?.body?.cancel()
    return response?.status ?? null
  }

  const send = async (task: SandboxTask, attempt: number): Promise<void> => {
    if (closing.signal.aborted) return
    const url = addressOf(task.callbackUrl!, callbacksTo())
    const body = bodyOf(task, Math.max(now(), task.completeTime), resultUrl)
    const status = await post(url, body)
    record({ url, body, status })
    const pauseMs = status === 200 ? undefined : retriesMs[attempt]
    if (pauseMs !== undefined) after(pauseMs, () => send(task, attempt + 1))
  }
  const after = (ms: number, run: () => Promise<void>): void => {
    timers.after(ms, () => { run().catch(() => { /* an URL that is none is called by nobody */ }) })
  }

  return {
    schedule (task) {
      const { callbackUrl, completeTime, plan: { ends, callback } } = task
      if (callbackUrl === null || ends === 'never' || callback === 'lost') return
      const waitMs = completeTime - now() + (callback === 'late' ? lateMs : 0)
      for (let count = callback === 'twice' ? 2 : 1; count > 0; count--) after(waitMs, () => send(task, 0))
    },
    close: () => closing.abort()
  }
}

/** The envelope that a status call would have got. */
function bodyOf (task: SandboxTask, at: number, resultUrl: (name: string) => string): string {
  const { plan: { callback } } = task
  const data = statusData(task, at, resultUrl)
  if (callback === 'foreign') return success({ ...data, taskId: randomBytes(16).toString('hex') }).body
  return success(callback === 'impossible' ? { ...data, state: 'pending' } : data).body
}

function addressOf (callbackUrl: string, origin: string | undefined): string {
  const url = new URL(callbackUrl)
  return origin === undefined ? url.href : origin + url.pathname + url.search
}

/** The callbacks that were sent, and who sends them. */
interface CallbackRecorder {
  readonly sender: CallbackSender
  /** Every callback, in the order in which they were answered, or given no answer. */
  readonly sent: readonly RecordedCallback[]
  /** Scheme, host and port that callbacks are sent to, in place of those in their URLs; those when `undefined`. */
  callbacksTo: string | undefined
}

interface PostOfficeOptions extends Pick<CallbackSenderOptions, 'now' | 'resultUrl'> {
  /** Default: Node's. */
  readonly timers?: Timers | undefined
  /** How many callbacks are kept; the oldest are dropped first. */
  readonly recordCalls: number
}

export function callbackRecorder ({
  timers = systemTimers,
  now,
  resultUrl,
  recordCalls
}: PostOfficeOptions): CallbackRecorder {
  const sent: RecordedCallback[] = []
  const record = (callback: RecordedCallback): void => {
    sent.push(callback)
    if (sent.length > recordCalls) sent.shift()
  }
  const office: CallbackRecorder = {
    sent,
    callbacksTo: undefined,
    sender: callbackSender({ timers, now, callbacksTo: () => office.callbacksTo, resultUrl, record })
  }
  return office
}
