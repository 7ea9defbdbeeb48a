import {
  type Earlier, fingerprintOf, type IdempotencyKey, type IdempotencyStore, maxKeptBytes, readIdempotencyKey,
  type Repeat, type Repeats, type ReservationId, type StoredResponse
} from '../domain/ledger.ts'
import { budgetOf } from '../domain/session.ts'
import { after, type Awaitable, type Timers } from '../domain/time.ts'
import type { Operation, UpstreamAnswer } from '../domain/upstream.ts'
import { gatewayError } from '../errors.ts'
import { type Answer, answerFrom, type RequestContext, storedAnswer } from './context.ts'

const header = 'idempotency-key'

/**
 * The idempotency key of a submit, with what it was sent for: this method, route, model and body, byte for byte.
 * `undefined` when it has none. It reads the raw headers: Node makes one value of two. Throws `GW_BAD_REQUEST`.
 */
export function idempotencyKeyOf (
  { request, call }: RequestContext,
  { method, url }: Operation,
  body: Buffer
): IdempotencyKey | undefined {
  if (request.headers[header] === undefined) return undefined
  const { rawHeaders } = request.raw
  const values = rawHeaders.filter((_, index) => index % 2 === 1 && rawHeaders[index - 1]!.toLowerCase() === header)
  return { key: readIdempotencyKey(values), fingerprint: fingerprintOf(method, url, String(call.model), body) }
}

/**
 * Stands for an answer that repeats our key. One that may be passed on holds a task id or an error: it is never empty.
 */
const unfit: StoredResponse = { status: 502, contentType: '', body: Buffer.alloc(0) }

/** The answer of an accepted or refused submit as its idempotency key gives it again. */
export function keptFrom (answer: UpstreamAnswer): StoredResponse {
  if (answer.leaksKey) return unfit
  const { status, contentType, body } = answerFrom(answer)
  return { status, contentType, body }
}

/**
 * Answers what was asked before. A task whose answer is not known is told in the documented envelope, as `idName`.
 * Throws what the caller has to know when there is no answer to give again.
 */
export function replay (
  earlier: Outcome,
  { reply, call }: RequestContext,
  idName: 'taskId' | 'batchId' = 'taskId'
): Answer {
  if (earlier.kind === 'mismatch') throw gatewayError('GW_IDEMPOTENCY_MISMATCH')
  reply.header('idempotency-replayed', 'true')
  if (earlier.kind === 'unknown') throw gatewayError('GW_OUTCOME_UNKNOWN', { shouldRetry: false })
  if (earlier.kind === 'task') {
    call.taskId = earlier.taskId
    const envelope = { code: 200, message: 'success', data: { [idName]: earlier.taskId } }
    return storedAnswer(Buffer.from(JSON.stringify(envelope)))
  }
  if (!tellsTask(earlier)) throw gatewayError('GW_UPSTREAM_INVALID', { shouldRetry: false })
  return { ...earlier.answer, retryAfter: undefined }
}

/** Whether the caller that gets it knows its task. */
export function tellsTask (earlier: Outcome): boolean {
  return earlier.kind === 'task' || (earlier.kind === 'answered' && earlier.answer.body.length > 0)
}

/** When to ask again for an answer that is on its way, seconds: clients do so twice, and that covers a usual call. */
const pendingRetrySeconds = 5
/** Repeats that wait for one first, in each process. */
const maxWaiting = 2
/** How often a first is looked at, ms: it may be another replica's. */
const firstLookMs = 10
const lookEveryMs = 250
/**
 * How long a submit waits for the end of an equal one's connection, ms. Between two connections there is no order: a
 * caller's hanging up may be heard after what it sent later on another one.
 */
const endingMs = 50

/**
 * What a submit without an idempotency key may be the repeat of: the same route, model and body, of the same budget.
 */
export function repeatOf ({ request, call }: RequestContext, { method, url }: Operation, body: Buffer): Repeat {
  const budget = budgetOf(call.session)?.id ?? ''
  return {
    fingerprint: fingerprintOf(method, url, String(call.model), budget, body),
    call: request.id,
    arrivedAt: call.startedAt
  }
}

/** How a submit may have been made before: with this key, or without one. */
export interface Repeatable {
  readonly idempotency: IdempotencyKey | undefined
  readonly repeat: Repeat | undefined
}

/**
 * What became of the first of a submit; `null`: it is the first. While that still runs it is waited for. Throws
 * `GW_IDEMPOTENCY_PENDING` when two others wait already, or when nobody waits any more.
 */
export type Earliest = (order: Repeatable, context: RequestContext) => Awaitable<Outcome | null>

/** What a first has come to. */
export type Outcome = Exclude<Earlier, { readonly kind: 'pending' }>

interface EarliestOptions {
  readonly idempotency: IdempotencyStore
  readonly repeats: Repeats
  readonly timers: Timers
}

