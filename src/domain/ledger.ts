import { createHash, hash } from 'node:crypto'
import { badRequest } from '../errors.ts'
import type { Microcredits, Plan } from './policy.ts'
import type { Page } from './records.ts'
import type { Awaitable } from './time.ts'
import type { FinalState } from './upstream.ts'

/**
 * The life of a reservation: `reserved → sent → claimed → settled`.
 *
 * reserved: credits set aside, nothing sent; lapses back by its lease · sent: the upstream may have it · claimed: its
 * task has an owner and runs · settled: its task has ended · unknown: sent, but no task id came, or the task never
 * ended: charged, its slot free, an operator may release it. A reservation that the upstream refused leaves no trace.
 *
 * So per subject, at all times and after any crash: charged ≤ accepted upstream ≤ charged + unknown.
 */
export type Stage = 'reserved' | 'sent' | 'claimed' | 'settled' | 'unknown'

/** The limits of a session that has some of its own, for its whole life. */
export interface SessionBudget {
  readonly id: string
  /** Most reservations; `null`: any number. */
  readonly uses: number | null
  /** Most credits; `null`: any number. */
  readonly creditLimit: Microcredits | null
  /** Unix ms. No request comes after it: what was counted may be forgotten. */
  readonly expiresAt: number
}

/** What has credits above the subjects: the whole gateway, a pool (a team), or all subjects of a plan. */
export type CeilingAccount = 'gateway' | `pool:${string}` | `plan:${string}`

/**
 * A window of an account above the subject, from which a submit takes its credits as well: all of them, also those that
 * its subject has from grants.
 */
export interface Hold {
  readonly account: CeilingAccount
  /** As `windowAt` names it: this window of the account for ever, and no other. */
  readonly window: string
  /** Unix ms; `null`: it never ends. */
  readonly endsAt: number | null
  /** Credits of the whole window. What the operator gave the account on top (`Extra`) is added by the store. */
  readonly limit: Microcredits
}

/** Most unfinished tasks of all subjects of an account together, the one that is asked for included. */
export interface RunningLimit {
  readonly account: Exclude<CeilingAccount, `plan:${string}`>
  readonly limit: number
}

/** A submit that wants to be paid for. All instants are Unix ms. */
export interface ReserveRequest {
  readonly subject: string
  readonly operation: string
  readonly model: string
  readonly keyId: string
  readonly microcredits: Microcredits
  readonly refundable: boolean
  /** Start of the period whose credits are used. */
  readonly periodStart: number
  /** Credits of the whole period; `null` is unlimited. */
  readonly creditLimit: Microcredits | null
  /** Most unfinished tasks of this subject, this one included. */
  readonly taskLimit: number
  readonly idempotency?: IdempotencyKey | undefined
  /** Of a submit without an idempotency key: it may be the repeat of another (`Repeats`). */
  readonly repeat?: Repeat | undefined
  /**
   * Counts beside the subject's credits. A released reservation gives its use and its credits back, and so does an
   * unknown one that the operator lets go; a refunded task its credits alone.
   */
  readonly session?: SessionBudget | undefined
  /** The URL that the end of its task is delivered to (`Deliveries`). */
  readonly deliverTo?: string | undefined
  /**
   * The windows above the subject that it draws on, in the order gateway, pool, plan. The reservation keeps them: what
   * it gives back goes to these windows, and to none that has begun since.
   */
  readonly holds?: readonly Hold[] | undefined
  /** In the order gateway, pool. It is counted there until its task ends, `unknown` included in what ends it. */
  readonly runningLimits?: readonly RunningLimit[] | undefined
}

/** A reservation's name in the ledger. Opaque: only its own store can read it. */
export type ReservationId = string

/** An account that a reservation was taken from, and that is nearly used up with it (`isNearEnd`). */
export interface NearEnd {
  /** The window of a pool; `null`: the subject's own period and grants. */
  readonly hold: Hold | null
  /** The reservation's own credits are not in it. */
  readonly left: Microcredits
}

/** Whether four fifths or more of an account are used. `total`: of a subject, its grants as they are now among it. */
export function isNearEnd (left: Microcredits, total: Microcredits): boolean {
  return left <= total / 5
}

