import { randomUUID } from 'node:crypto'
import type { ReserveRequest, StoredResponse, Repeat, Repeats } from '../../domain/ledger.ts'
import { recent } from '../../domain/recent.ts'
import type { Commands, Reply } from './client.ts'
import type { RedisEvents } from './events.ts'
import { deadMs, type KeyNames, type Place, placeOf } from './keys.ts'
import { earlierFrom, headOf } from './ledger.ts'
import type { RepeatRequest } from './scripts.ts'

/** Submits without an idempotency key in Redis; they are written by the scripts of the ledger. */
export interface RedisRepeats extends Repeats {
  /** What a script is told to look for the first of this submit. */
  requestOf (repeat: Repeat | undefined): RepeatRequest | undefined
  /** Writes what the store has not taken of this subject yet. `null`: nothing. Throws `GW_STORE_DOWN`. */
  pay (subject: string): Promise<void> | null
  /** What that script has found has to be decided by looking after these replicas. */
  lookAfter (reply: readonly Reply[]): Promise<void>
  /** A script has failed that may have taken one all the same. */
  giveBack (demand: Pick<ReserveRequest, 'subject' | 'repeat'>): void
  /** What a script says of it: 2 if some had to be forgotten. */
  note (subject: string, reply: Reply): void
  /** Writes what nobody waits for, and what could not be written. */
  flush (): Promise<void>
}

/** A long outage shall not fill the memory. */
const maxOwed = 10_000

export function redisRepeats ({ ofSubject }: Pick<Commands, 'ofSubject'>, pulse: Pulse): RedisRepeats {
  const crowded = new Set<string>()
  /** Numbers, by subject. */
  let delivered = new Map<string, string[]>()
  /** Writes that the store has not taken, by subject. Each may be done twice. */
  const owed = new Map<string, Set<() => Promise<void>>>()
  let owedCount = 0

  const owe = (subject: string, write: () => Promise<void>): void => {
    /* c8 ignore next: an outage longer than a test */
    if (owedCount >= maxOwed) return
    owed.set(subject, (owed.get(subject) ?? new Set()).add(write))
    owedCount++
  }
  /** Comes before anything is looked for: else what was lost while the store was away would be made again. */
  const pay = async (subject: string): Promise<void> => {
    const its = owed.get(subject)
    /* c8 ignore next: another call has paid it meanwhile */
    for (const write of its ?? []) {
      await write()
      if (its!.delete(write)) owedCount--
      if (its!.size === 0 && owed.get(subject) === its) owed.delete(subject)
    }
  }
  const note = (subject: string, reply: Reply): void => {
    if (reply === 2) crowded.add(subject)
  }
  const end = async (subject: string, { fingerprint, call }: Repeat, isDelivered: boolean): Promise<void> => {
    await ofSubject(subject, 'endRepeat', { fingerprint, call, isDelivered })
  }
  const lose = async ({ subject, number }: Place, answer: StoredResponse | undefined): Promise<void> => {
    note(subject, await ofSubject(subject, 'markUndelivered', { number, answer: headOf(answer) }, answer?.body))
  }
  /** A store that does not take it now takes it later: else an entry would serve nobody, or somebody twice. */
  const surely = async (subject: string, write: () => Promise<void>): Promise<void> => {
    await write().catch((error: unknown) => {
      owe(subject, write)
      throw error
    })
  }
  const requestOf = ({ fingerprint, call, arrivedAt }: Repeat): RepeatRequest => {
    const { alive, dead } = pulse.knownSince(arrivedAt)
    return { fingerprint, call, start: pulse.start, alive, dead }
  }
  const lookAfter = async ([kind, ...starts]: readonly Reply[]): Promise<void> => {
    if (kind !== undefined && String(kind) === 'pending' && starts.length > 0) {
      await pulse.look([...new Set(starts.map(String))])
    }
  }

  return {
    requestOf: repeat => repeat && requestOf(repeat),
    lookAfter,
    giveBack ({ subject, repeat }) {
      if (repeat !== undefined) owe(subject, () => end(subject, repeat, false))
    },
    note,
    async flush () {
      const now = delivered
      delivered = new Map()
      for (const [subject, numbers] of now) {
        await ofSubject(subject, 'markDelivered', { numbers }).catch(() =>
          delivered.set(subject, [...numbers, ...(delivered.get(subject) ?? [])])
        )
      }
      for (const subject of [...owed.keys()]) await pay(subject).catch(() => { /* with the next beat */ })
    },
    pay: subject => owed.has(subject) ? pay(subject) : null,
    async take (subject, repeat) {
      if (owed.has(subject)) await pay(subject)
      const reply = await ofSubject(subject, 'takeRepeat', requestOf(repeat)).catch((error: unknown) => {
        owe(subject, () => end(subject, repeat, false))
        throw error
      }) as Reply[]
      await lookAfter(reply)
      return earlierFrom(reply)
    },
    end: (subject, repeat, isDelivered) => surely(subject, () => end(subject, repeat, isDelivered)),
    delivered (id) {
      const place = placeOf(id)
      if (place === null) return
      const { subject, number } = place
      const numbers = delivered.get(subject)
      if (numbers === undefined) delivered.set(subject, [number])
      else numbers.push(number)
    },
    async undelivered (id, answer) {
      const place = placeOf(id)
      if (place !== null) await surely(place.subject, () => lose(place, answer))
    },
    crowded () {
      const subjects = [...crowded]
      crowded.clear()
      return subjects
    }
  }
}

/** How often a replica says that it is there, ms. */
const beatMs = 1000
/** Whoever is asked after beats at once, but not more often than this, ms. */
const askedMs = 5
const knownStarts = 100

/**
 * That this replica is there, and whether others are: each has a name that it draws at its start, so one that was
 * started again is another.
 */
export interface Pulse {
  /** This replica's name. */
  readonly start: string
  /** Resolves when the others can see this one: before anything has its name on it. `null`: they can. */
  begin (): Promise<void> | null
  /** Looks after these, and asks them to speak up. */
  look (starts: readonly string[]): Promise<void>
  /**
   * Those that have beaten after this instant (`performance.now()`), and those that are dead, in a line each. Of all
   * others it is not known.
   */
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
 * A key for each replica, whose value is another one at each beat and which goes by itself when none comes. Clocks
 * don't
 * matter: whoever has beaten since a repeat arrived was there then, and whoever has no key is not.
 */
export function pulse ({ commands: { ask }, keys, events, chore }: PulseOptions): Pulse {
  const start = randomUUID()
  const known = recent<Look>(knownStarts)
  const dead = recent<true>(knownStarts)
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
