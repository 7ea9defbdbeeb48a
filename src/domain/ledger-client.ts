import { gatewayError, isGatewayError } from '../errors.ts'
import type {
  Completion, ReservationId, ReserveRequest, StoredResponse, TaskLedger, Transition
} from './ledger.ts'
import type { Microcredits } from './policy.ts'
import { after } from './time.ts'

type LedgerCalls = Pick<TaskLedger, 'reserve' | 'reserveAll' | 'settle' | 'taskOf' | 'giveUp' | 'abandon' | 'sweep'>

/**
 * The ledger as the rest of the gateway uses it. It counts what becomes of credits, and it writes what has already
 * happened upstream: a store that dies between the upstream's answer and our note of it must not make a paid task
 * ownerless, so such a step is tried again while the caller waits, and after that in the background.
 *
 * `claim`, `release`, `markUsed` and `markUnknown` throw `GW_OUTCOME_UNKNOWN` when the store has not come back in time;
 * the step is kept. All else throws `GW_STORE_DOWN`, as `TaskLedger` does.
 */
export interface LedgerClient extends LedgerCalls {
  /**
   * Just before the call, with the key it is made with: nothing may be sent until this has resolved. `false`: the
   * reservation has lapsed. A store that fails here may have noted it all the same: it is told, when it is back, that
   * nothing was sent.
   */
  markSent (id: ReservationId, keyId: string, callbackHash?: string | undefined): Promise<boolean>
  /**
   * What was sent is still under way: its lease begins anew. It never fails; a lease that ends all the same makes it
   * unknown.
   */
  keepSent (id: ReservationId, keyId: string): void
  /** As `markSent`; of a batch, all are sent or all are given back. */
  markAllSent (ids: readonly ReservationId[], keyId: string): Promise<boolean>
  /**
   * The upstream has made this task. `false`: it belongs to another reservation, or this one can't have a task any
   * more. `answer`: what its idempotency key replays, or its repeat gets if its caller has gone.
   */
  claim (id: ReservationId, taskId: string, answer?: StoredResponse | undefined): Promise<boolean>
  /**
   * Nothing was accepted. With an answer the idempotency key replays that, without one the key is free again. `false`:
   * it had another end already.
   */
  release (id: ReservationId, answer?: StoredResponse | undefined): Promise<boolean>
  /**
   * A call that makes no task is over, and cost that much: as `used` of `Transition`. `false`: it had another end
   * already.
   */
  markUsed (id: ReservationId, microcredits: Microcredits, isEstimate: boolean): Promise<boolean>
  /** The upstream may have accepted it. `false`: it had another end already. */
  markUnknown (id: ReservationId): Promise<boolean>
  /** As `markUnknown`, but tried once: its caller hears of something else, and a store that is down has it later. */
  markUnknownLater (id: ReservationId): Promise<void>
  /** Ends all waits for the store, now and from now on: their steps are kept. */
  hurry (): void
  /** Tries all kept steps once more, in order. Throws `GW_STORE_DOWN`. */
  retry (): Promise<void>
  /** Steps still to be written. */
  readonly pending: number
}

interface LedgerClientOptions extends RetryOptions {
  readonly metrics: CreditMetrics
  /** Told once of each task that has ended well, by the replica that ended it. Nothing waits for it. */
  readonly onSucceeded: (taskId: string) => void
}

export function ledgerClient (ledger: TaskLedger, options: LedgerClientOptions): LedgerClient {
  const { metrics, onSucceeded } = options
  const open = openReservations(metrics)

  const { note } = open
  const { insist, tryOnce, enqueue, hurry, retry, pending } = retrying(ledger, note, options)
  const giveBack = async (ids: readonly ReservationId[]): Promise<void> => {
    await Promise.all(ids.map(id => tryOnce(id, { to: 'released' })))
  }

  return {
    reserve: request => after(ledger.reserve(request), reserved => {
      if (reserved.granted) open.add(reserved.id, request)
      return reserved
    }),
    async reserveAll (requests) {
      const reserved = await ledger.reserveAll(requests)
      if (reserved.granted) reserved.ids.forEach((id, index) => open.add(id, requests[index]!))
      return reserved
    },
    async markSent (id, keyId, callbackHash) {
      const step = { to: 'sent', keyId, callbackHash } as const
      try {
        return note(id, step, await ledger.advance(id, step))
      } catch (error) {
        enqueue(id, { to: 'released' })
        throw error
      }
    },
    keepSent (id, keyId) {
      ledger.advance(id, { to: 'sent', keyId }).catch(() => { /* the next time it is told again */ })
    },
    async markAllSent (ids, keyId) {
      const step = { to: 'sent', keyId } as const
      const noted = await Promise.allSettled(ids.map(async id => note(id, step, await ledger.advance(id, step))))
      const areSent = noted.every(one => one.status === 'fulfilled' && one.value)
      if (!areSent) await giveBack(ids)
      throwFirst(noted)
      return areSent
    },
    claim: (id, taskId, answer) => insist(id, { to: 'claimed', taskId, answer }),
    release: (id, answer) => insist(id, { to: 'released', answer }),
    markUsed: (id, microcredits, isEstimate) => insist(id, { to: 'used', microcredits, isEstimate }),
    markUnknown: id => insist(id, { to: 'unknown' }),
    markUnknownLater: id => tryOnce(id, { to: 'unknown' }),
    async settle (completion) {
      const isFirst = await ledger.settle(completion)
      if (isFirst && completion.state === 'success') onSucceeded(completion.taskId)
      if (isFirst && completion.state === 'failed') await countFailed(ledger, completion, metrics)
      return isFirst
    },
    taskOf: ledger.taskOf,
    async giveUp (taskId) {
      const isLost = await ledger.giveUp(taskId)
      if (isLost) metrics.unknown(1)
      return isLost
    },
    abandon: ledger.abandon,
    async sweep () {
      const swept = await ledger.sweep()
      metrics.unknown(swept.unknown)
      return swept
    },
    hurry,
    retry,
    get pending () { return pending() }
  }
}

