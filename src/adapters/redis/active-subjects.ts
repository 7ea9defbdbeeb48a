import type { LedgerTerms } from '../../domain/ledger.ts'
import { recent } from '../../domain/recent.ts'
import type { Commands } from './client.ts'
import { decoded, encoded, type KeyNames } from './keys.ts'

/** A place in the list of active subjects: the subject it stands at, which may have gone by now. */
export interface ActivePlace { readonly shard: number, readonly subject: string | null }

/**
 * The subjects that may have something unfinished, or unknown and still charged: nobody else can find them, for each
 * stands in a slot of its own. A subject is touched before its first reservation, so no crash leaves one out.
 *
 * A shard has three lists, in one slot: the names, in the order of the alphabet; the same by their last use; and those
 * with something that may overstay, by when it may. The third list is never too late: a subject is always due within
 * the shortest lease, because a replica may reserve for up to `touchEveryMs` without touching it again.
 */
export interface ActiveSubjects {
  /** Puts a subject on the lists. Costs nothing for one that this replica has touched within the last minute. */
  touch (subject: string): Promise<void>
  /** The next few, from this place (included) on, and the place after them; `null` at the end. */
  from (place: ActivePlace): Promise<{ readonly subjects: readonly string[], readonly next: ActivePlace | null }>
  /**
   * Visits those with something that may have overstayed; `visit` says when the next thing of a subject may (Unix ms),
   * `null` for never.
   */
  visitDue (visit: (subject: string) => Promise<number | null>): Promise<void>
  /** Forgets some that nobody has used for ten minutes, if `isDone` says so. */
  forgetIdle (isDone: (subject: string) => Promise<boolean>): Promise<void>
}

const shards = 16
export const firstActive: ActivePlace = { shard: 0, subject: null }
/** A replica touches a subject not more often, ms. */
const touchEveryMs = 60_000
/**
 * A subject that was touched within this time may be used without another word, ms. Well above `touchEveryMs`: the
 * clocks of replicas may differ.
 */
const recentMs = 300_000
const idleMs = 600_000
const rememberedTouches = 50_000
const perStep = 50
const idlePerShard = 100

interface Due { readonly shard: number, readonly name: string, readonly usedAt: number }
interface ActiveOptions { readonly terms: LedgerTerms, readonly now: () => number }

export function activeSubjects (commands: Commands, keys: KeyNames, { terms, now }: ActiveOptions): ActiveSubjects {
  const { on, ask } = commands
  const touchedAt = recent<number>(rememberedTouches)
  const renew = async (subject: string): Promise<void> => {
    const at = now()
    const request = { name: encoded(subject), now: at, dueAt: at + shortestLease(terms) }
    await on(keys.activeSubjects(shardOf(subject)), 'touchSubject', request)
    touchedAt.set(subject, at)
  }

  return {
    async touch (subject) {
      if (now() - (touchedAt.get(subject) ?? -Infinity) >= touchEveryMs) await renew(subject)
    },
    async from ({ shard, subject }) {
      const start = subject === null ? '-' : `[${encoded(subject)}`
      const found = await ask(client => client.zrangebylex(keys.activeSubjects(shard), start, '+', 'LIMIT', 0, perStep + 1))
      const subjects = found.map(decoded)
      if (subjects.length > perStep) {
        return { subjects: subjects.slice(0, perStep), next: { shard, subject: subjects[perStep]! } }
      }
      return { subjects, next: shard + 1 < shards ? { shard: shard + 1, subject: null } : null }
    },
    visitDue: dueVisitor(commands, keys, { terms, now }),
    async forgetIdle (isDone) {
      const usedBy = now() - idleMs
      for (let shard = 0; shard < shards; shard++) {
        const list = keys.activeSubjects(shard)
        const idle = await on(list, 'idleSubjects', { usedBy, limit: idlePerShard }) as Buffer[]
        await Promise.all(idle.map(String).map(async name => {
          if (await isDone(decoded(name))) await on(list, 'forgetSubject', { name, usedBy })
          else await renew(decoded(name)) // or it would stand in the way of those behind it
        }))
      }
    }
  }
}

function dueVisitor ({ on }: Commands, keys: KeyNames, { terms, now }: ActiveOptions): ActiveSubjects['visitDue'] {
  const dueIn = async (shard: number): Promise<Due[]> => {
    const reply = await on(keys.activeSubjects(shard), 'dueSubjects', { now: now(), limit: perStep }) as Buffer[]
    const found = reply.map(String)
    return found.flatMap((name, index) => index % 2 === 0 ? [{ shard, name, usedAt: Number(found[index + 1]) }] : [])
  }

  return async visit => {
    /** Whether it was postponed: not if it was used meanwhile. */
    const visitOne = async ({ shard, name, usedAt }: Due): Promise<boolean> => {
      const begun = now()
      const next = await visit(decoded(name))
      const dueAt = usedAt < begun - recentMs ? next : Math.min(next ?? Infinity, begun + shortestLease(terms))
      const request = { name, usedAt, dueAt: dueAt ?? undefined }
      return await on(keys.activeSubjects(shard), 'postponeSubject', request) === 1
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
export function shardOf (subject: string): number {
  let hash = 0x811c9dc5
  for (const byte of Buffer.from(subject)) hash = Math.imul(hash ^ byte, 0x01000193)
  return (hash >>> 0) % shards
}
