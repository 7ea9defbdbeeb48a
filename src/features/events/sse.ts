import type { FastifyReply } from 'fastify'
import { randomInt } from 'node:crypto'
import type { Revocations, Session } from '../../domain/session.ts'
import type { Timers } from '../../domain/time.ts'
import { gatewayError } from '../../errors.ts'
import type { RequestContext } from '../../http/context.ts'

/** https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream */
export interface ServerEvent {
  readonly type: string
  /** Of characters that a header may have: it comes back as `last-event-id`. */
  readonly id: string
  readonly data: string
}

/** The stream of one caller. */
export interface EventStream {
  /** Drops a reader that has far too much still to read: it comes back with the last id it has read. */
  send (...events: readonly ServerEvent[]): void
  /** `null`: the reader has room for more. Else it resolves when it has, or when it has gone. */
  room (): Promise<void> | null
  end (): void
}

interface StreamEnds {
  /** Called once, when the caller has gone or the stream was ended. */
  readonly closed?: () => void
  /** Called with every heartbeat. */
  readonly beat?: () => void
}

/** All streams of this replica. */
export interface EventStreams {
  /**
   * Answers with a stream. Throws `GW_RATE_LIMITED` when the subject has too many, here: replicas do not count
   * together.
   */
  open (context: RequestContext, ends?: StreamEnds): EventStream
  /** For the metric `gateway_event_streams`. */
  readonly count: number
  /** Ends all: a caller that may still listen comes back, with the last id it has read. */
  renew (): void
  /** Ends all, and every later one at once: a stop must not wait for them. */
  close (): void
}

interface EventStreamsOptions {
  readonly streamsPerSubject: number
  readonly revocations: Revocations
  readonly timers: Timers
  readonly now: () => number
}

/**
 * A session that was revoked or has expired loses its streams within this time, ms; within a second more if another
 * process has revoked it.
 */
export const sessionCheckMs = 5000
/** Between two signs of life of an idle stream, ms; proxies give up after 30 s or more. */
export const heartbeatMs = 3 * sessionCheckMs
/** A reader that has so much of an earlier event still to read gets no further one, bytes. */
const maxPendingBytes = 64 * 1024
/** A reader that takes no byte of what waits for it is let go after this time, ms. */
const stallMs = 4 * heartbeatMs
/**
 * When a reader that was cut is to come back, ms: whole and at least a second, for the readers at large ignore other
 * numbers or take them for "at once"; drawn for each stream, so that those which are ended together do not come back
 * together.
 */
const retryMs = { from: 2000, to: 4000 } as const
/**
 * A sign of life. No empty line follows: @microsoft/fetch-event-source takes that for the end of an event and hands its
 * page one without data.
 */
const heartbeat = ':\n'
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
      const { write, isIdle, room, end } = openOn(reply)
      const stream: Open = {
        session,
        send: (...events) => write(events.map(textOf).join('')),
        room,
        end,
        beat () {
          // What a slow reader has still to take is a sign of life as well.
          if (isIdle()) write(heartbeat)
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

/**
 * Each keeps a proxy from holding events back that the others do not: one that compresses (`no-transform` for the
 * common ones, an encoding for those that look at nothing else), and one that buffers.
 */
const streamHeaders = {
  'content-type': 'text/event-stream',
  'cache-control': 'no-store, no-transform',
  'content-encoding': 'identity',
  'x-accel-buffering': 'no'
} as const

/** Sends the headers and a first line, so that the caller and every proxy on the way know that it has begun. */
function openOn (reply: FastifyReply) {
  const { raw } = reply
  reply.hijack()
  raw.on('error', () => { /* the caller has gone; 'close' follows */ })
  const headers = reply.headers(streamHeaders).getHeaders()
  const isOpen = (): boolean => !raw.destroyed && !raw.writableEnded
  if (isOpen()) {
    raw.writeHead(200, headers as Record<string, string>).write(`retry: ${randomInt(retryMs.from, retryMs.to + 1)}\n`)
    // Node ends a socket on which nothing moves for so long; a reader that takes what it gets is sent a heartbeat
    // before.
    raw.setTimeout(stallMs)
    if (reply.request.method === 'HEAD') raw.end()
  }
  return {
    write (text: string): void {
      if (!isOpen()) return
      if (raw.writableLength > maxPendingBytes) raw.destroy()
      else raw.write(text)
    },
    room: (): Promise<void> | null => raw.writableNeedDrain ? drained(raw) : null,
    isIdle: (): boolean => raw.writableLength === 0,
    end (): void {
      if (isOpen()) raw.end()
    }
  }
}

/** Resolves when the reader has taken what waits, or has gone. */
function drained (raw: FastifyReply['raw']): Promise<void> {
  return new Promise(resolve => {
    const done = (): void => {
      raw.off('drain', done).off('close', done)
      resolve()
    }
    raw.once('drain', done).once('close', done)
  })
}

function onceClosed ({ raw }: FastifyReply, closed: () => void): void {
  // A caller may have gone while its session was verified. Not at once: the stream has not been returned yet.
  if (raw.destroyed) queueMicrotask(closed)
  else raw.once('close', closed)
}

/**
 * Data of several lines is several fields, which the reader joins again. The id comes last: some readers keep that of
 * an event that was cut in the middle, ask from there, and would never hear of it.
 */
function textOf ({ type, id, data }: ServerEvent): string {
  return `event: ${type}\n${data.split(/\r\n|\r|\n/).map(line => `data: ${line}\n`).join('')}id: ${id}\n\n`
}

/**
 * Ends the streams whose session is over. While the store is down only time ends a session: it can't be revoked then.
 */
async function endOverdue (streams: readonly Open[], { revocations, now }: EventStreamsOptions): Promise<void> {
  const isRevoked = async (session: Session): Promise<boolean> => {
    try {
      return await revocations.isRevoked(session)
    } catch {
      return false // it is asked again in a moment
    }
  }
  // Both secrets of a rotated token have its id, and two tokens of an issuer may share one; each has an end of its own.
  const bySession = Map.groupBy(streams, ({ session: { id, issuedAt, expiresAt } }) => `${issuedAt} ${expiresAt} ${id}`)
  await Promise.all([...bySession.values()].map(async its => {
    const { session } = its[0]!
    const isOver = session.expiresAt <= now() || await isRevoked(session)
    if (isOver) for (const stream of its) stream.end()
  }))
}