/** A reservation, or the reason why there is none. */
export type Reserved =
  /**
   * `near`: the subject's own account, and of its pool the window that has least left, as far as they are nearly used
   * up; absent: neither is. What costs nothing, or has no limit, is near no end.
   */
  | { readonly granted: true, readonly id: ReservationId, readonly near?: readonly NearEnd[] | undefined }
  /** `uses`: of the session. `credits`: of the session, or of the subject. */
  | { readonly granted: false, readonly reason: 'credits' | 'slot' | 'uses' }
  /** That window of an account above the subject has no room for it. `resetsAt`: its end, Unix ms; `null`: never. */
  | {
    readonly granted: false
    readonly reason: 'ceiling'
    readonly account: CeilingAccount
    readonly window: string
    readonly resetsAt: number | null
  }
  /** As many tasks run in that account as may. */
  | { readonly granted: false, readonly reason: 'running', readonly account: CeilingAccount }
  /** Its idempotency key was used before; or it is a repeat, which has taken its first as `Repeats.take` does. */
  | { readonly granted: false, readonly reason: 'duplicate', readonly earlier: Earlier }

/** A refusal of what is new. */
export type NoRoom = Exclude<Reserved, { readonly granted: true } | { readonly reason: 'duplicate' }>

/** Several reservations: all of them, or the reason why there is none. */
export type ReservedAll =
  /** `near`: as of one, with all of them counted in. */
  | { readonly granted: true, readonly ids: readonly ReservationId[], readonly near?: readonly NearEnd[] | undefined }
  | Extract<Reserved, { readonly granted: false }>

/** The next step of a reservation's life. */
export type Transition =
  /**
   * Just before the call, with the key it is made with. Nothing may be sent until this has resolved. `callbackHash`:
   * its callback is known by this (`CallbackSecrets`) from now on; the first one stays.
   */
  | { readonly to: 'sent', readonly keyId: string, readonly callbackHash?: string | undefined }
  /** `answer` is what its idempotency key replays; or its repeat gets, if its caller has gone. */
  | { readonly to: 'claimed', readonly taskId: string, readonly answer?: StoredResponse | undefined }
  /**
   * Nothing was accepted: credits and slot are given back, the row goes. With an answer its idempotency key stays and
   * replays that; without one the key is free again.
   */
  | { readonly to: 'released', readonly answer?: StoredResponse | undefined }
  /** Its idempotency key stays, and says so. */
  | { readonly to: 'unknown' }
  /**
   * A call that makes no task is over, and cost that much. Its row is settled, as a success: from `sent`, and also
   * late, from `unknown`, unless it was let go. What is left of the reservation goes back to where it came from, to the
   * grants first; what is missing is taken as well, past any limit: from the grants as far as they go if the
   * reservation has drawn on them, else from the period. A use of the session stays used. `isEstimate`: the upstream
   * did not say what it was.
   */
  | { readonly to: 'used', readonly microcredits: Microcredits, readonly isEstimate: boolean }

/** A task as the ledger knows it. */
export interface Task {
  readonly taskId: string
  readonly subject: string
  /** As in the request. */
  readonly operation: string
  readonly model: string
  readonly keyId: string
  readonly stage: Stage
  readonly microcredits: Microcredits
  /** Unix ms of the reservation. */
  readonly createdAt: number
  /** The last answer of the upstream, byte for byte, once the task has ended. */
  readonly finalAnswer: Buffer | null
}

/** A task whose owner does not want it any more. */
export interface AbandonRequest {
  readonly taskId: string
  /** How many tasks its subject may have given up within an hour, this one included. */
  readonly mostPerHour: number
}

/** What came of giving a task up. */
export type Abandoned =
  /** It takes no slot, since `at` (Unix ms): by this call, or by an earlier one. */
  | { readonly result: 'abandoned', readonly at: number }
  /** It has ended, or is unknown, and takes no slot: nothing has changed. */
  | { readonly result: 'ended' }
  /** The subject has given up as many as it may: again from then on (Unix ms). Nothing has changed. */
  | { readonly result: 'limited', readonly retryAt: number }

export interface Completion {
  readonly taskId: string
  readonly state: FinalState
  readonly answer: Buffer
}

