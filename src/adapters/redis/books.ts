import { Cluster } from 'ioredis'
import { setTimeout as wait } from 'node:timers/promises'
import {
  type BookEntry, type BookTerms, type Fault, nameOf, SubjectBooks, type SubjectSums
} from '../../domain/books.ts'
import { idempotencyMs, type LedgerTerms, type SessionSpent, type Stage } from '../../domain/ledger.ts'
import { dayMs, instant } from '../../domain/time.ts'
import type { FinalState } from '../../domain/upstream.ts'
import { Findings, type LedgerBooks, type Rest } from '../../domain/verification.ts'
import { type AccountBooks, accountBooks, type HeldRow } from './account-books.ts'
import type { Commands } from './client.ts'
import { decoded, type KeyNames, placeOf, reservationName, slackMs, subjectKey } from './keys.ts'

interface RedisBooksOptions {
  readonly commands: Commands
  readonly keys: KeyNames
  readonly terms: LedgerTerms
  readonly now: () => number
}

/** Names a step of `SCAN`, which looks at many more. */
const keysPerScan = 1000
/** Subjects at a time; and owners or keys, each of which is less to look at. */
const subjectsAtOnce = 8
const namesAtOnce = 32
/**
 * Rows a script, which holds up everybody else for less than a millisecond. A subject that has changed meanwhile is
 * read again after a moment, in fewer parts, between which less can come.
 */
const rowsPerPart = [100, 500, 1000, 2000]
const againMs = 50
/** Owners that are asked for at a time. */
const ownersAtOnce = 100
/** Days of which the sums of usage are asked at first, and at the most, which is how long they are kept. */
const [recentDays, allDays] = [62, 400]

/**
 * The books in Redis: all that is of one subject stands in one slot, so a script reads it as it is at one instant; a
 * long list in parts, which are only good if nothing came between. Whatever stands in other slots is looked at
 * again before it is called a fault.
 *
 * Each step is answered in about a millisecond, and then Redis is left to others for as long as that took.
 */
export function redisBooks (options: RedisBooksOptions): LedgerBooks {
  const { commands: { ask }, keys } = options
  return {
    async verify (rest) {
      const found = new Findings()
      const isSwept = await ask(client => client.exists(keys.leader)) === 1
      const accounts = await accountBooks({ ...options, isSwept, ...await accountsAbove(options, rest) })
      const subjects = new SubjectReader(options, isSwept, accounts)
      const walk = async (
        pattern: string, atOnce: number, look: (name: string) => Promise<void>
      ): Promise<void> => {
        for await (const names of scan(ask, pattern)) {
          for (let start = 0; start < names.length; start += atOnce) {
            await gently(rest, () => Promise.all(names.slice(start, start + atOnce).map(look)))
          }
          await rest()
        }
      }
      await walk(keys.accounts, subjectsAtOnce, name => subjects.verify(subjectKey(name).subject, found))
      found.add(await accounts.faults(found.skipped === 0))
      await walk(keys.owners, namesAtOnce, async name => found.add(await strayOwner(options, name)))
      await walk(keys.idempotency, namesAtOnce, async name => found.add(await emptyKey(options, name)))
      return found
    }
  }
}

/** The names of what is above the subjects, and of all keys of windows, for which nobody looks if there is nothing. */
async function accountsAbove ({ commands: { ask }, keys }: RedisBooksOptions, rest: Rest) {
  const names = (await ask(client => client.smembers(keys.ceilings))).map(decoded)
  const windows = new Set<string>()
  if (names.length === 0) return { names, windows }
  for await (const some of scan(ask, keys.windows)) {
    for (const name of some) windows.add(name)
    await rest()
  }
  return { names, windows }
}

async function gently<T> (rest: Rest, work: () => Promise<T>): Promise<void> {
  const begun = performance.now()
  await work()
  await wait(performance.now() - begun)
  await rest()
}

