import type { AlarmBook } from './alarms.ts'
import type { AuditTrail } from './audit.ts'
import type { CeilingAccounts } from './ceilings.ts'
import type { CreditsEvents } from './credit-notices.ts'
import type { HeldKeys } from './gone-keys.ts'
import type {
  CreditAccounts, IdempotencyStore, Repeats, ReservationId, Task, TaskLedger, UnfinishedTasks
} from './ledger.ts'
import type { TaskRecords } from './records.ts'
import type { Revocations } from './session.ts'
import type { PollLeases } from './status-poller.ts'
import type { SubjectData } from './subject-data.ts'
import type { TaskEvents } from './task-status.ts'
import type { TokenStore } from './tokens.ts'
import type { UnknownCalls } from './unknown-calls.ts'
import type { UpstreamStates } from './upstream-states.ts'
import type { LedgerBooks } from './verification.ts'
import type { Deliveries } from './webhooks.ts'

/** All that outlives a restart, behind one technology. */
export interface Store {
  /** Submits of an earlier process that were under way when it died, and are *unknown* now. */
  readonly lost: number
  readonly ledger: TaskLedger
  readonly unfinished: UnfinishedTasks
  readonly idempotency: IdempotencyStore
  readonly repeats: Repeats
  readonly callbackSecrets: CallbackSecrets
  readonly deliveries: Deliveries
  readonly accounts: CreditAccounts
  readonly ceilings: CeilingAccounts
  readonly records: TaskRecords
  readonly books: LedgerBooks
  readonly audit: AuditTrail
  readonly alarmBook: AlarmBook
  readonly revocations: Revocations
  readonly subjects: SubjectData
  readonly tokens: TokenStore
  readonly guestCounts: GuestCounts
  readonly spentProofs: SpentProofs
  /** The events of all replicas; `null` where there is only one. */
  readonly events: TaskEvents | null
  /** The same for what is told of credits. */
  readonly creditsEvents: CreditsEvents | null
  /** The poll leases of all replicas; `null` where there is only one. */
  readonly leases: PollLeases | null
  /** The upstream keys that all replicas hold; `null` where there is only one. */
  readonly heldKeys: HeldKeys | null
  /** Counts the requests of subjects for all replicas; `null` where there is only one. */
  readonly rates: RateCounter | null
  /** The calls of all replicas whose outcome was told as unknown; `null` where there is only one. */
  readonly unknownCalls: UnknownCalls | null
  readonly upstreamStates: UpstreamStates
  /** Whether this replica does the work that one of all replicas has to do. Throws `GW_STORE_DOWN`. */
  leads (): Promise<boolean>
  /** Forgets a part of what is past its retention. Throws `GW_STORE_DOWN`. */
  tidy (): Promise<void>
  /** Throws `GW_STORE_DOWN` while the store can't serve. */
  ping (): Promise<void>
  close (): Promise<void>
}

/** A store is probed once in this time, ms, however many callers ask for it. */
const probeEveryMs = 1000

/**
 * A probe of the store that all its callers share: a readiness check is open to strangers, and each would be a write
 * that a Redis may have to sync to its disk. `ping` is run once a second at most, and never twice at a time.
 */
export function sharedProbe (ping: Store['ping'], elapsed: () => number): Store['ping'] {
  let probedAt = -Infinity
  let isRunning = false
  let answer = Promise.resolve()
  return () => {
    if (isRunning || elapsed() - probedAt < probeEveryMs) return answer
    probedAt = elapsed()
    isRunning = true
    answer = ping().finally(() => { isRunning = false })
    return answer
  }
}

/** The reservation that a callback's secret was made for. */
export interface CallbackTarget {
  readonly reservation: ReservationId
  readonly subject: string
  readonly model: string
  /** The key that it was sent with: only its account knows the task. */
  readonly keyId: string
  /** `null` while its id is not known: the submit is on its way, or its answer was lost. */
  readonly task: Task | null
}

/**
 * Finds reservations by the secrets that their callbacks come with. A store knows the hashes alone (`Transition`:
 * sent), so that reading the store is not enough to call back.
 */
export interface CallbackSecrets {
  /** `null`: no reservation has this secret, or none any more. Throws `GW_STORE_DOWN`. */
  reservationOf (secretHash: string): Promise<CallbackTarget | null>
}

/** Remembers which proofs have been used, over all replicas and restarts. */
export interface SpentProofs {
  /**
   * Uses up a proof, in one atomic step that is on disk when it resolves: of N calls at a time exactly one is told
   * `true`. `expiresAt` (Unix ms): it may be forgotten then, and nothing is spent from then on. Throws `GW_STORE_DOWN`.
   */
  spend (id: string, expiresAt: number): Promise<boolean>
}

/** Counts guests, over all replicas and restarts. */
export interface GuestCounts {
  /**
   * Counts one more of that name if there is room for it, in one atomic step that is on disk when it resolves. 0: it is
   * counted; else how long there is no room, ms. Windows are fixed and begin with a first one: at most twice the limit
   * in any. Throws `GW_STORE_DOWN`.
   */
  take (name: string, limit: number, windowMs: number): Promise<number>
  /** Undoes one `take` that has counted. Throws `GW_STORE_DOWN`. */
  putBack (name: string): Promise<void>
}

/** What was counted of a key in the window that is open now. */
export interface RateWindow {
  readonly count: number
  /** Until the next one may begin, ms; 0: none is open. */
  readonly endsInMs: number
}

/**
 * Counts the calls of each key in fixed windows, so that at most twice a limit passes in any time as long as a window.
 * One begins with the first call after the end of the last, and no step of a wall clock makes it longer or shorter. All
 * calls of one key name the same length.
 *
 * A counter in this process answers at once. A promise rejects with `GW_STORE_DOWN` while the store can't count.
 */
export interface RateCounter {
  /** Counts one call, which is in the answer. Each of N parallel calls gets a count of its own. */
  hit (key: string, windowMs: number): RateWindow | Promise<RateWindow>
  /** What a call would find, without counting it. */
  look (key: string, windowMs: number): RateWindow | Promise<RateWindow>
}
