import type { DatabaseSync } from 'node:sqlite'
import { idempotencyMs, type LedgerTerms } from '../../domain/ledger.ts'
import { forgetSlackMs } from '../../domain/session.ts'
import type { Store } from '../../domain/store.ts'
import { dayMs, steadyClock, systemClock } from '../../domain/time.ts'
import { spendFor, SubjectAccounts } from './accounts.ts'
import { spendWindowsFor } from './ceilings.ts'
import {
  connect, type Connection, type ConnectionOptions, type GroupCommit, groupCommit, read, type Role, seenEachSecond,
  storeDown
} from './database.ts'
import { sqliteLedger, sqliteTasks, sqliteUnfinishedTasks, type Tasks } from './ledger.ts'
import { latestVersion, ofCallers } from './migrations.ts'
import { sqliteBooks } from './books.ts'
import {
  archiveDays, sqliteAlarmBook, sqliteAudit, sqliteCallbackSecrets, sqliteDeliveries, sqliteRecords, sqliteUsage,
  usageArchive
} from './records.ts'
import { rememberedRows, sqliteIdempotency, sqliteRepeats } from './repeats.ts'
import { sqliteGuestCounts, sqliteRevocations, sqliteSpentProofs, sqliteTokens, sqliteUpstreamStates } from './sessions.ts'
import { sqliteSubjects } from './subjects.ts'

/**
 * Entries after which one that a caller has made goes before its time. The trail's own trigger has this number as well.
 */
const maxCallersEntries = 1_000_000
/** A month is the longest period; and one day to be safe. */
const longestPeriodMs = 32 * dayMs
/** Rows a transaction, which hold up the event loop for some two milliseconds; and transactions a call and kind. */
const chunkRows = 50
const chunksPerCall = 10

interface RetentionOptions {
  readonly tasks: Tasks
  readonly retentionMs: number
  readonly now: () => number
}

/** Deletes at most a chunk of rows, in the open transaction of its group. Says whether there may be more. */
type Forget = (now: number) => boolean

/**
 * Forgets what is past its retention, a part a call. All is looked through from its old end, in the order in which it
 * was made, so that nothing young is read; and where there is nothing to forget, nothing is written.
 */
export function sqliteRetention (db: DatabaseSync, group: GroupCommit, options: RetentionOptions): () => Promise<void> {
  const kinds: Forget[] = [endedTasks(db, group, options), ...others(db, group)]
  return async () => {
    for (const forget of kinds) {
      let mayHaveMore = true
      for (let chunk = 0; mayHaveMore && chunk < chunksPerCall; chunk++) {
        mayHaveMore = forget(options.now())
        await group.committed()
      }
    }
  }
}

/**
 * Tasks that have ended go into the sums of usage, and away with their answers. Those that have not, or have only just,
 * are passed by, and looked at again when the cursor has been at the first row that is too young.
 */
function endedTasks (db: DatabaseSync, group: GroupCommit, { tasks, retentionMs }: RetentionOptions): Forget {
  const oldest = db.prepare('SELECT id, task_id, created_at, ended_at FROM tasks WHERE id > ? ORDER BY id LIMIT ?')
  const ended = 'id BETWEEN ? AND ? AND ended_at <= ?'
  const archive = usageArchive(db, ended)
  const remove = db.prepare(`DELETE FROM tasks WHERE ${ended}`)
  let cursor = 0

  return now => {
    const before = now - retentionMs
    const rows = read(() => oldest.all(cursor, chunkRows) as unknown as Row[])
    const old = until(rows, row => row.created_at > before)
    cursor = old.length === chunkRows ? old.at(-1)!.id : 0
    const gone = old.filter(row => row.ended_at !== null && row.ended_at <= before)
    if (gone.length > 0) {
      const span = [gone[0]!.id, gone.at(-1)!.id, before] as const
      group.run(() => {
        archive(...span)
        remove.run(...span)
      })
      for (const { task_id: taskId } of gone) if (taskId !== null) tasks.forget(taskId)
    }
    return cursor > 0
  }
}

interface Row {
  readonly id: number
  readonly task_id: string | null
  readonly created_at: number
  readonly ended_at: number | null
}

