import type { FinalState } from '../bodies/envelope.ts'
import type { Microcredits } from '../policy/pricing.ts'
import type { Earlier, IdempotencyKey, KeptAnswer } from './idempotency.ts'
import type { Page } from './records.ts'
import type { Repeat } from './repeats.ts'

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
  /** Unix ms. No demand comes after it: what was counted may be forgotten. */
  readonly expiresAt: number
}

/** A submit that wants to be paid for. All instants are Unix ms. */
export interface Demand {
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
  readonly idempotency?: IdempotencyKey
  /** Of a submit without an idempotency key: it may be the repeat of another (`Repeats`). */
  readonly repeat?: Repeat
  /**
   * Counts beside the subject's credits. A released reservation gives its use and its credits back, and so does an
   * unknown one that the operator lets go; a refunded task its credits alone.
   */
  readonly session?: SessionBudget
  /** The URL that the end of its task is delivered to (`Deliveries`). */
  readonly deliverTo?: string
}

/** A reservation's name in the ledger. Opaque: only its own store can read it. */
export type ReservationId = string

export type Reserved =
  | { readonly granted: true, readonly id: ReservationId }
  /** `uses`: of the session. `credits`: of the session, or of the subject. */
  | { readonly granted: false, readonly lacks: 'credits' | 'slot' | 'uses' }
  /** Its idempotency key was used before; or it is a repeat, which has taken its first as `Repeats.take` does. */
  | { readonly granted: false, readonly lacks: 'novelty', readonly earlier: Earlier }

/** The next step of a reservation's life. */
export type Step =
  /**
   * Just before the call, with the key it is made with. Nothing may be sent until this has resolved. `callbackHash`: its
   * callback is known by this (`CallbackSecrets`) from now on; the first one stays.
   */
  | { readonly to: 'sent', readonly keyId: string, readonly callbackHash?: string }
  /** `answer` is what its idempotency key replays; or its repeat gets, if its caller has gone. */
  | { readonly to: 'claimed', readonly taskId: string, readonly answer?: KeptAnswer }
  /**
   * Nothing was accepted: credits and slot are given back, the row goes. With an answer its idempotency key stays and
   * replays that; without one the key is free again.
   */
  | { readonly to: 'released', readonly answer?: KeptAnswer }
  /** Its idempotency key stays, and says so. */
  | { readonly to: 'unknown' }

/** A task as the ledger knows it. */
export interface Task {
  readonly taskId: string
  readonly subject: string
  /** As in the demand. */
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

export interface Ending {
  readonly taskId: string
  readonly state: FinalState
  readonly answer: Buffer
}

/**
 * Remembers who created which task, with which key, and what it cost.
 *
 * Every method is one atomic step and throws `GW_STORE_DOWN` when the store does not do it; then nothing has changed,
 * but that a reservation which was to be sent may have been given back.
 */
export interface TaskLedger {
  /**
   * Sets a slot, a use and credits aside, or says what is lacking, in the order of novelty, slot, uses, credits. Under N
   * parallel calls with room for one, exactly one is granted; under N with one key, exactly one is, whatever the room.
   * A grant is on disk no later than its next step is.
   */
  reserve (demand: Demand): Promise<Reserved>
  /**
   * Takes a reservation one step on; resolves when that is on disk. `false`: that step was not open to it, or the task
   * id belongs to another reservation. Repeating a step is harmless.
   */
  advance (id: ReservationId, step: Step): Promise<boolean>
  /** Ends a task, once: the first final state wins. `true` for the call that ended it. A failed one may refund. */
  settle (ending: Ending): Promise<boolean>
  taskOf (taskId: string): Promise<Task | null>
  /** A claimed task whose end nobody can find out is unknown before its time. `false`: it is not claimed. It may be settled late. */
  giveUp (taskId: string): Promise<boolean>
  /** Lets go what has overstayed: reserved → released, sent and claimed → unknown. Says how many went each way. */
  sweep (): Promise<{ readonly released: number, readonly unknown: number }>
}

/** Finds the tasks that nobody may be polling any more. */
export interface UnfinishedTasks {
  /**
   * Claimed tasks that were made at `before` (Unix ms) or earlier, a page at a time: every one that stays unfinished is in one
   * of the pages from the first cursor (`null`) to the last. Throws `GW_STORE_DOWN`.
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
