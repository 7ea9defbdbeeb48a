import type { FastifyReply } from 'fastify'
import { randomInt } from 'node:crypto'
import type { ServerResponse } from 'node:http'
import type { Revocations, Session } from '../../domain/session.ts'
import { type Clock, slices, type Timers } from '../../domain/time.ts'
import { gatewayError } from '../../errors.ts'
import { type RequestContext, streamHeaders } from '../../http/context.ts'

/** https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream */
export interface ServerEvent {
  /** All but its id, as `eventFields` writes it: many streams may be sent the same. */
  readonly fields: string
  /** Of characters that a header may have: it comes back as `last-event-id`. Without one, that before it does. */
  readonly id?: string | undefined
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

interface EventStreamsOptions extends Clock {
  readonly streamsPerSubject: number
  readonly revocations: Revocations
  readonly timers: Timers
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

export function eventStreams (options: EventStreamsOptions): EventStreams {
  const { streamsPerSubject, timers } = options
  const streams = new Set<OpenStream>()
  const perSubject = new Map<string, number>()
  const turns = slices(options)
  let ticks = 0
  let stopTimer = (): void => {}
  let isClosed = false

  const tick = (): void => {
    ticks++
    const isBeat = ticks % (heartbeatMs / sessionCheckMs) === 0
    if (isBeat) turns.each(streams, stream => { if (streams.has(stream)) stream.beat() })
    endOverdue([...streams], options).then(schedule, schedule)
  }
  const schedule = (): void => {
    stopTimer()
    if (streams.size > 0) stopTimer = timers.after(sessionCheckMs, tick)
  }
  const enter = (stream: OpenStream): void => {
    const { subject } = stream.session
    perSubject.set(subject, (perSubject.get(subject) ?? 0) + 1)
    if (streams.add(stream).size === 1) schedule()
  }
  const leave = (stream: OpenStream): void => {
    const { subject } = stream.session
    const left = perSubject.get(subject)! - 1
    if (left === 0) perSubject.delete(subject)
    else perSubject.set(subject, left)
    streams.delete(stream)
    if (streams.size === 0) stopTimer()
  }

  return {
    open ({ call: { session }, reply }, { closed = nothing, beat = nothing } = {}) {
      if (isClosed) throw gatewayError('GW_OVERLOADED', { retryAfterSeconds: 1 })
      if ((perSubject.get(session.subject) ?? 0) >= streamsPerSubject) {
        throw gatewayError('GW_RATE_LIMITED', { retryAfterSeconds: retrySeconds })
      }
      begin(reply)
      const stream = new OpenStream(session, reply.raw, beat)
      enter(stream)
      onClosed(reply, () => {
        leave(stream)
        closed()
      })
      return stream
    },
    get count () { return streams.size },
    renew () { turns.each(streams, stream => stream.end()) },
    close () {
      isClosed = true
      for (const stream of streams) stream.end()
    }
  }
}

function nothing (): void {}

/** There may be thousands. Of the eight kilobytes that each keeps, five are those of a bare connection of Node's. */
class OpenStream implements EventStream {
  readonly session: Session
  readonly #raw: ServerResponse
  readonly #onBeat: () => void

  constructor (session: Session, raw: ServerResponse, onBeat: () => void) {
    this.session = session
    this.#raw = raw
    this.#onBeat = onBeat
  }

  send (...events: readonly ServerEvent[]): void {
    this.#write(events.map(({ fields, id }) => id === undefined ? `${fields}\n` : `${fields}id: ${id}\n\n`).join(''))
  }

  room (): Promise<void> | null {
    return this.#raw.writableNeedDrain ? drained(this.#raw) : null
  }

  end (): void {
    if (isOpen(this.#raw)) this.#raw.end()
  }

  beat (): void {
    // What a slow reader has still to take is a sign of life as well.
    if (this.#raw.writableLength === 0) this.#write(heartbeat)
    this.#onBeat()
  }

  #write (text: string): void {
    const raw = this.#raw
    if (!isOpen(raw)) return
    if (raw.writableLength > maxPendingBytes) raw.destroy()
    else writeNow(raw, text)
  }
}

function isOpen (raw: ServerResponse): boolean {
  return !raw.destroyed && !raw.writableEnded
}

/** Left to Node, what is written to any stream goes out when the turn is over: a time that nobody measures. */
function writeNow (raw: ServerResponse, text: string): void {
  const { socket } = raw
  socket?.cork()
  raw.write(text)
  socket?.uncork()
}

/** Sends the headers and a first line, so that the caller and every proxy on the way know that it has begun. */
function begin (reply: FastifyReply): void {
  const { raw } = reply
  reply.hijack()
  raw.on('error', nothing) // the caller has gone; 'close' follows
  const headers = reply.headers(streamHeaders).getHeaders()
  if (!isOpen(raw)) return
  raw.socket?.cork()
  // By themselves: Node keeps the headers, and if they are sent as a part of something longer, in a hundred pieces.
  raw.writeHead(200, headers as Record<string, string>).flushHeaders()
  raw.write(`retry: ${randomInt(retryMs.from, retryMs.to + 1)}\n`)
  raw.socket?.uncork()
  // Node ends a socket on which nothing moves for so long; a reader that takes what it gets is sent a heartbeat before.
  raw.setTimeout(stallMs)
  if (reply.request.method === 'HEAD') raw.end()
}

/** Resolves when the reader has taken what waits, or has gone. */
function drained (raw: ServerResponse): Promise<void> {
  return new Promise(resolve => {
    const done = (): void => {
      raw.off('drain', done).off('close', done)
      resolve()
    }
    raw.once('drain', done).once('close', done)
  })
}

function onClosed ({ raw }: FastifyReply, closed: () => void): void {
  // A caller may have gone while its session was verified. Not at once: the stream has not been returned yet.
  if (raw.destroyed) queueMicrotask(closed)
  else raw.on('close', closed) // it comes once, and `once` keeps four objects
}

/**
 * Data of several lines is several fields, which the reader joins again. The id comes last, and is added for each
 * stream: some readers keep that of an event that was cut in the middle, ask from there, and would never hear of it.
 */
export function eventFields (type: string, data: string): string {
  return `event: ${type}\n${data.split(/\r\n|\r|\n/).map(line => `data: ${line}\n`).join('')}`
}

/**
 * Ends the streams whose session is over. While the store is down only time ends a session: it can't be revoked then.
 */
async function endOverdue (streams: readonly OpenStream[], { revocations, now }: EventStreamsOptions): Promise<void> {
  const isRevoked = async (session: Session): Promise<boolean> => {
    try {
      return await revocations.isRevoked(session)
    } catch {
      return false // it is asked again in a moment
    }
  }
  // Both secrets of a rotated token have its id, and two tokens of an issuer may share one, be they of one subject or
  // of two: each has an end of its own.
  const bySession = Map.groupBy(streams, ({ session: { id, subject, issuedAt, expiresAt } }) =>
    JSON.stringify([id, subject, issuedAt, expiresAt]))
  await Promise.all([...bySession.values()].map(async its => {
    const { session } = its[0]!
    const isOver = session.expiresAt <= now() || await isRevoked(session)
    if (isOver) for (const stream of its) stream.end()
  }))
}