export function earliest ({ idempotency, repeats, timers }: EarliestOptions): Earliest {
  const waiting = new Map<string, number>()
  /** Calls of submits without a key that are not over; and how many, by what was sent. */
  const entered = new Set<string>()
  const living = new Map<string, number>()

  /** Whether an equal one is not over when this call enters. */
  const enter = ({ fingerprint, call }: Repeat, context: RequestContext): boolean => {
    if (entered.has(call)) return false
    entered.add(call)
    const name = `${fingerprint}\n${context.call.session.subject}`
    const others = living.get(name) ?? 0
    living.set(name, others + 1)
    whenOver(context, () => {
      entered.delete(call)
      const left = living.get(name)! - 1
      if (left === 0) living.delete(name)
      else living.set(name, left)
    })
    return others > 0
  }

  const wait = async (
    name: string,
    look: () => Awaitable<Earlier | null>,
    context: RequestContext
  ): Promise<Outcome | null> => {
    const others = waiting.get(name) ?? 0
    if (others >= maxWaiting) throw pending()
    waiting.set(name, others + 1)
    try {
      let earlier: Earlier | null
      let pauseMs = firstLookMs
      do {
        await pause(timers, pauseMs, context)
        earlier = await look()
        pauseMs = Math.min(2 * pauseMs, lookEveryMs)
      } while (earlier?.kind === 'pending')
      return earlier
    } finally {
      const left = waiting.get(name)! - 1
      if (left === 0) waiting.delete(name)
      else waiting.set(name, left)
    }
  }

  /** Of a submit whose first still runs. */
  const waitForFirst = async (
    { idempotency: key, repeat }: Repeatable, look: () => Awaitable<Earlier | null>, context: RequestContext
  ): Promise<Outcome | null> => {
    const { subject } = context.call.session
    if (repeat === undefined) return await wait(`${key!.key}\n${subject}`, look, context)
    try {
      return await wait(repeat.call, look, context) // it has its first for itself
    } catch (error) {
      await repeats.end(subject, repeat, false)
      throw error
    }
  }

  return (order, context) => {
    const { idempotency: key, repeat } = order
    const { subject } = context.call.session
    const look = (): Awaitable<Earlier | null> => key === undefined
      ? repeats.take(subject, repeat!) // what has no key has this
      : idempotency.earlier(subject, key)
    const isCrowded = repeat !== undefined && enter(repeat, context)
    const earlier = isCrowded ? pause(timers, endingMs, context).then(look) : look()
    return after(earlier, earlier => earlier?.kind === 'pending' ? waitForFirst(order, look, context) : earlier)
  }
}

function pending () {
  return gatewayError('GW_IDEMPOTENCY_PENDING', { retryAfterSeconds: pendingRetrySeconds })
}

/** Throws `GW_IDEMPOTENCY_PENDING`, which nobody hears, as soon as the caller has gone. */
async function pause (timers: Timers, ms: number, { call, reply }: RequestContext): Promise<void> {
  await new Promise<void>(resolve => {
    const done = (): void => {
      cancel()
      reply.raw.off('close', done)
      resolve()
    }
    const cancel = timers.after(ms, done)
    reply.raw.once('close', done)
  })
  if (call.closed) throw pending()
}

/**
 * Calls back when a response is over: whether the whole of it was handed over before its connection ended. What a proxy
 * loses after that can not be seen.
 */
function whenOver ({ call, reply }: RequestContext, then: (isDelivered: boolean) => void): void {
  /* c8 ignore next: gone between its arrival and its reservation, which no test can time */
  if (call.closed) then(false)
  else call.onClosed(() => then(reply.raw.writableFinished))
}

/**
 * Whether the caller of a submit without a key learns what became of it. Methods alone: an object literal with a getter
 * has a hidden class of its own each time, whose getter would keep its whole request until the next full collection.
 */
export interface Delivery {
  /** Its caller has gone, or was answered before anything was known. */
  isLost (): boolean
  /**
   * What the upstream has answered, before it is claimed; returned if it has to be kept at once, as its caller has
   * gone.
   */
  keep (answer: UpstreamAnswer): StoredResponse | undefined
  /** The task is not the caller's after all: what was kept is nobody's. */
  discard (): void
  /** It is claimed, and its caller is about to be told of its task. */
  told (): void
  /** Nothing was accepted: there is nothing to repeat. */
  released (): void
}

/** Watches whether the answer of a granted submit arrives; if not, its repeat gets it. */
export function watchDelivery (repeats: Repeats, id: ReservationId, context: RequestContext): Delivery {
  const { request } = context
  let isOpen = true
  let isLost = false
  let isTold = false
  let kept: StoredResponse | undefined
  whenOver(context, isDelivered => {
    isLost = !isDelivered || !isTold
    if (!isOpen) return
    if (!isLost) return repeats.delivered(id)
    repeats
      .undelivered(id, kept)
      .catch(err => request.log.warn({ err, reservation: id }, 'an answer that did not arrive is not on disk yet'))
  })
  return {
    isLost: () => isLost,
    keep (answer) {
      const whole = keptFrom(answer)
      if (whole.body.length <= maxKeptBytes) kept = whole
      return isLost ? kept : undefined
    },
    discard () { kept = undefined },
    told () { isTold = true },
    released () { isOpen = false }
  }
}

/** Watches whether the answer of a repeat arrives: `tells` when it has a task in it. Else the next one gets it. */
export function watchRepeat (repeats: Repeats, repeat: Repeat, tells: boolean, context: RequestContext): void {
  const { request, call: { session: { subject } } } = context
  whenOver(context, isDelivered => {
    repeats.end(subject, repeat, isDelivered && tells)
      .catch(err => request.log.warn({ err }, 'a repeat is over, and its first does not know it'))
  })
}
