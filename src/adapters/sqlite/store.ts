import { mkdirSync } from 'node:fs'
import { dirname } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import type { LedgerTerms, TaskLedger } from '../../domain/ledger.ts'
import type { Revocations } from '../../domain/session.ts'
import type { Store } from '../../domain/store.ts'
import { groupCommit, storeDown } from './group-commit.ts'
import { sqliteLedger } from './ledger.ts'
import { migrate } from './migrations.ts'
import { sqliteRevocations } from './revocations.ts'
import { sqliteUnfinishedTasks } from './tasks.ts'

export interface SqliteStoreOptions {
  /** A file, whose folder is made, or `:memory:`. */
  readonly path: string
  readonly terms: LedgerTerms
  /** `normal` survives the death of the process, `full` a power cut as well. https://sqlite.org/pragma.html#pragma_synchronous */
  readonly synchronous: 'normal' | 'full'
  readonly now: () => number
}

/** https://sqlite.org/rescode.html#busy */
const busy = 5
/** Most time a locked file may hold up the event loop, ms. */
const busyMs = 50
/**
 * Pages of 4 kB in the log before it goes into the file, 64 MB. That stops the event loop for some ten milliseconds:
 * every 4000 pages it was the slowest of a hundred submits that had to wait for it (13 ms), at this length it is not (5).
 */
const checkpointPages = 16_000

/**
 * Opens the embedded store. One server a file: a second one is refused at once, because each keeps revocations and
 * limits in its own memory. What an earlier server left half done is brought to a safe end first.
 */
export function sqliteStore (options: SqliteStoreOptions): Store {
  const { path } = options
  const opened: DatabaseSync[] = []
  const open = (file: string): DatabaseSync => {
    const db = new DatabaseSync(file, { timeout: busyMs })
    opened.unshift(db)
    return db
  }
  const close = (): void => { for (const db of opened.splice(0)) db.close() }

  try {
    if (path !== ':memory:') {
      mkdirSync(dirname(path), { recursive: true })
      lockFile(open(`${path}.lock`))
    }
    return storeIn(open(path), options, close)
  } catch (cause) {
    close()
    throw new Error(`the ledger ${path} can not be opened: ${(cause as Error).message}`, { cause })
  }
}

function storeIn (db: DatabaseSync, { terms, synchronous, now }: SqliteStoreOptions, close: () => void): Store {
  db.exec(`PRAGMA journal_mode = WAL; PRAGMA synchronous = ${synchronous}; PRAGMA foreign_keys = ON;
    PRAGMA wal_autocheckpoint = ${checkpointPages}`)
  const version = migrate(db)
  const lost = recover(db)
  const group = groupCommit(db)
  const ledger: TaskLedger = sqliteLedger(db, group, { terms, now })
  const revocations: Revocations = sqliteRevocations(db, group, now)
  const look = db.prepare('SELECT 1')
  const touch = db.prepare(`PRAGMA user_version = ${version}`)

  return {
    lost,
    ledger,
    unfinished: sqliteUnfinishedTasks(db),
    revocations,
    async ping () {
      try {
        look.get()
      } catch (cause) {
        throw storeDown(cause)
      }
      // Reading goes on where writing fails, on a full disk for one, so who has failed has to write something.
      if (group.isFailing) group.run(() => touch.run())
      await group.committed()
    },
    async close () {
      await group.committed().catch(() => {}) // those who wait for it are told
      close()
    }
  }
}

/**
 * A file of its own whose lock is held for as long as this process lives, however it ends: the operating system lets it
 * go. The ledger itself stays open to the CLI.
 */
function lockFile (lock: DatabaseSync): void {
  try {
    lock.exec('PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE')
  } catch (cause) {
    if ((cause as { errcode?: number }).errcode !== busy) throw cause
    throw new Error('another gateway is running on it', { cause })
  }
}

/** No request of an earlier server is alive any more, and what it had sent may exist upstream: it is marked. */
function recover (db: DatabaseSync): number {
  const marked = db.prepare("UPDATE tasks SET stage = 'unknown', ended_at = lease_until WHERE ended_at IS NULL AND stage = 'sent'").run()
  return Number(marked.changes)
}
