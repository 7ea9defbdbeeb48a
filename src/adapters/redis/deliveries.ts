import { LRUCache } from 'lru-cache'
import type { Deliveries, Delivery, DeliveryAttempt, DueDelivery } from '../../domain/callbacks/deliveries.ts'
import type { LedgerTerms } from '../../domain/ledger/ledger.ts'
import type { Commands, Reply } from './commands.ts'
import { keepMs } from './key-lifetimes.ts'
import { decoded, encoded, type KeyNames, placeOf } from './key-names.ts'
import type { TaskOwners } from './task-owners.ts'

/** Deliveries in Redis, and what the ledger says to them. */
export interface RedisDeliveries extends Deliveries {
  /** A reservation with a delivery is about to be made, so that no crash leaves its subject out. */
  note (subject: string): Promise<void>
}

/** A replica notes a subject not more often, ms. */
const noteEveryMs = 60_000
/** Far more than that: one that was noted lately may get a delivery without a word, ms. */
const latelyMs = 600_000
const notedSubjects = 50_000
const perStep = 50

/**
 * Each subject has a list of its deliveries, in its slot, by when they are due; and there is one list of the subjects that
 * have any, by when they were noted. Whoever looks for what is due asks all of them, a few at a time.
 */
export function redisDeliveries (
  { on, ask, ofSubject }: Commands, owners: TaskOwners, keys: KeyNames, { terms, now }: { readonly terms: LedgerTerms, readonly now: () => number }
): RedisDeliveries {
  const notedAt = new LRUCache<string, number>({ max: notedSubjects })
  const dueOf = async ({ subject, at }: Noted, limit: number): Promise<readonly DueDelivery[]> => {
    const [count, rows] = await ofSubject(subject, 'dueDeliveries', limit) as [number, Buffer[][]]
    if (count === 0 && at < now() - latelyMs) await on(keys.deliveries, 'forgetNoted', encoded(subject), at)
    return rows.map(([taskId, body, ...row]) => ({ ...deliveryFrom(decoded(String(taskId)), row), body: body! }))
  }
  /** Runs a script on the row of a task; `null`: there is none. */
  const onRow = async (taskId: string, script: 'deliveryOf' | 'noteAttempt', ...args: readonly string[]): Promise<Reply> => {
    const id = await owners.of(taskId)
    if (id === null) return null
    const { subject, number } = placeOf(id)!
    return await ofSubject(subject, script, number, encoded(taskId), ...args)
  }

  return {
    async note (subject) {
      const at = now()
      if (at - (notedAt.get(subject) ?? -Infinity) < noteEveryMs) return
      await on(keys.deliveries, 'noteDeliveries', encoded(subject), at, keepMs(terms))
      notedAt.set(subject, at)
    },
    async due (limit) {
      const noted = notedFrom(await ask(client => client.zrange(keys.deliveries, '0', '-1', 'WITHSCORES')))
      let found: DueDelivery[] = []
      for (let start = 0; start < noted.length; start += perStep) {
        const more = await Promise.all(noted.slice(start, start + perStep).map(one => dueOf(one, limit)))
        found = [...found, ...more.flat()].sort((one, other) => one.nextAt! - other.nextAt!).slice(0, limit)
      }
      return found
    },
    async attempted (taskId, attempt, nextAt) {
      await onRow(taskId, 'noteAttempt', JSON.stringify(attempt), nextAt === null ? '' : String(nextAt))
    },
    async of (taskId) {
      const row = await onRow(taskId, 'deliveryOf') as Array<Buffer | null> | null
      return row === null || row.length === 0 ? null : deliveryFrom(taskId, row)
    }
  }
}

interface Noted { readonly subject: string, readonly at: number }

function notedFrom (found: readonly string[]): Noted[] {
  return found.flatMap((name, index) => index % 2 === 0 ? [{ subject: decoded(name), at: Number(found[index + 1]) }] : [])
}

function deliveryFrom (taskId: string, [url, attempts, nextAt]: ReadonlyArray<Buffer | null>): Delivery {
  const lines = String(attempts ?? '').split('\n').filter(line => line !== '')
  // Those of a task that still runs are due at no time.
  const isDue = nextAt && String(nextAt) !== 'inf'
  return { taskId, url: String(url), attempts: lines.map(line => JSON.parse(line) as DeliveryAttempt), nextAt: isDue ? Number(nextAt) : null }
}
