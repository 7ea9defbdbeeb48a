import type { IncomingMessage } from 'node:http'

/** A request as it came over the wire. */
export interface RecordedCall {
  readonly method: string
  readonly url: string
  /** Names and values in turn, with the spelling and order they were sent in. */
  readonly rawHeaders: readonly string[]
  /** Empty until the whole body is read. */
  readonly body: Buffer
}

export interface Recorder {
  /** Every request, in the order of arrival. */
  readonly calls: readonly RecordedCall[]
  /** The `POST generateTask` requests among `calls`, batches included. */
  readonly submits: readonly RecordedCall[]
  /** Writes a request down. What it returns takes its body, once that is there. */
  record (request: IncomingMessage): (body: Buffer) => void
}

/** Keeps `limit` calls, and as many submits; the oldest are dropped first. */
export function recorder (limit: number): Recorder {
  const calls: RecordedCall[] = []
  const submits: RecordedCall[] = []
  return {
    calls,
    submits,
    record ({ method = '', url = '', rawHeaders }) {
      const call: RecordedCall & { body: Buffer } = { method, url, rawHeaders, body: Buffer.alloc(0) }
      const lists = method === 'POST' && url.startsWith('/api/v1/generateTask/') ? [calls, submits] : [calls]
      for (const list of lists) {
        list.push(call)
        if (list.length > limit) list.shift()
      }
      return (body) => { call.body = body }
    }
  }
}
