import type { DatabaseSync, StatementSync } from 'node:sqlite'
import { setImmediate as nextTurn } from 'node:timers/promises'
import type { AlarmBook } from '../../domain/alarms.ts'
import type { AuditEntry, AuditKind, AuditTrail } from '../../domain/audit.ts'
import type { Stage } from '../../domain/ledger.ts'
import type {
  Page, PageRequest, TaskDetail, TaskRecord, TaskRecords, UsageRow, UsageSpan
} from '../../domain/records.ts'
import { forgetSlackMs } from '../../domain/session.ts'
import type { CallbackSecrets } from '../../domain/store.ts'
import { filteredPage, type TaskFilter } from '../../domain/task-list.ts'
import { dayMs } from '../../domain/time.ts'
import type { FinalState } from '../../domain/upstream.ts'
import type { Deliveries, Delivery, DeliveryAttempt } from '../../domain/webhooks.ts'
import { chargeColumns, type ChargeRow, type SubjectAccounts } from './accounts.ts'
import { type Connection, type GroupCommit, maxSum, pageOf, read, rowAt, storeDown } from './database.ts'
import type { Tasks } from './ledger.ts'
import type { SqliteIdempotency, SqliteRepeats } from './repeats.ts'

interface RecordsOptions {
  readonly accounts: SubjectAccounts
  readonly idempotency: SqliteIdempotency
  readonly repeats: SqliteRepeats
  readonly usage: TaskRecords['usage']
}

/**
 * Rows of the ledger in pages. A subject's tasks that have ended are found by their index, which they enter at their
 * end; the unfinished ones by their numbers. The tasks of all are read where they lie: no index is kept for that.
 */
export function sqliteRecords (
  db: DatabaseSync,
  group: GroupCommit,
  { accounts, idempotency, repeats, usage }: RecordsOptions
): TaskRecords {
  const sql = taskStatements(db)

  const newestOf = (subject: string, before: number, most: number): TaskRow[] => {
    const ended = sql.ended.all(subject, before, most) as unknown as TaskRow[]
    const oldest = ended.length < most ? 0 : ended.at(-1)!.id
    const claimed: TaskRow[] = []
    for (const id of accounts.unfinishedOf(subject, before)) {
      if (id < oldest || claimed.length === most) break
      const row = sql.claimed.get(id) as TaskRow | undefined
      if (row !== undefined) claimed.push(row)
    }
    return [...ended, ...claimed].sort(newestFirst).slice(0, most)
  }
  const list = listing(sql, group)

  return {
    tasksOf: (subject, page, filter = {}) =>
      list(page, filter, (before, most) => newestOf(subject, before, most)),
    tasks (page, filter) {
      const newest = filter.state === 'running' ? sql.running : sql.all
      return list(page, filter, (before, most) => newest.all(before, most) as unknown as TaskRow[])
    },
    async taskAt (id) {
      const row = read(() => (sql.detailOfTask.get(id) ?? sql.detail.get(rowAt(id))) as DetailRow | undefined)
      await group.committed()
      return row === undefined ? null : detailFrom(row)
    },
    async endsOf (subject, { endedAt, taskId }, limit) {
      await nextTurn()
      const rows = read(() => sql.ends.all(subject, endedAt, taskId, limit) as unknown as EndRow[])
      await group.committed()
      return rows.map(row => ({ endedAt: row.ended_at, taskId: row.task_id }))
    },
    async unknowns ({ cursor, limit }) {
      return pageOf(
        read(() => sql.unknown.all(rowAt(cursor) ?? 0, limit + 1) as unknown as TaskRow[]),
        limit,
        recordFrom
      )
    },
    async release (name) {
      const id = rowAt(name)
      const released = group.run(() => {
        const row = sql.release.get(id) as ChargeRow | undefined
        if (row === undefined) return false
        accounts.giveBack(row)
        idempotency.free(id)
        repeats.drop(id)
        return true
      })
      await group.committed()
      return released
    },
    usage
  }
}

/**
 * Pages of rows that are read the newest first, below a number. Each slice but the first of a list is a turn of the
 * event loop of its own, and each page is on disk when it is told.
 */
