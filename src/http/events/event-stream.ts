import type { FastifyReply } from 'fastify'
import type { Revocations, Session } from '../../domain/sessions/session.ts'
import type { Timers } from '../../domain/timers.ts'
import { gatewayError } from '../../errors.ts'
import type { Context } from '../call.ts'

/** https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream */
export interface ServerEvent {
  readonly type: string
  /** Of characters that a header may have: it comes back as `last-event-id`. */
  readonly id: string
  readonly data: string
}

/** One caller who listens. */
export interface EventStream {
  /** Drops a reader who is too slow: it comes back with the last id it has read. */
  send (...events: readonly ServerEvent[]): void
  end (): void
}

export interface StreamEnds {
  /** Called once, when the caller has gone or the stream was ended. */
  readonly closed?: () => void
  /** Called with every heartbeat. */
  readonly beat?: () => void
}

/** All streams of this replica. */
export interface EventStreams {
  /** Answers with a stream. Throws `GW_RATE_LIMITED` when the subject has too many, here: replicas do not count together. */
  open (context: Context, ends?: StreamEnds): EventStream
  /** For the metric `gateway_event_streams`. */
  readonly count: number
  /** Ends all: who may still listen comes back, with the last id it has read. */
  renew (): void
  /** Ends all, and every later one at once: a stop must not wait for them. */
  close (): void
}

export interface EventStreamsOptions {
  readonly streamsPerSubject: number
  readonly revocations: Revocations
  readonly timers: Timers
  readonly now: () => number
}

/**
 * A session that was revoked or has expired loses its streams within this time, ms; within a second more if another process
 * has revoked it.
 */
export const sessionCheckMs = 5000
/** Between two signs of life of an idle stream, ms; proxies give up after 30 s or more. */
export const heartbeatMs = 3 * sessionCheckMs
/** Who has so much of an earlier event still to read gets no further one, bytes. */
const maxPendingBytes = 64 * 1024
/** When to try again, after a stream was refused. */
const retrySeconds = 5

interface Open extends EventStream {
  readonly session: Session
  readonly beat: () => void
}

export function eventStreams (options: EventStreamsOptions): EventStreams {
  const { streamsPerSubject, timers } = options
  const streams = new Set<Open>()
  const perSubject = new Map<string, number>()
  let ticks = 0
  let stopTimer = (): void => {}
  let isClosed = false

  const tick = (): void => {
    ticks++
    const isBeat = ticks % (heartbeatMs / sessionCheckMs) === 0
    if (isBeat) for (const stream of streams) stream.beat()
    endOverdue([...streams], options).then(schedule, schedule)
  }
  const schedule = (): void => {
    stopTimer()
    if (streams.size > 0) stopTimer = timers.after(sessionCheckMs, tick)
  }
  const enter = (stream: Open): void => {
    const { subject } = stream.session
    perSubject.set(subject, (perSubject.get(subject) ?? 0) + 1)
    if (streams.add(stream).size === 1) schedule()
  }
  const leave = (stream: Open): void => {
    const { subject } = stream.session
    const left = perSubject.get(subject)! - 1
    if (left === 0) perSubject.delete(subject)
    else perSubject.set(subject, left)
    streams.delete(stream)
    if (streams.size === 0) stopTimer()
  }

  const renew = (): void => {
    for (const stream of streams) stream.end()
  }

  return {
    open ({ call: { session }, reply }, { closed = () => {}, beat = () => {} } = {}) {
      if (isClosed) throw gatewayError('GW_OVERLOADED', { retryAfterSeconds: 1 })
      if ((perSubject.get(session.subject) ?? 0) >= streamsPerSubject) {
        throw gatewayError('GW_RATE_LIMITED', { retryAfterSeconds: retrySeconds })
      }
      const { write, end } = openOn(reply)
      const stream: Open = {
        session,
        send: (...events) => write(events.map(textOf).join('')),
        end,
        beat () {
          write(':\n\n')
          beat()
        }
      }
      enter(stream)
      onceClosed(reply, () => {
        leave(stream)
        closed()
      })
      return stream
    },
    get count () { return streams.size },
    renew,
    close () {
      isClosed = true
      renew()
    }
  }
}

/** Sends the headers and a first comment, so that the caller and every proxy on the way know that it has begun. */
function openOn (reply: FastifyReply) {
  const { raw } = reply
  reply.hijack()
  raw.on('error', () => { /* the caller has gone; 'close' follows */ })
  // `no-store` is there already. No proxy shall keep what has been said until there is more of it.
  const headers = reply.header('content-type', 'text/event-stream').header('x-accel-buffering', 'no').getHeaders()
  const isOpen = (): boolean => !raw.destroyed && !raw.writableEnded
  if (isOpen()) raw.writeHead(200, headers as Record<string, string>).write(':\n\n')
  return {
    write (text: string): void {
      if (!isOpen()) return
      if (raw.writableLength > maxPendingBytes) raw.destroy()
      else raw.write(text)
    },
    end (): void {
      if (isOpen()) raw.end()
    }
  }
}

function onceClosed ({ raw }: FastifyReply, closed: () => void): void {
  // A caller may have gone while its session was looked at. Not at once: whoever opens the stream has not got it yet.
  if (raw.destroyed) queueMicrotask(closed)
  else raw.once('close', closed)
}

/** Data of several lines is several fields, which the reader joins again. */
function textOf ({ type, id, data }: ServerEvent): string {
  return `event: ${type}\nid: ${id}\n${data.split(/\r\n|\r|\n/).map(line => `data: ${line}\n`).join('')}\n`
}

/** Ends the streams whose session is over. While the store is down only time ends a session: it can't be revoked then. */
async function endOverdue (streams: readonly Open[], { revocations, now }: EventStreamsOptions): Promise<void> {
  // Both secrets of a rotated token have its id, and two tokens of an issuer may share one; each has an end of its own.
  const bySession = Map.groupBy(streams, ({ session: { id, issuedAt, expiresAt } }) => `${issuedAt} ${expiresAt} ${id}`)
  await Promise.all([...bySession.values()].map(async its => {
    const { session } = its[0]!
    const isOver = session.expiresAt <= now() || await revocations.isRevoked(session).catch(() => false)
    if (isOver) for (const stream of its) stream.end()
  }))
}
