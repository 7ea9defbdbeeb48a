import type { Readable, Writable } from 'node:stream'
import { jsonValue } from './json.ts'
import type { Task } from './ledger.ts'
import type { TaskEvent } from './task-status.ts'
import { isFinal, readEnvelope } from './upstream.ts'

/** How long APIXO keeps a result after its task has ended, ms: https://apixo.ai/docs/api-reference/response-format */
export const resultLifeMs = 24 * 60 * 60 * 1000

/** One result of a task that has ended. */
export interface ResultRef {
  /** As the upstream wrote it: not yet checked. */
  readonly url: string
  readonly task: Task
  /** From 0. */
  readonly index: number
}

/** What a caller wants of a result: headers of RFC 9110, whose form has been checked. */
export interface ResultAsk {
  /** One range of bytes (section 14.2). */
  readonly range?: string | undefined
  /** Section 13.1.5; without a range it means nothing. */
  readonly ifRange?: string | undefined
  /** Section 13.1.2. */
  readonly ifNoneMatch?: string | undefined
}

/** A result, or the part of it that was asked for. Only these headers are read; no other reaches the caller. */
export interface ResultAnswer {
  /** The whole, a part, unchanged, or no such part. */
  readonly status: 200 | 206 | 304 | 416
  /** As its host wrote it. */
  readonly contentType: string
  /** Bytes of the body; `null` when its host did not say. */
  readonly length: number | null
  readonly contentRange: string | null
  readonly acceptsRanges: boolean
  readonly etag: string | null
  readonly lastModified: string | null
  /**
   * Nothing is read ahead of its reader, but for a buffer or two. It ends with an error when it is cut. `null` for
   * unchanged and no such part, which have none.
   */
  readonly body: Readable | null
}

/** Where the bytes of results come from. */
export interface ResultSource {
  /**
   * Resolves when the first bytes are there; `null`: the host has no such file, or has it no more. The signal ends the
   * call, also while the body is on its way. Throws `GW_UPSTREAM_UNREACHABLE`, `GW_UPSTREAM_TIMEOUT`, and
   * `GW_UPSTREAM_INVALID` for all that can not be passed on.
   */
  fetch (result: ResultRef, ask: ResultAsk, signal: AbortSignal): Promise<ResultAnswer | null>
  /** Ends what still runs. */
  close (): Promise<void>
}

/** More than any model makes. */
const maxResults = 100
/** Deeper than any answer seen. */
const maxDepth = 16

/**
 * The URLs of a task's results, in an order that stays: `resultUrls` first, each at its own index, then every other URL
 * of `resultJson` in the order it stands there (tracks of audio models are objects with several), each once. Empty for
 * a task that runs or has failed.
 */
export function resultUrls ({ finalAnswer }: Pick<Task, 'finalAnswer'>): readonly string[] {
  const envelope = finalAnswer === null ? null : readEnvelope(finalAnswer)
  if (envelope === null || !isFinal(envelope.state) || envelope.state === 'failed') return []
  const { resultJson } = envelope.data as { readonly resultJson?: unknown }
  // Documented as a string that holds JSON, and seen as an object.
  const made = typeof resultJson === 'string' ? jsonValue(resultJson) : resultJson
  if (typeof made !== 'object' || made === null) return []
  const { resultUrls: listed, ...rest } = made as { readonly resultUrls?: unknown }
  const [first, others] = [textsIn(listed), textsIn(rest).filter(isUrl)]
  return [...first, ...new Set(others.filter(url => !first.includes(url)))].slice(0, maxResults)
}

function textsIn (value: unknown, depth = 0): string[] {
  if (typeof value === 'string') return [value]
  if (typeof value !== 'object' || value === null || depth > maxDepth) return []
  return Object.values(value).flatMap(inner => textsIn(inner, depth + 1))
}

function isUrl (text: string): boolean {
  return /^https?:\/\//i.test(text)
}

/** Bytes of a file, both ends included. */
export interface ByteRange {
  readonly start: number
  readonly end: number
}

/** Reads one range of a file of `size` bytes (RFC 9110 section 14.1.2); `null`: the file has no such bytes. */
export function byteRange (text: string, size: number): ByteRange | null {
  const [, first, last] = /^bytes=(\d*)-(\d*)$/.exec(text) ?? []
  const start = first ? Number(first) : Math.max(0, size - Number(last))
  const end = first && last ? Math.min(Number(last), size - 1) : size - 1
  return start <= end ? { start, end } : null
}

/** Whether an `if-none-match` names a file's tag, or any (RFC 9110 section 13.1.2). */
export function namesTag (ifNoneMatch: string, etag: string): boolean {
  const plain = (tag: string) => tag.trim().replace(/^W\//, '')
  return ifNoneMatch === '*' || ifNoneMatch.split(',').some(tag => plain(tag) === plain(etag))
}

/**
 * Where a caller gets the results of a task whose last answer is `body`, each for a short time and without a header;
 * none when it has none.
 */
export type ResultsOf = (ended: Pick<TaskEvent, 'taskId' | 'subject' | 'body'>) => readonly string[]

/** As `Readable.pipe` has it. */
interface PipeOptions { readonly end?: boolean | undefined }

/**
 * A body of bytes whose memory is given back as it is written: to pipe it somewhere is to give its pieces away.
 *
 * What Node reads lies outside of the collector's heap, and for every 32 MB of it the whole heap is searched for what
 * may go. Large bodies took a third of their time for that, and a hundred megabytes in between. Only for a body that
 * Node itself reads, from a socket or a file: nobody else may hold its pieces.
 */
export function freedPieces (body: Readable): Readable {
  return Object.assign(body, {
    pipe<To extends NodeJS.WritableStream> (to: To, options: PipeOptions = {}): To {
      pour(body, to as NodeJS.WritableStream as Writable, options)
      return to
    }
  })
}

function pour (body: Readable, to: Writable, { end = true }: PipeOptions): void {
  const take = (piece: Buffer<ArrayBuffer>): void => {
    if (to.destroyed || !to.write(piece, error => { if (!error) free(piece) })) body.pause()
  }
  const goOn = (): void => { body.resume() }
  const over = (): void => { if (end) to.end() }
  // An empty body may be over before anybody asks for it.
  if (body.readableEnded) process.nextTick(over)
  else body.on('data', take).once('end', over)
  to.on('drain', goOn)
  to.once('close', () => {
    to.off('drain', goOn)
    body.off('data', take).pause()
  })
}

/**
 * A piece that fills its memory has it for itself; any other may share it with what somebody else still reads. An empty
 * one may be a constant of a library's.
 */
function free ({ buffer, length }: Buffer<ArrayBuffer>): void {
  if (length > 0 && length === buffer.byteLength) buffer.transfer(0)
}
