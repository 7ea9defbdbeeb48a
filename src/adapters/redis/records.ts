import type { FinalState } from '../../domain/bodies/envelope.ts'
import type { Stage } from '../../domain/ledger/ledger.ts'
import type { PageRequest, TaskRecord, TaskRecords } from '../../domain/ledger/records.ts'
import { type BusyPlace, type BusySubjects, firstBusy } from './busy-subjects.ts'
import type { Commands } from './commands.ts'
import { decoded, encoded, placeOf, reservationName } from './key-names.ts'

/** A row of a list: `null` for one that is past its retention. */
interface Row { readonly number: string, readonly record: TaskRecord | null }

/** A reservation's number is at least the time it was made at (ms), so numbers order it, also between subjects. */
export function redisRecords ({ ofSubject }: Commands, busy: BusySubjects): Omit<TaskRecords, 'usage'> {
  return {
    async tasksOf (subject, { cursor, limit }) {
      const items: TaskRecord[] = []
      if (cursor !== null && !/^\d{1,16}$/.test(cursor)) return { items, next: null }
      let start = cursor === null ? '+inf' : `(${cursor}`
      for (;;) {
        const room = limit - items.length
        const rows = rowsFrom(subject, await ofSubject(subject, 'list', start, room + 1) as Buffer[][])
        for (const { record } of rows.slice(0, room)) if (record !== null) items.push(record)
        if (rows.length <= room) return { items, next: null }
        const last = rows[room - 1]!.number
        if (items.length === limit) return { items, next: last }
        start = `(${last}`
      }
    },
    async endsOf (subject, { endedAt, taskId }, limit) {
      const rows = (await ofSubject(subject, 'endsAfter', endedAt, encoded(taskId), limit) as Buffer[]).map(String)
      return rows.flatMap((task, index) => index % 2 === 0 ? [{ taskId: decoded(task), endedAt: Number(rows[index + 1]) }] : [])
    },
    unknowns: page => unknowns({ ofSubject }, busy, page),
    async release (id) {
      const place = placeOf(id)
      return place !== null && await ofSubject(place.subject, 'letGo', place.number) === 1
    }
  }
}

/**
 * Of every busy subject its oldest, and of those the oldest of all. That is a script for each subject, but short ones, a
 * few at a time: only an operator asks, and seldom.
 */
async function unknowns (
  { ofSubject }: Pick<Commands, 'ofSubject'>, busy: BusySubjects, { cursor, limit }: PageRequest
): Promise<{ readonly items: TaskRecord[], readonly next: string | null }> {
  const after = cursor === null ? null : placeOf(cursor)
  if (cursor !== null && after === null) return { items: [], next: null }
  let oldest: Row[] = []
  const look = async (subject: string): Promise<Row[]> => {
    const rows = await ofSubject(subject, 'listUnknown', after?.number ?? '-inf', limit + 2) as Buffer[][]
    return rowsFrom(subject, rows).filter(({ record }) => record !== null && (cursor === null || isLater(record.id, cursor)))
  }
  for (let place: BusyPlace | null = firstBusy; place !== null;) {
    const { subjects, next } = await busy.from(place)
    const found = (await Promise.all(subjects.map(look))).flat()
    oldest = [...oldest, ...found].sort((one, other) => isLater(one.record!.id, other.record!.id) ? 1 : -1).slice(0, limit + 1)
    place = next
  }
  const items = oldest.slice(0, limit).map(({ record }) => record!)
  return { items, next: oldest.length > limit ? items.at(-1)!.id : null }
}

/** By their numbers, and those that are equal by their subjects, so that no two are equal. */
function isLater (one: string, other: string): boolean {
  const [first, second] = [placeOf(one)!, placeOf(other)!]
  return first.number === second.number ? first.subject > second.subject : Number(first.number) > Number(second.number)
}

function rowsFrom (subject: string, rows: ReadonlyArray<ReadonlyArray<Buffer | null>>): Row[] {
  return rows.map(([number, ...values]) => ({
    number: String(number),
    record: values.length === 0 ? null : recordFrom(subject, String(number), values.map(value => value && String(value)))
  }))
}

function recordFrom (subject: string, number: string, values: ReadonlyArray<string | null>): TaskRecord {
  const [stage, operation, model, cost, created, task, state, refunded, ended] = values
  return {
    id: reservationName({ subject, number }),
    subject,
    taskId: task ? decoded(task) : null,
    operation: operation!,
    model: model!,
    stage: stage as Stage,
    state: (state ?? null) as FinalState | null,
    microcredits: Number(cost),
    refunded: refunded === '1',
    createdAt: Number(created),
    endedAt: ended ? Number(ended) : null
  }
}
