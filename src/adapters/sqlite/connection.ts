import { chmodSync, closeSync, existsSync, mkdirSync, openSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { latestVersion, migrate, versionOf } from './migrations.ts'
import { isBusy } from './store-down.ts'

/**
 * `server`: the one that owns the file. `operator`: the command line beside it, which may read, give credits, release
 * charges, keep tokens and end sessions; it recovers nothing, and makes no file.
 */
export type Role = 'server' | 'operator'

export interface ConnectionOptions {
  /** A file, whose folder is made, or `:memory:`. */
  readonly path: string
  readonly role: Role
  /** `normal` survives the death of the process, `full` a power cut as well. https://sqlite.org/pragma.html#pragma_synchronous */
  readonly synchronous: 'normal' | 'full'
}

/** A connection to read with. */
export interface Reader {
  readonly db: DatabaseSync
  /** It sees the file as it was when it was opened, whatever is written meanwhile. */
  readonly isApart: boolean
  close (): void
}

export interface Connection {
  readonly db: DatabaseSync
  /** Longest time that a locked file may hold up the event loop, ms. */
  readonly busyMs: number
  openReader (): Reader
  /** Whether the file that was opened still has its name; one in memory always is there. */
  isThere (): boolean
  close (): void
}

/** The event loop of a server has others to serve; a command line has only this to do, and so has a start. */
const busyMs = { server: 50, operator: 5000 }
const memory = ':memory:'
/**
 * Pages of 4 kB in the log before it goes into the file, 64 MB. That stops the event loop for some ten milliseconds:
 * every 4000 pages it was the slowest of a hundred submits that had to wait for it (13 ms), at this length it is not (5).
 */
const checkpointPages = 16_000

/** Opens a ledger of the latest version and makes something of it, or throws an error that says why not. */
export function connect<T> (options: ConnectionOptions, use: (connection: Connection) => T): T {
  const { path, role } = options
  const opened: DatabaseSync[] = []
  const open = (file: string, timeout: number): DatabaseSync => {
    const db = new DatabaseSync(file, { timeout })
    opened.unshift(db)
    return db
  }
  const close = (): void => { for (const db of opened.splice(0)) db.close() }

  try {
    if (role === 'operator') mustExist(path)
    else if (path !== memory) {
      mkdirSync(dirname(path), { recursive: true, mode: 0o700 })
      keepPrivate(`${path}.lock`)
      lockFile(open(`${path}.lock`, busyMs.server))
    }
    if (role === 'server' && path !== memory) keepPrivate(path)
    const db = open(path, busyMs.operator)
    prepareFile(db, options)
    return use({ db, busyMs: busyMs[role], openReader: () => readerOf(db, path), isThere: presence(path), close })
  } catch (cause) {
    close()
    throw new Error(`the ledger ${path} can not be opened: ${(cause as Error).message}`, { cause })
  }
}

function mustExist (path: string): void {
  if (path === memory) throw new Error('it is in the memory of the gateway, and ends with it')
  if (!existsSync(path)) throw new Error('there is no such file; the gateway makes it at its first start')
}

/**
 * Only the owner reads it: subjects, task ids and the envelopes of all callers are in it. SQLite gives the files beside it
 * the same mode. One that an earlier version has made is changed, if it is ours.
 */
function keepPrivate (path: string): void {
  try {
    closeSync(openSync(path, 'a', 0o600))
  } catch { /* SQLite says what is wrong with it */ }
  for (const file of [path, `${path}-wal`, `${path}-shm`]) {
    try {
      chmodSync(file, 0o600)
    } catch { /* not there, or somebody else's: whoever gave us the right to write has seen to the rest */ }
  }
}

/** A file is known by its device and its number there, whatever is written into it. */
function presence (path: string): () => boolean {
  if (path === memory) return () => true
  const idOf = (): string => {
    const { dev, ino } = statSync(path, { bigint: true, throwIfNoEntry: false }) ?? {}
    return `${dev} ${ino}`
  }
  const opened = idOf()
  return () => idOf() === opened
}

function prepareFile (db: DatabaseSync, { role, synchronous }: ConnectionOptions): void {
  const version = versionOf(db)
  if (role === 'operator' && version < latestVersion) {
    throw new Error(`it has version ${version}, and ${latestVersion} is needed: start the gateway once, it brings the file up to date`)
  }
  db.exec(`PRAGMA journal_mode = WAL; PRAGMA synchronous = ${synchronous}; PRAGMA foreign_keys = ON;
    PRAGMA wal_autocheckpoint = ${checkpointPages}`)
  migrate(db)
  db.exec(`PRAGMA busy_timeout = ${busyMs[role]}`)
}

/**
 * A file of its own whose lock is held for as long as this process lives, however it ends: the operating system lets it
 * go. The ledger itself stays open to the command line.
 */
function lockFile (lock: DatabaseSync): void {
  try {
    lock.exec('PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE')
  } catch (cause) {
    throw isBusy(cause) ? new Error('another gateway is running on it', { cause }) : cause
  }
}

/** A ledger in memory has one connection, which is not to be left in the middle of a query. */
function readerOf (db: DatabaseSync, path: string): Reader {
  if (!db.isOpen) throw new Error('it is closed')
  if (path === memory) return { db, isApart: false, close: () => {} }
  const reader = new DatabaseSync(path, { readOnly: true, timeout: busyMs.server })
  reader.exec('PRAGMA temp_store = MEMORY; BEGIN')
  return { db: reader, isApart: true, close: () => reader.close() }
}
