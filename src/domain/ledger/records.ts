import type { FinalState } from '../bodies/envelope.ts'
import type { Microcredits } from '../policy/pricing.ts'
import type { ReservationId, Stage } from './ledger.ts'

/** One row of the ledger, as its owner or the operator may read it. */
export interface TaskRecord {
  readonly id: ReservationId
  readonly subject: string
  /** `null` when no task id came. */
  readonly taskId: string | null
  readonly operation: string
  readonly model: string
  readonly stage: Stage
  readonly state: FinalState | null
  readonly microcredits: Microcredits
  /** Its credits were given back. */
  readonly refunded: boolean
  /** Unix ms. */
  readonly createdAt: number
  /** Unix ms. */
  readonly endedAt: number | null
}

/** A part of a long list. */
export interface Page<Item> {
  readonly items: readonly Item[]
  /** Opaque: where the next page begins; `null` at the end. */
  readonly next: string | null
}

export interface PageRequest {
  /** `next` of the page before; `null` for the first. */
  readonly cursor: string | null
  readonly limit: number
}

/** A task's place among the ends of its subject: by the time, and at the same time by the store's order of the ids. */
export interface TaskEnd {
  /** Unix ms. */
  readonly endedAt: number
  readonly taskId: string
}

/** How long a store knows the order of the ends at least, ms. */
export const endsKeptMs = 25 * 3600_000

/** Sums of one day (UTC, of the reservation), subject and model. */
export interface UsageRow {
  /** `2026-01-31` */
  readonly day: string
  readonly subject: string
  readonly model: string
  readonly tasks: number
  readonly succeeded: number
  readonly failed: number
  /** Without those that an operator has let go. */
  readonly unknown: number
  /** What is charged: of running tasks too, without what was given back. */
  readonly microcredits: Microcredits
}

/** `from` ≤ day ≤ `to`, both as in `UsageRow.day`. */
export interface UsageSpan {
  readonly from: string
  readonly to: string
}

/**
 * Reads the ledger. All methods throw `GW_STORE_DOWN`; none holds up the event loop for long, however many rows there
 * are; and each answers at once with what earlier calls have been told is on disk.
 */
export interface TaskRecords {
  /** The subject's tasks, the newest first: all that were claimed or are unknown, and no refused submits. */
  tasksOf (subject: string, page: PageRequest): Promise<Page<TaskRecord>>
  /**
   * The subject's tasks that have ended after that place, the oldest end first, a batch's own row among them. At the
   * time of a place whose id is empty there is none before it. What is older than `endsKeptMs` may be left out. Each call is
   * a turn of the event loop.
   */
  endsOf (subject: string, after: TaskEnd, limit: number): Promise<readonly TaskEnd[]>
  /** All unknown ones that are still charged, the oldest first. */
  unknowns (page: PageRequest): Promise<Page<TaskRecord>>
  /**
   * The operator lets an unknown one go: its credits are given back, once, and its idempotency key is free again. In one
   * atomic step. `false`: it is not unknown, or was let go before.
   */
  release (id: ReservationId): Promise<boolean>
  /** In the order of day, subject, model; also of tasks that retention has ended. */
  usage (span: UsageSpan): Promise<readonly UsageRow[]>
}