function listing (sql: Pick<ReturnType<typeof taskStatements>, 'upTo'>, group: GroupCommit) {
  /** The first row that is sure to have only rows behind it that were made at that time or later. */
  const rowOf = (at: number): number => {
    let [low, high] = [0, ((sql.upTo.get(Infinity) as MadeRow | undefined)?.id ?? 0) + 1]
    while (high - low > 1) {
      const middle = Math.floor((low + high) / 2)
      const row = sql.upTo.get(middle) as MadeRow | undefined
      if (row === undefined || row.created_at < at + forgetSlackMs) low = middle
      else high = middle
    }
    return high
  }
  return async (
    page: PageRequest, filter: TaskFilter, newest: (before: number, most: number) => readonly TaskRow[]
  ): Promise<Page<TaskRecord>> => {
    const begin = () => filter.before === undefined ? Infinity : rowOf(filter.before)
    return await filteredPage(page, filter, {
      async read (cursor, most) {
        if (cursor !== null) await nextTurn()
        const rows = read(() => newest(rowAt(cursor) ?? begin(), most))
        await group.committed() // what is told here must not be undone; asked at once, while its turn is not over
        return rows
      },
      recordOf: recordFrom,
      cursorOf: ({ id }) => String(id)
    })
  }
}

interface MadeRow { readonly id: number, readonly created_at: number }

const columns =
  'id, subject, task_id, operation, model, stage, state, microcredits, refunded, created_at, ended_at, abandoned_at'

interface TaskRow {
  readonly id: number
  readonly subject: string
  readonly task_id: string | null
  readonly operation: string
  readonly model: string
  readonly stage: Stage
  readonly state: FinalState | null
  readonly microcredits: number
  readonly refunded: 0 | 1
  readonly created_at: number
  readonly ended_at: number | null
  readonly abandoned_at: number | null
}

function newestFirst (one: { readonly id: number }, other: { readonly id: number }): number {
  return other.id - one.id
}

interface EndRow { readonly ended_at: number, readonly task_id: string }

function recordFrom ({
  id,
  task_id: taskId,
  refunded,
  created_at: createdAt,
  ended_at: endedAt,
  abandoned_at: abandonedAt,
  ...row
}: TaskRow): TaskRecord {
  return { ...row, id: String(id), taskId, refunded: refunded === 1, createdAt, endedAt, abandonedAt }
}

interface DetailRow extends TaskRow {
  readonly key_id: string
  readonly refundable: 0 | 1
  readonly period_start: number
  readonly granted: number
  readonly session_id: string | null
  readonly lease_until: number
  readonly answer_bytes: number | null
}

function detailFrom (row: DetailRow): TaskDetail {
  const { id, subject, task_id: taskId, operation, model, stage, state, microcredits } = row
  return {
    id: String(id),
    subject,
    taskId,
    operation,
    model,
    stage,
    state,
    microcredits,
    refunded: row.refunded === 1,
    createdAt: row.created_at,
    endedAt: row.ended_at,
    abandonedAt: row.abandoned_at,
    keyId: row.key_id,
    refundable: row.refundable === 1,
    periodStart: row.period_start,
    fromGrants: row.granted,
    sessionId: row.session_id,
    leaseUntil: row.ended_at === null ? row.lease_until : null,
    answerBytes: row.answer_bytes
  }
}

function taskStatements (db: DatabaseSync) {
  const detailOf = (condition: string) => db.prepare(
    `SELECT ${columns}, key_id, refundable, period_start, granted, session_id, lease_until, length(body) AS answer_bytes
      FROM tasks LEFT JOIN answers USING (id) WHERE ${condition} AND stage <> 'sent'`
  )
  return {
    all: db.prepare(`SELECT ${columns} FROM tasks NOT INDEXED WHERE id < ? AND stage <> 'sent' ORDER BY id DESC LIMIT ?`),
    running: db.prepare(`SELECT ${columns} FROM tasks INDEXED BY unfinished_tasks
      WHERE ended_at IS NULL AND id < ? AND stage = 'claimed' ORDER BY id DESC LIMIT ?`),
    upTo: db.prepare('SELECT id, created_at FROM tasks WHERE id <= ? ORDER BY id DESC LIMIT 1'),
    detail: detailOf('id = ?'),
    detailOfTask: detailOf('task_id = ?'),
    ended: db.prepare(
      `SELECT ${columns} FROM tasks WHERE subject = ? AND ended_at IS NOT NULL AND id < ? ORDER BY id DESC LIMIT ?`
    ),
    claimed: db.prepare(`SELECT ${columns} FROM tasks WHERE id = ? AND stage = 'claimed'`),
    ends: db.prepare(`SELECT ended_at, task_id FROM tasks WHERE subject = ? AND stage = 'settled' AND task_id IS NOT NULL
      AND (ended_at, task_id) > (?, ?) ORDER BY ended_at, task_id LIMIT ?`),
    unknown: db.prepare(
      `SELECT ${columns} FROM tasks WHERE stage = 'unknown' AND refunded = 0 AND id > ? ORDER BY id LIMIT ?`
    ),
    release: db.prepare(
      `UPDATE tasks SET refunded = 1 WHERE id = ? AND stage = 'unknown' AND refunded = 0 RETURNING ${chargeColumns}`
    )
  }
}