function until<Item> (items: readonly Item[], ends: (item: Item) => boolean): readonly Item[] {
  const end = items.findIndex(ends)
  return end === -1 ? items : items.slice(0, end)
}

function others (db: DatabaseSync, group: GroupCommit): Forget[] {
  const one = (query: string): ((now: number) => number) => {
    const statement = db.prepare(query)
    return now => (statement.get({ now }) as { at: number }).at
  }
  const forget = (find: string, remove: string, bound: (now: number) => number): Forget => {
    const old = db.prepare(`${find} LIMIT ${chunkRows}`)
    const drop = db.prepare(remove)
    return now => {
      const rows = read(() => old.all(bound(now)))
      if (rows.length > 0) group.run(() => { for (const row of rows) drop.run(...Object.values(row)) })
      return rows.length === chunkRows
    }
  }
  const oldestOf = (table: string, time: string): string =>
    `SELECT id FROM (SELECT id, ${time} FROM ${table} ORDER BY id LIMIT ${chunkRows}) WHERE ${time} <= ?`
  // A period stays for as long as a task is here that may have its credits from it.
  const oldestTask = one('SELECT min(:now, coalesce((SELECT created_at FROM tasks ORDER BY id LIMIT 1), :now)) AS at')
  const newestEntryId = one('SELECT coalesce((SELECT max(id) FROM audit), 0) + 0 * :now AS at')
  const newestEntry = one('SELECT coalesce((SELECT at FROM audit ORDER BY id DESC LIMIT 1), :now) AS at')

  return [
    forget(
      oldestOf('idempotency', 'created_at'),
      'DELETE FROM idempotency WHERE id = ?',
      now => now - idempotencyMs - forgetSlackMs
    ),
    forget(
      'SELECT subject, period_start FROM credits WHERE period_start < ? ORDER BY period_start',
      'DELETE FROM credits WHERE subject = ? AND period_start = ?',
      now => oldestTask(now) - longestPeriodMs
    ),
    forget(
      'SELECT account, window_id FROM ceilings WHERE ends_at < ? ORDER BY ends_at',
      'DELETE FROM ceilings WHERE account = ? AND window_id = ?',
      now => oldestTask(now) - forgetSlackMs
    ),
    forget(
      'SELECT subject, session_id FROM session_budgets WHERE expires_at <= ? ORDER BY expires_at',
      'DELETE FROM session_budgets WHERE subject = ? AND session_id = ?',
      now => now - forgetSlackMs
    ),
    forget(
      'SELECT name FROM guest_counts WHERE ends_at <= ? ORDER BY ends_at',
      'DELETE FROM guest_counts WHERE name = ?',
      now => now - forgetSlackMs
    ),
    forget(
      'SELECT id FROM spent_proofs WHERE expires_at <= ? ORDER BY expires_at',
      'DELETE FROM spent_proofs WHERE id = ?',
      now => now - forgetSlackMs
    ),
    forget(
      'SELECT subject, id FROM upstream_states WHERE expires_at <= ? ORDER BY expires_at',
      'DELETE FROM upstream_states WHERE subject = ? AND id = ?',
      now => now
    ),
    forget(
      'SELECT day, subject, model FROM usage WHERE day < ?',
      'DELETE FROM usage WHERE day = ? AND subject = ? AND model = ?',
      now => Math.floor(now / dayMs) - archiveDays
    ),
    forget(oldestOf('audit', 'at'), 'DELETE FROM audit WHERE id = ?', now => newestEntry(now) - archiveDays * dayMs),
    forget(`SELECT id FROM audit WHERE (${ofCallers()}) AND id <= ? ORDER BY id`, 'DELETE FROM audit WHERE id = ?',
      now => newestEntryId(now) - maxCallersEntries)
  ]
}

export interface SqliteStoreOptions extends Omit<ConnectionOptions, 'role'> {
  /** `server` when absent. */
  readonly role?: Role
  readonly terms: LedgerTerms
  readonly now: () => number
  /** Monotonic ms; the system's when absent. */
  readonly elapsed?: () => number
  /** Told once each time that the file is gone, or another one. */
  readonly onGone?: (problem: string) => void
}