/** Throws what the first of them failed with, if any did. */
export function throwFirst (results: ReadonlyArray<PromiseSettledResult<unknown>>): void {
  const failed = results.find(result => result.status === 'rejected')
  if (failed !== undefined) throw failed.reason
}

/**
 * What became of credits. reserved: set aside for a submit · then one of these three: charged (its task has an owner),
 * released (nothing was accepted), unknown (kept: the upstream may have accepted it) · failed: of a charged task that
 * failed; given back as `onFailed` and `refundsPerPeriod` say.
 */
type CreditOutcome = 'reserved' | 'charged' | 'released' | 'unknown' | 'failed'

/** Told what happens to money. */
export interface CreditMetrics {
  credits (operation: string, outcome: CreditOutcome, microcredits: Microcredits): void
  /** So many more submits or tasks have no known end. */
  unknown (count: number): void
}

/** `sent` and `used` are here for a reservation that they were not open to any more: it had lapsed, or was let go. */
const ends = {
  sent: 'released', released: 'released', claimed: 'charged', unknown: 'unknown', used: 'unknown'
} as const

/**
 * Submits that are under way, more than there can be: those without an end are the oldest, and are not counted then.
 */
const maxOpen = 10_000

/** Counts the credits of the reservations that were made through this process, once each. */
function openReservations (metrics: CreditMetrics) {
  const open = new Map<ReservationId, ReserveRequest>()
  return {
    add (id: ReservationId, request: ReserveRequest): void {
      open.set(id, request)
      if (open.size > maxOpen) open.delete(open.keys().next().value!)
      metrics.credits(request.operation, 'reserved', request.microcredits)
    },
    /** Gives back whether the step was taken. */
    note (id: ReservationId, step: Transition, isTaken: boolean): boolean {
      const request = open.get(id)
      // A second `sent` changes nothing. A claim the ledger rejected is not counted here: what follows it is.
      if (request === undefined || step.to === (isTaken ? 'sent' : 'claimed')) return isTaken
      open.delete(id)
      if (step.to === 'used' && isTaken) metrics.credits(request.operation, 'charged', step.microcredits)
      else metrics.credits(request.operation, ends[step.to], request.microcredits)
      if (step.to === 'unknown' && isTaken) metrics.unknown(1)
      return isTaken
    }
  }
}

/** It is settled, whether or not it can be counted. */
async function countFailed (ledger: TaskLedger, { taskId }: Completion, metrics: CreditMetrics): Promise<void> {
  const task = await Promise.try(() => ledger.taskOf(taskId)).catch(() => null)
  if (task !== null) metrics.credits(task.operation, 'failed', task.microcredits)
}

interface RetryOptions {
  /** Monotonic ms. */
  readonly elapsed: () => number
  readonly wait: (ms: number) => Promise<unknown>
  /** How long a reply waits for the store, ms. */
  readonly patienceMs: number
  /** Told once for each step that outlived the patience: the operator's alarm. */
  readonly onDelayed: (id: ReservationId, step: Transition) => void
}

/** The end of a reservation that has no task. */
type EndWithoutTask = Extract<Transition, { to: 'released' | 'unknown' }>

/** A long outage shall not fill the memory with submits that never were. */
const maxQueued = 10_000

/** Writes steps that a store has not taken: while the caller waits, and later. */
function retrying (
  ledger: Pick<TaskLedger, 'advance'>,
  note: (id: ReservationId, step: Transition, isTaken: boolean) => boolean,
  { elapsed, wait, patienceMs, onDelayed }: RetryOptions
) {
  const queue: Array<{ readonly id: ReservationId, readonly step: Transition }> = []
  const hurried = Promise.withResolvers<void>()
  let isHurried = false

  /**
   * Nobody waits for it, and nobody is alarmed. In a long outage the later ones are left to their leases, after which
   * they are unknown.
   */
  const enqueue = (id: ReservationId, step: EndWithoutTask): void => {
    if (queue.length < maxQueued) queue.push({ id, step })
  }

  return {
    /** Waits for the store. Throws `GW_OUTCOME_UNKNOWN`, and keeps the step, when it has not come back in time. */
    async insist (id: ReservationId, step: Transition): Promise<boolean> {
      const deadline = elapsed() + patienceMs
      for (let pauseMs = 50; ; pauseMs = Math.min(pauseMs * 2, 1000)) {
        try {
          return note(id, step, await ledger.advance(id, step))
        } catch (error) {
          if (!isStoreDown(error)) throw error
          if (isHurried || elapsed() + pauseMs > deadline) break
        }
        await Promise.race([wait(pauseMs), hurried.promise])
      }
      queue.push({ id, step })
      onDelayed(id, step)
      throw gatewayError('GW_OUTCOME_UNKNOWN', { shouldRetry: false })
    },
    enqueue,
    async tryOnce (id: ReservationId, step: EndWithoutTask): Promise<void> {
      try {
        note(id, step, await ledger.advance(id, step))
      } catch {
        enqueue(id, step)
      }
    },
    hurry (): void {
      isHurried = true
      hurried.resolve()
    },
    async retry (): Promise<void> {
      while (queue.length > 0) {
        const { id, step } = queue[0]!
        note(id, step, await ledger.advance(id, step))
        queue.shift()
      }
    },
    pending: (): number => queue.length
  }
}

function isStoreDown (error: unknown): boolean {
  return isGatewayError(error) && error.code === 'GW_STORE_DOWN'
}
