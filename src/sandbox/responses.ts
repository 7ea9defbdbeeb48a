import type { IncomingMessage, ServerResponse } from 'node:http'
import { pipeline, Readable } from 'node:stream'
import { gzipSync } from 'node:zlib'
import { type ByteRange, byteRange } from '../domain/results.ts'
import { picture } from './pictures.ts'
import { taskState, type TaskStore } from './tasks.ts'

/** An answer before it is written: what goes wrong on the way is a delivery. */
export interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
}

/**
 * APIXO's envelope, with the HTTP status equal to its code. Without `data` the field is left out, as in the documented
 * 401.
 *
 * @see https://apixo.ai/docs/api-reference/response-format
 */
export function envelope (code: number, message: string, data?: unknown): Answer {
  const body = JSON.stringify({ code, message, data })
  return { status: code, headers: { 'content-type': 'application/json' }, body }
}

/** A good answer. */
export function success (data: unknown): Answer {
  return envelope(200, 'success', data)
}

/** A 400 that names what is wrong, as in the documented "Missing required field: input.prompt". */
export function invalid (error: string): Answer {
  return envelope(400, 'Invalid request', { error })
}

/**
 * What APIXO says with each of its codes. The words of 400 and 401 are documented; those of 402, 403, 404, 429, 500 and
 * 503 are guesses: the documents only name the codes.
 *
 * @see https://apixo.ai/docs/api-reference/errors
 */
const refusals = {
  400: invalid('The prompt asked for this refusal'),
  401: envelope(401, 'Invalid or missing API key'),
  402: envelope(402, 'Payment Required', null),
  403: envelope(403, 'Forbidden', null),
  404: envelope(404, 'Not Found', null),
  429: envelope(429, 'Too Many Requests', null),
  500: envelope(500, 'Server Error', null),
  503: envelope(503, 'Service Unavailable', null)
}

export type RefusalCode = keyof typeof refusals

/** The answer APIXO gives with this code. */
export function refusal (code: RefusalCode): Answer {
  return refusals[code]
}

/** A page as a CDN in front of APIXO would send it. */
export function page (status: number, title: string): Answer {
  const body = `<!DOCTYPE html>\n<html><head><title>${title}</title></head><body><h1>${title}</h1></body></html>\n`
  return { status, headers: { 'content-type': 'text/html; charset=utf-8' }, body }
}

/** Writes an answer plainly and at once. */
export function send (response: ServerResponse, { status, headers, body }: Answer): void {
  response.writeHead(status, { ...headers, 'content-length': Buffer.byteLength(body) }).end(body)
}

/**
 * How long a result stays after its task has ended, in milliseconds.
 *
 * @see https://apixo.ai/docs/api-reference/response-format
 */
export const resultLifeMs = 24 * 60 * 60 * 1000

/** A header that can not be read, or that asks for several ranges, is ignored, as RFC 9110 section 14.2 allows. */
function rangeOf (header: string, size: number): ByteRange | null {
  return /^bytes=(?:\d+-\d*|-\d+)$/.test(header) ? byteRange(header, size) : { start: 0, end: size - 1 }
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

/** One request waiting for its answer. */
export interface Exchange {
  readonly response: ServerResponse
  /** The bearer key that came with the request. */
  readonly key: string
  /** Where redirects lead. */
  readonly redirectTo: string
  /** Keeps the rest of an answer until the test releases it. */
  hold (goOn: () => void): void
}

/** A way for an answer to leave, given the answer an upstream in good health would have given. */
export type Delivery = (exchange: Exchange, good: Answer) => void

/** The good answer, as it should be. */
export function plainly ({ response }: Exchange, good: Answer): void {
  send(response, good)
}

/** Another answer instead of the good one. */
export function instead (answer: Answer): Delivery {
  return ({ response }) => send(response, answer)
}

/** The JSON of a good answer. */
export interface GoodBody {
  readonly code: number
  readonly message: string
  readonly data: Readonly<Record<string, unknown>>
}

/** The good answer with its JSON changed. */
export function edited (edit: (body: GoodBody, key: string) => unknown): Delivery {
  return ({ response, key }, good) =>
    send(response, { ...good, body: JSON.stringify(edit(JSON.parse(good.body), key)) })
}

/** The good answer with more headers. */
export function withHeaders (headers: Readonly<Record<string, string>>): Delivery {
  return ({ response }, good) => send(response, { ...good, headers: { ...good.headers, ...headers } })
}

/** A redirect to another host; its answer has no body. */
export function redirect (status: number): Delivery {
  return ({ response, redirectTo }) => send(response, { status, headers: { location: redirectTo }, body: '' })
}

/** The connection ends without a byte of answer. */
export function drop ({ response }: Exchange): void {
  response.destroy()
}

/** No byte of answer until it is released. */
export function slowHeaders ({ response, hold }: Exchange, good: Answer): void {
  hold(() => send(response, good))
}

/** Headers and half of the body, then silence until it is released. */
export function slowBody ({ response, hold }: Exchange, good: Answer): void {
  const body = Buffer.from(good.body)
  const half = body.length >> 1
  response.writeHead(good.status, { ...good.headers, 'content-length': body.length }).write(body.subarray(0, half))
  hold(() => response.end(body.subarray(half)))
}

/**
 * The whole JSON, but fewer bytes than `content-length` promises, then the end of the connection: to a reader that does
 * not check the length it looks like a good answer (RFC 9112 section 8 calls it incomplete).
 */
export function cutBody ({ response }: Exchange, good: Answer): void {
  response.writeHead(good.status, { ...good.headers, 'content-length': Buffer.byteLength(good.body) + 64 })
  response.write(good.body, () => response.destroy())
}

const spaces = Buffer.alloc(16_384, ' ')

function * endlessSpaces (): Generator<Buffer> {
  while (true) yield spaces
}

/**
 * Spaces for ever: whitespace before a JSON value is legal, so only a limit on length ends it. Written no faster than
 * the peer reads, so that the sandbox itself does not fill up.
 */
export function endlessBody ({ response }: Exchange, good: Answer): void {
  response.writeHead(good.status, good.headers)
  // The pipeline's only end is the peer's hanging up, which is not an error here.
  pipeline(Readable.from(endlessSpaces()), response, () => {})
}

/** Compressed though nobody asked for it (RFC 9110 section 12.5.3 lets a server do so). */
export function gzipped ({ response }: Exchange, good: Answer): void {
  const bytes = gzipSync(good.body)
  const headers = { ...good.headers, 'content-encoding': 'gzip', 'content-length': bytes.length }
  response.writeHead(good.status, headers).end(bytes)
}

/** A 64-bit integer in `data`: larger than JavaScript's numbers hold, so it is put in as text. */
export function bigNumber ({ response }: Exchange, good: Answer): void {
  send(response, { ...good, body: good.body.replace('"data":{', '"data":{"seed":9223372036854775807,') })
}

/** Where slow answers wait. */
interface SlowGate {
  /** How many wait. */
  readonly waiting: number
  hold (goOn: () => void): void
  /** Lets all go on. */
  release (): void
}

export function slowGate (): SlowGate {
  const held: Array<() => void> = []
  return {
    get waiting () { return held.length },
    hold (goOn) {
      held.push(goOn)
    },
    release () {
      for (const goOn of held.splice(0)) goOn()
    }
  }
}
