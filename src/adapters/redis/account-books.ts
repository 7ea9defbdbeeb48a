import { earliestOf, type Fault, shortestRetentionMs, windowFaults } from '../../domain/books.ts'
import type { CeilingAccount, LedgerTerms } from '../../domain/ledger.ts'
import type { Microcredits } from '../../domain/policy.ts'
import { dayMs, instant } from '../../domain/time.ts'
import type { Commands, Reply } from './client.ts'
import { askAfterMs, holdFromRow, memberOf } from './holds.ts'
import { decoded, encoded, type KeyNames, type Place, slackMs, usageKey, windowKey } from './keys.ts'
import { namesLike } from './records.ts'

/**
 * The books of what is above the subjects: pools, plans, the gateway. No script sees them together with their members,
 * whose rows take a while to read, and traffic goes on. So an account is read twice. A hold that it has at an instant
 * is in its sum with what it has taken, any other with what its reservation has cost in the end, and that is written in
 * the row before the account is told. Hence, whatever comes in between:
 *
 * - What is used *afterwards* is no less than what the holds of then have taken, and all others have cost whose rows
 *   were seen to have ended.
 * - What was used *before* is no more than what the holds of then had taken, and all others whose rows were seen.
 *
 * Without traffic, and for a window that is over, the two are equal, and exact.
 */
export interface AccountBooks {
  /** All rows of a subject that know a hold. */
  add (subject: string, rows: readonly HeldRow[]): void
  /** `isWhole`: no subject was left out. */
  faults (isWhole: boolean): Promise<readonly Fault[]>
}

/** A reservation, as far as it matters above its subject. */
export interface HeldRow {
  readonly number: string
  /** For people. */
  readonly text: string
  readonly stage: string
  readonly cost: Microcredits
  readonly refunded: boolean
  /** Unix ms; `Infinity`: it has not. */
  readonly endedAt: number
  /** As it stands in the row. */
  readonly hold: string
}

interface AccountBooksOptions {
  readonly commands: Commands
  readonly keys: KeyNames
  readonly terms: LedgerTerms
  readonly now: () => number
  /** A gateway sees to holds whose reservations have ended. */
  readonly isSwept: boolean
  /** Names of the accounts, and of the keys of all windows. */
  readonly names: readonly string[]
  readonly windows: ReadonlySet<string>
}

/** An account at one instant; windows by their encoded names. */
interface State {
  readonly taken: ReadonlyMap<string, Taken>
  readonly running: ReadonlySet<string>
  /** `null`: there is no sum. */
  readonly used: ReadonlyMap<string, Microcredits | null>
}
interface Taken { readonly microcredits: Microcredits, readonly windows: readonly string[] }

const nothing: State = { taken: new Map(), running: new Set(), used: new Map() }

/** A row that is looked at again in the end. */
interface Seen extends Taken { readonly member: string, readonly subject: string, readonly row: HeldRow }

interface Account {
  readonly before: State
  readonly windows: Set<string>
  /** Of rows that ended before that, and were no holds any more. */
  readonly settled: Map<string, Microcredits>
  /** Of all rows that were no holds. */
  readonly most: Map<string, Microcredits>
  /** Settled ones that may have been holds all the same. */
  readonly late: Seen[]
  /** They run, and were no holds; they have ended for long, and were holds that run. */
  readonly unheld: Seen[]
  readonly leftOpen: Seen[]
}

/** What has ended so long ago, by whatever clock, and is no hold at the beginning, is none afterwards, ms. */
const lateMs = 300_000

/** Begins to read: before any row. */
export async function accountBooks (options: AccountBooksOptions): Promise<AccountBooks> {
  const { commands, keys, terms, now, isSwept } = options
  const accounts = new Map<string, Account>()
  const begunAt = now()
  const accountOf = (name: string): Account => {
    const account = accounts.get(name) ?? accountFrom(nothing)
    accounts.set(name, account)
    return account
  }
  const windowsOf = Map.groupBy([...options.windows].map(windowKey), ({ account }) => account)
  for (const name of new Set([...options.names, ...windowsOf.keys()])) {
    const windows = windowsOf.get(name)?.map(({ window }) => window) ?? []
    accounts.set(name, accountFrom(await stateOf(options, name, windows)))
  }

  const addTo = ({ before, windows, settled, most, late, unheld, leftOpen }: Account, seen: Seen): void => {
    const { member, windows: its, row: { stage, refunded, endedAt } } = seen
    for (const window of its) windows.add(window)
    const isHold = before.taken.has(member)
    const isSettled = stage === 'settled'
    if (!refunded && !isHold) count(most, seen)
    if (!refunded && isSettled) {
      if (isHold || endedAt > begunAt - lateMs) late.push(seen)
      else count(settled, seen)
    }
    if (isSettled || stage === 'unknown') {
      const isTold = endedAt + askAfterMs.running + terms.sentMs < begunAt
      if (isTold && isSwept && before.running.has(member)) leftOpen.push(seen)
    } else if (!refunded && !isHold) unheld.push(seen)
  }

  return {
    add (subject, rows) {
      for (const row of rows) {
        const { name, accounts } = holdFromRow(row.hold)
        for (const [account, ...windows] of accounts) {
          const member = memberOf(subject, name)
          const seen = { member, subject, row, microcredits: row.cost, windows: windows.map(encoded) }
          addTo(accountOf(account), seen)
        }
      }
    },
    async faults (isWhole) {
      const found: Fault[] = []
      const erased = isWhole ? erasedOf(commands, keys) : null
      for (const [account, its] of accounts) {
        const windows = [...its.windows]
        const after = await stateOf(options, account, windows)
        const { before, settled, most, late } = its
        const ended = late.filter(({ member }) => !after.taken.has(member))
        const least = sumsOf([...after.taken.values(), ...ended], settled)
        const atMost = sumsOf(before.taken.values(), most)
        for (const name of windows) {
          const low = { used: after.used.get(name)!, rows: least.get(name) ?? 0 }
          const high = { used: before.used.get(name) ?? 0, rows: atMost.get(name) ?? 0 }
          const window = decoded(name)
          found.push(...await faultsOfWindow({ account, window, low, high, erased, now: now(), terms }))
        }
        found.push(...await runningFaults(options, account, its, after))
      }
      return found
    }
  }
}

