import { randomUUID } from 'node:crypto'
import { type ReserveRequest, type StoredResponse, type Repeat, repeatMs, type Repeats } from '../../domain/ledger.ts'
import { recent } from '../../domain/recent.ts'
import { isGatewayError } from '../../errors.ts'
import type { Commands, Reply } from './client.ts'
import type { RedisEvents } from './events.ts'
import { deadMs, type KeyNames, type Place, placeOf } from './keys.ts'
import { earlierFrom } from './ledger.ts'
import { headOf, type RepeatRequest } from './scripts.ts'

/** Submits without an idempotency key in Redis; they are written by the scripts of the ledger. */
export interface RedisRepeats extends Repeats {
  /** What a script is told to look for the first of this submit. */
  requestOf (repeat: Repeat | undefined): RepeatRequest | undefined
  /**
   * Writes what the store has not taken of this subject yet: before anything is looked for, else what was lost while
   * the store was away would be made again. `null`: nothing. Throws `GW_STORE_DOWN`.
   */
  flushSubject (subject: string): Promise<void> | null
  /** What that script has found has to be decided by looking after these replicas. */
  lookAfter (reply: readonly Reply[]): Promise<void>
  /** `reserve` has failed, and may have taken one all the same. */
  giveBack (demand: Pick<ReserveRequest, 'subject' | 'repeat'>): void
  /** What a script says of it: 2 if some had to be forgotten. */
  note (subject: string, reply: Reply): void
  /** Writes what nobody waits for, and what could not be written. Throws when that still can not be. */
  flush (): Promise<void>
}

type Write = () => Promise<void>

/** A long outage shall not fill the memory. */
const maxPending = 10_000
/** From this age on, ms, a write guards nothing: what it was to remember is forgotten, wherever this replica stands. */
const guardedMs = repeatMs + deadMs

/** Writes that the store has not taken, by subject. Each may be done twice. `elapsed`: monotonic ms. */
function pendingWrites (elapsed: () => number) {
  const pending = new Map<string, Map<Write, number>>()
  let count = 0
  const flush = async (subject: string): Promise<void> => {
    const its = pending.get(subject)
    /* c8 ignore next: another call has written it meanwhile */
    for (const [write, since] of its ?? []) {
      if (elapsed() - since < guardedMs) await write().catch(unlessRefused)
      if (its!.delete(write)) count--
      if (its!.size === 0 && pending.get(subject) === its) pending.delete(subject)
    }
  }

  return {
    enqueue (subject: string, write: Write): void {
      /* c8 ignore next: an outage longer than a test */
      if (count >= maxPending) return
      pending.set(subject, (pending.get(subject) ?? new Map()).set(write, elapsed()))
      count++
    },
    /** `null`: there are none. */
    flush: (subject: string): Promise<void> | null => pending.has(subject) ? flush(subject) : null,
    /** Tries all of them. Throws when some are still to be written. */
    async flushAll (): Promise<void> {
      let failure: unknown = null
      for (const subject of [...pending.keys()]) await flush(subject).catch(error => { failure = error })
      if (failure !== null) throw failure
    }
  }
}

/** What the store may take later is tried again. What it refuses, as under a key that somebody else wrote, is not. */
function unlessRefused (error: unknown): void {
  if (isGatewayError(error) && error.code === 'GW_STORE_DOWN') throw error
}

/** Numbers of submits whose callers have their answers. Nobody waits for them: they are written together. */
function deliveredNumbers ({ ofSubject }: Pick<Commands, 'ofSubject'>) {
  let bySubject = new Map<string, string[]>()
  const add = (subject: string, more: readonly string[]): void => {
    const numbers = bySubject.get(subject)
    if (numbers === undefined) bySubject.set(subject, [...more])
    else numbers.push(...more)
  }
  return {
    add,
    /** What is not taken now is written with the next beat; one that is alive loses nothing by that. */
    async flush (): Promise<void> {
      const all = bySubject
      bySubject = new Map()
      for (const [subject, numbers] of all) {
        await ofSubject(subject, 'markDelivered', { numbers }).catch(() => add(subject, numbers))
      }
    }
  }
}

