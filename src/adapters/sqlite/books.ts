import type { DatabaseSync, StatementSync } from 'node:sqlite'
import {
  type BookEntry, type BookKey, type BookTerms, SubjectBooks, type SubjectSums, windowFaults, windowStart
} from '../../domain/books.ts'
import type { LedgerTerms, SessionSpent, Stage } from '../../domain/ledger.ts'
import { type Clock, dayMs } from '../../domain/time.ts'
import type { FinalState } from '../../domain/upstream.ts'
import { Findings, type LedgerBooks } from '../../domain/verification.ts'
import { isServed, type Reader, readerBeside, storeDown } from './database.ts'
import { archiveDays } from './records.ts'

export interface SqliteBooksOptions extends Clock {
  readonly openReader: () => Reader
  readonly terms: LedgerTerms
  /** Whether a gateway has the file, and sweeps it. */
  readonly isSwept: () => boolean
}

/**
 * The books of a file, read on a connection of its own. Subject by subject, each within one transaction: as long as one
 * lasts, the log of the writer can't begin anew, so it is short, however long all of it may take.
 */
export function sqliteBooks ({ openReader, terms, now, elapsed, isSwept }: SqliteBooksOptions): LedgerBooks {
  return {
    async verify (rest) {
      const found = new Findings()
      try {
        const reader = openReader()
        try {
          const { retentionMs, sentMs } = terms
          const termsNow = () => ({ retentionMs, sentMs, now: now(), periodsHoldOpen: false, isSwept: isSwept() })
          const slices = slicesOf(reader, termsNow, elapsed, found)
          let begun = elapsed()
          for (let step = slices.next(); step.done !== true; step = slices.next()) {
            const rests = step.value === 'apart' ? restsApart : elapsed() - begun < workMs ? 0 : 1
            if (!reader.isApart || rests === 0) continue
            for (let count = 0; count < rests; count++) await rest()
            begun = elapsed()
          }
        } finally {
          reader.close()
        }
      } catch (cause) {
        throw storeDown(cause)
      }
      return found
    }
  }
}

/** As an operator opens them, beside a server or without one. Throws when there is no such file. */
export function sqliteBooksBeside (
  { path, terms, now, elapsed }: Pick<SqliteBooksOptions, 'terms' | 'now' | 'elapsed'> & { readonly path: string }
): LedgerBooks {
  readerBeside(path).close()
  return sqliteBooks({ openReader: () => readerBeside(path), terms, now, elapsed, isSwept: () => isServed(path) })
}

/** Rows that are read in one go, in less than half a slice; and how long one is, ms. */
const chunkRows = 50
const workMs = 2
/** How long a transaction lasts, ms, unless one subject takes longer. What is read at its beginning is little. */
const snapshotMs = 1000
/**
 * Rests between two transactions: in the meantime the writer can bring its log into the file and begin it anew. Without
 * them the log grew for as long as all of it took, to 300 MB, and then held up the loop for a quarter of a second.
 */
const restsApart = 10

/** `apart`: no transaction is open. */
type Slices<Result> = Generator<'apart' | undefined, Result>

/** What has no index by its subject, as it is in the open transaction. */
interface Snapshot {
  readonly open: ReadonlyMap<string, readonly EntryRow[]>
  readonly grants: ReadonlyMap<string, readonly GrantRow[]>
}

/** Yields after each little piece of work. */
function * slicesOf (
  { db, isApart }: Reader, termsNow: () => BookTerms, elapsed: Clock['elapsed'], found: Findings
): Slices<void> {
  const sql = statements(db)
  let endsAt = elapsed() + snapshotMs
  let snapshot = yield * snapshotOf(sql)
  let terms = termsNow()
  const renew = function * (): Slices<void> {
    if (!isApart) return
    db.exec('COMMIT')
    yield 'apart'
    db.exec('BEGIN')
    endsAt = elapsed() + snapshotMs
  }

  /** Subjects by the order of the file; and then those that have nothing but unfinished tasks. */
  const visit = function * (subject: string): Slices<void> {
    if (elapsed() >= endsAt) {
      yield * renew()
      snapshot = yield * snapshotOf(sql)
      terms = termsNow()
    }
    if (subject !== '') found.subjects++
    yield * subjectSlices(sql, subject, snapshot, terms, found)
  }
  for (let subject: string | null = ''; subject !== null; subject = nextSubject(sql, subject)) yield * visit(subject)
  for (const subject of snapshot.open.keys()) {
    if (subject !== '' && sql.isKnown.get(subject) === undefined) yield * visit(subject)
  }
  yield * renew()
  yield * windowSlices(sql, termsNow().now, found)
}