function count (sums: Map<string, Microcredits>, { microcredits, windows }: Taken): void {
  for (const window of windows) sums.set(window, (sums.get(window) ?? 0) + microcredits)
}

function sumsOf (all: Iterable<Taken>, sums: ReadonlyMap<string, Microcredits>): ReadonlyMap<string, Microcredits> {
  const more = new Map(sums)
  for (const taken of all) count(more, taken)
  return more
}

function accountFrom (before: State): Account {
  const windows = new Set(before.used.keys())
  return { before, windows, settled: new Map(), most: new Map(), late: [], unheld: [], leftOpen: [] }
}

async function stateOf (
  { commands: { on }, keys }: AccountBooksOptions, account: string, windows: readonly string[]
): Promise<State> {
  const reply = await on(keys.holdsOf(account as CeilingAccount), 'readHolds', { windows })
  const [holds, running, used] = reply as unknown as readonly [readonly Reply[], readonly Reply[], readonly Reply[]]
  const taken = new Map<string, Taken>()
  for (let index = 0; index < holds.length; index += 2) {
    const [microcredits, ...windows] = String(holds[index + 1]).split(' ')
    taken.set(String(holds[index]), { microcredits: Number(microcredits), windows })
  }
  return {
    taken,
    running: new Set(running.map(String)),
    used: new Map(windows.map((window, index) => [window, used[index] === null ? null : Number(used[index])]))
  }
}

interface Held { readonly used: Microcredits | null, readonly rows: Microcredits }

interface WindowBooks {
  readonly account: string
  readonly window: string
  /** What is used afterwards, `null` for nothing, and the least that it should be. */
  readonly low: Held
  /** What was used before, and the most that it should have been. */
  readonly high: Held & { readonly used: Microcredits }
  /** `null`: rows are missing, so that it can't be said what is too much. */
  readonly erased: Erased | null
  readonly now: number
  readonly terms: LedgerTerms
}

async function faultsOfWindow (
  { account, window, low, high, erased, now, terms }: WindowBooks
): Promise<readonly Fault[]> {
  const { startsAt, endsAt } = earliestOf(window)
  // It goes some time after its end, as rows do.
  if (low.used !== null || now < endsAt + shortestRetentionMs) {
    const faults = windowFaults({ account, window, rows: low.rows, used: low.used ?? 0 }, () => Infinity)
    if (faults.length > 0) return faults
  }
  const isRemembered = startsAt > now - terms.retentionMs + slackMs
  if (erased === null || !isRemembered || high.used <= high.rows) return []
  const gone = await erased(startsAt)
  return windowFaults({ account, window, ...high }, () => gone)
}

/** At most so much is of tasks made since then (Unix ms) whose rows were erased with all that was of their subject. */
type Erased = (since: number) => Promise<Microcredits>

function erasedOf ({ ask }: Commands, keys: KeyNames): Erased {
  return async since => {
    if ((await ask(client => namesLike(client, keys.erasings))).length > 0) return Infinity
    const first = instant(since - dayMs).slice(0, 10)
    let sum = 0
    for (const name of await ask(client => namesLike(client, keys.usageOfErased))) {
      if (usageKey(name).day < first) continue
      for (const [field, value] of Object.entries(await ask(client => client.hgetall(name)))) {
        if (field.startsWith('microcredits:')) sum += Number(value)
      }
    }
    return sum
  }
}

async function runningFaults (
  options: AccountBooksOptions, account: string, { unheld, leftOpen }: Account, after: State
): Promise<readonly Fault[]> {
  const faults: Fault[] = []
  const report = ({ subject, row: { text } }: Seen, is: string, problem: string): void => {
    faults.push({ kind: 'running', subject, problem: `${text} is ${is}, and ${problem} ${account}` })
  }
  for (const seen of leftOpen) {
    if (after.running.has(seen.member)) report(seen, seen.row.stage, 'counts all the same as running in')
  }
  for (const seen of unheld) {
    if (after.taken.has(seen.member)) continue
    const stage = await stageOf(options, { subject: seen.subject, number: seen.row.number })
    if (stage !== null) report(seen, stage, 'does not count as running in')
  }
  return faults
}

/** `null`: it does not run any more. */
async function stageOf ({ commands: { ask }, keys }: AccountBooksOptions, place: Place): Promise<string | null> {
  const [stage, refunded] = await ask(client => client.hmget(keys.reservation(place), 'stage', 'refunded'))
  const isRunning = stage === 'reserved' || stage === 'sent' || stage === 'claimed'
  return isRunning && refunded !== '1' ? stage : null
}