async function * scan (ask: Commands['ask'], pattern: string): AsyncGenerator<readonly string[], void> {
  const nodes = await ask(async client => client instanceof Cluster ? client.nodes('master') : [client])
  for (const node of nodes) {
    let cursor = '0'
    do {
      const [next, names] = await ask(() => node.scan(cursor, 'MATCH', pattern, 'COUNT', keysPerScan))
      yield [...new Set(names)]
      cursor = next
    } while (cursor !== '0')
  }
}

type Texts = ReadonlyArray<string | null>

/** What `readBooks` answers. */
interface Part {
  readonly stamp: string
  /** Where the next one begins; empty after the last. */
  readonly next: string
  readonly left: number
  readonly granted: number
  readonly since: number | null
  readonly latest: string
  readonly rows: readonly Texts[]
  readonly periods: readonly Texts[]
  readonly sessions: readonly Texts[]
  readonly days: readonly Texts[]
}

type Nested = Buffer | number | null | readonly Nested[]

function partFrom (reply: readonly Nested[]): Part {
  const text = (value: Nested): string | null => value === null ? null : String(value)
  const lines = (value: Nested | undefined): Texts[] => (value as readonly Nested[][]).map(line => line.map(text))
  const [stamp, next, left, granted, since, latest, rows, periods, sessions, days] = reply
  return {
    stamp: String(stamp),
    next: String(next),
    left: Number(left),
    granted: Number(granted),
    since: since === null ? null : Number(since),
    latest: String(latest),
    rows: lines(rows),
    periods: lines(periods),
    sessions: lines(sessions),
    days: lines(days)
  }
}

/** All of a subject, as it was at one instant. */
interface Whole extends Omit<Part, 'stamp' | 'next' | 'periods' | 'sessions'> {
  readonly periods: ReadonlyMap<string, string | null>
  readonly sessions: ReadonlyMap<string, SessionSpent>
}

interface Looked { readonly faults: readonly Fault[], readonly held: readonly HeldRow[] }

class SubjectReader {
  readonly #options: RedisBooksOptions
  readonly #isSwept: boolean
  readonly #accounts: AccountBooks
  /** `SCAN` may name a key twice. */
  readonly #seen = new Set<string>()

  constructor (options: RedisBooksOptions, isSwept: boolean, accounts: AccountBooks) {
    this.#options = options
    this.#isSwept = isSwept
    this.#accounts = accounts
  }

