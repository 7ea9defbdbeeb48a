import type { DatabaseSync } from 'node:sqlite'
import {
  type CeilingAccounts, type Extra, type ExtraAccount, levelOf, type WindowState
} from '../../domain/ceilings.ts'
import {
  type CeilingAccount, type Hold, isNearEnd, type NearEnd, type NoRoom, type ReserveRequest, tooMuchGranted
} from '../../domain/ledger.ts'
import type { Microcredits } from '../../domain/policy.ts'
import { recent } from '../../domain/recent.ts'
import { type GroupCommit, maxSum, read, Sums } from './database.ts'

/**
 * An account above the subject that a reservation is counted in, with one of its windows: as it stands in its row.
 * Without a window it is a running task of the account alone.
 */
export type HeldWindow =
  | readonly [account: CeilingAccount, window: string, endsAt: number | null]
  | readonly [account: CeilingAccount]

const none = [] as const
/** Windows whose use is remembered: far more than are open at a time. */
const maxRemembered = 10_000

/** The accounts and windows of a request; `null` for none. */
export function heldBy ({ holds = none, runningLimits = none }: ReserveRequest): readonly HeldWindow[] | null {
  if (holds.length + runningLimits.length === 0) return null
  const counted = runningLimits.filter(({ account }) => !holds.some(hold => hold.account === account))
  return [
    ...holds.map(({ account, window, endsAt }) => [account, window, endsAt] as const),
    ...counted.map(({ account }) => [account] as const)
  ]
}

/** As it stands in the row. */
export function heldFrom (column: string | null): readonly HeldWindow[] | null {
  return column === null ? null : JSON.parse(column) as HeldWindow[]
}

/**
 * The accounts above the subjects. As with those, what is unfinished stands in its own row and is summed up in memory,
 * and a row of `ceilings` has what has ended: a submit writes no page of it.
 *
 * A server also remembers what it has read of the file. The command line can only lower what is used, by giving charges
 * back, and raise limits: so what is remembered is never too generous, and the file is asked again before anybody is
 * refused.
 */
export class SqliteCeilings implements CeilingAccounts {
  readonly #group: GroupCommit
  readonly #now: () => number
  readonly #sumUp: () => void
  readonly #sql: ReturnType<typeof statements>
  /** Credits of windows, and tasks of accounts: of what is reserved, and of what is unfinished. */
  readonly #open = new Sums()
  readonly #running = new Sums()
  /** What the open transaction will add to the file at its end. */
  readonly #changes = new Map<string, Change>()
  /** As the file has it: what is used, by window; and what accounts were given. */
  readonly #used = recent<Microcredits>(maxRemembered)
  readonly #extras = new Map<string, readonly ExtraRow[]>()