/**
 * Remembers who created which task, with which key, and what it cost.
 *
 * Every method is one atomic step and throws `GW_STORE_DOWN` when the store does not do it; then nothing has changed,
 * but that a reservation which was to be sent may have been given back. What is known at once is answered at once, or
 * thrown, where the type says so.
 */
export interface TaskLedger {
  /**
   * Sets a slot, a use and credits aside, or gives the first reason that holds: duplicate; of each account above the
   * subject, from the outermost to the innermost, running and ceiling; slot, uses, credits. Under N parallel calls with
   * room for one, exactly one is granted, also when they are of many subjects and the room is that of an account above
   * them; under N with one key, exactly one is, whatever the room. A grant is on disk no later than its next step is.
   * No ceiling is passed, also after a crash; near it, a reservation may be refused that would have fitted.
   */
  reserve (request: ReserveRequest): Awaitable<Reserved>
  /**
   * The same for several of one subject, at least one: all are granted, in their order, or none is, and then nothing is
   * set aside. If one of them is a duplicate, that is the reason; else it is that of the first that lacks something.
   */
  reserveAll (requests: readonly ReserveRequest[]): Promise<ReservedAll>
  /**
   * Takes a reservation one step on; resolves when that is on disk. `false`: that step was not open to it, or the task
   * id belongs to another reservation. Repeating a step is harmless.
   */
  advance (id: ReservationId, step: Transition): Promise<boolean>
  /** Ends a task, once: the first final state wins. `true` for the call that ended it. A failed one may refund. */
  settle (ending: Completion): Promise<boolean>
  taskOf (taskId: string): Awaitable<Task | null>
  /**
   * A claimed task whose end nobody can find out is unknown before its time. `false`: it is not claimed. It may be
   * settled late.
   */
  giveUp (taskId: string): Promise<boolean>
  /**
   * Its owner gives a claimed task up: its slot is free from now on, and nothing else changes. It stays claimed and
   * charged until it ends as any other, and its slot does not come free once more. Under N parallel calls of one
   * subject with room for one, exactly one more is given up.
   */
  abandon (request: AbandonRequest): Promise<Abandoned>
  /** Lets go what has overstayed: reserved → released, sent and claimed → unknown. Says how many went each way. */
  sweep (): Promise<{ readonly released: number, readonly unknown: number }>
}

/** Finds the tasks that nobody may be polling any more. */
export interface UnfinishedTasks {
  /**
   * Claimed tasks that were made at `before` (Unix ms) or earlier, a page at a time: every one that stays unfinished is
   * in one of the pages from the first cursor (`null`) to the last. Throws `GW_STORE_DOWN`.
   */
  page (cursor: string | null, before: number, limit: number): Promise<Page<Task>>
}

/** How long each stage may last, ms, and how many refunds a subject gets in a period. */
export interface LedgerTerms {
  readonly reservedMs: number
  readonly sentMs: number
  readonly giveUpMs: number
  readonly refundsPerPeriod: number
  /** How long what has ended is remembered. */
  readonly retentionMs: number
}

/** What a subject has used, and what the operator gave it on top of its plan. */
export interface CreditBalance {
  /** Of the period, what is set aside for unfinished tasks included. */
  readonly used: Microcredits
  /** What is left of all grants. */
  readonly granted: Microcredits
  /** Tasks that take a slot: those that their owner has given up don't. */
  readonly unfinished: number
  /** What the plan's credits are raised by now (`Extra`); absent: by nothing. */
  readonly extra?: Microcredits | undefined
}

/** Credits beyond the plan's, given by the operator. */
export interface Grant {
  readonly subject: string
  /** Above zero. */
  readonly microcredits: Microcredits
}

/** What a session with limits of its own has taken so far, unfinished tasks included. */
export interface SessionSpent {
  readonly uses: number
  readonly microcredits: Microcredits
}

export const nothingSpent: SessionSpent = { uses: 0, microcredits: 0 }

/**
 * The accounts of the subjects. A reservation takes what is left of the period's credits first and the rest from the
 * grants, which do not end with a period; what it takes goes back to where it came from.
 *
 * Every method is one atomic step and throws `GW_STORE_DOWN`.
 */
