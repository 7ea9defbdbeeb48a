import { once } from 'node:events'
import type { ServerResponse } from 'node:http'
import { constants, createGzip } from 'node:zlib'
import type { Timers } from '../domain/time.ts'
import type { StreamEvent } from './llm-dialects.ts'

/** Where a stream turns from its way: head: before the first event · last: all is said, and nothing has ended it. */
export type Place = 'head' | 'opening' | 'middle' | 'last'

/**
 * cut: the connection ends · end: the stream ends as if it were whole · error: an event says so, then it ends · hold:
 * silence until it is released · endless: the same event again and again.
 */
export interface Turn {
  readonly at: Place
  readonly then: 'cut' | 'end' | 'error' | 'hold' | 'endless'
}

/** How the events of a stream go out. */
export interface StreamPlan {
  readonly turn: Turn | null
  /** `event:` and `data:` end with CRLF. */
  readonly hasCrlf: boolean
  /** The JSON of an event stands on several lines `data:`. */
  readonly hasDataLines: boolean
  /** Compressed, each event as a piece of its own. */
  readonly isGzipped: boolean
  /** Milliseconds before each event but the first. */
  readonly pauseMs: number
}

/** One stream that goes out. */
export interface Stream {
  readonly response: ServerResponse
  /** array: a JSON array, as Gemini has it. */
  readonly form: 'sse' | 'array'
  readonly headers: Readonly<Record<string, string>>
  readonly events: readonly StreamEvent[]
  readonly plan: StreamPlan
  /** What is told where the plan has an error. */
  readonly error: StreamEvent
  readonly timers: Timers
  /** Keeps the rest until the test releases it. */
  hold (goOn: () => void): void
  /** Called with each event that is handed to the socket. */
  told (event: StreamEvent): void
  /** Called before the stream ends in another way than with its last event. */
  broke (): void
}

function placeOf (events: readonly StreamEvent[], at: Place): number {
  if (at === 'head') return 0
  if (at === 'opening') return events.findIndex(({ part }) => part !== 'opening')
  if (at === 'last') return events.findIndex(({ part }) => part === 'closing')
  const content = events.filter(({ part, tokens }) => part === 'content' && tokens > 0)
  return events.indexOf(content[content.length >> 1]!)
}

type Step = StreamEvent | 'cut' | 'hold'

/** What is done in turn. */
function * stepsOf ({ events, error, plan: { turn } }: Stream): Generator<Step> {
  if (turn === null) return yield * events
  const place = placeOf(events, turn.at)
  yield * events.slice(0, place)
  switch (turn.then) {
    case 'cut':
      return yield 'cut'
    case 'end':
      return
    case 'error':
      return yield error
    case 'hold':
      yield 'hold'
      return yield * events.slice(place)
    case 'endless':
      while (true) yield events[place]!
  }
}

/** As a block of an event stream. */
function block ({ name, data }: StreamEvent, { hasCrlf, hasDataLines }: StreamPlan): string {
  const end = hasCrlf ? '\r\n' : '\n'
  const json = typeof data === 'string' ? data : JSON.stringify(data, null, hasDataLines ? 1 : undefined)
  const lines = [...name === null ? [] : [`event: ${name}`], ...json.split('\n').map(line => `data: ${line}`)]
  return lines.map(line => line + end).join('') + end
}

/** What is written for each event, and after the last. */
function framing (form: Stream['form'], plan: StreamPlan): { text: (event: StreamEvent) => string, tail: string } {
  if (form === 'sse') return { text: event => block(event, plan), tail: '' }
  let lead = '['
  const text = ({ data }: StreamEvent): string => {
    const piece = lead + JSON.stringify(data)
    lead = ',\r\n'
    return piece
  }
  return { text, tail: ']' }
}

/** Where the bytes go; resolves when there is room for more. */
interface Sink {
  write (text: string): Promise<void>
  end (text: string): void
}

async function room (response: ServerResponse, isFull: boolean): Promise<void> {
  if (!isFull || response.destroyed) return
  const waiting = new AbortController()
  // Whichever comes first; the other is not waited for any more.
  await Promise.race(['drain', 'close'].map(name => once(response, name, { signal: waiting.signal }))).catch(
    /* c8 ignore next: an answer that breaks closes too */ () => {}
  )
  waiting.abort()
}

function plainSink (response: ServerResponse): Sink {
  return {
    write: text => room(response, !response.write(text)),
    end: text => { response.end(text) }
  }
}

/** Each piece can be read before the next one comes. */
function gzipSink (response: ServerResponse): Sink {
  const gzip = createGzip()
  gzip.pipe(response)
  return {
    write: text => new Promise(resolve => {
      gzip.write(text)
      gzip.flush(constants.Z_SYNC_FLUSH, resolve)
    }),
    end: text => { gzip.end(text) }
  }
}

/**
 * Writes a stream, each event in a piece of its own and no faster than its reader takes them; the last one together
 * with the end. Resolves when all is handed over, or when nobody reads it any more.
 */
export async function writeStream (stream: Stream): Promise<void> {
  const { response, form, headers, plan, timers, hold } = stream
  const { text, tail } = framing(form, plan)
  response.writeHead(200, { ...headers, ...plan.isGzipped ? { 'content-encoding': 'gzip' } : {} }).flushHeaders()
  const sink = plan.isGzipped ? gzipSink(response) : plainSink(response)
  const last = plan.turn === null || plan.turn.then === 'hold' ? stream.events.at(-1) : null
  let isFirst = true
  for (const step of stepsOf(stream)) {
    if (step === 'cut') return cut(stream)
    if (step === 'hold') await new Promise<void>(resolve => hold(resolve))
    else {
      if (plan.pauseMs > 0 && !isFirst) await new Promise<void>(resolve => timers.after(plan.pauseMs, resolve))
      isFirst = false
      if (response.destroyed) return
      stream.told(step)
      if (step === last) return sink.end(text(step) + tail)
      await sink.write(text(step))
    }
  }
  stream.broke()
  sink.end(isFirst && form === 'array' ? '[]' : tail)
}

/** What has been written goes out before the end. */
function cut ({ response, broke }: Stream): void {
  broke()
  response.write('', () => response.destroy())
}
