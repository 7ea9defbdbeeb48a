import { gatewayError, isGatewayError } from '../../errors.ts'
import type { ReservationId, Step, TaskLedger } from './ledger.ts'

/**
 * Writes what has already happened upstream. A store that dies between the upstream's answer and our note of it must
 * not make a paid task ownerless, so a step is tried again while the caller waits, and after that in the background.
 */
export interface PatientLedger {
  /** As `TaskLedger.advance`; throws `GW_OUTCOME_UNKNOWN` when the store has not come back in time. The step is kept. */
  advance (id: ReservationId, step: Step): Promise<boolean>
  /**
   * Keeps the end of a reservation that has no task: nobody waits for it, and nobody is alarmed. In a long outage the
   * later ones are left to their leases, after which they are unknown.
   */
  owe (id: ReservationId, step: Extract<Step, { to: 'released' | 'unknown' }>): void
  /** Ends all waits for the store, now and from now on: their steps are kept. */
  hurry (): void
  /** Tries all kept steps once more, in order. */
  retry (): Promise<void>
  /** Steps still to be written. */
  readonly owed: number
}

export interface PatientLedgerOptions {
  readonly ledger: TaskLedger
  /** Monotonic ms. */
  readonly elapsed: () => number
  readonly wait: (ms: number) => Promise<unknown>
  /** How long a reply waits for the store, ms. */
  readonly patienceMs: number
  /** Told once for each step that outlived the patience: the operator's alarm. */
  readonly onOwed: (id: ReservationId, step: Step) => void
}

/** A long outage shall not fill the memory with submits that never were. */
const maxOwed = 10_000

export function patientLedger ({ ledger, elapsed, wait, patienceMs, onOwed }: PatientLedgerOptions): PatientLedger {
  const owed: Array<{ readonly id: ReservationId, readonly step: Step }> = []
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
    owe (id, step) {
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
    get owed () { return owed.length }
  }
}

function isStoreDown (error: unknown): boolean {
  return isGatewayError(error) && error.code === 'GW_STORE_DOWN'
}
