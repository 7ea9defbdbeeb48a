import {
  creditsFrom, idempotencyMs, type LedgerTerms, type ReservationId, type SessionSpent, type Stage
} from './ledger.ts'
import type { Microcredits } from './policy.ts'
import { dayMs, hourMs, instant } from './time.ts'
import type { FinalState } from './upstream.ts'

/**
 * The books of a ledger: it writes down what each reservation has cost, and again the sums of that, because nobody can
 * add up a million rows at each submit. Here the two are held against each other, subject by subject.
 */

/** What can be wrong, and what the operator does about it. Nothing is repaired by itself: which side is right? */
export const remedies = {
  period: 'What it may still spend goes by that sum until the period ends; a grant gives back what it lacks.',
  grants: 'What is left goes by that sum; if it is too low, grant the difference.',
  ceiling: 'The ceiling goes by that sum until its window ends; an extra gives back what it lacks.',
  session: 'That session goes by its sums; if they are too high, mint another one.',
  slot: 'Until this is put right in the store, the subject has one slot too few or too many.',
  running: 'Until this is put right in the store, that account has room for one running task too few or too many.',
  lease: 'No sweep has ended it: look for errors of the housekeeping in the log.',
  owner: 'Nobody can read that task: bring back the store from a copy, or tell its caller.',
  key: 'A submit with that key is answered as if its outcome were unknown: its caller must use another key.',
  tasks: 'Rows of the ledger are lost: bring back the store from a copy.'
} as const

export type FaultKind = keyof typeof remedies

/** A place where the books do not agree. */
export interface Fault {
  readonly kind: FaultKind
  /** `null`: of no subject. */
  readonly subject: string | null
  /** In plain words, without the subject. */
  readonly problem: string
}

/** A line for people: what is wrong, and what to do. */
export function faultText ({ kind, subject, problem }: Fault): string {
  return `${subject === null ? '' : `${subject}: `}${problem}. ${remedies[kind]}`
}

/** A row of the ledger, as far as the books speak of it. */
export interface BookEntry {
  readonly name: ReservationId
  readonly stage: Stage
  readonly state: FinalState | null
  readonly taskId: string | null
  readonly periodStart: number
  readonly fromPeriod: Microcredits
  readonly fromGrants: Microcredits
  /** It is not charged any more. */
  readonly refunded: boolean
  /** `SessionBudget.id` */
  readonly sessionId: string | null
  /** It counts as unfinished. */
  readonly isOpen: boolean
  /** Until when it may stay so, Unix ms. */
  readonly leaseUntil: number
}

/** What an idempotency key leads to. */
export interface BookKey {
  readonly key: string
  readonly createdAt: number
  /** Its answer was kept: no row is needed any more. */
  readonly isAnswered: boolean
  /** Whose the row of its reservation is; `null`: there is none. */
  readonly owner: string | null
}

/** The sums of a subject, which its rows should come to. */
export interface SubjectSums {
  /** What is used of each period, by its start. */
  readonly periods: ReadonlyMap<number, Microcredits>
  /** Whether the store still has this period, if anything was spent in it. */
  isPeriodKept (start: number): boolean
  /** What is left of all grants. */
  readonly granted: Microcredits
  /** What was ever granted, and since when (Unix ms). */
  readonly grants: { readonly sum: Microcredits, readonly since: number }
  /** By `SessionBudget.id`. */
  readonly sessions: ReadonlyMap<string, SessionSpent>
  /**
   * At most so many tasks and credits are of rows that retention has ended, of tasks made at `from` or later and before
   * `to` (Unix ms): infinitely many, where that is not known any more.
   */
  forgotten (from: number, to: number): SessionSpent
}

/** How many tasks a store has counted of a day, and of how many it has the rows. */
export interface BookDay {
  /** Unix ms of its beginning, UTC. */
  readonly start: number
  readonly counted: number
  readonly rows: number
}

/** What else the rows are held against. */
export interface BookTerms extends Pick<LedgerTerms, 'retentionMs' | 'sentMs'> {
  readonly now: number
  /** The sum of a period has what is unfinished in it as well, and not only what has ended. */
  readonly periodsHoldOpen: boolean
  /** A gateway runs, so what overstays is swept. */
  readonly isSwept: boolean
}

/** `tasks.retentionDays` is at least one. */
export const shortestRetentionMs = dayMs
/** Longer than the longest period, and than any session that has limits of its own, ms. */
const longestPeriodMs = 32 * dayMs
const longestSessionMs = 366 * dayMs

/** The least and the most that rows come to. They differ by rows of which it can't be said. */
interface Bounds { least: number, most: number }

/** Adds up the rows of one subject, in any order, and then holds its sums against them. */
export class SubjectBooks {
  readonly #subject: string
  readonly #terms: BookTerms
  readonly #faults: Fault[] = []
  readonly #periods = new Map<number, Bounds>()
  readonly #fromGrants: Bounds = { least: 0, most: 0 }
  readonly #sessions = new Map<string, { readonly uses: Bounds, readonly microcredits: Bounds }>()

