import type { Fault } from './books.ts'
import { type Clock, hourMs, sliceMs } from './time.ts'

/** What a verification of the ledger came to. */
export interface Verified {
  readonly subjects: number
  /** Rows that were looked at. */
  readonly tasks: number
  /** Of subjects that changed each time while they were read. */
  readonly skipped: number
  /** All that were found. */
  readonly count: number
  /** The first of them. */
  readonly faults: readonly Fault[]
}

/** Awaited between two slices of work. */
export type Rest = () => Promise<void>

/** Holds all sums of a store against the rows that they are of. */
export interface LedgerBooks {
  /**
   * Reads all there is, each subject as it is at one instant, and writes nothing. It rests after every few ms of work.
   * Throws `GW_STORE_DOWN`.
   */
  verify (rest: Rest): Promise<Verified>
}

/** More are counted, and not told one by one. */
const maxFaults = 1000

/** What a store has found so far. */
export class Findings implements Verified {
  subjects = 0
  tasks = 0
  skipped = 0
  count = 0
  readonly faults: Fault[] = []

  add (faults: readonly Fault[]): void {
    this.count += faults.length
    this.faults.push(...faults.slice(0, maxFaults - this.faults.length))
  }
}

/** How often the books are looked through, ms; and how long after a start first. */
const everyMs = hourMs
const firstMs = 600_000

/** How long it rests after a slice of work, for the sake of requests, ms. */
const restMs = 4 * sliceMs

interface VerificationOptions extends Pick<Clock, 'elapsed'> {
  readonly books: LedgerBooks
  /** As `Store.leads`: one of all replicas looks. */
  readonly leads: () => Promise<boolean>
  readonly wait: (ms: number) => Promise<unknown>
  /** Told of each that came to its end. `seconds`: how long it took. */
  readonly onVerified: (verified: Verified, seconds: number) => void
  readonly onFailed: (error: unknown) => void
}

/** Verifies the ledger every hour, beside everything else that the process does. */
export interface Verification {
  /** Begins one if it is time; nobody waits for its end. Rejects with `GW_STORE_DOWN`. */
  runDue (): Promise<void>
  /** Resolves when the one that runs has ended, which is soon. */
  close (): Promise<void>
}

/** It is closed while it runs. */
class Closed extends Error {}

export function verification (
  { books, leads, elapsed, wait, onVerified, onFailed }: VerificationOptions
): Verification {
  let dueAt = elapsed() + firstMs
  let running: Promise<void> | null = null
  let isClosed = false

  const rest: Rest = async () => {
    await wait(restMs)
    if (isClosed) throw new Closed()
  }
  const run = async (): Promise<void> => {
    const begun = elapsed()
    try {
      const verified = await books.verify(rest)
      onVerified(verified, (elapsed() - begun) / 1000)
    } catch (error) {
      if (!isClosed) onFailed(error)
    }
  }

  return {
    async runDue () {
      if (running !== null || isClosed || elapsed() < dueAt || !await leads()) return
      dueAt = elapsed() + everyMs
      running = run().finally(() => { running = null })
    },
    async close () {
      isClosed = true
      await running
    }
  }
}
