import { badRequest } from '../errors.ts'
import type { Stage } from './ledger.ts'
import { dayStart, type Page, type PageRequest, type TaskRecord } from './records.ts'
import { forgetSlackMs } from './session.ts'
import { type Awaitable, dayMs } from './time.ts'
import { modelPattern } from './upstream.ts'

/** What has become of a task, in the words of its callers and of the operator. */
export const taskStates = ['running', 'success', 'failed', 'unknown'] as const
export type TaskState = typeof taskStates[number]

const stateAt: Readonly<Record<Stage, TaskState>> = {
  reserved: 'running', sent: 'running', claimed: 'running', settled: 'success', unknown: 'unknown'
}

export function taskStateOf ({ stage, state }: Pick<TaskRecord, 'stage' | 'state'>): TaskState {
  return state ?? stateAt[stage]
}

/** What a list of tasks is narrowed to. What is absent narrows nothing. */
export interface TaskFilter {
  readonly model?: string | undefined
  readonly state?: TaskState | undefined
  /** The first instant at which it may have been made, Unix ms. */
  readonly from?: number | undefined
  /** The instant before which it was made, Unix ms. */
  readonly before?: number | undefined
}

/** As somebody outside asks for it. */
export interface TaskFilterRequest {
  readonly model?: string | undefined
  readonly state?: string | undefined
  readonly from?: string | undefined
  readonly to?: string | undefined
}

/** The names that `readTaskFilter` reads. */
export const taskFilterNames = ['state', 'model', 'from', 'to'] as const

/** Days are those of UTC, both included. Throws `GW_BAD_REQUEST`, which names the field. */
export function readTaskFilter ({ model, state, from, to }: TaskFilterRequest): TaskFilter {
  const known = taskStates.find(name => name === state)
  if (state !== undefined && known === undefined) throw badRequest(`state must be one of ${taskStates.join(', ')}.`)
  if (model !== undefined && !modelPattern.test(model)) throw badRequest('model must be the name of a model.')
  const filter = {
    model,
    state: known,
    from: from === undefined ? undefined : dayStart('from', from),
    before: to === undefined ? undefined : dayStart('to', to) + dayMs
  }
  if (filter.from! >= filter.before!) throw badRequest(`from (${from}) is after to (${to}).`)
  return filter
}

/** Rows that are read in one go, a millisecond or two; and that one page is looked for in before it is a short one. */
const sliceRows = 250
const mostRows = 10_000

/** How a store reads rows of a list, whatever they are. */
interface RowReader<Row> {
  /** So many rows after a cursor, the newest first; fewer at the end of the list alone. */
  read (cursor: string | null, most: number): Awaitable<readonly Row[]>
  /** `null`: it is past its retention. */
  recordOf (row: Row): TaskRecord | null
  /** Where the list goes on behind this row. */
  cursorOf (row: Row): string
}

/**
 * A page of what the filter permits. It may be shorter than its limit, or empty, with more behind it: however few rows
 * are wanted of however many, one page is bounded work, in slices.
 *
 * Rows come in the order in which they were made, but for a clock that was put back: the list ends when a row is older
 * than that explains.
 */
export async function filteredPage<Row> (
  { cursor, limit }: PageRequest, filter: TaskFilter, { read, recordOf, cursorOf }: RowReader<Row>
): Promise<Page<TaskRecord>> {
  const isNarrowed = Object.values(filter).some(value => value !== undefined)
  const most = isNarrowed ? Math.max(sliceRows, limit + 1) : limit + 1
  const tooOld = (filter.from ?? -Infinity) - forgetSlackMs
  const items: TaskRecord[] = []
  let place = cursor
  for (let looked = 0; looked < mostRows; looked += most) {
    const rows = await read(place, most)
    for (const row of rows) {
      const record = recordOf(row)
      if (record !== null && record.createdAt < tooOld) return { items, next: null }
      if (record !== null && isPermitted(record, filter)) {
        if (items.length === limit) return { items, next: place }
        items.push(record)
      }
      place = cursorOf(row)
    }
    if (rows.length < most) return { items, next: null }
  }
  return { items, next: place }
}

function isPermitted (record: TaskRecord, { model, state, from = -Infinity, before = Infinity }: TaskFilter): boolean {
  return (model === undefined || record.model === model) && (state === undefined || taskStateOf(record) === state) &&
    record.createdAt >= from && record.createdAt < before
}
