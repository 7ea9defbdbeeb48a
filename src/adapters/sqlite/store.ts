import type { DatabaseSync } from 'node:sqlite'
import type { LedgerTerms } from '../../domain/ledger/ledger.ts'
import type { Store } from '../../domain/store.ts'
import { steadyClock, systemClock } from '../../domain/time.ts'
import { sqliteAccounts } from './accounts.ts'
import { sqliteAudit } from './audit.ts'
import { sqliteCallbackSecrets } from './callback-secrets.ts'
import { connect, type Connection, type ConnectionOptions, type Role } from './connection.ts'
import { sqliteDeliveries } from './deliveries.ts'
import { type GroupCommit, groupCommit } from './group-commit.ts'
import { sqliteGuestCounts } from './guest-counts.ts'
import { sqliteIdempotency } from './idempotency.ts'
import { sqliteLedger } from './ledger.ts'
import { latestVersion } from './migrations.ts'
import { sqliteRecords } from './records.ts'
import { rememberedRows, sqliteRepeats } from './repeats.ts'
import { reservations as noReservations } from './reservations.ts'
import { sqliteRetention } from './retention.ts'
import { sqliteRevocations } from './revocations.ts'
import { slots as countSlots } from './slots.ts'
import { sqliteSpentProofs } from './spent-proofs.ts'
import { storeDown } from './store-down.ts'
import { sqliteTasks, sqliteUnfinishedTasks } from './tasks.ts'
import { sqliteTokens } from './tokens.ts'
import { sqliteUsage } from './usage.ts'

/** How often the file is looked for at the most, ms. */
const lookEveryMs = 1000
const goneText = 'the file of the ledger is gone, or another one has its name'

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

/**
 * Opens the embedded store. One server a file: a second one is refused at once, because each keeps limits in its own
 * memory. What an earlier server left half done is brought to a safe end first.
 */
export function sqliteStore ({ role = 'server', elapsed = systemClock.elapsed, onGone = () => {}, ...options }: SqliteStoreOptions): Store {
  return connect({ ...options, role }, connection => storeOver(connection, { ...options, role, elapsed, onGone }))
}

function storeOver (connection: Connection, { role, terms, now, elapsed, onGone }: Required<SqliteStoreOptions>): Store {
  const { db, busyMs, close } = connection
  const remembered = role === 'server' ? rememberedRows(db, terms, now()) : []
  const lost = role === 'server' ? recover(db, now()) : 0
  const group = groupCommit(db, busyMs, seenEachSecond(connection, { elapsed, onGone }))
  const reservations = noReservations()
  const slots = countSlots(db)
  const tasks = sqliteTasks(db)
  const accounts = sqliteAccounts(db, group, { reservations, slots, now })
  const idempotency = sqliteIdempotency(db, group, { reservations, steady: steadyClock({ now, elapsed }) })
  const repeats = sqliteRepeats(db, group, { reservations, remembered, now, elapsed })
  const deliveries = sqliteDeliveries(db, group, now)
  const forgetOld = sqliteRetention(db, group, { tasks, retentionMs: terms.retentionMs, now })

  return {
    lost,
    ledger: sqliteLedger(db, group, { reservations, slots, accounts, idempotency, repeats, deliveries, tasks, terms, now }),
    unfinished: sqliteUnfinishedTasks(db),
    idempotency,
    repeats,
    callbackSecrets: sqliteCallbackSecrets(db, tasks),
    deliveries,
    accounts,
    records: sqliteRecords(db, group, { accounts, idempotency, repeats, usage: sqliteUsage(connection) }),
    audit: sqliteAudit(db, group),
    revocations: sqliteRevocations(db, group, { now, elapsed }),
    tokens: sqliteTokens(db, group),
    guestCounts: sqliteGuestCounts(db, group, now),
    spentProofs: sqliteSpentProofs(db, group, now),
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
      await group.committed().catch(() => {}) // those who wait for it are told
      close()
    }
  }
}

/**
 * Looks each second, before something is written, whether the file is still there under its name: what is written into one
 * that was deleted or replaced is gone with the process, ownership and charges with it.
 */
function seenEachSecond ({ isThere }: Connection, { elapsed, onGone }: Pick<Required<SqliteStoreOptions>, 'elapsed' | 'onGone'>): () => void {
  let lookedAt = elapsed()
  let isGone = false
  return () => {
    if (elapsed() - lookedAt >= lookEveryMs || isGone) {
      lookedAt = elapsed()
      const wasGone = isGone
      isGone = !isThere()
      if (isGone && !wasGone) onGone(goneText)
    }
    if (isGone) throw new Error(goneText)
  }
}

/** Reading goes on where writing fails, on a full disk for one, so who has failed has to write something. */
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
  const marked = db.prepare(`UPDATE tasks SET stage = 'unknown', listed = 1, ended_at = min(lease_until, ?)
    WHERE ended_at IS NULL AND stage = 'sent'`).run(now)
  return Number(marked.changes)
}
