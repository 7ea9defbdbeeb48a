import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { createHmac, createSecretKey, hkdfSync, type KeyObject, timingSafeEqual } from 'node:crypto'
import { Readable } from 'node:stream'
import { quoted } from '../../domain/json.ts'
import type { Task, TaskLedger } from '../../domain/ledger.ts'
import {
  type ResultAnswer, type ResultAsk, resultLifeMs, type ResultRef, type ResultsOf, type ResultSource, resultUrls
} from '../../domain/results.ts'
import { memoized, type Secret, type SecretRef } from '../../domain/secret.ts'
import { readEnvelope } from '../../domain/upstream.ts'
import { badRequest, gatewayError } from '../../errors.ts'
import { readRoute, type ReadServices } from '../../http/guarded-routes.ts'
import type { Services } from '../../http/services.ts'

/** What the routes of results alone work with. */
export interface ResultServices {
  readonly source: ResultSource
  readonly tickets: ResultTickets
}

/** One result of a task that has been found to be the caller's, or what a ticket opens. */
interface OpenedResult {
  readonly task: Task
  /** From 0. */
  readonly index: number
  /** Whose pages may show it (https://fetch.spec.whatwg.org/#cross-origin-resource-policy-header). */
  readonly shownBy: 'same-origin' | 'cross-origin'
}

type SendResult = (request: FastifyRequest, reply: FastifyReply, opened: OpenedResult) => Promise<FastifyReply>

/** Results of one subject on their way at a time: a page of pictures, and not all the sockets there are. */
const maxOpenPerSubject = 50

/**
 * *forward* and *reply* for results. The bytes go through as they come, no faster than the caller takes them, and the
 * call to their host ends with the caller's.
 */
function resultSender (results: ResultSource, now: () => number): SendResult {
  const takeTurn = turns()

  return async (request, reply, { task, index, shownBy }) => {
    const { call } = request
    call.taskId = task.taskId
    call.model = task.model
    const url = resultUrls(task)[index]
    if (url === undefined) throw gatewayError('GW_TASK_NOT_FOUND')
    const [ask, isDownload] = [askOf(request), wantsDownload(request)]
    const caller = takeTurn(request, reply, task.subject)
    call.enter('forward')
    const start = performance.now()
    const answer = await results.fetch({ url, task, index }, ask, caller).finally(() => {
      call.upstreamMs += performance.now() - start
    })
    if (answer === null) throw gatewayError(isPastLife(task, now()) ? 'GW_RESULT_EXPIRED' : 'GW_UPSTREAM_INVALID')
    call.enter('reply')
    reply.header('cross-origin-resource-policy', shownBy)
    writeHeaders(reply, answer, { url, task, index }, isDownload)
    return reply
      .code(answer.status)
      .send((request.method === 'HEAD' ? leftBehind(answer.body) : answer.body) ?? undefined)
  }
}

/** The framework reads the body of a HEAD to its end and throws it away: here it is not fetched. */
function leftBehind (body: Readable | null): Readable | null {
  if (body === null) return null
  body.once('error', () => { /* it was ended by us */ }).destroy()
  return Readable.from([])
}

/**
 * Counts the results on their way, per subject; gives a signal that is aborted when the caller has gone or is served.
 */
function turns () {
  const open = new Map<string, number>()
  return ({ call }: FastifyRequest, reply: FastifyReply, subject: string): AbortSignal => {
    if (call.closed) throw badRequest('The connection was closed.')
    const count = open.get(subject) ?? 0
    if (count >= maxOpenPerSubject) throw gatewayError('GW_RATE_LIMITED', { retryAfterSeconds: 1 })
    open.set(subject, count + 1)
    const caller = new AbortController()
    reply.raw.once('close', () => {
      const left = open.get(subject)! - 1
      if (left === 0) open.delete(subject)
      else open.set(subject, left)
      caller.abort()
    })
    return caller.signal
  }
}

/** `?download=1`, and nothing else. */
function wantsDownload ({ query }: FastifyRequest): boolean {
  for (const [name, value] of Object.entries(query as Record<string, unknown>)) {
    if (name !== 'download') throw badRequest(`The query name ${quoted(name)} is not known here.`)
    if (value !== '1') throw badRequest('Write ?download=1, once.')
  }
  return Object.keys(query as object).length > 0
}

const entityTag = '(?:W/)?"[\\x21\\x23-\\x7e]{0,256}"'
const oneRange = /^bytes=(?:\d{1,15}-\d{0,15}|-\d{1,15})$/
const ifRangeForm = new RegExp(`^(?:${entityTag}|[A-Z][a-z]{2}, [\\w: ]{20,24})$`)
const ifNoneMatchForm = new RegExp(`^(?:\\*|${entityTag}(?: *, *${entityTag}){0,9})$`)