  /** `sumUp`: sees to it that all that is unfinished has entered. */
  constructor (
    db: DatabaseSync, group: GroupCommit, { now, sumUp }: { readonly now: () => number, readonly sumUp: () => void }
  ) {
    this.#group = group
    this.#now = now
    this.#sumUp = sumUp
    this.#sql = statements(db)
    group.onEnd(() => this.#write())
    group.onUndo(() => this.#changes.clear())
  }

  /** What a request lacks above its subject. Nothing is set aside. */
  lackOf ({ holds = none, runningLimits = none, microcredits }: ReserveRequest): NoRoom | null {
    const full = runningLimits.find(({ account, limit }) => this.#running.of(account) >= limit)
    const spent = microcredits === 0 ? undefined : holds.find(hold => !this.#hasRoom(hold, microcredits))
    if (full !== undefined && (spent === undefined || depthOf(full.account) <= depthOf(spent.account))) {
      return { granted: false, reason: 'running', account: full.account }
    }
    if (spent === undefined) return null
    const { account, window, endsAt: resetsAt } = spent
    return { granted: false, reason: 'ceiling', account, window, resetsAt }
  }

  /** Of the pool's windows the one that has least left, if it is nearly used up. */
  nearEndOf (holds: readonly Hold[]): NearEnd | null {
    let least: NearEnd | null = null
    for (const hold of holds) {
      if (levelOf(hold.account) !== 'pool' || !this.#isNearEnd(hold)) continue
      this.#readAgain(hold)
      const left = Math.max(0, this.#limitOf(hold) - this.#usedIn(hold))
      if (this.#isNearEnd(hold) && (least === null || left < least.left)) least = { hold, left }
    }
    return least
  }

  /** It is reserved or unfinished from now on. */
  enter (held: readonly HeldWindow[] | null, microcredits: Microcredits): void {
    if (held !== null) this.#count(held, microcredits, 1)
  }

  leave (held: readonly HeldWindow[] | null, microcredits: Microcredits): void {
    if (held !== null) this.#count(held, -microcredits, -1)
  }

  /** Within a transaction: it has ended, and its windows in the file have it from now on. */
  spend (held: readonly HeldWindow[] | null, microcredits: Microcredits): void {
    if (held !== null) this.#change(held, microcredits)
  }

  /** Within a transaction: of what has ended. A window that is over and forgotten takes nothing back. */
  giveBack (held: readonly HeldWindow[] | null, microcredits: Microcredits): void {
    if (held !== null) this.#change(held, -microcredits)
  }

  /** What the limit of a subject's period is raised by. `isNew`: as the file has it now. */
  extraOf (subject: string, isNew: boolean): Microcredits {
    const account = `subject:${subject}` as const
    if (isNew) this.#readExtras(account)
    return this.#raisedBy(account, false)
  }

  /** What is unfinished enters anew, and what the file has is read anew. */
  clear (): void {
    this.#open.clear()
    this.#running.clear()
    this.#used.clear()
    this.#extras.clear()
  }

  async stateOf (holds: readonly Hold[]): Promise<readonly WindowState[]> {
    return read(() => {
      this.#sumUp()
      return holds.map(hold => {
        this.#readAgain(hold)
        return { used: this.#usedIn(hold), limit: this.#limitOf(hold) }
      })
    })
  }

  async runningIn (account: CeilingAccount): Promise<number> {
    return read(() => {
      this.#sumUp()
      return this.#running.of(account)
    })
  }

  async raise ({ account, microcredits, until }: Extra): Promise<Microcredits> {
    const all = this.#group.run(() => {
      this.#readExtras(account)
      const before = until === null ? this.#grantedTo(account) : this.#raisedBy(account, false)
      if (before + microcredits > maxSum) return null
      this.#sql.raise.run(account, microcredits, until, this.#now())
      this.#readExtras(account)
      return before + microcredits
    })
    await this.#group.committed()
    if (all === null) throw tooMuchGranted()
    return all
  }

  #hasRoom (hold: Hold, microcredits: Microcredits): boolean {
    const fits = (): boolean => this.#usedIn(hold) + microcredits <= this.#limitOf(hold)
    if (fits()) return true
    this.#readAgain(hold)
    return fits()
  }

  #isNearEnd (hold: Hold): boolean {
    const limit = this.#limitOf(hold)
    return isNearEnd(limit - this.#usedIn(hold), limit)
  }

  #readAgain ({ account, window }: Hold): void {
    this.#used.delete(nameOf(account, window))
    this.#readExtras(account as ExtraAccount)
  }

  /** Of an account that was never near its limit, nothing is read. */
  #readExtras (account: ExtraAccount): void {
    const rows = this.#sql.extras.all(account) as unknown as ExtraRow[]
    if (rows.length === 0) this.#extras.delete(account)
    else this.#extras.set(account, rows)
  }

  #usedIn ({ account, window }: Hold): Microcredits {
    const name = nameOf(account, window)
    let ended = this.#used.get(name)
    if (ended === undefined) {
      ended = (this.#sql.used.get(account, window) as { used: number } | undefined)?.used ?? 0
      this.#used.set(name, ended)
    }
    return ended + (this.#changes.get(name)?.microcredits ?? 0) + this.#open.of(name)
  }

  #limitOf ({ account, endsAt, limit }: Hold): Microcredits {
    return limit + this.#raisedBy(account as ExtraAccount, endsAt === null)
  }

  /** By the extras that are in force now; and, if it is prepaid, by all grants. */
  #raisedBy (account: ExtraAccount, isPrepaid: boolean): Microcredits {
    const rows = this.#extras.get(account)
    if (rows === undefined) return 0
    const now = this.#now()
    return sumOf(rows.filter(({ until }) => until === null ? isPrepaid : until > now))
  }

  #grantedTo (account: ExtraAccount): Microcredits {
    return sumOf((this.#extras.get(account) ?? []).filter(({ until }) => until === null))
  }

  #change (held: readonly HeldWindow[], microcredits: Microcredits): void {
    for (const [account, window, endsAt] of held) {
      if (window === undefined) continue
      const name = nameOf(account, window)
      const sum = (this.#changes.get(name)?.microcredits ?? 0) + microcredits
      this.#changes.set(name, { account, window, endsAt: endsAt!, microcredits: Math.min(sum, maxSum) })
    }
  }

  /** Once for each window, however many tasks have ended in this turn. */
  #write (): void {
    for (const [name, { account, window, endsAt, microcredits }] of this.#changes) {
      if (microcredits > 0) this.#sql.spend.run(account, window, endsAt, microcredits)
      else if (microcredits < 0) this.#sql.giveBack.run(-microcredits, account, window)
      const known = this.#used.get(name)
      if (known !== undefined) this.#used.set(name, Math.max(0, known + microcredits))
    }
    this.#changes.clear()
  }

  #count (held: readonly HeldWindow[], microcredits: Microcredits, tasks: 1 | -1): void {
    let last: CeilingAccount | null = null
    for (const [account, window] of held) {
      if (account !== last) this.#running.add(account, tasks)
      last = account
      if (window !== undefined && microcredits !== 0) this.#open.add(nameOf(account, window), microcredits)
    }
  }
}

interface Change {
  readonly account: CeilingAccount
  readonly window: string
  readonly endsAt: number | null
  readonly microcredits: Microcredits
}

interface ExtraRow {
  readonly microcredits: Microcredits
  readonly until: number | null
}

const sumOf = (rows: readonly ExtraRow[]): Microcredits => rows.reduce((sum, row) => sum + row.microcredits, 0)

/** Names of accounts and windows are printable. */
const nameOf = (account: CeilingAccount, window: string): string => `${account}\n${window}`

/** The outermost first. */
const levels = ['gateway', 'pool', 'plan'] as const
const depthOf = (account: CeilingAccount): number => levels.indexOf(levelOf(account))

/** Enters the credits of these unfinished rows, which are about to end, into the windows that they hold. */
export function spendWindowsFor (condition: string): string {
  return `INSERT INTO ceilings (account, window_id, ends_at, used)
    SELECT value ->> 0, value ->> 1, value ->> 2, CAST(min(total(microcredits), ${maxSum}) AS INTEGER)
    FROM tasks, json_each(tasks.holds)
    WHERE ${condition} AND refunded = 0 AND microcredits > 0 AND json_array_length(value) = 3 GROUP BY 1, 2
    ON CONFLICT DO UPDATE SET used = min(used + excluded.used, ${maxSum});`
}

/** Sums stop where JavaScript can't count any more, and at 0, as those of subjects do. */
function statements (db: DatabaseSync) {
  return {
    used: db.prepare('SELECT used FROM ceilings WHERE account = ? AND window_id = ?'),
    spend: db.prepare(`INSERT INTO ceilings (account, window_id, ends_at, used) VALUES (?, ?, ?, ?)
      ON CONFLICT DO UPDATE SET used = min(used + excluded.used, ${maxSum})`),
    giveBack: db.prepare('UPDATE ceilings SET used = max(0, used - ?) WHERE account = ? AND window_id = ?'),
    extras: db.prepare('SELECT microcredits, until FROM extras WHERE account = ?'),
    raise: db.prepare('INSERT INTO extras (account, microcredits, until, created_at) VALUES (?, ?, ?, ?)')
  }
}