export interface CreditAccounts {
  balanceOf (subject: string, periodStart: number): Promise<CreditBalance>
  /** Of requests with this `SessionBudget.id`; none: nothing. */
  spentIn (subject: string, budgetId: string): Promise<SessionSpent>
  /**
   * Adds a row to the ledger; resolves, when it is on disk, to what is left of all grants of the subject. Throws
   * `GW_BAD_REQUEST`, and adds nothing, when that would be more than can be counted.
   */
  grant (grant: Grant): Promise<Microcredits>
}

/** The grants of a subject would come to more than 2^53 - 1 microcredits. */
export function tooMuchGranted () {
  return badRequest(
    'credits would be more than can be counted, together with what is left of earlier grants: at most 9007199254.740991.'
  )
}

/** What a subject may still spend, of its period and of its grants; `null` is unlimited. Never below zero. */
export function creditsLeft ({ credits }: Plan, { used, granted, extra = 0 }: CreditBalance): Microcredits | null {
  // A plan that has become smaller may have been overdrawn: that is not taken from the grants.
  return credits === null ? null : Math.max(0, credits + extra - used) + granted
}

/**
 * What a session may still spend: the least of what its subject has left and its own limit leaves; `null` is unlimited.
 */
export function leastLeft (
  ofSubject: Microcredits | null,
  limit: Microcredits | null,
  spent: Microcredits
): Microcredits | null {
  if (limit === null) return ofSubject
  return Math.min(ofSubject ?? Infinity, Math.max(0, limit - spent))
}

/**
 * Credits as they are shown. One division of two whole numbers gives the double nearest to the decimal, which is what
 * prints as that decimal: 74.87 and never 74.86999999. Sums are made before, in microcredits.
 */
export function creditsFrom (microcredits: Microcredits): number {
  return microcredits / 1_000_000
}

/** How long the first answer is kept, ms. */
export const idempotencyMs = 24 * 60 * 60 * 1000

/** An idempotency key as a caller sent it, with what it was sent for. Keys of two subjects never meet. */
export interface IdempotencyKey {
  /** 1 to 255 printable ASCII characters. */
  readonly key: string
  /** Of method, route, model and body: the same key with another fingerprint is a mistake of the caller's. */
  readonly fingerprint: string
}

/** An answer that is given again, byte for byte. */
export interface StoredResponse {
  readonly status: number
  readonly contentType: string
  readonly body: Buffer
}

/** What became of the first request with a key. */
export type Earlier =
  /** It was another request. */
  | { readonly kind: 'mismatch' }
  | { readonly kind: 'pending' }
  /** The upstream may have accepted it. */
  | { readonly kind: 'unknown' }
  | { readonly kind: 'answered', readonly answer: StoredResponse }
  /** It was accepted, and its answer is not known (any more): a crash came between, or its task was found later. */
  | { readonly kind: 'task', readonly taskId: string }

/**
 * Remembers for 24 hours what became of the requests that had an idempotency key. It is written by the ledger, in the
 * same atomic step as the reservation it belongs to, so that no crash leaves a charge without its key.
 */
export interface IdempotencyStore {
  /** `null`: nobody has used this key, or all that it did was undone. Throws `GW_STORE_DOWN`. */
  earlier (subject: string, key: IdempotencyKey): Promise<Earlier | null>
}

/** RFC 9651 section 3.3.3: printable ASCII in quotes, in which a quote and a backslash are escaped. */
const quotedForm = /^"((?:[\x20\x21\x23-\x5B\x5D-\x7E]|\\["\\])*)"$/
/** What clients send that do not follow the draft. No comma: it stands between two headers of one name when joined. */
const bareForm = /^[\x21\x23-\x2B\x2D-\x7E](?:[\x20-\x2B\x2D-\x7E]*[\x21-\x2B\x2D-\x7E])?$/
const maxKeyLength = 255

/**
 * Reads the header `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header-07 section 2.1). The quoted and the
 * bare form of one key are one key. The draft knows no parameters, so there are none. Throws `GW_BAD_REQUEST`.
 */
