import { createHmac, hkdfSync, timingSafeEqual } from 'node:crypto'
import type { Task, TaskLedger } from '../../domain/ledger.ts'
import { type ResultsOf, resultUrls } from '../../domain/results.ts'
import { memoized, type Secret, type SecretRef } from '../../domain/secret.ts'
import { gatewayError } from '../../errors.ts'

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

/** Where we do not know our own origin as callers see it the links are paths. */
export function resultLinks (tickets: ResultTickets, publicUrl: string | null): ResultsOf {
  return ended =>
    resultUrls({ finalAnswer: ended.body }).map(
      (_, index) => `${publicUrl ?? ''}/gateway/results/${tickets.ticketFor(ended, index)}`
    )
}