/**
 * What of a request is for the host of the result. A server may ignore a range (RFC 9110 section 14.2): of several at
 * once, which nothing that plays needs and which multiply the work, the whole is the answer.
 */
function askOf ({ headers }: FastifyRequest): ResultAsk {
  const { range, 'if-range': ifRange, 'if-none-match': ifNoneMatch } = headers
  const isRange = range !== undefined && oneRange.test(range)
  // The whole is right in any case.
  if (isRange && ifRange !== undefined && !ifRangeForm.test(String(ifRange))) return {}
  return {
    range: isRange ? range : undefined,
    ifRange: isRange && ifRange !== undefined ? String(ifRange) : undefined,
    ifNoneMatch: ifNoneMatch !== undefined && ifNoneMatchForm.test(ifNoneMatch) ? ifNoneMatch : undefined
  }
}

/**
 * `no-store`, `nosniff` and the sandbox are on every answer already. Scripts of allowed origins read a result with
 * CORS.
 */
function writeHeaders (
  reply: FastifyReply,
  answer: ResultAnswer,
  { url, task, index }: ResultRef,
  isDownload: boolean
): void {
  const medium = mediumOf(answer.contentType, url)
  const headers = {
    'content-range': answer.contentRange,
    'accept-ranges': answer.acceptsRanges ? 'bytes' : null,
    etag: answer.etag,
    'last-modified': answer.lastModified,
    ...(answer.body === null
      ? {}
      : {
          'content-type': medium.contentType,
          'content-length': answer.length,
          'content-disposition': `${isDownload || !medium.isInline ? 'attachment' : 'inline'}; filename="${fileNameOf(task, index, medium)}"`
        })
  }
  for (const [name, value] of Object.entries(headers)) if (value !== null) reply.header(name, value)
}

/**
 * The bytes of results, from the gateway's own origin: by session, for scripts; by ticket, for `<img>` and `<video>`,
 * which send no header.
 */
export function resultRoutes (
  app: FastifyInstance,
  services: ReadServices & Pick<Services, 'allowedOrigins' | 'clock'>,
  { source, tickets }: ResultServices
): void {
  const { allowedOrigins, clock: { now } } = services
  const send = resultSender(source, now)
  // Pages of other origins that may call us may show what a ticket opens.
  const shownBy = allowedOrigins.length > 0 ? 'cross-origin' : 'same-origin'

  readRoute(app, services, {
    url: '/gateway/tasks/:taskId/results/:index',
    operation: 'result',
    scope: 'tasks:read',
    query: ['download'],
    task: 'own'
  }, async ({ request, reply, task }) => {
    const { index } = request.params as { index: string }
    return await send(request, reply, { task, index: indexOf(index), shownBy: 'same-origin' })
  })

  app.get(
    '/gateway/results/:ticket',
    { config: { operation: 'ticketResult', opensWith: 'ticket' } },
    async (request: FastifyRequest, reply: FastifyReply) => {
      request.call.enter('authorize')
      const opened = await tickets.open((request.params as { ticket: string }).ticket)
      // A ticket that opens nothing is an address that does not exist.
      if (opened === null) throw gatewayError('GW_NOT_FOUND')
      // The ticket is the authority: whoever has it may show what it opens, in a plain <img> too.
      return await send(request, reply, { ...opened, shownBy })
    }
  )
}

/** One way to write each number. Whatever else stands there is an index that no task has. */
function indexOf (text: string): number {
  return /^(?:0|[1-9]\d{0,3})$/.test(text) ? Number(text) : Infinity
}

/** Whether the upstream may have deleted the results: they are a day old, by its own clock when it told the time. */
export function isPastLife ({ finalAnswer, createdAt }: Pick<Task, 'finalAnswer' | 'createdAt'>, now: number): boolean {
  const data =
    finalAnswer === null ? null : (readEnvelope(finalAnswer)?.data as { readonly completeTime?: unknown } | undefined)
  const endedAt = typeof data?.completeTime === 'number' ? data.completeTime : createdAt
  return now - endedAt >= resultLifeMs
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
  // As key objects: from bytes Node makes one anew for each ticket, which costs six times as much as the signature.
  const keys = memoized(secrets, list => list.map(secret =>
    createSecretKey(Buffer.from(hkdfSync('sha256', secret.reveal(), '', 'apixo-gateway result ticket', 32)))))
  const sign = (key: KeyObject, subject: string, claims: string) =>
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

/** Where we do not know our own origin as callers see it the links are paths. */
export function resultLinks (tickets: ResultTickets, publicUrl: string | null): ResultsOf {
  return ended =>
    resultUrls({ finalAnswer: ended.body }).map(
      (_, index) => `${publicUrl ?? ''}/gateway/results/${tickets.ticketFor(ended, index)}`
    )
}
