import { badRequest } from '../../errors.ts'
import { creditsFrom } from '../ledger/balance.ts'
import type { UsageRow, UsageSpan } from '../ledger/records.ts'

/** What usage is summed by. */
const groupings = ['subject', 'model', 'day'] as const
export type Grouping = typeof groupings[number]

/** As somebody outside asks for it. */
export interface UsageWish {
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

const dayMs = 86_400_000
/** Most days of one report. */
const maxDays = 366

/**
 * Reads what was asked for, and fills in the rest: to today (UTC), from the first of that month, by subject.
 * Throws `GW_BAD_REQUEST`, which names the field.
 */
export function readUsageQuery (asked: UsageWish, now: number): UsageQuery {
  const to = asked.to ?? new Date(now).toISOString().slice(0, 10)
  const toMs = dayOf('to', to)
  const from = asked.from ?? `${to.slice(0, 8)}01`
  const fromMs = dayOf('from', from)
  if (fromMs > toMs) throw badRequest(`from (${from}) is after to (${to}).`)
  if (toMs - fromMs >= maxDays * dayMs) throw badRequest(`from and to must be at most ${maxDays} days apart.`)
  return { from, to, by: groupingsOf(asked.by ?? 'subject') }
}

function dayOf (field: string, text: string): number {
  const start = /^\d{4}-\d{2}-\d{2}$/.test(text) ? Date.parse(text) : NaN
  // The 30th of February is read as the 2nd of March.
  if (Number.isNaN(start) || !new Date(start).toISOString().startsWith(text)) {
    throw badRequest(`${field} must be a day such as 2026-01-31.`)
  }
  return start
}

function groupingsOf (text: string): readonly Grouping[] {
  const names = text.split(',')
  const isKnown = (name: string): name is Grouping => groupings.some(grouping => grouping === name)
  if (!names.every(isKnown) || new Set(names).size < names.length) {
    throw badRequest(`by must be one or more of ${groupings.join(', ')}, with commas between them.`)
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

/** A report as RFC 4180 has it: a line of names, lines that end in CRLF. */
export function usageCsv (report: UsageReport): string {
  const columns = usageColumns(report)
  const lines = [columns, ...report.rows.map(row => columns.map(name => cell(row[name]!)))]
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
