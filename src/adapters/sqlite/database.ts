import { chmodSync, closeSync, existsSync, mkdirSync, openSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import type { Page } from '../../domain/records.ts'
import type { Clock } from '../../domain/time.ts'
import { gatewayError } from '../../errors.ts'
import { copyOfOlder, latestVersion, migrate, type Upgrade, versionOf } from './migrations.ts'

export function storeDown (cause: unknown) {
  return gatewayError('GW_STORE_DOWN', { retryAfterSeconds: 1, cause })
}

/** A query that fails says so as every write does. */
export function read<T> (query: () => T): T {
  try {
    return query()
  } catch (cause) {
    throw storeDown(cause)
  }
}

/** https://sqlite.org/rescode.html#busy; the upper bytes of an extended code say why. */
function isBusy (error: unknown): boolean {
  return (((error as { errcode?: number }).errcode ?? 0) & 0xff) === 5
}

/**
 * `server`: the one that owns the file. `operator`: the command line beside it, which may read, give credits, release
 * charges, keep tokens and end sessions; it recovers nothing, and makes no file.
 */
export type Role = 'server' | 'operator'

export interface ConnectionOptions {
  /** A file, whose folder is made, or `:memory:`. */
  readonly path: string
  readonly role: Role
  /**
   * `normal` survives the death of the process, `full` a power cut as well.
   * https://sqlite.org/pragma.html#pragma_synchronous
   */
  readonly synchronous: 'normal' | 'full'
  /** Told before a file that an earlier gateway has made is brought up to date, which may take some seconds. */
  readonly onUpgrade?: (upgrade: Upgrade) => void
  /** Bytes that can be written in a folder; what the system says when absent. */
  readonly freeBytes?: (folder: string) => number
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
 * every 4000 pages it was the slowest of a hundred submits that had to wait for it (13 ms), at this length it is not
 * (5).
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

/**
 * Opens a ledger beside whoever owns it, to read alone: nothing is made, recovered or brought up to date. Throws an
 * error that says why not.
 */
export function readerBeside (path: string): Reader {
  let reader: Reader | null = null
  try {
    mustExist(path)
    reader = readerApart(path, busyMs.operator)
    mustBeLatest(versionOf(reader.db))
    return reader
  } catch (cause) {
    reader?.close()
    throw new Error(`the ledger ${path} can not be opened: ${(cause as Error).message}`, { cause })
  }
}

/** Whether a server has the file: it holds the lock beside it for as long as it lives. */
export function isServed (path: string): boolean {
  if (!existsSync(`${path}.lock`)) return false
  const lock = new DatabaseSync(`${path}.lock`, { readOnly: true, timeout: 0 })
  try {
    lock.prepare('SELECT count(*) FROM sqlite_schema').get()
  } catch (error) {
    if (!isBusy(error)) throw error
    return true
  } finally {
    lock.close()
  }
  return false
}

function mustExist (path: string): void {
  if (path === memory) throw new Error('it is in the memory of the gateway, and ends with it')
  if (!existsSync(path)) throw new Error('there is no such file; the gateway makes it at its first start')
}

/**
 * Only the owner reads it: subjects, task ids and the envelopes of all callers are in it. SQLite gives the files beside
 * it the same mode. One that an earlier version has made is changed, if it is ours.
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

function mustBeLatest (version: number): void {
  if (version === latestVersion) return
  throw new Error(
    `it has version ${version}, and ${latestVersion} is needed: start the gateway once, it brings the file up to date`
  )
}

function prepareFile (
  db: DatabaseSync, { path, role, synchronous, onUpgrade = () => {}, freeBytes }: ConnectionOptions
): void {
  const version = versionOf(db)
  if (role === 'operator') mustBeLatest(version)
  // A table that is made anew must not take along what refers to it: https://sqlite.org/lang_altertable.html#otheralter
  // What is sorted for an index is in memory, for a container may have no folder for it.
  db.exec(`PRAGMA journal_mode = WAL; PRAGMA synchronous = ${synchronous}; PRAGMA foreign_keys = OFF;
    PRAGMA temp_store = MEMORY; PRAGMA wal_autocheckpoint = ${checkpointPages}`)
  const upgrade = copyOfOlder(db, path, freeBytes)
  if (upgrade !== null) onUpgrade(upgrade)
  migrate(db)
  db.exec(`PRAGMA foreign_keys = ON; PRAGMA busy_timeout = ${busyMs[role]}`)
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
  return readerApart(path, busyMs.server)
}

function readerApart (path: string, timeout: number): Reader {
  const db = new DatabaseSync(path, { readOnly: true, timeout })
  db.exec('PRAGMA temp_store = MEMORY; BEGIN')
  return { db, isApart: true, close: () => db.close() }
}

/** How often the file is looked for at the most, ms. */
const lookEveryMs = 1000
const goneText = 'the file of the ledger is gone, or another one has its name'

/**
 * Looks each second, before something is written, whether the file is still there under its name: what is written into
 * one that was deleted or replaced is gone with the process, ownership and charges with it.
 */
export function seenEachSecond (
  { isThere }: Connection,
  { elapsed, onGone }: Pick<Clock, 'elapsed'> & { readonly onGone: (problem: string) => void }
): () => void {
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

/** Runs writes in shared transactions: one per turn of the event loop, however many requests write in it. */
export interface GroupCommit {
  /**
   * Runs `work` in the open transaction. What it returns is true for every later reader of this connection, and on disk
   * when `committed()` resolves. Should the commit fail, all of the turn's work is undone together.
   */
  run<T> (work: () => T): T
  /** Resolves when everything run so far is on disk; rejects with `GW_STORE_DOWN` when it is undone. */
  committed (): Promise<void>
  /** Called at the beginning of each transaction: for what is to be written though nobody waits for it. */
  onBegin (listener: () => void): void
  /** Called at the end of each transaction, within it: for what is written once, however often it has changed. */
  onEnd (listener: () => void): void
  /** Called when a transaction was undone: for what is kept in memory of what `run` changes. */
  onUndo (listener: () => void): void
  /** Throws `GW_STORE_DOWN` when nothing may be written. */
  look (): void
  /** The latest transaction could not be begun or was undone. */
  readonly isFailing: boolean
}

/**
 * A commit costs the same for one row or for fifty, so the rows of concurrent requests go together and each reply waits
 * for the commit (measured: two commits of one's own cost as much as the rest of a proxied request).
 *
 * `look` throws when nothing may be written; it is called before each transaction.
 *
 * Waiting for another process's lock holds up the event loop, so that is done once, for `busyMs`: as long as the file
 * stays locked, further attempts look at the lock and fail at once; the first that finds it free has patience again.
 */
// eslint-disable-next-line max-lines-per-function -- closures over what one connection has prepared
export function groupCommit (db: DatabaseSync, busyMs: number, look: () => void): GroupCommit {
  const begin = db.prepare('BEGIN IMMEDIATE')
  const commit = db.prepare('COMMIT')
  const rollback = db.prepare('ROLLBACK')
  const beginning: Array<() => void> = []
  const endings: Array<() => void> = []
  const listeners: Array<() => void> = []
  let turn: PromiseWithResolvers<void> | null = null
  let isFailing = false
  let isPatient = true

  const bePatient = (patient: boolean): void => {
    if (isPatient === patient) return
    isPatient = patient
    db.exec(`PRAGMA busy_timeout = ${patient ? busyMs : 0}`)
  }

  const start = (): void => {
    look()
    try {
      begin.run()
    } catch (cause) {
      if (isBusy(cause)) bePatient(false)
      throw cause
    }
    bePatient(true)
    turn = Promise.withResolvers()
    // A caller that does not wait for the commit (a refused reservation) must not turn its failure into a crash.
    turn.promise.catch(() => {})
    setImmediate(finish)
    for (const write of beginning) write()
  }

  const finish = (): void => {
    const ending = turn
    if (ending === null) return // undone earlier in this turn
    turn = null
    try {
      for (const write of endings) write()
      commit.run()
      isFailing = false
      ending.resolve()
    } catch (cause) {
      undo(ending, cause)
    }
  }

  const undo = (ending: PromiseWithResolvers<void>, cause: unknown): void => {
    turn = null
    isFailing = true
    try {
      rollback.run()
    } catch { /* SQLite has rolled back by itself, as it does when the disk is full */ }
    ending.reject(storeDown(cause)) // first: a listener reads the file, and what is wrong with that may stop it
    for (const listener of listeners) listener()
  }

  return {
    run (work) {
      try {
        if (turn === null) start()
        return work()
      } catch (cause) {
        isFailing = true
        if (turn !== null) undo(turn, cause)
        throw storeDown(cause)
      }
    },
    committed: () => turn?.promise ?? Promise.resolve(),
    onBegin (listener) { beginning.push(listener) },
    onEnd (listener) { endings.push(listener) },
    onUndo (listener) { listeners.push(listener) },
    look () {
      try {
        look()
      } catch (cause) {
        throw storeDown(cause)
      }
    },
    get isFailing () { return isFailing }
  }
}

/**
 * The row that a cursor or a reservation's name stands for: `null` for none, `NaN`, which no row has, for anything
 * else.
 */
export function rowAt (name: string): number
export function rowAt (name: string | null): number | null
export function rowAt (name: string | null): number | null {
  if (name === null) return null
  return /^[1-9]\d{0,15}$/.test(name) ? Number(name) : NaN
}

/** A page of rows, of which one more than the page holds was asked for. */
export function pageOf<Row extends { readonly id: number }, Item> (
  rows: readonly Row[], limit: number, itemFrom: (row: Row) => Item
): Page<Item> {
  const shown = rows.slice(0, limit)
  return { items: shown.map(itemFrom), next: rows.length > limit ? String(shown.at(-1)!.id) : null }
}

/** More can't be read as a number, and asking for it gives an error: sums stop there. */
export const maxSum = Number.MAX_SAFE_INTEGER

/** Sums by name. One that is 0 takes no memory. */
export class Sums {
  readonly #sums = new Map<string, number>()

  of (name: string): number {
    return this.#sums.get(name) ?? 0
  }

  add (name: string, change: number): void {
    const sum = this.of(name) + change
    if (sum === 0) this.#sums.delete(name)
    else this.#sums.set(name, sum)
  }

  clear (): void {
    this.#sums.clear()
  }
}

const none: ReadonlySet<number> = new Set()

/** Numbers by subject. A subject without any takes no memory. */
export class Numbers {
  readonly #sets = new Map<string, Set<number>>()

  of (subject: string): ReadonlySet<number> {
    return this.#sets.get(subject) ?? none
  }

  add (subject: string, number: number): void {
    const numbers = this.#sets.get(subject)
    if (numbers === undefined) this.#sets.set(subject, new Set([number]))
    else numbers.add(number)
  }

  delete (subject: string, number: number): void {
    const numbers = this.#sets.get(subject)
    if (numbers?.delete(number) === true && numbers.size === 0) this.#sets.delete(subject)
  }

  clear (): void {
    this.#sets.clear()
  }
}
