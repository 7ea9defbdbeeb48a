import type { Microcredits } from '../policy/pricing.ts'
import type { Demand, ReservationId, Step, TaskLedger } from './ledger.ts'

/**
 * What became of credits. reserved: set aside for a submit · then one of these three: charged (its task has an owner),
 * released (nothing was accepted), unknown (kept: the upstream may have accepted it) · failed: of a charged task that
 * failed; given back as `onFailed` and `refundsPerPeriod` say.
 */
export type CreditOutcome = 'reserved' | 'charged' | 'released' | 'unknown' | 'failed'

/** Told what happens to money. */
export interface CreditMeter {
  credits (operation: string, outcome: CreditOutcome, microcredits: Microcredits): void
  /** So many more submits or tasks have no known end. */
  unknown (count: number): void
}

/** Submits that are under way, more than there can be: those without an end are the oldest, and are not counted then. */
const maxOpen = 10_000

/** The same ledger, with a meter that counts what goes through this process. */
export function meteredLedger (ledger: TaskLedger, meter: CreditMeter): TaskLedger {
  const open = new Map<ReservationId, Demand>()

  const note = (id: ReservationId, step: Step, taken: boolean): void => {
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