  constructor (subject: string, terms: BookTerms) {
    this.#subject = subject
    this.#terms = terms
  }

  add (entry: BookEntry): void {
    const { stage, taskId, refunded, isOpen, leaseUntil } = entry
    const shouldBeOpen = stage === 'reserved' || stage === 'sent' || stage === 'claimed'
    if (isOpen !== shouldBeOpen) {
      this.#report('slot', `${nameOf(entry)} is ${stage}, and ${isOpen ? 'takes a slot all the same' : 'takes no slot'}`)
    }
    if (this.#subject === '') this.#report('owner', `${nameOf(entry)} is of no subject`)
    else if (taskId === null && stage === 'claimed') { // a call without a task has none when it is settled
      this.#report('owner', `${nameOf(entry)} is ${stage}, and its task id is lost`)
    }
    // A round of the housekeeping may wait for the upstream, as long as a submit at the most.
    if (isOpen && shouldBeOpen && this.#terms.isSwept && leaseUntil + this.#terms.sentMs < this.#terms.now) {
      this.#report('lease', `${nameOf(entry)} is ${stage}, and should have ended by ${instant(leaseUntil)}`)
    }
    this.#charge(entry, isOpen === shouldBeOpen, refunded)
  }

  addKey ({ key, createdAt, isAnswered, owner }: BookKey): void {
    const { retentionMs, now } = this.#terms
    const isForgotten = createdAt + Math.min(retentionMs, idempotencyMs) <= now
    if (owner === null && !isAnswered && !isForgotten) {
      this.#report('key', `its idempotency key ${JSON.stringify(key)} leads to no reservation`)
    } else if (owner !== null && owner !== this.#subject) {
      this.#report('key', `its idempotency key ${JSON.stringify(key)} leads to a reservation of ${owner || 'nobody'}`)
    }
  }

  /** A slot that is taken by this reservation, which is not there. */
  addEmptySlot (name: ReservationId): void {
    this.#report('slot', `a slot is taken by the reservation ${name}, which is not there`)
  }

  /**
   * Days on which tasks were made. Rows go in the order in which they were made: one that is missing among others, or
   * is younger than the shortest retention, is lost.
   */
  addDays (days: readonly BookDay[]): void {
    const { now, retentionMs } = this.#terms
    const oldest = Math.min(...days.filter(({ rows }) => rows > 0).map(({ start }) => start))
    for (const { start, counted, rows } of days) {
      const isKept = start > now - retentionMs && (start > oldest || start > now - shortestRetentionMs)
      if (rows > counted || (rows < counted && isKept)) {
        this.#report('tasks', `${counted} tasks were counted on ${instant(start).slice(0, 10)}, and ${rows} are there`)
      }
    }
  }

  /** A task whose id leads to another reservation, or to none. */
  addStray (taskId: string, problem: string): void {
    this.#report('owner', `task ${taskId} ${problem}`)
  }

  /** All that does not agree, when all rows and keys were added. */
  faults (sums: SubjectSums): readonly Fault[] {
    if (this.#subject !== '') {
      this.#checkPeriods(sums)
      this.#checkGrants(sums)
      this.#checkSessions(sums)
    }
    return this.#faults
  }

  #charge (entry: BookEntry, isSure: boolean, refunded: boolean): void {
    const { stage, state, periodStart, fromPeriod, fromGrants, sessionId, isOpen } = entry
    const charged = refunded ? 0 : 1
    if (this.#terms.periodsHoldOpen || !isOpen || !isSure) {
      count(boundsOf(this.#periods, periodStart), charged * fromPeriod, isSure)
    }
    count(this.#fromGrants, charged * fromGrants, true)
    if (sessionId === null) return
    const session = this.#sessions.get(sessionId) ??
      { uses: { least: 0, most: 0 }, microcredits: { least: 0, most: 0 } }
    this.#sessions.set(sessionId, session)
    count(session.microcredits, charged * (fromPeriod + fromGrants), true)
    // An operator who lets one go gives its use back, a refund does not; and one that was let go may still fail.
    if (!refunded) count(session.uses, 1, true)
    else if (stage === 'settled' && state === 'failed') count(session.uses, 1, false)
  }

  #checkPeriods (sums: SubjectSums): void {
    for (const start of new Set([...this.#periods.keys(), ...sums.periods.keys()])) {
      const used = sums.periods.get(start)
      if (used === undefined && !sums.isPeriodKept(start)) continue
      const rows = this.#periods.get(start) ?? { least: 0, most: 0 }
      const forgotten = () => sums.forgotten(start, start + longestPeriodMs).microcredits
      this.#check('period', used ?? 0, rows, forgotten, (is, should) =>
        `of its period since ${instant(start)} ${creditsFrom(is)} credits are used, and its tasks come to ${should}`)
    }
  }

  #checkGrants ({ granted, grants, forgotten }: SubjectSums): void {
    const ever = () => forgotten(grants.since, Infinity).microcredits
    this.#check('grants', grants.sum - granted, this.#fromGrants, ever, (is, should) =>
      `of ${creditsFrom(grants.sum)} credits granted ${creditsFrom(granted)} are left, ` +
      `so ${creditsFrom(is)} are used, and its tasks come to ${should}`)
  }

  #checkSessions ({ sessions, forgotten }: SubjectSums): void {
    const ever = () => forgotten(this.#terms.now - longestSessionMs, Infinity)
    for (const [id, { uses, microcredits }] of sessions) {
      const rows = this.#sessions.get(id) ?? { uses: { least: 0, most: 0 }, microcredits: { least: 0, most: 0 } }
      const text = (is: string, should: string) => `the session ${id} has taken ${is}, and its tasks come to ${should}`
      const before = this.#faults.length
      this.#check('session', microcredits, rows.microcredits, () => ever().microcredits, (is, should) =>
        text(`${creditsFrom(is)} credits`, should))
      if (this.#faults.length > before) continue
      this.#check('session', uses, rows.uses, () => ever().uses, (is, should) =>
        text(`${is} uses`, should), count => count)
    }
  }

