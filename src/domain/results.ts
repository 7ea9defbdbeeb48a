import { createHmac, hkdfSync, timingSafeEqual } from 'node:crypto'
import type { Readable } from 'node:stream'
import { gatewayError } from '../errors.ts'
import { isFinal, readEnvelope } from './answers.ts'
import { jsonValue } from './json.ts'
import type { Task, TaskLedger } from './ledger.ts'
import { memoized, type SecretRef, type Secret } from './secret.ts'

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

/** Whether the upstream may have deleted the results: they are a day old, by its own clock when it told the time. */
export function isPastLife ({ finalAnswer, createdAt }: Pick<Task, 'finalAnswer' | 'createdAt'>, now: number): boolean {
  const data =
    finalAnswer === null ? null : (readEnvelope(finalAnswer)?.data as { readonly completeTime?: unknown } | undefined)
  const endedAt = typeof data?.completeTime === 'number' ? data.completeTime : createdAt
  return now - endedAt >= resultLifeMs
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

/** How a result is handed to a browser. */
interface Medium {
  readonly contentType: string
  /** Without a dot. */
  readonly extension: string
  /** A browser may show it in place; else it is saved to a file. */
  readonly isInline: boolean
}

/**
 * What a browser may show: it decodes these and runs nothing in them. SVG, HTML, XML and PDF can hold scripts and are
 * not here, nor is anything that nobody has thought of yet.
 */
const media: ReadonlyArray<readonly [contentType: string, extension: string, ...otherNames: string[]]> = [
  ['image/png', 'png'],
  ['image/jpeg', 'jpg', 'image/jpg', 'jpeg'],
  ['image/webp', 'webp'],
  ['image/gif', 'gif'],
  ['image/avif', 'avif'],
  ['video/mp4', 'mp4'],
  ['video/webm', 'webm'],
  ['video/quicktime', 'mov'],
  ['audio/mpeg', 'mp3', 'audio/mp3'],
  ['audio/wav', 'wav', 'audio/x-wav', 'audio/wave', 'audio/vnd.wave'],
  ['audio/ogg', 'ogg'],
  ['audio/aac', 'aac'],
  ['audio/flac', 'flac', 'audio/x-flac'],
  ['audio/mp4', 'm4a', 'audio/x-m4a']
]

const byName = new Map(media.flatMap(([contentType, extension, ...others]) =>
  [contentType, extension, ...others].map(name => [name, { contentType, extension, isInline: true }] as const)))

const unknown: Medium = { contentType: 'application/octet-stream', extension: 'bin', isInline: false }

/** Names for "some bytes", under which object stores keep what nobody gave a type. */
const nondescript = new Set(['', 'application/octet-stream', 'binary/octet-stream'])

/** The medium of a result, by the type its host gave; by the end of its URL only when that says nothing. */
export function mediumOf (contentType: string, url: string): Medium {
  const type = contentType.split(';', 1)[0]!.trim().toLowerCase()
  if (!nondescript.has(type)) return type.includes('/') ? byName.get(type) ?? unknown : unknown
  const extension = /\.([a-z0-9]{3,4})$/i.exec(URL.parse(url)?.pathname ?? '')?.[1]
  return byName.get(extension?.toLowerCase() ?? '') ?? unknown
}

/** `nano-banana-dff8afd3-0.png`: of checked characters only, for any file system and any header. */
export function fileNameOf (
  { model, taskId }: Pick<Task, 'model' | 'taskId'>,
  index: number,
  { extension }: Medium
): string {
  const plain = (text: string) => text.replaceAll(/[^A-Za-z0-9._-]/g, '')
  return `${plain(model)}-${plain(taskId).replace(/^task_/, '').slice(0, 8)}-${index}.${extension}`
}

/** A ticket opens one result of one task for a short time, for any holder. */
export interface ResultTickets {
  /** A ticket, fit for a URL's path. Whether there is such a result is not looked at. */
  ticketFor (task: Pick<Task, 'taskId' | 'subject'>, index: number): string
  /**
   * What a ticket opens; `null` when it is none of ours, or its task is forgotten. Throws `GW_RESULT_EXPIRED` for one
   * that was ours, and `GW_STORE_DOWN`.
   */
  open (ticket: string): Promise<{ readonly task: Task, readonly index: number } | null>
}

interface ResultTicketsOptions {
  /** The session secrets, newest first: the first signs, all verify. */
  readonly secrets: SecretRef<readonly Secret[]>
  /** How long a ticket opens its result. */
  readonly ticketSeconds: number
  readonly taskOf: TaskLedger['taskOf']
  readonly now: () => number
}

/** One way to write each: a second one would be a second ticket. */
const form = /^((.{1,256})\.(0|[1-9]\d{0,3})\.([1-9a-z][0-9a-z]{0,9}))\.([\w-]{43})$/s

/**
 * Tickets of the form `<task id>.<index>.<expiry>.<mac>`, the expiry in seconds to the base 36. The owner is not
 * written into it, for URLs are copied and stay in histories, but is part of what is signed: a task id that came to
 * belong to somebody else opens nothing. The keys are derived for this use alone (RFC 5869 section 3.2), so that no
 * ticket can pass for a session, nor the other way round.
 *
 * A ticket is good until it expires, also when the session that asked for it has been revoked: it opens one file, and
 * is short.
 */
export function resultTickets ({ secrets, ticketSeconds, taskOf, now }: ResultTicketsOptions): ResultTickets {
  const keys = memoized(secrets, list =>
    list.map(secret => Buffer.from(hkdfSync('sha256', secret.reveal(), '', 'apixo-gateway result ticket', 32))))
  const sign = (key: Buffer, subject: string, claims: string) =>
    createHmac('sha256', key).update(JSON.stringify([subject, claims])).digest('base64url')

  return {
    ticketFor ({ taskId, subject }, index) {
      const expiry = (Math.floor(now() / 1000) + ticketSeconds).toString(36)
      const claims = `.${index}.${expiry}`
      return encodeURIComponent(taskId) + `${claims}.${sign(keys.current[0]!, subject, taskId + claims)}`
    },
    async open (ticket) {
      const [, claims, taskId, index, expiry, mac] = form.exec(ticket) ?? []
      if (claims === undefined) return null
      const task = await taskOf(taskId!)
      // Signed for nobody when there is no such task: whether there is takes the same time to say.
      const isSigned = keys.current.some(key =>
        timingSafeEqual(Buffer.from(sign(key, task?.subject ?? '', claims)), Buffer.from(mac!))
      )
      if (!isSigned || task === null) return null
      // Not a miss: a page that stood open for long asks for many, and must not be shut out as one that guesses.
      if (parseInt(expiry!, 36) * 1000 <= now()) throw gatewayError('GW_RESULT_EXPIRED')
      return { task, index: Number(index) }
    }
  }
}
