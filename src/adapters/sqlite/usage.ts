import type { DatabaseSync } from 'node:sqlite'
import { setImmediate as nextTurn } from 'node:timers/promises'
import type { TaskRecords, UsageRow, UsageSpan } from '../../domain/ledger/records.ts'
import type { Connection } from './connection.ts'
import { storeDown } from './store-down.ts'

const dayMs = 86_400_000
/** Rows that are read in one go: some two milliseconds when each is of another subject. */
const chunkRows = 500
/** More can't be read as a number, and whoever asks for it gets an error: sums stop there. */
const maxSum = Number.MAX_SAFE_INTEGER

/**
 * Sums of rows of `tasks`, in the order of the columns of `usage`. What is only sent is no task yet, and may never be one.
 * No index: the rows are read where they lie.
 */
const sumsOf = (condition: string): string => `SELECT created_at / ${dayMs}, subject, model, count(*),
    count(*) FILTER (WHERE state = 'success'), count(*) FILTER (WHERE state = 'failed'),
    count(*) FILTER (WHERE stage = 'unknown' AND refunded = 0), min(sum(iif(refunded = 0, microcredits, 0)), ${maxSum})
  FROM tasks NOT INDEXED WHERE listed = 1 AND ${condition} GROUP BY 1, 2, 3`

/** Adds rows to sums that have the columns and the primary key of `usage`. */
const addTo = (table: string, rows: string): string => `INSERT INTO ${table} ${rows}
  ON CONFLICT DO UPDATE SET tasks = tasks + excluded.tasks, succeeded = succeeded + excluded.succeeded,
    failed = failed + excluded.failed, unknown = unknown + excluded.unknown,
    microcredits = min(microcredits + excluded.microcredits, ${maxSum})`

/** Adds the sums of these rows, which are about to be deleted, to those of all that were deleted before. */
export function usageArchive (db: DatabaseSync, condition: string): (...values: number[]) => void {
  const add = db.prepare(addTo('usage', sumsOf(condition)))
  return (...values) => { add.run(...values) }
}

/**
 * Usage by day, subject and model: of the rows that are there, and of those that retention has ended. It is summed up and
 * sorted by SQLite, a part in each turn of the event loop, on a connection that sees the file as it was at the beginning:
 * rows that retention moves meanwhile are neither missed nor counted twice.
 */
export function sqliteUsage ({ openReader }: Pick<Connection, 'openReader'>): TaskRecords['usage'] {
  return async span => {
    const rows: UsageRow[] = []
    try {
      const reader = openReader()
      try {
        for (const part of partsOf(reader.db, span)) {
          rows.push(...part)
          if (reader.isApart) await nextTurn()
        }
      } finally {
        reader.close()
      }
    } catch (cause) {
      throw storeDown(cause)
    }
    return rows
  }
}

function * partsOf (db: DatabaseSync, span: UsageSpan): Generator<readonly UsageRow[], void> {
  const [from, to] = [dayOf(span.from), dayOf(span.to)]
  db.exec(`DROP TABLE IF EXISTS temp.sums;
    CREATE TEMP TABLE sums (day INTEGER, subject TEXT, model TEXT, tasks INTEGER, succeeded INTEGER, failed INTEGER, unknown INTEGER,
      microcredits INTEGER, PRIMARY KEY (day, subject, model)) WITHOUT ROWID`)
  const add = db.prepare(addTo('sums', sumsOf('id > ? AND id <= ? AND created_at >= ? AND created_at < ?')))
  // Each by itself: asked for together they are found by reading all rows.
  const ends = db.prepare('SELECT (SELECT min(id) FROM tasks) - 1 AS first, (SELECT max(id) FROM tasks) AS last')
  const { first, last } = ends.get() as { first: number, last: number }
  for (let id = first; id < last; id += chunkRows) {
    add.run(id, id + chunkRows, from * dayMs, (to + 1) * dayMs)
    yield []
  }
  const merge = db.prepare(addTo('sums', 'VALUES (?, ?, ?, ?, ?, ?, ?, ?)'))
  const kept = `SELECT day, subject, model, tasks, succeeded, failed, unknown, min(microcredits, ${maxSum}) FROM usage
    WHERE day BETWEEN ? AND ?`
  for (const rows of chunks(db.prepare(kept).iterate(from, to))) {
    for (const row of rows) merge.run(...Object.values(row))
    yield []
  }
  for (const rows of chunks(db.prepare('SELECT * FROM sums ORDER BY day, subject, model').iterate())) {
    yield (rows as unknown as Array<Omit<UsageRow, 'day'> & { day: number }>).map(row => ({ ...row, day: textOf(row.day) }))
  }
}

function * chunks<Row> (rows: Iterable<Row>): Generator<Row[], void> {
  let chunk: Row[] = []
  for (const row of rows) {
    if (chunk.push(row) < chunkRows) continue
    yield chunk
    chunk = []
  }
  yield chunk
}

function dayOf (text: string): number {
  return Date.parse(text) / dayMs
}

function textOf (day: number): string {
  return new Date(day * dayMs).toISOString().slice(0, 10)
}