export function readIdempotencyKey (values: readonly string[]): string {
  const [value] = values
  if (value === undefined || values.length > 1) throw bad('is given twice')
  const quoted = quotedForm.exec(value)?.[1]
  const key = quoted === undefined ? bareForm.exec(value)?.[0] : quoted.replaceAll(/\\(["\\])/g, '$1')
  if (key === undefined || key === '') {
    throw bad('must be printable ASCII in double quotes, or without them and then without a comma')
  }
  if (key.length > maxKeyLength) throw bad(`must be at most ${maxKeyLength} characters long`)
  return key
}

/** Where short parts are put together: to hash one piece takes half as long as to hand over ten. */
const scratch = Buffer.allocUnsafeSlow(16_384)
/** Digits and colon of a part's length, bytes. */
const mostOfLength = 12

/** Each part is preceded by its length: no two lists of parts make one text. */
export function fingerprintOf (...parts: ReadonlyArray<string | Buffer>): string {
  let room = scratch.length
  for (const part of parts) room -= mostOfLength + Buffer.byteLength(part)
  if (room < 0) return fingerprintInPieces(parts)
  let text = ''
  let length = 0
  for (const part of parts) {
    text += `${Buffer.byteLength(part)}:`
    if (typeof part === 'string') text += part
    else {
      length += scratch.write(text, length)
      length += part.copy(scratch, length)
      text = ''
    }
  }
  length += scratch.write(text, length)
  return hash('sha256', scratch.subarray(0, length), 'base64url')
}

function fingerprintInPieces (parts: ReadonlyArray<string | Buffer>): string {
  const whole = createHash('sha256')
  for (const part of parts) whole.update(`${Buffer.byteLength(part)}:`).update(part)
  return whole.digest('base64url')
}

function bad (problem: string) {
  return badRequest(`Idempotency-Key ${problem}.`)
}

/**
 * How long a submit is remembered from when its outcome became unknown, or its answer undeliverable, ms. Repeats don't
 * renew it.
 */
export const repeatMs = 120_000
/** Submits of one subject that are remembered at a time; the oldest is forgotten first. */
export const maxRepeats = 100
/** A longer answer is not kept: its task id is given again in its place. */
export const maxKeptBytes = 65_536

/** A submit without an idempotency key, as far as it may be the repeat of another. */
export interface Repeat {
  /** Of route, model, body as it was received and the session's own budget: what is sent again has the same one. */
  readonly fingerprint: string
  /** The name of this call; no other has it, on any replica or after a restart. */
  readonly call: string
  /** `performance.now()` at its arrival. Whoever was there after that was there when its first was lost, or was not. */
  readonly arrivedAt: number
}

/**
 * Remembers submits without an idempotency key that may have been paid for and whose callers don't know it: accepted
 * ones whose answer was not delivered, and unknown ones. Browsers and HTTP libraries send those again by themselves,
 * and without a mark; the same submit of the same subject then gets the first's answer, and nothing is made.
 *
 * Each serves one repeat at a time. Four equal submits on four living connections are four tasks; four lost ones serve
 * four repeats. A submit whose replica has died, or was started again, is lost too. `TaskLedger.reserve` looks here as
 * well, in its own atomic step.
 */
export interface Repeats {
  /**
   * Gives this call one of those that it may be the repeat of, until `end`; asked again, it gives the same one as it is
   * by then. `pending`: it still runs, or it is not known yet whether its replica does: ask again. `null`: there is
   * none, or what was taken before has come to nothing. Throws `GW_STORE_DOWN`.
   */
  take (subject: string, repeat: Repeat): Awaitable<Earlier | null>
  /**
   * The call is over that had taken one. `isDelivered`: its caller has the task, and the next one gets another. Throws
   * `GW_STORE_DOWN`.
   */
  end (subject: string, repeat: Repeat, isDelivered: boolean): Promise<void>
  /** The caller of this submit has its answer. Written when something else is, at the latest seconds later. */
  delivered (id: ReservationId): void
  /**
   * The caller of this submit has gone without an answer; this one, if it is known. Holds from the call on; resolves
   * when it is written.
   */
  undelivered (id: ReservationId, answer?: StoredResponse): Promise<void>
  /** Subjects that have had more than `maxRepeats`, since this was last asked. */
  takeCrowded (): readonly string[]
}