/** All members of a window have to be added up as they are at one instant. */
function * windowSlices (sql: Statements, now: number, found: Findings): Slices<void> {
  const windows = sql.windows.all() as unknown as WindowRow[]
  const { first, last } = sql.held.get() as { readonly first: number | null, readonly last: number | null }
  const rows = new Map<string, WindowRow>()
  if (windows.length === 0) return
  for (let id = first ?? Infinity; id <= (last ?? 0); id += chunkRows) {
    for (const row of sql.holds.all(id, id + chunkRows) as unknown as WindowRow[]) {
      const name = windowName(row)
      rows.set(name, { ...row, used: row.used + (rows.get(name)?.used ?? 0) })
    }
    yield
  }
  const open = [...rows.values()].filter(({ ends_at: endsAt }) => endsAt === null || endsAt > now)
  const missing = open.filter(row => !windows.some(window => windowName(window) === windowName(row)))
  for (const window of [...windows, ...missing.map(row => ({ ...row, used: 0 }))]) {
    const { account, window_id: name, ends_at: endsAt, used } = window
    found.add(windowFaults({ account, window: name, used, rows: rows.get(windowName(window))?.used ?? 0 }, () =>
      forgottenOf(sql.forgotten, windowStart(name, endsAt), endsAt ?? Infinity, now).microcredits))
    yield
  }
}

interface WindowRow {
  readonly account: string
  readonly window_id: string
  readonly ends_at: number | null
  readonly used: number
}

/** Neither has a line break in it. */
function windowName ({ account, window_id: window }: WindowRow): string {
  return `${account}\n${window}`
}

function * snapshotOf (sql: Statements): Slices<Snapshot> {
  const open = Map.groupBy(yield * allRows<EntryRow>(sql.open), row => row.subject)
  const grants = Map.groupBy(yield * allRows<GrantRow>(sql.grants), row => row.subject)
  return { open, grants }
}

function nextSubject (sql: Statements, after: string): string | null {
  return (sql.nextSubject.get(after) as { subject: string | null }).subject
}

function * subjectSlices (
  sql: Statements, subject: string, { open, grants }: Snapshot, terms: BookTerms, found: Findings
): Slices<void> {
  const books = new SubjectBooks(subject, terms)
  for (const row of open.get(subject) ?? []) books.add(entryFrom(row))
  found.tasks += open.get(subject)?.length ?? 0
  const ended = chunks(0, id => sql.ended.all(subject, id, chunkRows) as unknown as EntryRow[], ({ id }) => id)
  for (const rows of ended) {
    for (const row of rows) books.add(entryFrom(row))
    found.tasks += rows.length
    yield
  }
  const keys = chunks('', key => sql.keys.all(subject, key, chunkRows) as unknown as KeyRow[], ({ key }) => key)
  for (const rows of keys) {
    for (const row of rows) books.addKey(keyFrom(row))
    yield
  }
  found.add(books.faults(sumsOf(sql, subject, grants.get(subject) ?? [], terms.now)))
  yield
}

function sumsOf (sql: Statements, subject: string, grants: readonly GrantRow[], now: number): SubjectSums {
  const periods = sql.periods.all(subject) as unknown as Array<{ start: number, used: number }>
  const sessions = sql.sessions.all(subject) as unknown as Array<SessionSpent & { id: string }>
  const account = sql.granted.get(subject) as { granted: number } | undefined
  return {
    periods: new Map(periods.map(({ start, used }) => [start, used])),
    // It is kept for as long as there is a task that has its credits from it.
    isPeriodKept: () => true,
    granted: account?.granted ?? 0,
    grants: {
      sum: grants.reduce((sum, { microcredits }) => sum + microcredits, 0),
      since: grants[0]?.created_at ?? now
    },
    sessions: new Map(sessions.map(({ id, uses, microcredits }) => [id, { uses, microcredits }])),
    forgotten: (from, to) => forgottenOf(sql.forgottenTo, from, to, now, subject)
  }
}

/** Of tasks that were made in that time (Unix ms); `subject`: of one subject. */
function forgottenOf (
  query: StatementSync, from: number, to: number, now: number, ...subject: readonly string[]
): SessionSpent {
  const today = Math.floor(now / dayMs)
  const first = Math.floor(from / dayMs)
  if (first < today - archiveDays) return { uses: Infinity, microcredits: Infinity }
  return query.get(first, Math.min(today, Math.floor(to / dayMs)), ...subject) as unknown as SessionSpent
}

interface EntryRow {
  readonly id: number
  readonly subject: string
  readonly stage: Stage
  readonly state: FinalState | null
  readonly task_id: string | null
  readonly period_start: number
  readonly microcredits: number
  readonly granted: number
  readonly refunded: 0 | 1
  readonly session_id: string | null
  readonly lease_until: number
  readonly is_open: 0 | 1
}

interface KeyRow {
  readonly key: string
  readonly created_at: number
  readonly is_answered: 0 | 1
  readonly owner: string | null
}

interface GrantRow {
  readonly id: number
  readonly subject: string
  readonly microcredits: number
  readonly created_at: number
}

