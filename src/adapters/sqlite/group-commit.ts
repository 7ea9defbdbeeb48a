import type { DatabaseSync } from 'node:sqlite'
import { isBusy, storeDown } from './store-down.ts'

/** Runs writes in shared transactions: one per turn of the event loop, however many requests write in it. */
export interface GroupCommit {
  /**
   * Runs `work` in the open transaction. What it returns is true for every later reader of this connection, and on disk
   * when `committed()` resolves. Should the commit fail, all of the turn's work is undone together.
   */
  run<T> (work: () => T): T
  /** Resolves when everything run so far is on disk; rejects with `GW_STORE_DOWN` when it is undone. */
  committed (): Promise<void>
  /** Whoever has something to write that nobody waits for does so at the beginning of each transaction. */
  onBegin (listener: () => void): void
  /** Who keeps in memory what `run` changes is told when it was undone. */
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
export function groupCommit (db: DatabaseSync, busyMs: number, look: () => void): GroupCommit {
  const begin = db.prepare('BEGIN IMMEDIATE')
  const commit = db.prepare('COMMIT')
  const rollback = db.prepare('ROLLBACK')
  const beginning: Array<() => void> = []
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
    // Those who do not wait for the commit (a refused reservation) must not turn its failure into a crash.
    turn.promise.catch(() => {})
    setImmediate(finish)
    for (const write of beginning) write()
  }

  const finish = (): void => {
    const ending = turn
    if (ending === null) return // undone earlier in this turn
    turn = null
    try {
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
    for (const listener of listeners) listener()
    ending.reject(storeDown(cause))
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