  /** `forgotten` is asked only when the rows that are there don't come to the sum. */
  #check (
    kind: FaultKind,
    sum: number,
    { least, most }: Bounds,
    forgotten: () => number,
    text: (is: number, should: string) => string,
    shown: (amount: number) => number = creditsFrom
  ): void {
    // Sums stop at what can be counted, and what goes back after that is lost.
    if (most >= Number.MAX_SAFE_INTEGER || Math.abs(sum) >= Number.MAX_SAFE_INTEGER) return
    if (sum >= least && (sum <= most || sum <= most + forgotten())) return
    const isTooLow = sum < least
    const bound = isTooLow ? least : most + forgotten()
    this.#report(kind, text(sum, least === bound ? `${shown(bound)}` : `at most ${shown(bound)}`))
  }

  #report (kind: FaultKind, problem: string): void {
    this.#faults.push({ kind, subject: this.#subject === '' ? null : this.#subject, problem })
  }
}

/** What the books say of a window above the subjects, and what the rows that hold it come to. */
export interface WindowSums {
  /** As in `Hold`. */
  readonly account: string
  readonly window: string
  readonly used: Microcredits
  readonly rows: Microcredits
}

/** `forgotten`: at most so much is of rows that retention has ended; asked only when the rows don't come to the sum. */
export function windowFaults (
  { account, window, used, rows }: WindowSums, forgotten: () => Microcredits
): readonly Fault[] {
  if (Math.max(used, rows) >= Number.MAX_SAFE_INTEGER) return []
  if (used === rows || (used > rows && used <= rows + forgotten())) return []
  const should = `${creditsFrom(rows)}${used > rows && forgotten() > 0 ? ' and what was forgotten' : ''}`
  const problem = `of ${account} ${creditsFrom(used)} credits are used in ${window}, and its tasks come to ${should}`
  return [{ kind: 'ceiling', subject: null, problem }]
}

/** A window of this name has not begun earlier, Unix ms. It ends at `endsAt`; `null`: never. */
export function windowStart (window: string, endsAt: number | null): number {
  const kind = window.split(':')[0]!
  return endsAt === null ? 0 : endsAt - (longestMs[kind] ?? longestMs['month']!)
}

/** A window of this name has neither begun nor ended earlier, Unix ms; `NaN` if the name does not say when. */
export function earliestOf (window: string): { readonly startsAt: number, readonly endsAt: number } {
  if (window === 'none') return { startsAt: 0, endsAt: Infinity }
  const [kind, ...start] = window.split(':')
  const startsAt = Date.parse(start.join(':')) - aheadMs
  return { startsAt, endsAt: startsAt + (shortestMs[kind!] ?? NaN) }
}

/** So far zones are ahead of UTC at the most. */
const aheadMs = 14 * hourMs
const shortestMs: Readonly<Record<string, number>> = { hour: 0, day: dayMs, week: 7 * dayMs, month: 28 * dayMs }

/** With an hour for the end of summer. */
const longestMs: Readonly<Record<string, number>> = {
  hour: hourMs, day: dayMs + hourMs, week: 7 * dayMs + hourMs, month: 31 * dayMs + hourMs
}

/** For people. */
export function nameOf ({ name, taskId }: BookEntry): string {
  return taskId === null ? `reservation ${name}` : `task ${taskId}`
}

function boundsOf<Name> (all: Map<Name, Bounds>, name: Name): Bounds {
  const bounds = all.get(name) ?? { least: 0, most: 0 }
  all.set(name, bounds)
  return bounds
}

function count (bounds: Bounds, amount: number, isSure: boolean): void {
  bounds.most += amount
  if (isSure) bounds.least += amount
}
