import type { TaskEvent } from '../../domain/status/events.ts'

/** What replicas tell each other: an event; or, without one, that they are there. */
export interface Message {
  /** The replica that sent it. */
  readonly from: string
  /** Something that it has sent before did not go out. */
  readonly hasLost: boolean
  readonly event: TaskEvent | null
  /** It wants to know who is there. */
  readonly asks?: boolean
}

const newline = 10

/** A line of JSON, which has no line break in it, and then the envelope as it is. */
export function textOf ({ from, hasLost, event, asks }: Message): Buffer {
  const { body, ...about } = event ?? { body: Buffer.alloc(0) }
  return Buffer.concat([Buffer.from(`${JSON.stringify({ from, hasLost, ...(asks === true && { asks }), ...about })}\n`), body])
}

/** `null`: no replica of ours has sent this. Names that it does not know are a later version's. */
export function messageIn (bytes: Buffer): Message | null {
  const end = bytes.indexOf(newline)
  const head = fieldsIn(bytes.subarray(0, Math.max(end, 0)).toString())
  if (typeof head.from !== 'string' || typeof head.hasLost !== 'boolean') return null
  const { from, hasLost, subject, taskId, model, state, isFinal, at } = head
  if (taskId === undefined) return { from, hasLost, event: null, ...(head.asks === true && { asks: true }) }
  const isText = (value: unknown): value is string => typeof value === 'string'
  if (!isText(subject) || !isText(taskId) || !isText(model) || !isText(state) || typeof isFinal !== 'boolean' || typeof at !== 'number') return null
  return { from, hasLost, event: { subject, taskId, model, state, isFinal, at, body: bytes.subarray(end + 1) } }
}

function fieldsIn (text: string): Readonly<Record<string, unknown>> {
  try {
    return Object(JSON.parse(text))
  } catch {
    return {}
  }
}
