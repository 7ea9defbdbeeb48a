import { gatewayError, isGatewayError } from '../errors.ts'
import type { ReserveRequest, ReservationId, Transition, TaskLedger } from './ledger.ts'
import type { Microcredits } from './policy.ts'

/**
 * A ledger that has the results of each task kept, once, by whichever replica ended it. The task's end waits for
 * nothing.
 */
export function keepingLedger (ledger: TaskLedger, keep: (taskId: string) => void): TaskLedger {
  return {
    ...ledger,
    async settle (ending) {
      const isFirst = await ledger.settle(ending)
      if (isFirst && ending.state === 'success') keep(ending.taskId)
      return isFirst
    }
  }
}

/**
 * What became of credits. reserved: set aside for a submit · then one of these three: charged (its task has an owner),
 * released (nothing was accepted), unknown (kept: the upstream may have accepted it) · failed: of a charged task that
 * failed; given back as `onFailed` and `refundsPerPeriod` say.
 */
export type CreditOutcome = 'reserved' | 'charged' | 'released' | 'unknown' | 'failed'

/** Told what happens to money. */
export interface CreditMetrics {
  credits (operation: string, outcome: CreditOutcome, microcredits: Microcredits): void
  /** So many more submits or tasks have no known end. */
  unknown (count: number): void
}

/**
 * Submits that are under way, more than there can be: those without an end are the oldest, and are not counted then.
 */
const maxOpen = 10_000

/** The same ledger, with a meter that counts what goes through this process. */
export function meteredLedger (ledger: TaskLedger, meter: CreditMetrics): TaskLedger {
  const open = new Map<ReservationId, ReserveRequest>()

  const note = (id: ReservationId, step: Transition, taken: boolean): void => {
    const demand = open.get(id)
    // Twice sent is sent; and a claim that was not open to it is followed by what it became.
    if (demand === undefined || step.to === (taken ? 'sent' : 'claimed')) return
    open.delete(id)
    meter.credits(demand.operation, ends[step.to], demand.microcredits)
    if (step.to === 'unknown' && taken) meter.unknown(1)
  }

  return {
    ...ledger,
    async reserve (demand) {
      const reserved = await ledger.reserve(demand)
      if (reserved.granted) {
        open.set(reserved.id, demand)
        if (open.size > maxOpen) open.delete(open.keys().next().value!)
        meter.credits(demand.operation, 'reserved', demand.microcredits)
      }
      return reserved
    },
    async advance (id, step) {
      const taken = await ledger.advance(id, step)
      note(id, step, taken)
      return taken
    },
    async settle (ending) {
      const ended = await ledger.settle(ending)
      if (ended && ending.state === 'failed') {
        const task = await ledger.taskOf(ending.taskId).catch(() => null) // it is settled, whether or not it is counted
        if (task !== null) meter.credits(task.operation, 'failed', task.microcredits)
      }
      return ended
    },
    async giveUp (taskId) {
      const isLost = await ledger.giveUp(taskId)
      if (isLost) meter.unknown(1)
      return isLost
    },
    async sweep () {
      const swept = await ledger.sweep()
      meter.unknown(swept.unknown)
      return swept
    }
  }
}

/** `sent` is here for a reservation that could not be sent any more: it had lapsed. */
const ends = { sent: 'released', released: 'released', claimed: 'charged', unknown: 'unknown' } as const

/**
 * Writes what has already happened upstream. A store that dies between the upstream's answer and our note of it must
 * not make a paid task ownerless, so a step is tried again while the caller waits, and after that in the background.
 */
export interface PatientLedger {
  /**
   * As `TaskLedger.advance`; throws `GW_OUTCOME_UNKNOWN` when the store has not come back in time. The step is kept.
   */
  advance (id: ReservationId, step: Transition): Promise<boolean>
  /**
   * Keeps the end of a reservation that has no task: nobody waits for it, and nobody is alarmed. In a long outage the
   * later ones are left to their leases, after which they are unknown.
   */
  enqueue (id: ReservationId, step: Extract<Transition, { to: 'released' | 'unknown' }>): void
  /** Ends all waits for the store, now and from now on: their steps are kept. */
  hurry (): void
  /** Tries all kept steps once more, in order. */
  retry (): Promise<void>
  /** Steps still to be written. */
  readonly pending: number
}

export interface PatientLedgerOptions {
  readonly ledger: TaskLedger
  /** Monotonic ms. */
  readonly elapsed: () => number
  readonly wait: (ms: number) => Promise<unknown>
  /** How long a reply waits for the store, ms. */
  readonly patienceMs: number
  /** Told once for each step that outlived the patience: the operator's alarm. */
  readonly onOwed: (id: ReservationId, step: Transition) => void
}

/** A long outage shall not fill the memory with submits that never were. */
const maxOwed = 10_000

export function patientLedger ({ ledger, elapsed, wait, patienceMs, onOwed }: PatientLedgerOptions): PatientLedger {
  const owed: Array<{ readonly id: ReservationId, readonly step: Transition }> = []
  const hurried = Promise.withResolvers<void>()
  let isHurried = false

  return {
    async advance (id, step) {
      const deadline = elapsed() + patienceMs
      for (let pauseMs = 50; ; pauseMs = Math.min(pauseMs * 2, 1000)) {
        try {
          return await ledger.advance(id, step)
        } catch (error) {
          if (!isStoreDown(error)) throw error
          if (isHurried || elapsed() + pauseMs > deadline) break
        }
        await Promise.race([wait(pauseMs), hurried.promise])
      }
      owed.push({ id, step })
      onOwed(id, step)
      throw gatewayError('GW_OUTCOME_UNKNOWN', { shouldRetry: false })
    },
    enqueue (id, step) {
      if (owed.length < maxOwed) owed.push({ id, step })
    },
    hurry () {
      isHurried = true
      hurried.resolve()
    },
    async retry () {
      while (owed.length > 0) {
        const { id, step } = owed[0]!
        await ledger.advance(id, step)
        owed.shift()
      }
    },
    get pending () { return owed.length }
  }
}

function isStoreDown (error: unknown): boolean {
  return isGatewayError(error) && error.code === 'GW_STORE_DOWN'
}
