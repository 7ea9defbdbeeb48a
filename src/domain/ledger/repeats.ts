import type { Earlier, KeptAnswer } from './idempotency.ts'
import type { ReservationId } from './ledger.ts'

/** How long a submit is remembered from when its outcome became unknown, or its answer undeliverable, ms. Repeats don't renew it. */
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
 * Remembers submits without an idempotency key that may have been paid for and whose callers don't know it: accepted ones
 * whose answer was not delivered, and unknown ones. Browsers and HTTP libraries send those again by themselves, and
 * without a mark; the same submit of the same subject then gets the first's answer, and nothing is made.
 *
 * Each serves one repeat at a time. Four equal submits on four living connections are four tasks; four lost ones serve four
 * repeats. A submit whose replica has died, or was started again, is lost too. `TaskLedger.reserve` looks here as well,
 * in its own atomic step.
 */
export interface Repeats {
  /**
   * Gives this call one of those that it may be the repeat of, until `end`; asked again, it gives the same one as it is
   * by then. `pending`: it still runs, or it is not known yet whether its replica does: ask again. `null`: there is none,
   * or what was taken before has come to nothing. Throws `GW_STORE_DOWN`.
   */
  take (subject: string, repeat: Repeat): Promise<Earlier | null>
  /** The call is over that had taken one. `isDelivered`: its caller has the task, and the next one gets another. Throws `GW_STORE_DOWN`. */
  end (subject: string, repeat: Repeat, isDelivered: boolean): Promise<void>
  /** The caller of this submit has its answer. Written when something else is, at the latest seconds later. */
  delivered (id: ReservationId): void
  /** The caller of this submit has gone without an answer; this one, if it is known. Holds from the call on; resolves when it is written. */
  undelivered (id: ReservationId, answer?: KeptAnswer): Promise<void>
  /** Subjects that have had more than `maxRepeats`, since this was last asked. */
  crowded (): readonly string[]
}
