import type { Demand } from '../../domain/ledger.ts'
import type { Microcredits } from '../../domain/pricing.ts'

/**
 * How many unfinished tasks each subject has, and what its mere reservations hold. Counting rows at every submit would
 * need an index that costs as much as all the rest of the ledger (measured: 22 of 46 µs); one server owns the file, so
 * it counts in memory, from the file at start and whenever a transaction is undone.
 */
export interface Tallies {
  unfinished (subject: string): number
  reservedCredits (subject: string, periodStart: number): Microcredits
  reserve (demand: Demand): void
  /** Its credits are in the file now; its slot stays taken. */
  sent (demand: Demand): void
  unreserve (demand: Demand): void
  count (subject: string, change: 1 | -1): void
  /** Counts anew what the file has, and these reservations on top. */
  reload (reserved: readonly Demand[]): void
}

export function tallies (countRows: () => ReadonlyArray<{ readonly subject: string, readonly count: number }>): Tallies {
  const tasks = new Map<string, number>()
  const credits = new Map<string, Microcredits>()
  const add = (map: Map<string, number>, name: string, change: number): void => {
    const sum = (map.get(name) ?? 0) + change
    if (sum === 0) map.delete(name)
    else map.set(name, sum)
  }
  const account = (subject: string, periodStart: number): string => `${periodStart} ${subject}`
  const hold = ({ subject, periodStart, microcredits }: Demand, sign: 1 | -1): void =>
    add(credits, account(subject, periodStart), sign * microcredits)

  const it: Tallies = {
    unfinished: subject => tasks.get(subject) ?? 0,
    reservedCredits: (subject, periodStart) => credits.get(account(subject, periodStart)) ?? 0,
    reserve (demand) {
      add(tasks, demand.subject, 1)
      hold(demand, 1)
    },
    sent: demand => hold(demand, -1),
    unreserve (demand) {
      add(tasks, demand.subject, -1)
      hold(demand, -1)
    },
    count: (subject, change) => add(tasks, subject, change),
    reload (reserved) {
      tasks.clear()
      credits.clear()
      for (const { subject, count } of countRows()) tasks.set(subject, count)
      for (const demand of reserved) it.reserve(demand)
    }
  }
  it.reload([])
  return it
}
