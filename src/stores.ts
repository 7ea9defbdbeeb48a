import type { Upgrade } from './adapters/sqlite/migrations.ts'
import type { LedgerTerms } from './domain/ledger.ts'
import type { Store } from './domain/store.ts'
import { type Clock, dayMs } from './domain/time.ts'
import type { LedgerBooks } from './domain/verification.ts'
import type { Settings } from './settings.ts'

/** How often what has overstayed is let go, ms. */
export const tidyMs = 5000
/** How long a reply waits for a store that has gone away between the upstream's answer and our note of it, ms. */
export const patienceMs = 10_000
/** A reservation that is not sent by then never will be, ms. */
const reservedMs = 30_000

interface StoreWatch {
  readonly onLost: (reason: Error) => void
  readonly onGone: (problem: string) => void
  readonly onUpgrade: (upgrade: Upgrade) => void
}
const ignored = (): void => {}
const unwatched: StoreWatch = { onLost: ignored, onGone: ignored, onUpgrade: ignored }

/**
 * `operator`: for the CLI, beside a running server: nothing is recovered, and a ledger that is not there is not made.
 * `onLost` is told whenever the connection to Redis is lost; `onGone`, once each time, that what was in the store is
 * not there any more, or not under its name: until it is, all throw `GW_STORE_DOWN`; `onUpgrade`, before
 * a file of an earlier version is brought up to date. `elapsed`: as in `Clock`.
 */
export async function openStore (
  settings: Settings,
  { now, elapsed }: Clock,
  role: 'server' | 'operator' = 'server',
  { onLost, onGone, onUpgrade }: StoreWatch = unwatched
): Promise<Store> {
  const { store, file: { ledger } } = settings
  const terms = termsOf(settings)
  // Only one of the two technologies is loaded.
  if (store.kind === 'redis') {
    const { redisStore } = await import('./adapters/redis/store.ts')
    return await redisStore({ url: store.url, terms, now, elapsed, onLost, onGone })
  }
  const { sqliteStore } = await import('./adapters/sqlite/store.ts')
  const { synchronous } = ledger
  return sqliteStore({ path: store.path, role, synchronous, now, elapsed, terms, onGone, onUpgrade })
}

/**
 * The books of a store, for the CLI: they are read, and nothing is written. A gateway may be running. Throws an error
 * that says why they can't be opened.
 */
export async function openBooks (
  settings: Settings, clock: Clock
): Promise<{ readonly books: LedgerBooks, close (): Promise<void> }> {
  if (settings.store.kind === 'redis') {
    const store = await openStore(settings, clock, 'operator')
    return { books: store.books, close: () => store.close() }
  }
  const { sqliteBooksBeside } = await import('./adapters/sqlite/books.ts')
  const { now, elapsed } = clock
  const books = sqliteBooksBeside({ path: settings.store.path, terms: termsOf(settings), now, elapsed })
  return { books, close: async () => {} }
}

function termsOf ({ file: { upstream, tasks, limits } }: Settings): LedgerTerms {
  return {
    reservedMs,
    // A submit that has had all its time upstream and all our patience is not coming back.
    sentMs: upstream.connectMs + upstream.headersMs + upstream.bodyIdleMs + patienceMs + tidyMs,
    giveUpMs: tasks.giveUpMs,
    refundsPerPeriod: limits.refundsPerPeriod,
    retentionMs: tasks.retentionDays * dayMs
  }
}
