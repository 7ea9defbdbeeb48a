import type { CallPrice } from '../../domain/call-price.ts'
import { isObject, jsonValue } from '../../domain/json.ts'
import type { ReservationId } from '../../domain/ledger.ts'
import type { Microcredits } from '../../domain/policy.ts'
import type { TokenPrice } from '../../domain/token-prices.ts'
import { retryAfterSeconds } from '../../domain/time.ts'
import {
  type AnswerHead, type AnswerReceiver, type Envelope, type NotAccepted, type PassingCall, type PassingUpstream,
  readEnvelope, readSubmitFailure, type UpstreamAnswer, type UpstreamFailure, type UpstreamKey
} from '../../domain/upstream.ts'
import type { UpstreamStates } from '../../domain/upstream-states.ts'
import { gatewayError } from '../../errors.ts'
import { replyWith, type RequestContext, streamHeaders } from '../../http/context.ts'
import type { Services } from '../../http/services.ts'
import { type KeyRefused, noKey, sentOrThrow, timed, withKeyFailover } from '../../http/stages.ts'
import type { LlmBody } from './body.ts'
import type { Dialect } from './dialects.ts'
import { type StreamEnd, StreamRelay, type StreamSink } from './relay.ts'
import { AnswerReader, beginsWithError, mayBecomeError } from './usage.ts'

/** A call that may be made. */
export interface AuthorizedCall {
  readonly dialect: Dialect
  readonly model: string
  /** The one that made what the call goes on with. */
  readonly keyId: string | undefined
  readonly body: LlmBody
  readonly price: TokenPrice
  /** Path and query at the upstream. */
  readonly path: string
  /** Names and values in turn. */
  readonly headers: readonly string[]
  readonly cost: CallPrice
  /** Set aside for it, and the most that it costs when it was cut. */
  readonly bound: Microcredits
  /** The same call again has the same one. */
  readonly fingerprint: string
}

/** What a call works with from *forward* on. */
export interface CallServices extends Pick<Services, 'bodyBudget' | 'ledger' | 'keys' | 'timers' | 'log' | 'alarms'> {
  readonly llm: PassingUpstream
  /** From its beginning to the end of its answer, ms. */
  readonly totalMs: number
  readonly states: UpstreamStates
  /** 0: none. */
  readonly heartbeatMs: number
  /** Remembers that its outcome was told as unknown. */
  readonly rememberUnknown: (subject: string, fingerprint: string) => void
}

/** A call that lasts tells the ledger so often that it does, ms: within any time that a lease may have. */
const renewMs = 5000

/** The outcome of a call is not known: the same call is not made again for a while. */
export function unknownCall () {
  return gatewayError('GW_OUTCOME_UNKNOWN', { about: unknownSentence, shouldRetry: false })
}

const unknownSentence = 'The upstream may have done this call, but its answer was lost. For half a minute the same ' +
  'call gets this answer again, and nothing is sent.'
const cutSentence = 'The upstream broke this answer off.'

/** Nobody but its total time cancels a stream that goes on, and the one wait in it is for its next piece. */
const cutReasons: Readonly<Record<string, string>> = { cancelled: 'total time', timeout: 'idle' }

const noBytes = Buffer.alloc(0)

/** SDKs go by the type alone: a good body under another name is a text to them. */
const json = 'application/json; charset=utf-8'

/** What a call has come to cost. */
interface Cost {
  readonly microcredits: Microcredits
  /** The upstream did not say so. */
  readonly isEstimate: boolean
}

/**
 * From *forward* to *reply*: one call, whose credits are set aside. It ends with its caller's; whatever becomes of it,
 * it is settled once.
 */
export class LlmCall {
  readonly #it: AuthorizedCall
  readonly #id: ReservationId
  readonly #context: RequestContext
  readonly #services: CallServices
  readonly #reader: AnswerReader
  #passing: PassingCall | null = null
  #incoming: IncomingAnswer | null = null
  #hasLeft = false

  constructor (it: AuthorizedCall, id: ReservationId, context: RequestContext, services: CallServices) {
    this.#it = it
    this.#id = id
    this.#context = context
    this.#services = services
    this.#reader = new AnswerReader(it.dialect.name, it.body.answers,
      it.body.keepsState ? ids => this.#keepStates(ids, it.cost.inputBound + it.body.outputBound) : null)
  }

