import type { ServerResponse } from 'node:http'
import { pipeline, Readable } from 'node:stream'
import { gzipSync } from 'node:zlib'
import { send, type Answer } from './answers.ts'

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
