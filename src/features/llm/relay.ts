import type { ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { isObject } from '../../domain/json.ts'
import type { Timers } from '../../domain/time.ts'
import type { PassingCall } from '../../domain/upstream.ts'
import { type AnswerReader, doneMark, EventFinder, type FoundEvent } from './usage.ts'

/** What goes on with a stream: it is given what has come, and what comes. */
export interface StreamSink {
  take (bytes: Buffer): void
  end (): void
  /** It broke off. `reason`: a word for the log. */
  fail (reason: string): void
}

/**
 * How a stream has ended. complete: with all that makes it whole · cut: the upstream broke it off, and the caller has
 * been told · left: its caller went away before that.
 */
export type StreamEnd = 'complete' | 'cut' | 'left'

interface RelayOptions {
  readonly raw: ServerResponse
  readonly call: PassingCall
  readonly reader: AnswerReader
  /** Usage was asked for in the caller's place: the event that tells nothing else is cut out. */
  readonly hidesUsage: boolean
  readonly timers: Timers
  /** Told between two events after so long a silence; never, where that is 0. */
  readonly heartbeat: { readonly everyMs: number, readonly event: string }
  /** What the caller is told, as an event, of a stream that was cut. */
  readonly cutEvent: () => string
}

/** How long the upstream may take to end a stream that is complete, ms: then its connection is worth no more. */
const lingerMs = 1000

/**
 * Passes a stream on: each piece as it comes and no faster than the caller takes them, and its end together with the
 * event that makes it complete. It never ends as if it were whole when it is not.
 */
export class StreamRelay implements StreamSink {
  readonly ended: Promise<StreamEnd>
  readonly #settled: PromiseWithResolvers<StreamEnd> = Promise.withResolvers()
  readonly #options: RelayOptions
  readonly #socket: Socket
  readonly #finder = new EventFinder()
  readonly #usage: UsageFilter | null
  #isOver = false
  #cutBy: string | null = null
  #stopTimer = (): void => {}
  #isSilent = false
  #stopBeating = (): void => {}

  constructor (options: RelayOptions) {
    this.#options = options
    this.#socket = options.raw.req.socket
    this.ended = this.#settled.promise
    this.#usage = options.hidesUsage ? new UsageFilter() : null
    const { raw, call } = options
    raw.once('close', () => {
      if (this.#isOver) return
      this.#finish('left')
      call.cancel()
    })
    if (options.heartbeat.everyMs > 0) this.#beat()
  }

  /** What cut it, a word for the log; `null`: nothing has. */
  get cutBy (): string | null { return this.#cutBy }

  take (bytes: Buffer): void {
    if (this.#isOver) return
    const { raw, call } = this.#options
    this.#isSilent = false
    const found = this.#finder.take(bytes)
    const last = found.findIndex(event => this.#isLast(event))
    const until = last === -1 ? bytes.length : found[last]!.end
    const seen = last === -1 ? found : found.slice(0, last + 1)
    const visible = this.#usage === null
      ? bytes.subarray(0, until)
      : this.#usage.pass(bytes.subarray(0, until), seen, last === -1 ? this.#finder.unfinished : 0)
    if (last !== -1) {
      this.#stopTimer = this.#options.timers.after(lingerMs, () => call.cancel())
      this.#end(visible)
      return this.#finishWith(isErrorLast(this.#options.reader) ? toldError : null)
    }
    if (visible.length === 0 || this.#write(visible)) return
    call.pause()
    raw.once('drain', () => call.resume())
  }

  end (): void {
    this.#stopTimer()
    if (this.#isOver) return
    this.#endWith(this.#usage?.rest() ?? nothing, 'ended early')
  }

  fail (reason: string): void {
    this.#stopTimer()
    if (this.#isOver) return
    this.#endWith(nothing, reason)
  }

  /** What the upstream has said itself is not said again. `rest`: what may still be told where nothing is missing. */
  #endWith (rest: Buffer, reason: string): void {
    const { reader } = this.#options
    if (reader.isWhole || reader.hasFailed) this.#end(rest)
    else this.#tellCut()
    this.#finishWith(reader.isWhole ? null : reader.hasFailed ? toldError : reason)
  }

  #finishWith (cutBy: string | null): void {
    this.#cutBy = cutBy
    this.#finish(cutBy === null ? 'complete' : 'cut')
  }

  /** Nothing of `[DONE]` is a value; what is no JSON is passed on and not understood. */
  #isLast ({ value }: FoundEvent): boolean {
    const { reader } = this.#options
    if (value !== doneMark) return reader.take(value)
    reader.done()
    return true
  }

  /** In the middle of an event, an empty line ends it first. */
  #tellCut (): void {
    const isMiddle = this.#finder.unfinished > (this.#usage?.heldBytes ?? 0)
    this.#end(Buffer.from((isMiddle ? '\n\n' : '') + this.#options.cutEvent()))
  }

  /**
   * A tick, and no timer that each piece sets anew. One that falls into an event is left out, and so is one that the
   * caller would not read.
   */
  #beat (): void {
    const { timers, raw, heartbeat: { everyMs, event } } = this.#options
    this.#stopBeating = timers.after(everyMs, () => {
      if (this.#isSilent && this.#finder.unfinished === 0 && !raw.writableNeedDrain) this.#write(Buffer.from(event))
      this.#isSilent = true
      this.#beat()
    })
  }

  #end (bytes: Buffer): void {
    const { raw } = this.#options
    if (bytes.length > 0) raw.end(bytes)
    else raw.end()
  }

  /** Left to Node, what is written goes out when the turn is over. `false`: the caller has enough for now. */
  #write (bytes: Buffer): boolean {
    this.#socket.cork()
    const mayGoOn = this.#options.raw.write(bytes)
    this.#socket.uncork()
    return mayGoOn
  }

  #finish (how: StreamEnd): void {
    this.#isOver = true
    this.#stopBeating()
    this.#settled.resolve(how)
  }
}

