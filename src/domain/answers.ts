import { isObject, jsonValue } from './json.ts'
import { type UpstreamAnswer, UpstreamFailure } from './upstream.ts'

/** What the gateway needs to know of an APIXO answer. It is read for bookkeeping and never written anew. */
export interface Envelope {
  /** The body's own `code`; absent on abbreviated answers. */
  readonly code: number | undefined
  readonly message: string
  /** At `data.taskId`, or at the top level as one client has seen. Opaque. */
  readonly taskId: string | undefined
  /** `success` and `failed` are final; any other word, known or not, is a task still running. */
  readonly state: string | undefined
  readonly data: unknown
}

/** Reads a body; `null` when it is no JSON object. */
export function readEnvelope (body: Buffer): Envelope | null {
  const value = jsonValue(body.toString())
  if (!isObject(value)) return null
  const data = isObject(value.data) ? value.data : {}
  return {
    code: typeof value.code === 'number' ? value.code : undefined,
    message: typeof value.message === 'string' ? value.message : '',
    taskId: taskIdOf(data.taskId) ?? taskIdOf(value.taskId),
    state: typeof data.state === 'string' ? data.state : undefined,
    data: value.data
  }
}

export type FinalState = 'success' | 'failed'

export function isFinal (state: string | null | undefined): state is FinalState {
  return state === 'success' || state === 'failed'
}

/** Longer than any id seen (36 characters), short enough to store and to put into a URL. */
export const maxTaskIdLength = 256

function taskIdOf (value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' && value.length <= maxTaskIdLength ? value : undefined
}

/**
 * What became of a submit.
 *
 * accepted: a task exists · refused: none does, the answer may be passed on · invalid: none does, and the answer is no
 * JSON · nothing-sent · unknown: the upstream may have a task of ours, so nothing is sent again and the charge is kept.
 */
export type SubmitOutcome =
  | { readonly kind: 'accepted', readonly taskId: string, readonly answer: UpstreamAnswer }
  | { readonly kind: 'refused', readonly status: number, readonly envelope: Envelope, readonly answer: UpstreamAnswer }
  | { readonly kind: 'invalid' }
  | { readonly kind: 'nothing-sent', readonly cause: unknown }
  | { readonly kind: 'unknown', readonly reason: string }

/** No task is known to exist. */
export type NotAccepted = Exclude<SubmitOutcome, { readonly kind: 'accepted' }>

export function readSubmitAnswer (answer: UpstreamAnswer): SubmitOutcome {
  const success = answer.status >= 200 && answer.status < 300
  const envelope = readEnvelope(answer.body)
  if (success && envelope?.taskId !== undefined) return { kind: 'accepted', taskId: envelope.taskId, answer }
  const status = effectiveStatus(answer.status, envelope)
  const final = (status >= 400 && status < 500) || status === 500 || status === 503
  if (envelope === null) {
    // A 4xx without a body of the API's own is still a refusal by somebody on the way; a 5xx page from a proxy is not.
    return answer.status >= 400 && answer.status < 500 ? { kind: 'invalid' } : unknown(`${answer.status}, no JSON`)
  }
  if (final && (status < 500 || envelope.code !== undefined)) return { kind: 'refused', status, envelope, answer }
  return unknown(success ? `${answer.status} without a task id` : String(answer.status))
}

export function readSubmitFailure (failure: unknown): NotAccepted {
  if (failure instanceof UpstreamFailure && failure.reason === 'unreachable') {
    return { kind: 'nothing-sent', cause: failure }
  }
  return unknown(failure instanceof UpstreamFailure ? failure.reason : 'error')
}

/** The HTTP status, or the body's code where HTTP says 200 and the body disagrees. */
export function effectiveStatus (status: number, envelope: Envelope | null): number {
  return status >= 200 && status < 300 && envelope?.code !== undefined ? envelope.code : status
}

/** An answer, as far as it says how a task is. */
type Statement = Pick<UpstreamAnswer, 'status'>

/**
 * The state that an answer gives of a task, in the upstream's own word; `null` when it gives none, or is about
 * something else.
 */
export function statedState ({ status }: Statement, envelope: Envelope | null, taskId: string): string | null {
  if (envelope === null || effectiveStatus(status, envelope) !== 200) return null
  const isAboutIt = (envelope.taskId ?? taskId) === taskId
  return isAboutIt && envelope.state ? envelope.state : null
}

function unknown (reason: string): NotAccepted {
  return { kind: 'unknown', reason }
}