/** How long the audit trail and the sums of usage are kept, days. The trail's own trigger has this number as well. */
export const archiveDays = 400
/** Rows that are read in one go: some two milliseconds when each is of another subject. */
const chunkRows = 500

/**
 * Sums of rows of `tasks`, in the order of the columns of `usage`. What is only sent is no task yet, and may never be
 * one. No index: the rows are read where they lie.
 */
const sumsOf = (condition: string, name = 'subject'): string => `SELECT created_at / ${dayMs}, ${name}, model, count(*),
    count(*) FILTER (WHERE state = 'success'), count(*) FILTER (WHERE state = 'failed'),
    count(*) FILTER (WHERE stage = 'unknown' AND refunded = 0), min(sum(iif(refunded = 0, microcredits, 0)), ${maxSum})
  FROM tasks NOT INDEXED WHERE stage <> 'sent' AND ${condition} GROUP BY 1, 2, 3`

/** Adds rows to sums that have the columns and the primary key of `usage`. */
export const addTo = (table: string, rows: string): string => `INSERT INTO ${table} ${rows}
  ON CONFLICT DO UPDATE SET tasks = tasks + excluded.tasks, succeeded = succeeded + excluded.succeeded,
    failed = failed + excluded.failed, unknown = unknown + excluded.unknown,
    microcredits = min(microcredits + excluded.microcredits, ${maxSum})`

/** Adds the sums of these rows, which are about to be deleted, to those of all that were deleted before. */
export function usageArchive (db: DatabaseSync, condition: string): (...values: number[]) => void {
  const add = db.prepare(addTo('usage', sumsOf(condition)))
  return (...values) => { add.run(...values) }
}

/** The same for one row, under another name than its subject's. */
export function subjectArchive (db: DatabaseSync): (name: string, id: number) => void {
  const add = db.prepare(addTo('usage', sumsOf('id = ?', '?')))
  return (name, id) => { add.run(name, id) }
}

/**
 * Usage by day, subject and model: of the rows that are there, and of those that retention has ended. It is summed up
 * and sorted by SQLite, a part in each turn of the event loop, on a connection that sees the file as it was at the
 * beginning: rows that retention moves meanwhile are neither missed nor counted twice.
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
    yield (rows as unknown as Array<Omit<UsageRow, 'day'> & { day: number }>).map(row => ({
      ...row,
      day: textOf(row.day)
    }))
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

interface AuditRow {
  readonly id: number
  readonly at: number
  readonly kind: AuditKind
  readonly actor: string
  readonly subject: string | null
  readonly detail: string
}

/** The audit trail in SQLite: the file itself refuses to change a row, and to delete one that is not very old. */
export function sqliteAudit (db: DatabaseSync, group: GroupCommit): AuditTrail {
  const insert = db.prepare('INSERT INTO audit (at, kind, actor, subject, detail) VALUES (?, ?, ?, ?, ?)')
  const page = db.prepare('SELECT * FROM audit WHERE id < ? ORDER BY id DESC LIMIT ?')
  return {
    async append (entries) {
      if (entries.length === 0) return
      group.run(() => {
        for (const { at, kind, actor, subject, detail } of entries) {
          insert.run(at, kind, actor, subject, JSON.stringify(detail))
        }
      })
      await group.committed()
    },
    async read ({ cursor, limit }) {
      return pageOf(
        read(() => page.all(rowAt(cursor) ?? Infinity, limit + 1) as unknown as AuditRow[]),
        limit,
        entryFrom
      )
    }
  }
}

function entryFrom ({ id, detail, ...entry }: AuditRow): AuditEntry {
  return { ...entry, detail: JSON.parse(detail) }
}

/** What is to be told of tasks, and the ways that the ledger changes that: those are for use within its transaction. */
export interface SqliteDeliveries extends Deliveries {
  begin (id: number, url: string): void
  /** The task has ended: its delivery is due, if it has one. */
  makeDue (id: number): void
}

