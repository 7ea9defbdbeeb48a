import { badRequest } from '../errors.ts'
import { creditsFrom, fingerprintOf, type ReservationId, type Stage } from './ledger.ts'
import type { Microcredits } from './policy.ts'
import type { TaskFilter } from './task-list.ts'
import { dayMs } from './time.ts'
import type { FinalState } from './upstream.ts'

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
  /** When its owner gave it up, Unix ms. */
  readonly abandonedAt: number | null
}

/** One row in full. */
export interface TaskDetail extends TaskRecord {
  /** The fingerprint of the upstream key that it was sent with. */
  readonly keyId: string
  /** Whether its credits go back if it fails. */
  readonly refundable: boolean
  /** Unix ms: the start of the period whose credits it has. */
  readonly periodStart: number
  /** The part of its credits that is from grants. */
  readonly fromGrants: Microcredits
  /** The session with limits of its own that it counts against. */
  readonly sessionId: string | null
  /** Unix ms: when it is unknown if nothing is heard of it; `null`: it has ended. */
  readonly leaseUntil: number | null
  /** The length of the upstream's last answer, which is not shown; `null`: there is none. */
  readonly answerBytes: number | null
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
  /**
   * The subject's tasks, the newest first: all that were claimed or are unknown, and no refused submits. With a filter
   * a page may be shorter than its limit, as `filteredPage` has it.
   */
  tasksOf (subject: string, page: PageRequest, filter?: TaskFilter): Promise<Page<TaskRecord>>
  /** The same of all subjects. */
  tasks (page: PageRequest, filter: TaskFilter): Promise<Page<TaskRecord>>
  /** By its task id, or by the id of its record. `null`: there is none, or none any more, or it may be nothing yet. */
  taskAt (id: string): Promise<TaskDetail | null>
  /**
   * The subject's tasks that have ended after that place, the oldest end first, a batch's own row among them. At the
   * time of a place whose id is empty there is none before it. What is older than `endsKeptMs` may be left out. Each
   * call is a turn of the event loop.
   */
  endsOf (subject: string, after: TaskEnd, limit: number): Promise<readonly TaskEnd[]>
  /** All unknown ones that are still charged, the oldest first. */
  unknowns (page: PageRequest): Promise<Page<TaskRecord>>
  /**
   * The operator lets an unknown one go: its credits are given back, once, and its idempotency key is free again. In
   * one atomic step. `false`: it is not unknown, or was let go before.
   */
  release (id: ReservationId): Promise<boolean>
  /** In the order of day, subject, model; also of tasks that retention has ended. */
  usage (span: UsageSpan): Promise<readonly UsageRow[]>
}

/** What usage is summed by. */
const groupings = ['subject', 'model', 'day'] as const
type Grouping = typeof groupings[number]

/** As somebody outside asks for it. */
interface UsageRequest {
  readonly from?: string
  readonly to?: string
  readonly by?: string
}

export interface UsageQuery extends UsageSpan {
  /** At least one, none twice; in this order the rows are sorted. */
  readonly by: readonly Grouping[]
}

/** The sum of all rows that are alike in what they are grouped by, which alone is there of the three. */
export interface UsageSum extends Partial<Pick<UsageRow, Grouping>> {
  readonly tasks: number
  readonly succeeded: number
  readonly failed: number
  readonly unknown: number
  readonly credits: number
}

export interface UsageReport extends UsageQuery {
  readonly rows: readonly UsageSum[]
}

/** Most days of one report. */
const maxDays = 366

/**
 * Reads what was asked for, and fills in the rest: to today (UTC), from the first of that month, by subject. Throws
 * `GW_BAD_REQUEST`, which names the field.
 */
export function readUsageQuery (asked: UsageRequest, now: number): UsageQuery {
  const to = asked.to ?? new Date(now).toISOString().slice(0, 10)
  const toMs = dayStart('to', to)
  const from = asked.from ?? `${to.slice(0, 8)}01`
  const fromMs = dayStart('from', from)
  if (fromMs > toMs) throw badRequest(`from (${from}) is after to (${to}).`)
  if (toMs - fromMs >= maxDays * dayMs) throw badRequest(`from and to must be at most ${maxDays} days apart.`)
  return { from, to, by: groupingsOf(asked.by ?? 'subject', groupings) }
}

