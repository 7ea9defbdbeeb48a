import type { Timers } from '../domain/timers.ts'
import { callbackSender, type CallbackSender, type CallbackSenderOptions, type RecordedCallback } from './callbacks.ts'

/** The callbacks that were sent, and who sends them. */
export interface PostOffice {
  readonly sender: CallbackSender
  /** Every callback, in the order in which they were answered, or given no answer. */
  readonly sent: readonly RecordedCallback[]
  /** Scheme, host and port that callbacks are sent to, in place of those in their URLs; those when `undefined`. */
  callbacksTo: string | undefined
}

export interface PostOfficeOptions extends Pick<CallbackSenderOptions, 'now' | 'resultUrl'> {
  /** Default: Node's. */
  readonly timers?: Timers | undefined
  /** How many callbacks are kept; the oldest are dropped first. */
  readonly recordCalls: number
}

/** Node's, none of which keeps the program from ending. */
const realTimers: Timers = {
  after (ms, run) {
    const timer = setTimeout(run, ms).unref()
    return () => clearTimeout(timer)
  }
}

export function postOffice ({ timers = realTimers, now, resultUrl, recordCalls }: PostOfficeOptions): PostOffice {
  const sent: RecordedCallback[] = []
  const record = (callback: RecordedCallback): void => {
    sent.push(callback)
    if (sent.length > recordCalls) sent.shift()
  }
  const office: PostOffice = {
    sent,
    callbacksTo: undefined,
    sender: callbackSender({ timers, now, callbacksTo: () => office.callbacksTo, resultUrl, record })
  }
  return office
}