  /** What seems wrong is looked at once more, with all that is known of what was forgotten. */
  async verify (subject: string, found: Findings): Promise<void> {
    if (this.#seen.has(subject)) return
    this.#seen.add(subject)
    found.subjects++
    let looked = await this.#look(subject, recentDays, found)
    if (looked !== null && looked.faults.length > 0) looked = await this.#look(subject, allDays, null)
    if (looked === null) {
      found.skipped++
      return
    }
    found.add(looked.faults)
    this.#accounts.add(subject, looked.held)
  }

  /** `null`: it changed each time. */
  async #look (subject: string, days: number, found: Findings | null): Promise<Looked | null> {
    const { terms: { retentionMs, sentMs }, now } = this.#options
    const whole = await this.#read(subject, days)
    if (whole === null) return null
    const terms: BookTerms = { now: now(), retentionMs, sentMs, periodsHoldOpen: true, isSwept: this.#isSwept }
    const books = new SubjectBooks(subject, terms)
    const entries: BookEntry[] = []
    const held: HeldRow[] = []
    for (const [number, lease, ...row] of whole.rows) {
      if (row.length > 0) {
        const entry = entryFrom(subject, number!, lease ?? null, row)
        entries.push(entry)
        held.push(...heldFrom(number!, entry, row))
      } else if (lease !== null) books.addEmptySlot(reservationName({ subject, number: number! }))
    }
    for (const entry of entries) books.add(entry)
    if (found !== null) found.tasks += entries.length
    for (const { taskId, name } of await strayTasks(this.#options, entries)) {
      books.addStray(taskId, `of the reservation ${name} has no owner that it is found by`)
    }
    const ofDays = daysOf(whole)
    books.addDays([...ofDays].map(([start, { counted, rows }]) => ({ start, counted, rows })))
    return { faults: books.faults(sumsOf(whole, ofDays, terms.now, days)), held }
  }

  /** `null`: it changed each time. */
  async #read (subject: string, days: number): Promise<Whole | null> {
    const { commands: { ofSubject }, now } = this.#options
    const names = Array.from({ length: days }, (_, day) => instant(now() - day * dayMs).slice(0, 10))
    for (const [time, limit] of rowsPerPart.entries()) {
      if (time > 0) await wait(againMs)
      const parts: Part[] = []
      for (let after = '-inf'; after !== '';) {
        const request = { after, limit, days: parts.length === 0 ? names : [] }
        const part = partFrom(await ofSubject(subject, 'readBooks', request) as readonly Nested[])
        parts.push(part)
        after = part.next
      }
      const whole = joined(parts)
      if (whole !== null) return whole
    }
    return null
  }
}

/** `null`: something came between. */
function joined (parts: readonly Part[]): Whole | null {
  const periods = new Map<string, string | null>()
  const sessions = new Map<string, SessionSpent>()
  for (const part of parts) {
    if (part.stamp !== parts[0]!.stamp) return null
    for (const [start, used] of part.periods) {
      if (periods.has(start!) && periods.get(start!) !== used) return null
      periods.set(start!, used!)
    }
    for (const [id, uses, credits] of part.sessions) {
      const before = sessions.get(id!)
      if (before !== undefined && `${before.uses} ${before.microcredits}` !== `${uses} ${credits}`) return null
      if (uses !== null) sessions.set(id!, { uses: Number(uses), microcredits: Number(credits) })
    }
  }
  const { left, granted, since, latest, days } = parts[0]!
  return { left, granted, since, latest, days, rows: parts.flatMap(({ rows }) => rows), periods, sessions }
}

function entryFrom (subject: string, number: string, lease: string | null, row: Texts): BookEntry {
  const [stage, state, task, period, fromPeriod, fromGrants, refunded, session] = row
  return {
    name: reservationName({ subject, number }),
    stage: stage as Stage,
    state: (state ?? null) as FinalState | null,
    taskId: task ? decoded(task) : null,
    periodStart: Number(period),
    fromPeriod: Number(fromPeriod),
    fromGrants: Number(fromGrants),
    refunded: refunded === '1',
    sessionId: session ?? null,
    isOpen: lease !== null,
    leaseUntil: Number(lease)
  }
}

/** One, or none if it draws on nothing above its subject. */
function heldFrom (number: string, entry: BookEntry, row: Texts): readonly HeldRow[] {
  const [hold, ended] = row.slice(9)
  if (typeof hold !== 'string') return []
  const { stage, fromPeriod, fromGrants, refunded } = entry
  const endedAt = typeof ended === 'string' ? Number(ended) : Infinity
  return [{ number, text: nameOf(entry), stage, cost: fromPeriod + fromGrants, refunded, endedAt, hold }]
}

interface Day { counted: number, rows: number, microcredits: number }

/** By their beginnings. `microcredits`: of what was counted, without that of the rows. */
function daysOf ({ rows, days }: Whole): ReadonlyMap<number, Day> {
  const all = new Map<number, Day>()
  for (const [day, counted, microcredits] of days) {
    all.set(Date.parse(day!), { counted: Number(counted), rows: 0, microcredits: Number(microcredits) })
  }
  for (const [, , stage, , , , fromPeriod, fromGrants, refunded, , day] of rows) {
    const its = day && all.get(Date.parse(day))
    if (!its || stage === 'reserved' || stage === 'sent') continue
    its.rows++
    if (refunded !== '1') its.microcredits -= Number(fromPeriod) + Number(fromGrants)
  }
  return all
}

/** `asked`: of so many days it is known what was counted. */
function sumsOf (
  { periods, latest, left, granted, since, sessions }: Whole, days: ReadonlyMap<number, Day>, now: number, asked: number
): SubjectSums {
  return {
    periods: new Map([...periods].flatMap(([start, used]) => used === null ? [] : [[Number(start), Number(used)]])),
    // One that a later one has followed goes after a day.
    isPeriodKept: start => start === Number(latest),
    granted: left,
    grants: { sum: granted, since: since ?? now },
    sessions,
    forgotten (from, to) {
      if (from < now - (asked - 1) * dayMs) {
        // At first it seems wrong, and is looked at again.
        return asked === allDays ? { uses: Infinity, microcredits: Infinity } : { uses: 0, microcredits: 0 }
      }
      const gone = [...days].filter(([start]) => start + dayMs > from && start < to).map(([, day]) => day)
      return {
        uses: gone.reduce((sum, { counted, rows }) => sum + Math.max(0, counted - rows), 0),
        microcredits: gone.reduce((sum, { microcredits }) => sum + Math.max(0, microcredits), 0)
      }
    }
  }
}

interface Stray { readonly taskId: string, readonly name: string }

/** Tasks whose ids do not lead to their reservations. An id is written down before its row knows of it. */
async function strayTasks (
  { commands: { ask }, keys }: RedisBooksOptions, entries: readonly BookEntry[]
): Promise<readonly Stray[]> {
  const tasks = entries.flatMap(({ taskId, name }) => taskId === null ? [] : [{ taskId, name }])
  const strays: Stray[] = []
  for (let start = 0; start < tasks.length; start += ownersAtOnce) {
    const some = tasks.slice(start, start + ownersAtOnce)
    const owners = await ask(client => Promise.all(some.map(({ taskId }) => client.get(keys.owner(taskId)))))
    strays.push(...some.filter(({ name }, index) => owners[index] !== name))
  }
  return strays
}

/** An id that leads to a reservation without that task, though retention has not ended it. */
async function strayOwner ({ commands: { ask }, keys, terms, now }: RedisBooksOptions, name: string): Promise<Fault[]> {
  const isStray = async (): Promise<{ readonly subject: string, readonly id: string } | null> => {
    const id = await ask(client => client.get(name))
    const place = id === null ? null : placeOf(id)
    // A number is about the time at which it was given. What is older may have been forgotten.
    if (place === null || Number(place.number) <= now() - terms.retentionMs + slackMs) return null
    const [stage, task] = await ask(client => client.hmget(keys.reservation(place), 'stage', 'task'))
    const isIts = task === null ? stage === 'sent' || stage === 'unknown' : keys.owner(decoded(task!)) === name
    return isIts ? null : { subject: place.subject, id: id! }
  }
  if (await isStray() === null) return []
  await wait(againMs)
  const stray = await isStray()
  if (stray === null) return []
  const taskId = decoded(name.slice(keys.owner('').length))
  return [{
    kind: 'owner', subject: stray.subject, problem: `task ${taskId} leads to the reservation ${stray.id}, which has no such task`
  }]
}

/** An idempotency key without an answer whose reservation is gone. */
async function emptyKey ({ commands: { ask }, keys, now }: RedisBooksOptions, name: string): Promise<Fault[]> {
  const { subject, rest } = subjectKey(name)
  const isEmpty = async (): Promise<boolean> => {
    const [number, status, createdAt] = await ask(client => client.hmget(name, 'number', 'status', 'createdAt'))
    if (number === null || status !== null || Number(createdAt) + idempotencyMs <= now()) return false
    return await ask(client => client.exists(keys.reservation({ subject, number: number! }))) === 0
  }
  if (!await isEmpty()) return []
  await wait(againMs)
  if (!await isEmpty()) return []
  const key = JSON.stringify(decoded(rest.slice('idem:'.length)))
  return [{ kind: 'key', subject, problem: `its idempotency key ${key} leads to no reservation` }]
}