interface DeliveryRow {
  readonly task_id: string
  readonly url: string
  readonly attempts: string
  readonly next_at: number | null
}

interface DueRow extends DeliveryRow { readonly body: Uint8Array }

/** Deliveries in SQLite: a row for each, with the id of its reservation, which takes it along when it goes. */
export function sqliteDeliveries (db: DatabaseSync, group: GroupCommit, now: () => number): SqliteDeliveries {
  const sql = deliveryStatements(db)
  return {
    begin (id, url) { sql.begin.run(id, url) },
    makeDue (id) { sql.makeDue.run(now(), id) },
    async due (limit) {
      const rows = read(() => sql.due.all(now(), limit) as unknown as DueRow[])
      await group.committed() // what is told to others must not be undone
      return rows.map(({ body, ...row }) => ({
        ...deliveryFrom(row),
        body: Buffer.from(body.buffer, body.byteOffset, body.byteLength)
      }))
    },
    async attempted (taskId, attempt, nextAt) {
      group.run(() => sql.attempted.run(JSON.stringify(attempt), nextAt, taskId))
      await group.committed()
    },
    async of (taskId) {
      const row = read(() => sql.of.get(taskId) as DeliveryRow | undefined)
      return row === undefined ? null : deliveryFrom(row)
    }
  }
}

function deliveryFrom ({ task_id: taskId, url, attempts, next_at: nextAt }: DeliveryRow): Delivery {
  return { taskId, url, attempts: JSON.parse(attempts) as DeliveryAttempt[], nextAt }
}

function deliveryStatements (db: DatabaseSync) {
  return {
    begin: db.prepare('INSERT INTO deliveries (id, url) VALUES (?, ?)'),
    makeDue: db.prepare('UPDATE deliveries SET next_at = ? WHERE id = ?'),
    due: db.prepare(`SELECT task_id, url, attempts, next_at, body FROM deliveries JOIN tasks USING (id) JOIN answers USING (id)
      WHERE next_at <= ? ORDER BY next_at, id LIMIT ?`),
    attempted:
      db.prepare(`UPDATE deliveries SET attempts = json_insert(attempts, '$[#]', json(?)), next_at = iif(next_at IS NULL, NULL, ?)
      WHERE id = (SELECT id FROM tasks WHERE task_id = ?)`),
    of: db.prepare('SELECT task_id, url, attempts, next_at FROM deliveries JOIN tasks USING (id) WHERE task_id = ?')
  }
}

interface CallbackRow {
  readonly id: number
  readonly subject: string
  readonly model: string
  readonly key_id: string
  readonly task_id: string | null
}

/** The hash stands in the row of its reservation, and goes with it. */
export function sqliteCallbackSecrets (db: DatabaseSync, tasks: Tasks): CallbackSecrets {
  const find = db.prepare('SELECT id, subject, model, key_id, task_id FROM tasks WHERE callback_hash = ?')
  return {
    async reservationOf (secretHash) {
      const row = read(() => find.get(secretHash) as CallbackRow | undefined)
      if (row === undefined) return null
      const { id, subject, model, key_id: keyId, task_id: taskId } = row
      return { reservation: String(id), subject, model, keyId, task: taskId === null ? null : tasks.of(taskId) }
    }
  }
}

/** Alarms as JSON: few, and written when one begins or ends. */
export function sqliteAlarmBook (db: DatabaseSync, group: GroupCommit): AlarmBook {
  const all = db.prepare('SELECT name, seen, told FROM alarms ORDER BY name')
  const see = db.prepare(`INSERT INTO alarms (name, seen) VALUES (?, ?)
    ON CONFLICT DO UPDATE SET seen = excluded.seen`)
  const tell = db.prepare('UPDATE alarms SET told = ? WHERE name = ?')
  const forget = db.prepare('DELETE FROM alarms WHERE name = ?')
  const write = async (statement: StatementSync, ...values: string[]): Promise<void> => {
    group.run(() => statement.run(...values))
    await group.committed()
  }
  return {
    async all () {
      const rows = read(() => all.all() as unknown as AlarmRow[])
      return rows.map(({ name, seen, told }) => ({ name, seen: JSON.parse(seen), told: told && JSON.parse(told) }))
    },
    see: (name, seen) => write(see, name, JSON.stringify(seen)),
    tell: (name, told) => write(tell, JSON.stringify(told), name),
    forget: name => write(forget, name)
  }
}

interface AlarmRow { readonly name: string, readonly seen: string, readonly told: string | null }