/** The start of a day such as `2026-01-31`, of UTC, in Unix ms. Throws `GW_BAD_REQUEST`, which names the field. */
export function dayStart (field: string, text: string): number {
  const start = /^\d{4}-\d{2}-\d{2}$/.test(text) ? Date.parse(text) : NaN
  // The 30th of February is read as the 2nd of March.
  if (Number.isNaN(start) || !new Date(start).toISOString().startsWith(text)) {
    throw badRequest(`${field} must be a day such as 2026-01-31.`)
  }
  return start
}

/** Names with commas between them, each known and there once. Throws `GW_BAD_REQUEST`, which names the field `by`. */
export function groupingsOf<Name extends string> (text: string, known: readonly Name[]): readonly Name[] {
  const names = text.split(',')
  const isKnown = (name: string): name is Name => known.some(one => one === name)
  if (!names.every(isKnown) || new Set(names).size < names.length) {
    throw badRequest(`by must be one or more of ${known.join(', ')}, with commas between them.`)
  }
  return names
}

/** Adds up. Credits are summed as whole microcredits, so that a sum of many prices is exact. */
export function usageReport ({ from, to, by }: UsageQuery, rows: readonly UsageRow[]): UsageReport {
  const sums = new Map<string, { -readonly [Name in keyof UsageRow]: UsageRow[Name] }>()
  for (const row of rows) {
    const group = JSON.stringify(by.map(name => row[name]))
    const sum = sums.get(group)
    if (sum === undefined) {
      sums.set(group, { ...row })
      continue
    }
    for (const name of ['tasks', 'succeeded', 'failed', 'unknown', 'microcredits'] as const) sum[name] += row[name]
  }
  const sorted = [...sums.values()].sort((one, other) => {
    const name = by.find(name => one[name] !== other[name])! // no two sums are of one group
    // Code units, as a store sorts, and not a language's order: it is the same everywhere.
    return one[name] < other[name] ? -1 : 1
  })
  return {
    from,
    to,
    by,
    rows: sorted.map(({ tasks, succeeded, failed, unknown, microcredits, ...row }) => ({
      ...Object.fromEntries(by.map(name => [name, row[name]])),
      tasks,
      succeeded,
      failed,
      unknown,
      credits: creditsFrom(microcredits)
    }))
  }
}

/** The names of a report's columns, in order. */
export function usageColumns ({ by }: UsageReport): ReadonlyArray<keyof UsageSum> {
  return [...by, 'tasks', 'succeeded', 'failed', 'unknown', 'credits']
}

export function usageCsv (report: UsageReport): string {
  return csvOf(usageColumns(report), report.rows)
}

/** Rows as RFC 4180 has them: a line of names, lines that end in CRLF. */
export function csvOf<Name extends string> (
  columns: readonly Name[], rows: ReadonlyArray<Readonly<Partial<Record<Name, string | number>>>>
): string {
  const lines = [columns, ...rows.map(row => columns.map(name => cell(row[name]!)))]
  return lines.map(cells => `${cells.join(',')}\r\n`).join('')
}

/**
 * Every text in quotes, and with a `'` before what a spreadsheet takes for the begin of a formula: a subject is a text
 * that a caller of the app may have chosen. https://owasp.org/www-community/attacks/CSV_Injection
 */
function cell (value: string | number): string {
  if (typeof value === 'number') return String(value)
  return `"${/^[=+\-@\t\r\n\uFF1D\uFF0B\uFF0D\uFF20]/.test(value) ? "'" : ''}${value.replaceAll('"', '""')}"`
}

/** A store's cursor with a checksum: one that was cut, made up, or is of another list, is told apart from an end. */
export function sealCursor (list: string, cursor: string): string {
  return `${cursor}~${fingerprintOf('cursor', list, cursor).slice(0, 8)}`
}

/** The store's cursor again. Throws `GW_BAD_REQUEST`. */
export function openCursor (list: string, sealed: string): string {
  const cursor = sealed.slice(0, Math.max(0, sealed.lastIndexOf('~')))
  if (sealed === sealCursor(list, cursor)) return cursor
  throw badRequest('cursor must be the next of an earlier page.')
}

/** A page as somebody outside asks for it. */
export interface PageQuery {
  /** `next` of the page before; absent for the first. */
  readonly cursor?: string | undefined
  readonly limit: number
}
