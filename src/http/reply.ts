import { isUtf8 } from 'node:buffer'
import type { FastifyReply } from 'fastify'
import type { UpstreamAnswer } from '../domain/upstream.ts'
import { budgetHeaders } from './server/security.ts'

/** An upstream answer as the caller gets it: status and body unchanged, and no header but these. */
export interface Answer {
  readonly status: number
  readonly contentType: string
  readonly retryAfter: string | undefined
  readonly retryAfterMs?: string | undefined
  readonly body: Buffer
}

/** Most status answers. */
const shortBytes = 4096

const json = 'application/json; charset=utf-8'

/**
 * Lets an answer through. A content type that is no JSON is replaced (the body was checked to be JSON, and a browser
 * shall not take it for a page); a `retry-after` passes when it has a form of RFC 9110 section 10.2.3, and unchanged, so
 * that nobody waits longer or shorter than the upstream has asked.
 */
export function answerFrom ({ status, contentType, retryAfter, retryAfterMs, body }: Omit<UpstreamAnswer, 'leaksKey'>): Answer {
  return {
    status,
    contentType: /^application\/json *(?:; *charset="?utf-8"?)?$/i.test(contentType) ? contentType : json,
    retryAfter: retryAfter !== undefined && /^(?:\d{1,7}|[A-Z][a-z]{2}, [\w: ]{20,24})$/.test(retryAfter) ? retryAfter : undefined,
    retryAfterMs: retryAfterMs !== undefined && /^\d{1,9}(?:\.\d{1,6})?$/.test(retryAfterMs) ? retryAfterMs : undefined,
    body
  }
}

/** A finished task, from the ledger. */
export function keptAnswer (body: Buffer): Answer {
  return { status: 200, contentType: json, retryAfter: undefined, body }
}

/** What *admit* returns in place of an order that was answered before: it goes no further down the line. */
export interface Replay {
  readonly replayed: Answer
}

export function isReplay (value: object): value is Replay {
  return 'replayed' in value
}

export function replyWith (reply: FastifyReply, { status, contentType, retryAfter, retryAfterMs, body }: Answer): FastifyReply {
  reply.code(status).header('content-type', contentType)
  if (retryAfter !== undefined) reply.header('retry-after', retryAfter)
  if (retryAfterMs !== undefined) reply.header('retry-after-ms', retryAfterMs)
  if (status >= 400) withoutBudget(reply)
  // Node sends a short text in one piece with its headers; a buffer is a second piece, and the system call dearer. Only
  // valid UTF-8 survives being read as text.
  return reply.send(body.length <= shortBytes && isUtf8(body) ? body.toString() : body)
}

/**
 * Takes the subject's budget off an answer that says no for another reason. Some clients wait for its reset when there is
 * no `retry-after`: up to a minute, where a failure of the upstream may be over in a moment.
 */
export function withoutBudget (reply: FastifyReply): void {
  for (const name of budgetHeaders) reply.removeHeader(name)
}
