import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import type { Test } from 'tap'
import { sqliteStore, type SqliteStoreOptions } from '../../src/adapters/sqlite/store.ts'
import type { ReservationId } from '../../src/domain/ledger.ts'
import type { Store } from '../../src/domain/store.ts'
import { demandOf } from '../contracts/ledger-balance.ts'
import { sent, terms } from '../contracts/open-books.ts'
import { clock } from '../helpers/clock.ts'

export const time = clock()
export const storeDown = { code: 'GW_STORE_DOWN', detail: { retryAfterSeconds: 1 } }

export const fileOf = (t: Test): string => join(t.testdir({}), 'gateway.db')

export function open (t: Test, path: string, more: Partial<SqliteStoreOptions> = {}): Store {
  const store = sqliteStore({ path, terms, now: time.now, synchronous: 'normal', ...more })
  t.teardown(() => store.close())
  return store
}

/** Another connection, as the command line has one. */
export function visit (t: Test, path: string): DatabaseSync {
  const db = new DatabaseSync(path, { timeout: 1000 })
  t.teardown(() => { if (db.isOpen) db.close() })
  return db
}

export async function reserve (store: Store, more = {}): Promise<ReservationId> {
  const reserved = await store.ledger.reserve(demandOf(more))
  if (!reserved.granted) throw new Error(`no ${reserved.reason}`)
  return reserved.id
}

export async function sentOne (store: Store, more = {}): Promise<ReservationId> {
  const id = await reserve(store, more)
  await store.ledger.advance(id, sent)
  return id
}

export async function claimed (store: Store, taskId: string, more = {}): Promise<void> {
  await store.ledger.advance(await sentOne(store, more), { to: 'claimed', taskId })
}

/** A store and the connection it writes over: what SQLite sets per connection can be seen and set from nowhere else. */
export async function openWithin (
  t: Test, path: string, more: Partial<SqliteStoreOptions> = {}
): Promise<{ store: Store, db: DatabaseSync, statements: readonly string[] }> {
  const { prepare } = DatabaseSync.prototype
  const statements: string[] = []
  const opened = new Set<DatabaseSync>()
  const spy = t.capture(DatabaseSync.prototype, 'prepare', function (this: DatabaseSync, sql: string) {
    opened.add(this)
    statements.push(sql)
    return prepare.call(this, sql)
  })
  const store = open(t, path, more)
  spy.restore()
  const [db] = opened
  return { store, db: db!, statements }
}

/** A store whose disk is full some pages from here: https://sqlite.org/pragma.html#pragma_max_page_count */
export async function smallStore (t: Test, path: string): Promise<Store> {
  const { store, db } = await openWithin(t, path)
  const { page_count: pages } = db.prepare('PRAGMA page_count').get() as { page_count: number }
  db.exec(`PRAGMA max_page_count = ${pages + 10}`)
  return store
}

/** A process that keeps the file locked until it is told to let it go, or by itself after so many ms. */
export async function lockHolder (t: Test, path: string, ms = 60_000): Promise<() => Promise<void>> {
  const child = spawn(process.execPath, ['--no-warnings', '-e', `
    const db = new (require('node:sqlite').DatabaseSync)(process.argv[1])
    const letGo = () => { if (db.isOpen) { db.exec('ROLLBACK'); db.close() } }
    db.exec('BEGIN IMMEDIATE')
    console.log('locked')
    setTimeout(letGo, Number(process.argv[2])).unref()
    process.stdin.once('data', () => { letGo(); console.log('free'); process.stdin.destroy() })`, path, String(ms)])
  t.teardown(() => child.kill())
  await once(child.stdout, 'data')
  return async () => {
    child.stdin.write('let go\n')
    await once(child.stdout, 'data')
  }
}