/** `elapsed`: monotonic ms. */
export function redisRepeats (
  { ofSubject }: Pick<Commands, 'ofSubject'>, pulse: Pulse, elapsed: () => number
): RedisRepeats {
  const crowded = new Set<string>()
  const delivered = deliveredNumbers({ ofSubject })
  const pending = pendingWrites(elapsed)

  const note = (subject: string, reply: Reply): void => {
    if (reply === 2) crowded.add(subject)
  }
  const end = async (subject: string, { fingerprint, call }: Repeat, isDelivered: boolean): Promise<void> => {
    await ofSubject(subject, 'endRepeat', { fingerprint, call, isDelivered })
  }
  const markUndelivered = async ({ subject, number }: Place, answer: StoredResponse | undefined): Promise<void> => {
    note(subject, await ofSubject(subject, 'markUndelivered', { number, answer: headOf(answer) }, answer?.body))
  }
  /** A store that does not take it now takes it later: else an entry would serve nobody, or somebody twice. */
  const surely = async (subject: string, write: Write): Promise<void> => {
    await write().catch((error: unknown) => {
      pending.enqueue(subject, write)
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
      if (repeat !== undefined) pending.enqueue(subject, () => end(subject, repeat, false))
    },
    note,
    async flush () {
      await delivered.flush()
      await pending.flushAll()
    },
    flushSubject: pending.flush,
    async take (subject, repeat) {
      await pending.flush(subject)
      const reply = await ofSubject(subject, 'takeRepeat', requestOf(repeat)).catch((error: unknown) => {
        pending.enqueue(subject, () => end(subject, repeat, false))
        throw error
      }) as Reply[]
      await lookAfter(reply)
      return earlierFrom(reply)
    },
    end: (subject, repeat, isDelivered) => surely(subject, () => end(subject, repeat, isDelivered)),
    delivered (id) {
      const place = placeOf(id)
      if (place !== null) delivered.add(place.subject, [place.number])
    },
    async undelivered (id, answer) {
      const place = placeOf(id)
      if (place !== null) await surely(place.subject, () => markUndelivered(place, answer))
    },
    takeCrowded () {
      const subjects = [...crowded]
      crowded.clear()
      return subjects
    }
  }
}

/** How often a replica says that it is there, ms. */
const beatMs = 1000
/** A replica that is asked for beats at once, but not more often than this, ms. */
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

interface PulseOptions {
  readonly commands: Pick<Commands, 'ask'>
  readonly keys: Pick<KeyNames, 'alive'>
  readonly events: Pick<RedisEvents, 'ask' | 'onAsked'>
  /** Run before each beat but the first. None follows if it fails: a beat says that what came before it is written. */
  readonly beforeBeat: () => Promise<void>
}

interface Sighting {
  /** The value of its key. */
  readonly beat: string
  /** When it was last seen to be so. */
  readonly at: number
  /** It has beaten after this. */
  readonly aliveAt: number
}

/** What is known of other replicas, by their names. Instants are `performance.now()`. */
function sightings () {
  const seen = recent<Sighting>(knownStarts)
  const dead = recent<true>(knownStarts)
  return {
    /** Its key had this value, `null` for none, at this instant or later. */
    note (start: string, beat: string | null, at: number): void {
      if (beat === null) {
        seen.delete(start)
        dead.set(start, true)
        return
      }
      dead.delete(start) // it was frozen, or cut off
      const before = seen.get(start)
      const aliveAt = before === undefined ? -Infinity : before.beat === beat ? before.aliveAt : before.at
      seen.set(start, { beat, at, aliveAt })
    },
    isDead: (start: string): boolean => dead.has(start),
    knownSince: (instant: number): ReturnType<Pulse['knownSince']> => ({
      alive: [...seen].flatMap(([start, { aliveAt }]) => aliveAt >= instant ? start : []).join(' '),
      dead: [...dead.keys()].join(' ')
    })
  }
}

/**
 * A key for each replica, whose value is another one at each beat and which goes by itself when none comes. Clocks
 * don't matter: a replica that has beaten since a repeat arrived was there then, and one without a key is not.
 */
export function pulse ({ commands: { ask }, keys, events, beforeBeat }: PulseOptions): Pulse {
  const start = randomUUID()
  const others = sightings()
  /** Beats that have not ended: one that came after the key was taken away would bring it back. */
  const running = new Set<Promise<void>>()
  let beats = 0
  let first: Promise<void> | null = null
  let hasBegun = false
  let timer: NodeJS.Timeout | undefined
  let sooner: NodeJS.Timeout | undefined

  const speakUp = async (): Promise<void> => {
    await ask(client => client.set(keys.alive(start), ++beats, 'PX', deadMs))
  }
  const beat = async (): Promise<void> => {
    await beforeBeat()
    await speakUp()
  }
  const beatQuietly = (): void => {
    const one = beat().catch(() => { /* the opener of the store is told */ }).finally(() => running.delete(one))
    running.add(one)
  }
  const begin = async (): Promise<void> => {
    await speakUp() // no reservation has its name on it yet, and it takes nothing back
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
        others.note(other, await ask(client => client.get(keys.alive(other))), at)
      }))
      if (starts.some(other => !others.isDead(other))) events.ask()
    },
    knownSince: others.knownSince,
    async close () {
      clearInterval(timer)
      clearTimeout(sooner)
      if (!hasBegun) return
      await Promise.all(running)
      await beforeBeat().catch(() => { /* what is still to write is known to be lost when this replica is dead */ })
      await ask(client => client.del(keys.alive(start))).catch(() => { /* it goes by itself */ })
    }
  }
}
