import type { Page } from '../domain/ledger/records.ts'
import { type Operator, operator, type PageQuery } from '../domain/operator/operator.ts'
import { issueTimes } from '../domain/sessions/issue-times.ts'
import type { Store } from '../domain/store.ts'
import { systemClock } from '../domain/time.ts'
import type { Settings } from '../settings.ts'

const { now } = systemClock

const hint = 'This command needs the settings of the server: run it in the server\'s folder, with the server\'s environment.'

/** Lets the operator work beside a server that may be running. */
export async function withOperator<Result> (work: (operator: Operator, store: Store) => Promise<Result>): Promise<Result> {
  return await withStore((_settings, store) => {
    const times = issueTimes({ revocations: store.revocations, now })
    return work(operator({ ...store, trail: store.audit, actor: 'cli', now, times }), store)
  })
}

/** Opens the store of a server that may be running, and closes it again. */
export async function withStore<Result> (work: (settings: Settings, store: Store) => Promise<Result>): Promise<Result> {
  const { settings, store } = await openOperatorStore()
  try {
    return await work(settings, store)
  } finally {
    await store.close()
  }
}

/** Loaded here and not above: who mistypes a word need not wait for a database driver. */
async function openOperatorStore () {
  const [{ openStore }, { loadSettings, readDotEnv }] = await Promise.all([import('../parts/store.ts'), import('../settings.ts')])
  try {
    const cwd = process.cwd()
    const settings = loadSettings({ env: { ...readDotEnv(cwd), ...process.env }, cwd })
    return { settings, store: await openStore(settings, systemClock, 'operator') }
  } catch (cause) {
    const { message, code } = cause as Error & { code?: unknown }
    throw Object.assign(new Error(`${message}\n${hint}`, { cause }), { code })
  }
}

const pageSize = 500

/** The first so many of a list, and whether there are more. */
export async function first<Item> (
  limit: number, read: (page: PageQuery) => Promise<Page<Item>>
): Promise<{ readonly items: readonly Item[], readonly hasMore: boolean }> {
  const items: Item[] = []
  for (let cursor: string | undefined; items.length < limit;) {
    const page = await read({ cursor, limit: Math.min(pageSize, limit - items.length) })
    items.push(...page.items)
    if (page.next === null) return { items, hasMore: false }
    cursor = page.next
  }
  return { items, hasMore: true }
}
