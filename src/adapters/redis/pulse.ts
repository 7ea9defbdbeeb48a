import { randomUUID } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import type { Commands } from './commands.ts'
import type { RedisEvents } from './events.ts'
import { deadMs } from './key-lifetimes.ts'
import type { KeyNames } from './key-names.ts'

/** How often a replica says that it is there, ms. */
const beatMs = 1000
/** Whoever is asked after beats at once, but not more often than this, ms. */
const askedMs = 5
const knownStarts = 100

/** That this replica is there, and whether others are: each has a name that it draws at its start, so one that was started again is another. */
export interface Pulse {
  /** This replica's name. */
  readonly start: string
  /** Resolves when the others can see this one: before anything has its name on it. `null`: they can. */
  begin (): Promise<void> | null
  /** Looks after these, and asks them to speak up. */
  look (starts: readonly string[]): Promise<void>
  /** Those that have beaten after this instant (`performance.now()`), and those that are dead, in a line each. Of all others it is not known. */
  knownSince (instant: number): { readonly alive: string, readonly dead: string }
  close (): Promise<void>
}

interface Look {
  readonly beat: string
  /** When it was last seen to be so. */
  readonly at: number
  /** It has beaten after this. */
  readonly aliveAt: number
}

export interface PulseOptions {
  readonly commands: Pick<Commands, 'ask'>
  readonly keys: Pick<KeyNames, 'alive'>
  readonly events: Pick<RedisEvents, 'ask' | 'onAsked'>
  /** Run before each beat. Its failure is its own. */
  readonly chore: () => Promise<void>
}

/**
 * A key for each replica, whose value is another one at each beat and which goes by itself when none comes. Clocks don't
 * matter: whoever has beaten since a repeat arrived was there then, and whoever has no key is not.
 */
export function pulse ({ commands: { ask }, keys, events, chore }: PulseOptions): Pulse {
  const start = randomUUID()
  const known = new LRUCache<string, Look>({ max: knownStarts })
  const dead = new LRUCache<string, true>({ max: knownStarts })
  let beats = 0
  let first: Promise<void> | null = null
  let hasBegun = false
  let timer: NodeJS.Timeout | undefined
  let sooner: NodeJS.Timeout | undefined

  const beat = async (): Promise<void> => {
    await chore()
    await ask(client => client.set(keys.alive(start), ++beats, 'PX', deadMs))
  }
  const beatQuietly = (): void => { beat().catch(() => { /* whoever opened the store is told */ }) }
  const begin = async (): Promise<void> => {
    await beat()
    hasBegun = true
    timer = setInterval(beatQuietly, beatMs).unref()
  }
  events.onAsked(() => {
    if (!hasBegun || sooner !== undefined) return
    sooner = setTimeout(() => {
      sooner = undefined
      beatQuietly()
    }, askedMs).unref()
  })

  const note = (other: string, value: string | null, at: number): void => {
    if (value === null) {
      known.delete(other)
      dead.set(other, true)
      return
    }
    dead.delete(other) // it was frozen, or cut off
    const before = known.get(other)
    const aliveAt = before === undefined ? -Infinity : before.beat === value ? before.aliveAt : before.at
    known.set(other, { beat: value, at, aliveAt })
  }

  return {
    start,
    begin () {
      if (hasBegun) return null
      /* c8 ignore start: a store that goes away between its opening and its first use; the next call tries again */
      first ??= begin().catch((error: unknown) => {
        first = null
        throw error
      })
      /* c8 ignore stop */
      return first
    },
    async look (starts) {
      await Promise.all(starts.map(async other => {
        const at = performance.now()
        note(other, await ask(client => client.get(keys.alive(other))), at)
      }))
      if (starts.some(other => !dead.has(other))) events.ask()
    },
    knownSince (instant) {
      const alive = [...known].flatMap(([other, { aliveAt }]) => aliveAt >= instant ? other : [])
      return { alive: alive.join(' '), dead: [...dead.keys()].join(' ') }
    },
    async close () {
      clearInterval(timer)
      clearTimeout(sooner)
      if (!hasBegun) return
      await chore()
      await ask(client => client.del(keys.alive(start))).catch(() => { /* it goes by itself */ })
    }
  }
}
