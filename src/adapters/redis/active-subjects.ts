import type { LedgerTerms } from '../../domain/ledger.ts'
import { recent } from '../../domain/recent.ts'
import type { Commands } from './client.ts'
import { decoded, encoded, type KeyNames } from './keys.ts'

/** A place in the list of busy subjects: the subject it stands at, which may have gone by now. */
export interface ActivePlace { readonly shard: number, readonly subject: string | null }

/**
 * The subjects that may have something unfinished, or unknown and still charged: nobody else can find them, for each
 * stands in a slot of its own. A subject is noted before its first reservation, so no crash leaves one out.
 *
 * A shard has three lists, in one slot: the names, in the order of the alphabet; the same by their last use; and by
 * when
 * something may overstay, of those with something that can. The last is never too late: who is noted is due by the
 * shortest lease, and so is who was noted lately, for a replica that has noted it makes reservations without a word.
 */
export interface ActiveSubjects {
  touch (subject: string): Promise<void>
  /** The next few, from this place (included) on, and the place after them; `null` at the end. */
  from (place: ActivePlace): Promise<{ readonly subjects: readonly string[], readonly next: ActivePlace | null }>
  /**
   * Visits those with something that may have overstayed; `visit` says when the next thing of a subject may (Unix ms),
   * `null` for never.
   */
  whatIsDue (visit: (subject: string) => Promise<number | null>): Promise<void>
  /** Forgets some that nobody has used for ten minutes, if `isDone` says so. */
  tidy (isDone: (subject: string) => Promise<boolean>): Promise<void>
}

const shards = 16
export const firstActive: ActivePlace = { shard: 0, subject: null }
/** A replica notes a subject not more often, ms. */
const noteEveryMs = 60_000
/** Far more than that: the clocks of replicas may differ, ms. */
const latelyMs = 300_000
const idleMs = 600_000
const notedSubjects = 50_000
const perStep = 50
const perTidy = 100

interface Due { readonly shard: number, readonly name: string, readonly usedAt: number }
interface ActiveOptions { readonly terms: LedgerTerms, readonly now: () => number }

export function activeSubjects (commands: Commands, keys: KeyNames, { terms, now }: ActiveOptions): ActiveSubjects {
  const { on, ask } = commands
  const notedAt = recent<number>(notedSubjects)
  const renew = async (subject: string): Promise<void> => {
    const at = now()
    await on(keys.busy(shardOf(subject)), 'noteBusy', encoded(subject), at, at + shortestLease(terms))
    notedAt.set(subject, at)
  }

  return {
    async touch (subject) {
      if (now() - (notedAt.get(subject) ?? -Infinity) >= noteEveryMs) await renew(subject)
    },
    async from ({ shard, subject }) {
      const start = subject === null ? '-' : `[${encoded(subject)}`
      const found = await ask(client => client.zrangebylex(keys.busy(shard), start, '+', 'LIMIT', 0, perStep + 1))
      const subjects = found.map(decoded)
      if (subjects.length > perStep) {
        return { subjects: subjects.slice(0, perStep), next: { shard, subject: subjects[perStep]! } }
      }
      return { subjects, next: shard + 1 < shards ? { shard: shard + 1, subject: null } : null }
    },
    whatIsDue: dueVisits(commands, keys, { terms, now }),
    async tidy (isDone) {
      const cutoff = now() - idleMs
      for (let shard = 0; shard < shards; shard++) {
        const idle = await on(keys.busy(shard), 'idle', cutoff, perTidy) as Buffer[]
        await Promise.all(idle.map(String).map(async name => {
          if (await isDone(decoded(name))) await on(keys.busy(shard), 'forgetBusy', name, cutoff)
          else await renew(decoded(name)) // or it would stand in the way of those behind it
        }))
      }
    }
  }
}

function dueVisits ({ on }: Commands, keys: KeyNames, { terms, now }: ActiveOptions): ActiveSubjects['whatIsDue'] {
  const dueIn = async (shard: number): Promise<Due[]> => {
    const found = (await on(keys.busy(shard), 'due', now(), perStep) as Buffer[]).map(String)
    return found.flatMap((name, index) => index % 2 === 0 ? [{ shard, name, usedAt: Number(found[index + 1]) }] : [])
  }

  return async visit => {
    /** Whether it was postponed: not if somebody has used it meanwhile. */
    const visitOne = async ({ shard, name, usedAt }: Due): Promise<boolean> => {
      const begun = now()
      const next = await visit(decoded(name))
      const again = usedAt < begun - latelyMs ? next : Math.min(next ?? Infinity, begun + shortestLease(terms))
      return await on(keys.busy(shard), 'postpone', name, usedAt, again ?? '') === 1
    }
    for (let due of await Promise.all(Array.from({ length: shards }, (_, shard) => dueIn(shard)))) {
      while (due.length > 0) {
        const postponed = await Promise.all(due.map(visitOne))
        due = due.length === perStep && postponed.includes(true) ? await dueIn(due[0]!.shard) : []
      }
    }
  }
}

function shortestLease ({ reservedMs, sentMs, giveUpMs }: LedgerTerms): number {
  return Math.min(reservedMs, sentMs, giveUpMs)
}

/** FNV-1a, http://www.isthe.com/chongo/tech/comp/fnv/ */
function shardOf (subject: string): number {
  let hash = 0x811c9dc5
  for (const byte of Buffer.from(subject)) hash = Math.imul(hash ^ byte, 0x01000193)
  return (hash >>> 0) % shards
}
