import { badRequest } from '../errors.ts'
import { creditsFrom } from './ledger.ts'
import type { Microcredits } from './policy.ts'
import { csvOf, dayStart, groupingsOf, type TaskRecord, type TaskRecords, type UsageSpan } from './records.ts'
import { type TaskState, taskStateOf } from './task-list.ts'
import { dayMs, instant } from './time.ts'
import { batchRow } from './upstream.ts'

/** What a caller's usage is summed by. */
const groupings = ['day', 'model', 'state'] as const
type Grouping = typeof groupings[number]

interface OwnUsageRequest {
  readonly from?: string | undefined
  readonly to?: string | undefined
  readonly by?: string | undefined
}

export interface OwnUsageQuery extends UsageSpan {
  /** At least one, none twice; in this order the rows are sorted. */
  readonly by: readonly Grouping[]
}

/** Credits, each once: a task that runs has them set aside, and when it ends they are charged or refunded. */
interface Spent {
  readonly tasks: number
  readonly charged: number
  readonly refunded: number
  readonly setAside: number
}

/** The sum of all tasks that are alike in what they are grouped by, which alone is there of the three. */
export interface OwnUsageSum extends Spent {
  readonly day?: string
  readonly model?: string
  readonly state?: TaskState
}

export interface OwnUsageReport extends OwnUsageQuery {
  readonly rows: readonly OwnUsageSum[]
  readonly total: Spent
}

const textOf = (at: number): string => instant(at).slice(0, 10)

/**
 * Reads what was asked for, and fills in the rest: to today (UTC), from the first of that month as far as it is kept,
 * by day. Of what is older than `retentionDays` there is no whole day. Throws `GW_BAD_REQUEST`, which names the field.
 */
export function readOwnUsageQuery (asked: OwnUsageRequest, now: number, retentionDays: number): OwnUsageQuery {
  const first = textOf(now - (retentionDays - 1) * dayMs)
  const to = asked.to ?? textOf(now)
  const toMs = dayStart('to', to)
  const from = asked.from ?? [`${to.slice(0, 8)}01`, first].sort()[1]!
  const fromMs = dayStart('from', from)
  if (fromMs < dayStart('from', first)) throw badRequest(`from must be ${first} or later: tasks are kept so long.`)
  if (fromMs > toMs) throw badRequest(`from (${from}) is after to (${to}).`)
  return { from, to, by: groupingsOf(asked.by ?? 'day', groupings) }
}

type Counted = { -readonly [Name in keyof Spent]: Microcredits }
interface Group extends Pick<OwnUsageSum, Grouping> { readonly sum: Counted }

const nothing = (): Counted => ({ tasks: 0, charged: 0, refunded: 0, setAside: 0 })
const pageRows = 250

/** Reads the subject's tasks a page at a time, so that others have their turn in between. Throws `GW_STORE_DOWN`. */
export async function ownUsage (
  { tasksOf }: Pick<TaskRecords, 'tasksOf'>, subject: string, query: OwnUsageQuery
): Promise<OwnUsageReport> {
  const filter = { from: dayStart('from', query.from), before: dayStart('to', query.to) + dayMs }
  const groups = new Map<string, Group>()
  const total = nothing()
  let cursor: string | null = null
  do {
    const { items, next }: Awaited<ReturnType<typeof tasksOf>> =
      await tasksOf(subject, { cursor, limit: pageRows }, filter)
    for (const record of items) {
      // What it costs stands with its items.
      if (record.operation === batchRow) continue
      count(groupOf(groups, query.by, record).sum, record)
      count(total, record)
    }
    cursor = next
  } while (cursor !== null)
  const rows = [...groups.values()]
    .sort((one, other) => {
      const name = query.by.find(name => one[name] !== other[name])! // no two are of one group
      return one[name]! < other[name]! ? -1 : 1
    })
    .map(({ sum, ...group }) => ({ ...group, ...shown(sum) }))
  return { from: query.from, to: query.to, by: query.by, rows, total: shown(total) }
}

function groupOf (groups: Map<string, Group>, by: readonly Grouping[], record: TaskRecord): Group {
  const { model, createdAt } = record
  const names = by.map(name => {
    if (name === 'day') return textOf(createdAt)
    return name === 'model' ? model : taskStateOf(record)
  })
  const key = names.join('\n')
  const known = groups.get(key)
  if (known !== undefined) return known
  const group: Group = { ...Object.fromEntries(by.map((name, index) => [name, names[index]])), sum: nothing() }
  groups.set(key, group)
  return group
}

function count (sum: Counted, { microcredits, refunded, endedAt }: TaskRecord): void {
  sum.tasks++
  if (refunded) sum.refunded += microcredits
  else if (endedAt === null) sum.setAside += microcredits
  else sum.charged += microcredits
}

function shown ({ tasks, charged, refunded, setAside }: Counted): Spent {
  return {
    tasks,
    charged: creditsFrom(charged),
    refunded: creditsFrom(refunded),
    setAside: creditsFrom(setAside)
  }
}

export function ownUsageCsv ({ by, rows }: OwnUsageReport): string {
  return csvOf([...by, 'tasks', 'charged', 'refunded', 'setAside'], rows)
}
