import type { IncomingMessage, ServerResponse } from 'node:http'
import { refusal, send } from './answers.ts'
import { picture } from './pictures.ts'
import { taskState, type TaskStore } from './tasks.ts'

/**
 * How long a result stays after its task has ended, in milliseconds.
 *
 * @see https://apixo.ai/docs/api-reference/response-format
 */
export const resultLifeMs = 24 * 60 * 60 * 1000

/** The bytes a range asks for, both ends included; `null` when there are none (RFC 9110 section 14.1.2). */
function rangeOf (header: string, size: number): { readonly start: number, readonly end: number } | null {
  const [, first, last] = /^bytes=(\d*)-(\d*)$/.exec(header) ?? []
  // A header that can not be read, or that asks for several ranges, is ignored, as section 14.2 allows.
  if (!first && !last) return { start: 0, end: size - 1 }
  const start = first ? Number(first) : Math.max(0, size - Number(last))
  const end = first && last ? Math.min(Number(last), size - 1) : size - 1
  return start <= end ? { start, end } : null
}

function sendBytes (request: IncomingMessage, response: ServerResponse, bytes: Buffer): void {
  const { range } = request.headers
  const part = rangeOf(range ?? '', bytes.length)
  if (!part) {
    response.writeHead(416, { 'content-range': `bytes */${bytes.length}`, 'content-length': 0 }).end()
    return
  }
  const { start, end } = part
  const whole = end - start + 1 === bytes.length
  response.writeHead(whole ? 200 : 206, {
    'content-type': 'image/png',
    'content-length': end - start + 1,
    'accept-ranges': 'bytes',
    ...whole ? {} : { 'content-range': `bytes ${start}-${end}/${bytes.length}` }
  }).end(bytes.subarray(start, end + 1))
}

/**
 * Answers `GET /temp/<name>`: no key is asked for, the name is the secret. The picture is drawn anew at each fetch, so
 * that finished tasks hold no memory. `now` in Unix milliseconds. 410 after its time is a guess; the documents only say
 * that results expire.
 */
export function sendResult (
  request: IncomingMessage, response: ServerResponse, tasks: TaskStore, name: string, now: number
): void {
  const found = tasks.ofResult(name)
  if (!found || taskState(found.task, now) !== 'success') {
    send(response, refusal(404))
    return
  }
  const { task: { prompt, model, completeTime }, index } = found
  if (now >= completeTime + resultLifeMs) {
    response.writeHead(410, { 'content-length': 0 }).end()
    return
  }
  // The results of video and audio models are pictures too: the sandbox makes nothing else.
  sendBytes(request, response, picture(prompt, model, index))
}