const nothing = Buffer.alloc(0)
const toldError = 'the upstream told an error'

/** `[DONE]` after an error makes nothing whole. */
function isErrorLast ({ hasFailed, isWhole }: AnswerReader): boolean {
  return hasFailed && !isWhole
}

/** The beginning of an event that has something else to tell than usage. */
const withChoices = /"choices"\s*:\s*\[\s*[^\s\]]/
/** An event of usage alone is some hundred bytes. */
const maxUsageBytes = 16_384

/**
 * Takes the event of chat completions out of a stream that tells usage alone. Nothing else is held back than what may
 * be its beginning.
 */
class UsageFilter {
  #held: Buffer[] = []
  /** Of the event that has not ended; what of it is not held has been passed on. */
  heldBytes = 0
  #isPassing = false

  /** `bytes`, with what was held before them, without what is not to be seen. `unfinished`: bytes of the last event. */
  pass (bytes: Buffer, found: readonly FoundEvent[], unfinished: number): Buffer {
    const isPlain = unfinished === 0 && this.heldBytes === 0 && !this.#isPassing
    if (isPlain && !found.some(({ value }) => isUsageAlone(value))) return bytes // nearly always
    const pieces: Buffer[] = []
    let at = 0
    /** What stands between events, such as comments. */
    const passTo = (start: number): void => {
      if (start < at) return
      pieces.push(this.rest(), bytes.subarray(at, start))
      this.#isPassing = false
      at = start
    }
    for (const { value, start, end } of found) {
      passTo(start)
      if (!this.#isPassing && isUsageAlone(value)) this.#drop()
      else pieces.push(this.rest(), bytes.subarray(at, end))
      this.#isPassing = false
      at = end
    }
    passTo(bytes.length - unfinished)
    this.#hold(bytes.subarray(at), pieces)
    return Buffer.concat(pieces)
  }

  /** What is held, which then is not held any more. */
  rest (): Buffer {
    const rest = Buffer.concat(this.#held)
    this.#drop()
    return rest
  }

  #hold (bytes: Buffer, pieces: Buffer[]): void {
    if (bytes.length === 0) return
    if (this.#isPassing) {
      pieces.push(bytes)
      return
    }
    this.#held.push(bytes)
    this.heldBytes += bytes.length
    if (this.heldBytes <= maxUsageBytes && !withChoices.test(Buffer.concat(this.#held).toString('latin1'))) return
    this.#isPassing = true
    pieces.push(this.rest())
  }

  #drop (): void {
    this.#held = []
    this.heldBytes = 0
  }
}

function isUsageAlone (value: unknown): boolean {
  return isObject(value) && Array.isArray(value.choices) && value.choices.length === 0 && isObject(value.usage)
}
