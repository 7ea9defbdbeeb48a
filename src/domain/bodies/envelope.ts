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
  const value = parse(body)
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

export function isFinal (state: string | undefined): state is FinalState {
  return state === 'success' || state === 'failed'
}

/** Longer than any id seen (36 characters), short enough to store and to put into a URL. */
export const maxTaskIdLength = 256

function taskIdOf (value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' && value.length <= maxTaskIdLength ? value : undefined
}

function parse (body: Buffer): unknown {
  try {
    return JSON.parse(body.toString('utf8'))
  } catch {
    return undefined
  }
}

function isObject (value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