  /** Throws what the caller is to be told where nothing has been told it yet. */
  async run (firstKey: UpstreamKey): Promise<void> {
    const { reply: { raw }, call } = this.#context
    const { keys, timers, totalMs } = this.#services
    const leave = (): void => {
      this.#hasLeft = true
      this.#passing?.cancel()
    }
    this.#hasLeft = call.closed
    raw.once('close', leave)
    const stopTotal = timers.after(totalMs, () => this.#passing?.cancel())
    const stopRenewing = this.#renew()
    try {
      const outcome = await withKeyFailover(keys, this.#it, firstKey, key => this.#attempt(key))
      raw.off('close', leave)
      call.enter('settle')
      if (outcome.kind !== 'accepted') await this.#refuse(outcome)
      else if (outcome.stream) await this.#stream()
      else await this.#answer(outcome.body, outcome.value)
    } finally {
      stopTotal()
      stopRenewing()
    }
  }

  async #attempt (key: UpstreamKey): Promise<Opened> {
    const { call } = this.#context
    const { ledger, llm } = this.#services
    const { path, headers, body: { bytes, isStream }, dialect: { credential } } = this.#it
    call.keyId = key.id
    await sentOrThrow(ledger.markSent(this.#id, key.id), null)
    if (this.#hasLeft) return { kind: 'nothing-sent', cause: null }
    const incoming = new IncomingAnswer(isStream, () => this.#passing!.cancel(), () => this.#dropBody())
    this.#incoming = incoming
    this.#passing = llm.send({ path, headers, body: bytes, key, credential }, incoming)
    return await timed(call, incoming.opened)
  }

  /** A stream lasts, and once it has begun its call is not sent again: others need the room. */
  #dropBody (): void {
    const { request } = this.#context
    this.#it.body.bytes = noBytes
    request.body = undefined
    this.#services.bodyBudget.release(request)
  }

  /** What is under way for longer than a submit may be is not to be taken for one that was cut off. */
  #renew (): () => void {
    const { ledger, timers } = this.#services
    const again = (): (() => void) => timers.after(renewMs, () => {
      ledger.keepSent(this.#id, this.#context.call.keyId!)
      stop = again()
    })
    let stop = again()
    return () => stop()
  }

  /** No answer of the upstream's that is one: nothing is charged for what was refused. */
  async #refuse (outcome: NotAccepted | KeyRefused): Promise<void> {
    const { ledger } = this.#services
    if (outcome.kind === 'unknown') return await this.#loseAnswer(outcome.reason)
    await ledger.release(this.#id)
    switch (outcome.kind) {
      case 'refused': return this.#passOn(outcome.status, outcome.envelope, outcome.answer)
      case 'invalid': throw gatewayError('GW_UPSTREAM_INVALID')
      case 'nothing-sent': throw gatewayError('GW_UPSTREAM_UNREACHABLE', { cause: outcome.cause })
      case 'our-key': throw outcome.code === 'GW_NO_KEY' ? noKey() : gatewayError(outcome.code)
    }
  }

  /** It may have been done: all that was set aside is charged. */
  async #loseAnswer (reason: string): Promise<void> {
    const { log } = this.#services
    // A caller that has left asks anew, if it does: nobody has told it anything.
    if (!this.#hasLeft && reason !== 'leaks-key') this.#rememberUnknown()
    log.warn({ reservation: this.#id, reason, hasLeft: this.#hasLeft }, 'the answer of an LLM call was lost')
    await this.#settle({ microcredits: this.#it.bound, isEstimate: true })
    throw reason === 'leaks-key' ? gatewayError('GW_UPSTREAM_INVALID', { shouldRetry: false }) : unknownCall()
  }

  #rememberUnknown (): void {
    this.#services.rememberUnknown(this.#context.call.session.subject, this.#it.fingerprint)
  }

  /** The upstream's refusal: its own where that has the dialect's shape, else in that shape. */
  #passOn (status: number, { code, message }: Envelope, { body, retryAfter, leaksKey }: UpstreamAnswer): void {
    const { request, reply } = this.#context
    if (leaksKey) throw gatewayError('GW_UPSTREAM_INVALID')
    const sentence = message === '' ? 'The upstream refused this call.' : message
    const facts = { code: `apixo_${status}`, status, message: sentence, requestId: request.id }
    // APIXO's envelope has a code of its own; a vendor's error has none at its top.
    const isOwn = code === undefined && message !== '' && body.includes('"error"')
    reply.header('request-id', request.id)
    this.#context.call.enter('reply')
    replyWith(reply, {
      status,
      contentType: json,
      retryAfter: retryAfter !== undefined && /^\d{1,7}$/.test(retryAfter) && Number(retryAfter) < 60
        ? String(retryAfterSeconds(Number(retryAfter) * 1000))
        : undefined,
      body: isOwn ? body : Buffer.from(this.#it.dialect.errorBody(facts))
    })
  }

  async #answer (body: Buffer, value: unknown): Promise<void> {
    const { request, reply, call } = this.#context
    this.#reader.take(value)
    await this.#keepAll()
    await this.#settle(this.#cost('complete'))
    call.enter('reply')
    reply.header('request-id', request.id)
    replyWith(reply, { status: 200, contentType: json, retryAfter: undefined, body })
  }

  async #stream (): Promise<void> {
    const { request, reply, call } = this.#context
    const { timers, heartbeatMs } = this.#services
    const { dialect, body: { hidesUsage } } = this.#it
    const [passing, incoming, reader] = [this.#passing!, this.#incoming!, this.#reader]
    call.enter('reply')
    reply.hijack()
    const { raw } = reply
    raw.on('error', () => { /* the caller has gone; 'close' follows */ })
    const headers = reply.headers(streamHeaders).header('request-id', request.id).getHeaders()
    raw.writeHead(200, headers as Record<string, string>)
    const cutEvent = (): string => {
      const isUnknown = reader.contentBytes === 0
      if (isUnknown) this.#rememberUnknown()
      call.code = isUnknown ? 'GW_OUTCOME_UNKNOWN' : 'GW_UPSTREAM_INVALID'
      const message = isUnknown ? unknownSentence : cutSentence
      return dialect.errorEvent({ code: call.code, status: 502, message, requestId: request.id })
    }
    const heartbeat = { everyMs: heartbeatMs, event: dialect.heartbeat }
    const relay = new StreamRelay({ raw, call: passing, reader, hidesUsage, timers, heartbeat, cutEvent })
    incoming.passTo(relay)
    const how = await relay.ended
    if (relay.cutBy !== null) this.#noteCut(relay.cutBy)
    if (how === 'complete') await this.#keepAll()
    await this.#settle(this.#cost(how))
  }

  /** Its status is 200 all the same: the access line tells it by its code, and this one why. */
  #noteCut (cutBy: string): void {
    const { call } = this.#context
    if (call.code === 'OK') call.code = 'GW_UPSTREAM_INVALID'
    const reason = cutReasons[cutBy] ?? cutBy
    this.#services.log.warn({ reservation: this.#id, reason }, 'the stream of an LLM call broke off')
  }

  /** With what it has come to: before, nobody knew how much that would be. */
  async #keepAll (): Promise<void> {
    const { tokens, states } = this.#reader
    if (states.size === 0 || tokens === null) return
    await this.#keepStates([...states], Object.values(tokens).reduce((sum, count) => sum + count, 0))
  }

  /** What the upstream keeps is the caller's as soon as its id has come; what is not known here is nobody's. */
  async #keepStates (ids: readonly string[], tokens: number): Promise<void> {
    const { states, log } = this.#services
    const { session: { subject }, keyId } = this.#context.call
    await states.remember(subject, ids, { keyId: keyId!, tokens }).catch((err: unknown) =>
      log.warn({ err, reservation: this.#id }, 'what the upstream keeps of an LLM call could not be recorded'))
  }

  /**
   * With usage, what it was, though that be more than was set aside. Without it, and for an answer that was cut, an
   * upper bound, and marked as that: of each direction the greater of what was told and what was seen, or all that was
   * set aside where the upstream may have made what nobody has seen.
   */
  #cost (how: StreamEnd): Cost {
    const { price, cost, body: { mayThink, outputBound }, bound } = this.#it
    const { tokens, contentBytes, hasThought, extras } = this.#reader
    if (how === 'complete' && tokens !== null) {
      return { microcredits: cost.costOf(tokens, extras), isEstimate: false }
    }
    const mayHide = cost.runsTools || ((mayThink || hasThought) && price.hidesReasoning)
    if (mayHide || contentBytes === 0) return { microcredits: bound, isEstimate: true }
    const output = Math.min(outputBound, Math.max(contentBytes, tokens?.output ?? 0))
    const seen = tokens === null
      ? price.boundOf(cost.inputBound, 0) + cost.costOf({ output }, extras)
      : cost.costOf({ ...tokens, output }, extras)
    return { microcredits: Math.min(bound, seen), isEstimate: true }
  }

  /** What the store does not take now it is given later: the caller has its answer all the same. */
  async #settle ({ microcredits, isEstimate }: Cost): Promise<void> {
    const { ledger, log, alarms } = this.#services
    const { bound, model } = this.#it
    if (microcredits > bound) {
      alarms.raise({
        kind: 'over-reserve',
        about: model,
        fields: { reservation: this.#id, model, reserved: bound, charged: microcredits },
        text: 'an LLM call cost more than was set aside for it'
      })
    }
    const isTaken = await ledger.markUsed(this.#id, microcredits, isEstimate).catch((err: unknown) => {
      log.warn({ err, reservation: this.#id }, 'an LLM call could not be settled yet')
      return true
    })
    if (!isTaken) log.error({ reservation: this.#id }, 'an LLM call had another end already')
  }
}

/** An answer that may be passed on: a stream that has begun, or a whole body of JSON. */
type Accepted =
  | { readonly kind: 'accepted', readonly stream: true }
  | { readonly kind: 'accepted', readonly stream: false, readonly body: Buffer, readonly value: unknown }

/** What has come of a call by its first byte of stream, or by its end. */
type Opened = Accepted | NotAccepted

/** An answer that is no stream is collected up to this length, bytes. */
const maxAnswerBytes = 64 * 1024 * 1024

/**
 * The answer of one call. It is looked at before anything is told to the caller: what is no stream is collected, and of
 * a stream nothing has gone out until its first byte is there.
 */
class IncomingAnswer implements AnswerReceiver {
  readonly opened: Promise<Opened>
  readonly #settled: PromiseWithResolvers<Opened> = Promise.withResolvers()
  readonly #asksStream: boolean
  readonly #giveUp: () => void
  readonly #streamBegins: () => void
  readonly #chunks: Buffer[] = []
  #length = 0
  #head: AnswerHead = { status: 0, contentType: '', retryAfter: undefined }
  #isStream = false
  #isAccepted = false
  #sink: StreamSink | null = null
  #ending: ((sink: StreamSink) => void) | null = null

  /**
   * `giveUp`: called when nothing more of it is wanted, and again. `streamBegins`: its head says that it is a stream,
   * which no other key would do better.
   */
  constructor (asksStream: boolean, giveUp: () => void, streamBegins: () => void) {
    this.#asksStream = asksStream
    this.#giveUp = giveUp
    this.#streamBegins = streamBegins
    this.opened = this.#settled.promise
  }

  begin (head: AnswerHead): void {
    this.#head = head
    this.#isStream = isSuccess(head.status) && isEventStream(head.contentType, this.#asksStream)
    if (this.#isStream) this.#streamBegins()
  }

  take (bytes: Buffer): void {
    if (this.#sink !== null) return this.#sink.take(bytes)
    this.#length += bytes.length
    if (this.#length > maxAnswerBytes) return this.#giveUp()
    this.#chunks.push(bytes)
    if (!this.#isStream || this.#isAccepted) return
    const begun = Buffer.concat(this.#chunks)
    if (mayBecomeError(begun)) return
    this.#isAccepted = !beginsWithError(begun)
    if (this.#isAccepted) return this.#settled.resolve({ kind: 'accepted', stream: true })
    // As the first event of a stream it would have one SDK buy the call twice more.
    this.#settled.resolve({ kind: 'unknown', reason: 'an error at once' })
    this.#giveUp()
  }

  end (): void {
    if (this.#sink !== null) return this.#sink.end()
    if (this.#isStream) {
      // Without a byte of it nothing has been told yet, and the caller can have a plain error.
      this.#ending = sink => sink.end()
      this.#settled.resolve({ kind: 'unknown', reason: 'an empty stream' })
    } else {
      this.#settled.resolve(readAnswer(this.#head, Buffer.concat(this.#chunks)))
    }
  }

  fail (failure: UpstreamFailure): void {
    if (this.#sink !== null) return this.#sink.fail(failure.reason)
    this.#ending = sink => sink.fail(failure.reason)
    this.#settled.resolve(this.#readFailure(failure))
  }

  /** Gives the stream to somebody: first what has come already. */
  passTo (sink: StreamSink): void {
    this.#sink = sink
    for (const bytes of this.#chunks.splice(0)) sink.take(bytes)
    this.#ending?.(sink)
  }

  #readFailure (failure: UpstreamFailure): NotAccepted {
    const { status } = this.#head
    if (failure.reason !== 'leaks-key' || !isRefusal(status)) return readSubmitFailure(failure)
    // It says no, and repeats our key: it counts against the key all the same, and nothing of it is shown.
    const answer = { ...this.#head, body: Buffer.alloc(0), leaksKey: true }
    return { kind: 'refused', status, envelope: emptyEnvelope, answer }
  }
}

const emptyEnvelope: Envelope = { code: undefined, message: '', taskId: undefined, state: undefined, data: undefined }

function isSuccess (status: number): boolean {
  return status >= 200 && status < 300
}

/** What was asked to stream, and is neither JSON nor a page, is a stream under a wrong name. */
function isEventStream (contentType: string, asksStream: boolean): boolean {
  const type = contentType.split(';', 1)[0]!.trim().toLowerCase()
  if (type === 'text/event-stream') return true
  return asksStream && (type === '' || type === 'text/plain' || type === 'application/octet-stream')
}

/** It says that nothing was made. A 502 and a 504 are said by somebody on the way, who does not know. */
function isRefusal (status: number): boolean {
  return (status >= 400 && status < 500) || status === 500 || status === 503 || status === 529
}

/** What a complete answer says that is no stream. An envelope of APIXO's with another code than 200 is a refusal. */
function readAnswer (head: AnswerHead, body: Buffer): Opened {
  const value = jsonValue(body.toString())
  const envelope = readEnvelope(body)
  const status = isSuccess(head.status) ? statusIn(value, envelope) ?? head.status : head.status
  const answer = { ...head, body, leaksKey: false }
  if (isSuccess(status)) {
    if (typeof value !== 'object' || value === null) return { kind: 'unknown', reason: `${status}, no JSON` }
    return { kind: 'accepted', stream: false, body, value }
  }
  if (!isRefusal(status)) return { kind: 'unknown', reason: String(status) }
  if (envelope === null) return status < 500 ? { kind: 'invalid' } : { kind: 'unknown', reason: `${status}, no JSON` }
  return { kind: 'refused', status, envelope: { ...envelope, message: messageIn(value, envelope) }, answer }
}

/** The status that a body tells beside an HTTP 200; `null`: it tells none, or that all is well. */
function statusIn (value: unknown, envelope: Envelope | null): number | null {
  if (envelope?.code !== undefined && envelope.code !== 200) return asStatus(envelope.code)
  if (!isObject(value)) return null
  const isError = value.type === 'error' || (isObject(value.error) && value.object !== 'response')
  if (!isError || !isObject(value.error)) return null
  return asStatus(typeof value.error.code === 'number' ? value.error.code : 500)
}

function asStatus (code: number): number {
  return Number.isInteger(code) && code >= 400 && code <= 599 ? code : 500
}

function messageIn (value: unknown, { message }: Envelope): string {
  const error = isObject(value) && isObject(value.error) ? value.error : {}
  return typeof error.message === 'string' ? error.message : message
}