type ServedStoreOptions = Required<Pick<SqliteStoreOptions, 'role' | 'terms' | 'now' | 'elapsed' | 'onGone'>>

/**
 * Opens the embedded store. One server a file: a second one is refused at once, because each keeps limits in its own
 * memory. What an earlier server left half done is brought to a safe end first.
 */
export function sqliteStore ({
  role = 'server',
  elapsed = systemClock.elapsed,
  onGone = () => {},
  ...options
}: SqliteStoreOptions): Store {
  return connect({ ...options, role }, connection => storeOver(connection, { ...options, role, elapsed, onGone }))
}

function storeOver (
  connection: Connection, { role, terms, now, elapsed, onGone }: ServedStoreOptions
): Store {
  const { db, busyMs, close } = connection
  const remembered = role === 'server' ? rememberedRows(db, terms, now()) : []
  const lost = role === 'server' ? recover(db, now()) : 0
  const group = groupCommit(db, busyMs, seenEachSecond(connection, { elapsed, onGone }))
  const tasks = sqliteTasks(db)
  const accounts = new SubjectAccounts(db, group, { role, terms, now })
  const idempotency = sqliteIdempotency(db, group, { accounts, steady: steadyClock({ now, elapsed }) })
  const repeats = sqliteRepeats(db, group, { accounts, remembered, now, elapsed })
  const deliveries = sqliteDeliveries(db, group, now)
  const forgetOld = sqliteRetention(db, group, { tasks, retentionMs: terms.retentionMs, now })

  return {
    lost,
    ledger: sqliteLedger(db, group, { accounts, idempotency, repeats, deliveries, tasks, terms, now }),
    unfinished: sqliteUnfinishedTasks(db),
    idempotency,
    repeats,
    callbackSecrets: sqliteCallbackSecrets(db, tasks),
    deliveries,
    accounts,
    ceilings: accounts.ceilings,
    records: sqliteRecords(db, group, { accounts, idempotency, repeats, usage: sqliteUsage(connection) }),
    books: sqliteBooks({ openReader: connection.openReader, terms, now, elapsed, isSwept: () => true }),
    audit: sqliteAudit(db, group),
    alarmBook: sqliteAlarmBook(db, group),
    revocations: sqliteRevocations(db, group, { now, elapsed, onForeignWrite: () => tasks.forget() }),
    subjects: sqliteSubjects(db, group, { tasks, unfinishedOf: subject => accounts.unfinishedOf(subject, Infinity) }),
    tokens: sqliteTokens(db, group),
    guestCounts: sqliteGuestCounts(db, group, now),
    spentProofs: sqliteSpentProofs(db, group, now),
    events: null,
    creditsEvents: null,
    leases: null,
    heldKeys: null,
    rates: null,
    unknownCalls: null,
    upstreamStates: sqliteUpstreamStates(db, group, now),
    leads: async () => role === 'server',
    async tidy () {
      repeats.tidy()
      await forgetOld()
    },
    ping: pinger(db, group),
    async close () {
      try {
        repeats.tidy()
      } catch { /* what is not written is remembered longer than it need be */ }
      await group.committed().catch(() => {}) // the callers that wait for it are told
      close()
    }
  }
}

/** Reading goes on where writing fails, on a full disk for one, so a store that has failed has to write something. */
function pinger (db: DatabaseSync, group: GroupCommit): () => Promise<void> {
  const look = db.prepare('SELECT 1')
  const touch = db.prepare(`PRAGMA user_version = ${latestVersion}`)
  return async () => {
    try {
      look.get()
    } catch (cause) {
      throw storeDown(cause)
    }
    group.look()
    if (group.isFailing) group.run(() => touch.run())
    await group.committed()
  }
}

/** No request of an earlier server is alive any more, and what it had sent may exist upstream: it is marked. */
function recover (db: DatabaseSync, now: number): number {
  const lost = "ended_at IS NULL AND stage = 'sent'"
  db.exec(`BEGIN IMMEDIATE; ${spendFor(lost)} ${spendWindowsFor(lost)}`)
  const marked = db.prepare(`UPDATE tasks SET stage = 'unknown', ended_at = min(lease_until, ?) WHERE ${lost}`).run(now)
  db.exec('COMMIT')
  return Number(marked.changes)
}