function entryFrom (row: EntryRow): BookEntry {
  return {
    name: String(row.id),
    stage: row.stage,
    state: row.state,
    taskId: row.task_id,
    periodStart: row.period_start,
    fromPeriod: row.microcredits - row.granted,
    fromGrants: row.granted,
    refunded: row.refunded === 1,
    sessionId: row.session_id,
    isOpen: row.is_open === 1,
    leaseUntil: row.lease_until
  }
}

function keyFrom ({ key, created_at: createdAt, is_answered: isAnswered, owner }: KeyRow): BookKey {
  return { key, createdAt, isAnswered: isAnswered === 1, owner }
}

/** All rows in their order, as many at a time as `after` answers: those behind a place. */
function * chunks<Row, Place> (
  first: Place, after: (place: Place) => readonly Row[], placeOf: (row: Row) => Place
): Generator<readonly Row[], void> {
  let place = first
  let rows: readonly Row[]
  do {
    rows = after(place)
    if (rows.length === 0) return
    yield rows
    place = placeOf(rows.at(-1)!)
  } while (rows.length === chunkRows)
}

function * allRows<Row extends { readonly id: number }> (query: StatementSync): Slices<readonly Row[]> {
  const all: Row[] = []
  for (const rows of chunks(0, id => query.all(id, chunkRows) as unknown as Row[], ({ id }) => id)) {
    all.push(...rows)
    yield
  }
  return all
}

type Statements = ReturnType<typeof statements>

function statements (db: DatabaseSync) {
  const columns = 'id, subject, stage, state, task_id, period_start, microcredits, granted, refunded, session_id, lease_until'
  const first = (table: string, more = ''): string =>
    `SELECT * FROM (SELECT subject FROM ${table} WHERE subject > ?1 ${more} ORDER BY subject LIMIT 1)`
  const has = (table: string, more = ''): string => `SELECT 1 FROM ${table} WHERE subject = ?1 ${more}`
  const ended = 'AND ended_at IS NOT NULL'
  return {
    nextSubject: db.prepare(`SELECT min(subject) AS subject FROM (${[
      first('tasks', ended), first('credits'), first('accounts'), first('session_budgets'), first('idempotency')
    ].join(' UNION ALL ')})`),
    isKnown: db.prepare(`${[
      has('tasks', ended), has('credits'), has('accounts'), has('session_budgets'), has('idempotency')
    ].join(' UNION ALL ')} LIMIT 1`),
    open: db.prepare(`SELECT ${columns}, 1 AS is_open FROM tasks WHERE ended_at IS NULL AND id > ? ORDER BY id LIMIT ?`),
    ended: db.prepare(`SELECT ${columns}, 0 AS is_open FROM tasks INDEXED BY past_tasks
      WHERE subject = ? AND ended_at IS NOT NULL AND id > ? ORDER BY id LIMIT ?`),
    keys: db.prepare(`SELECT key, kept.created_at, kept.status IS NOT NULL AS is_answered, tasks.subject AS owner
      FROM idempotency AS kept LEFT JOIN tasks USING (id) WHERE kept.subject = ? AND key > ? ORDER BY key LIMIT ?`),
    grants: db.prepare('SELECT id, subject, microcredits, created_at FROM grants WHERE id > ? ORDER BY id LIMIT ?'),
    periods: db.prepare('SELECT period_start AS start, used FROM credits WHERE subject = ?'),
    granted: db.prepare('SELECT granted FROM accounts WHERE subject = ?'),
    sessions: db.prepare('SELECT session_id AS id, uses, microcredits FROM session_budgets WHERE subject = ?'),
    windows: db.prepare('SELECT account, window_id, ends_at, used FROM ceilings'),
    held: db.prepare('SELECT (SELECT min(id) FROM tasks) AS first, (SELECT max(id) FROM tasks) AS last'),
    holds: db.prepare(`SELECT value ->> 0 AS account, value ->> 1 AS window_id, value ->> 2 AS ends_at,
        total(microcredits) AS used
      FROM tasks, json_each(tasks.holds)
      WHERE tasks.id >= ? AND tasks.id < ? AND ended_at IS NOT NULL AND refunded = 0 AND json_array_length(value) = 3
      GROUP BY 1, 2`),
    forgotten: db.prepare(`SELECT total(tasks) AS uses, total(microcredits) AS microcredits
      FROM usage WHERE day BETWEEN ? AND ?`),
    // A day at a time: the rows of a day are in the order of their subjects.
    forgottenTo: db.prepare(`WITH RECURSIVE days (day) AS (SELECT ?1 UNION ALL SELECT day + 1 FROM days WHERE day < ?2)
      SELECT total(tasks) AS uses, total(microcredits) AS microcredits
      FROM days CROSS JOIN usage USING (day) WHERE subject = ?3`)
  }
}
