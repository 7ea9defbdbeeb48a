import type { DatabaseSync } from 'node:sqlite'
import {
  type CreditAccounts, type CreditBalance, type Grant, isNearEnd, type LedgerTerms, type NearEnd, type NoRoom,
  type ReserveRequest, type SessionBudget, type SessionSpent, tooMuchGranted
} from '../../domain/ledger.ts'
import type { Microcredits } from '../../domain/policy.ts'
import { type HeldWindow, heldBy, heldFrom, SqliteCeilings } from './ceilings.ts'
import { type GroupCommit, maxSum, Numbers, read, type Role, Sums } from './database.ts'

/** Which accounts a price is taken from, and goes back to. */
interface Charge {
  readonly subject: string
  readonly periodStart: number
  readonly fromPeriod: Microcredits
  readonly fromGrants: Microcredits
  /** The session whose own limits it counts against; `null` for one that has none. */
  readonly sessionId: string | null
  /** What it takes from each window above the subject. */
  readonly fromWindows: Microcredits
  readonly held: readonly HeldWindow[] | null
}

/** What is set aside for a submit that is not sent yet. */
export interface Reservation {
  readonly request: ReserveRequest
  readonly charge: Charge
  /** Unix ms. */
  readonly createdAt: number
  readonly leaseUntil: number
}

/** A place was set aside. `near`: as of `Reserved`. */
export interface Place { readonly granted: true, readonly near?: readonly NearEnd[] | undefined }

const place: Place = { granted: true }

/** How a price is parted between the period and the grants. */
interface Share {
  readonly fromGrants: Microcredits
  /** What is left of the period, and what the period has at all; `null`: any number. */
  readonly ofPeriod: { readonly left: Microcredits, readonly limit: Microcredits } | null
}

const farFromEnd: readonly NearEnd[] = []
const unlimited: Share = { fromGrants: 0, ofPeriod: null }

/** The columns of `tasks` that a charge is made of. */
export const chargeColumns = 'subject, period_start, microcredits, granted, session_id, holds'
/** The columns of an `UnfinishedRow`. */
export const unfinishedColumns = `id, refunded, abandoned_at, ${chargeColumns}`

export interface ChargeRow {
  readonly subject: string
  readonly period_start: number
  readonly microcredits: Microcredits
  /** The part of it that is from grants. */
  readonly granted: Microcredits
  readonly session_id: string | null
  readonly holds: string | null
}

/** A row that has not ended: as long as that is so, its credits are counted in memory. */
export interface UnfinishedRow extends ChargeRow {
  readonly id: number
  /** When its owner gave it up, and its slot came free. */
  readonly abandoned_at: number | null
  /** An operator has let it go, and its task was found later: it is not charged any more. */
  readonly refunded: 0 | 1
}

interface AccountsOptions {
  readonly role: Role
  readonly terms: LedgerTerms
  readonly now: () => number
}

/**
 * What each subject has: unfinished tasks, credits of a period and of grants, and what its sessions with limits of
 * their own have taken.
 *
 * What is only reserved stands in memory: one server owns the file, so nobody else needs to know of it, and a crash
 * gives it back by itself, for nothing was sent.
 *
 * What is unfinished stands in its own row, and is summed up in memory: from the file at start and after a transaction
 * that was undone. So a submit writes no page of `credits`, whose rows lie far apart: they have what has ended, and are
 * written together with that end.
 *
 * All else is in the file alone, which is asked each time, because the command line may give credits and release
 * charges while a server runs. Neither changes a row that is unfinished. The command line itself, which owns nothing,
 * sums up what is unfinished whenever it is asked.
 *
 * `take` and what follows it, up to `giveBack`, are for use within a transaction of the ledger.
 */
export class SubjectAccounts implements CreditAccounts {
  /** The accounts above the subjects. */
  readonly ceilings: SqliteCeilings
  readonly #group: GroupCommit
  readonly #isOwner: boolean
  readonly #terms: AccountsOptions['terms']
  readonly #now: () => number
  readonly #sql: ReturnType<typeof statements>
  readonly #reserved = new Map<number, Reservation>()
  /** Of what is reserved. */
  readonly #fingerprints = new Map<string, string>()
  readonly #held = { ofGrants: new Sums(), ofSessions: new Sums(), uses: new Sums() }
  /** Credits of periods, by period and subject: of what is reserved, and of what is unfinished. */
  readonly #open = new Sums()
  /** Numbers of both, by subject; and of those among them that take no slot, since their owner has given them up. */
  readonly #unfinished = new Numbers()
  readonly #abandoned = new Numbers()
  /** Both are as the file has it; else nobody is told of them, and nothing is written. */
  #isSummedUp = false

  constructor (db: DatabaseSync, group: GroupCommit, { role, terms, now }: AccountsOptions) {
    this.#group = group
    this.#isOwner = role === 'server'
    this.#terms = terms
    this.#now = now
    this.#sql = statements(db)
    this.ceilings = new SqliteCeilings(db, group, { now, sumUp: () => this.#sumUp() })
    this.#sumUp()
    group.onUndo(() => { this.#isSummedUp = false })
    group.onBegin(() => this.#sumUp())
  }

  /** Sets a place, a use and credits aside under this number, or says what is lacking. */
  reserve (id: number, request: ReserveRequest): NoRoom | Place {
    const { subject, taskLimit, idempotency } = request
    read(() => this.#sumUp())
    const above = read(() => this.ceilings.lackOf(request))
    if (above !== null) return above
    if (this.#countOf(subject) >= taskLimit) return { granted: false, reason: 'slot' }
    const share = read(() => this.#shareOf(request))
    if (typeof share === 'string') return { granted: false, reason: share }
    const charge = chargeTo(request, share)
    const createdAt = this.#now()
    this.#reserved.set(id, { request, charge, createdAt, leaseUntil: createdAt + this.#terms.reservedMs })
    if (idempotency !== undefined) this.#fingerprints.set(inScope(idempotency.key, subject), idempotency.fingerprint)
    this.#hold(charge, 1)
    this.#enter(id, charge)
    const near = request.microcredits === 0 ? farFromEnd : read(() => this.#nearEnds(request, share))
    return near.length === 0 ? place : { granted: true, near }
  }

  /** `undefined`: it is not there, or stands in the file. */
  reservation (id: number): Reservation | undefined {
    return this.#reserved.get(id)
  }

  /** The fingerprint that a reservation with this idempotency key has. */
  fingerprintOf (subject: string, key: string): string | undefined {
    return this.#fingerprints.get(inScope(key, subject))
  }

  /** The numbers of the reservations that have overstayed. */
  lapsed (): readonly number[] {
    const now = this.#now()
    return [...this.#reserved].filter(([, { leaseUntil }]) => leaseUntil <= now).map(([id]) => id)
  }

  /** Gives all back that is set aside. `undefined`: it was not there. */
  cancel (id: number): Reservation | undefined {
    const reservation = this.#forget(id)
    if (reservation !== undefined) this.#leave(id, reservation.charge)
    return reservation
  }

  /** Takes from the accounts in the file what a reservation has set aside: the credits of its period, when it ends. */
  take ({ request: { session }, charge }: Reservation): void {
    const { subject, fromPeriod, fromGrants } = charge
    if (session !== undefined) this.#sql.use.run(subject, session.id, fromPeriod + fromGrants, session.expiresAt)
    if (fromGrants > 0) this.#sql.take.run(fromGrants, subject)
  }

  /** A reservation stands in the file now, and not in memory. Its task takes the same place. */
  stored (id: number): void {
    this.#forget(id)
  }

  /** The row of an unfinished task is gone: nothing came of it, and the session has its use again as well. */
  dropped (row: UnfinishedRow): void {
    const charge = chargeFrom(row)
    this.#leave(row.id, charge)
    this.#returnRest(charge, 1)
  }

  /** An unfinished task has ended: its credits are of the account in the file from now on. */
  ended (row: UnfinishedRow): void {
    const charge = chargeOf(row)
    this.#leave(row.id, charge)
    if (row.refunded === 0) this.#spend(charge)
  }

  /**
   * A row that was sent has ended without a task, at another price. The part of it that is from grants from now on is
   * returned.
   */
  settled (row: UnfinishedRow, microcredits: Microcredits): Microcredits {
    const before = chargeFrom(row)
    const { subject, sessionId } = before
    const rest = Math.max(0, microcredits - before.fromPeriod)
    const isDrawn = before.fromGrants > 0
    const fromGrants = isDrawn ? Math.min(rest, before.fromGrants + Math.max(0, this.#grantedTo(subject))) : 0
    this.#leave(row.id, before)
    this.#spend({ ...before, fromGrants, fromPeriod: microcredits - fromGrants, fromWindows: microcredits })
    if (fromGrants > before.fromGrants) this.#sql.take.run(fromGrants - before.fromGrants, subject)
    else if (isDrawn) this.#sql.add.run(subject, before.fromGrants - fromGrants)
    if (sessionId !== null) this.#sql.unuse.run(0, row.microcredits - microcredits, subject, sessionId)
    return fromGrants
  }

  /** The owner of an unfinished task has given it up: it takes no slot any more, and all else stays. */
  abandoned ({ id, subject }: UnfinishedRow): void {
    this.#abandoned.add(subject, id)
  }

  /** A task that had ended is unfinished again. */
  reopened (row: UnfinishedRow): void {
    const charge = chargeOf(row)
    this.#enter(row.id, charge)
    if (row.refunded === 1) return
    this.#sql.giveBack.run(charge.fromPeriod, charge.subject, charge.periodStart)
    this.ceilings.giveBack(charge.held, charge.fromWindows)
  }

  /** Of one that has ended: gives back credits alone. `false`: the period had as many refunds already. */
  refund (row: ChargeRow): boolean {
    const charge = chargeFrom(row)
    const { subject, periodStart, fromPeriod } = charge
    const refunded = this.#sql.refund.run(fromPeriod, subject, periodStart, this.#terms.refundsPerPeriod)
    if (refunded.changes === 0) return false
    this.ceilings.giveBack(charge.held, charge.fromWindows)
    this.#returnRest(charge, 0)
    return true
  }

  /** Of one that has ended, and nothing came of it: the session has its use again as well. */
  giveBack (row: ChargeRow): void {
    const charge = chargeFrom(row)
    this.#sql.giveBack.run(charge.fromPeriod, charge.subject, charge.periodStart)
    this.ceilings.giveBack(charge.held, charge.fromWindows)
    this.#returnRest(charge, 1)
  }

  /** The numbers below that one of what is unfinished of the subject, reservations among them; the newest first. */
  unfinishedOf (subject: string, before: number): readonly number[] {
    this.#sumUp()
    return [...this.#unfinished.of(subject)].filter(id => id < before).sort((one, other) => other - one)
  }

  async balanceOf (subject: string, periodStart: number): Promise<CreditBalance> {
    return read(() => {
      this.#sumUp()
      const extra = this.ceilings.extraOf(subject, true)
      const balance = {
        used: this.#usedOf(subject, periodStart),
        granted: this.#grantedTo(subject),
        unfinished: this.#countOf(subject)
      }
      return extra === 0 ? balance : { ...balance, extra }
    })
  }

  async spentIn (subject: string, budgetId: string): Promise<SessionSpent> {
    return read(() => this.#spentIn(subject, budgetId))
  }

  async grant ({ subject, microcredits }: Grant): Promise<Microcredits> {
    const left = this.#group.run(() => {
      if (this.#grantedRow(subject) + microcredits > Number.MAX_SAFE_INTEGER) return null
      this.#sql.grant.run(subject, microcredits, this.#now())
      this.#sql.add.run(subject, microcredits)
      return this.#grantedTo(subject)
    })
    await this.#group.committed()
    if (left === null) throw tooMuchGranted()
    return left
  }

  /** Where its credits would come from, or what is lacking. Grants are only looked at when they are needed. */
  #shareOf (request: ReserveRequest): Share | 'uses' | 'credits' {
    const { creditLimit, session } = request
    const lack = session === undefined ? null : this.#lackOf(request, session)
    if (lack !== null) return lack
    return creditLimit === null ? unlimited : this.#limitedShare(request, creditLimit) ?? 'credits'
  }

  /** From the grants what the period does not have; `null`: they don't either. Extras are read anew before that. */
  #limitedShare ({ subject, periodStart, microcredits }: ReserveRequest, creditLimit: Microcredits): Share | null {
    const used = this.#usedOf(subject, periodStart)
    for (const isNew of [false, true]) {
      const limit = creditLimit + this.ceilings.extraOf(subject, isNew)
      const left = Math.max(0, limit - used)
      const fromPeriod = Math.min(microcredits, left)
      const fromGrants = microcredits - fromPeriod
      if (fromGrants === 0 || fromGrants <= this.#grantedTo(subject)) {
        return { fromGrants, ofPeriod: { left: left - fromPeriod, limit } }
      }
    }
    return null
  }

  /** Of a request that was set aside. Far from its end, nothing more is read. */
  #nearEnds ({ subject, creditLimit, holds }: ReserveRequest, { ofPeriod }: Share): readonly NearEnd[] {
    const own = ofPeriod !== null && isNearEnd(ofPeriod.left, ofPeriod.limit)
      ? this.#ownEnd(subject, creditLimit! + this.ceilings.extraOf(subject, true), ofPeriod)
      : null
    const pool = holds === undefined ? null : this.ceilings.nearEndOf(holds)
    return own === null && pool === null ? farFromEnd : [own, pool].filter(end => end !== null)
  }

  /** With the extras and grants as the file has them now. */
  #ownEnd (subject: string, limit: Microcredits, before: NonNullable<Share['ofPeriod']>): NearEnd | null {
    const granted = this.#grantedTo(subject)
    const left = before.left + limit - before.limit + granted
    return isNearEnd(left, limit + granted) ? { hold: null, left } : null
  }

  /** What of a request its session has no room for. */
  #lackOf ({ subject, microcredits }: ReserveRequest, { id, uses, creditLimit }: SessionBudget) {
    const spent = this.#spentIn(subject, id)
    if (uses !== null && spent.uses >= uses) return 'uses'
    return creditLimit !== null && spent.microcredits + microcredits > creditLimit ? 'credits' : null
  }

  #usedOf (subject: string, periodStart: number): Microcredits {
    const row = this.#sql.used.get(subject, periodStart) as { used: number } | undefined
    return (row?.used ?? 0) + this.#open.of(inScope(periodStart, subject))
  }

  #grantedTo (subject: string): Microcredits {
    return this.#grantedRow(subject) - this.#held.ofGrants.of(subject)
  }

  #grantedRow (subject: string): Microcredits {
    return (this.#sql.granted.get(subject) as { granted: number } | undefined)?.granted ?? 0
  }

  #spentIn (subject: string, sessionId: string): SessionSpent {
    const row = this.#sql.spentIn.get(subject, sessionId) as SessionSpent | undefined
    const name = inScope(sessionId, subject)
    return {
      uses: (row?.uses ?? 0) + this.#held.uses.of(name),
      microcredits: (row?.microcredits ?? 0) + this.#held.ofSessions.of(name)
    }
  }

  /** What goes back beside the credits of the period. */
  #returnRest ({ subject, fromPeriod, fromGrants, sessionId }: Charge, uses: 0 | 1): void {
    if (sessionId !== null) this.#sql.unuse.run(uses, fromPeriod + fromGrants, subject, sessionId)
    if (fromGrants > 0) this.#sql.add.run(subject, fromGrants)
  }

  #forget (id: number): Reservation | undefined {
    const reservation = this.#reserved.get(id)
    if (reservation === undefined) return undefined
    const { request: { subject, idempotency }, charge } = reservation
    this.#reserved.delete(id)
    this.#hold(charge, -1)
    if (idempotency !== undefined) this.#fingerprints.delete(inScope(idempotency.key, subject))
    return reservation
  }

  /** What the file is told as soon as it is sent. */
  #hold ({ subject, fromPeriod, fromGrants, sessionId }: Charge, sign: 1 | -1): void {
    const { ofGrants, ofSessions, uses } = this.#held
    if (fromGrants > 0) ofGrants.add(subject, sign * fromGrants)
    if (sessionId === null) return
    uses.add(inScope(sessionId, subject), sign)
    ofSessions.add(inScope(sessionId, subject), sign * (fromPeriod + fromGrants))
  }

  /** How many slots are taken. */
  #countOf (subject: string): number {
    return this.#unfinished.of(subject).size - this.#abandoned.of(subject).size
  }

  #enter (id: number, { subject, periodStart, fromPeriod, fromWindows, held }: Charge): void {
    this.#unfinished.add(subject, id)
    this.#open.add(inScope(periodStart, subject), fromPeriod)
    this.ceilings.enter(held, fromWindows)
  }

  #leave (id: number, { subject, periodStart, fromPeriod, fromWindows, held }: Charge): void {
    this.#unfinished.delete(subject, id)
    this.#abandoned.delete(subject, id)
    this.#open.add(inScope(periodStart, subject), -fromPeriod)
    this.ceilings.leave(held, fromWindows)
  }

  /** The accounts in the file have it from now on. */
  #spend ({ subject, periodStart, fromPeriod, fromWindows, held }: Charge): void {
    this.#sql.spend.run(subject, periodStart, fromPeriod)
    this.ceilings.spend(held, fromWindows)
  }

  /** What the file has, and on top what it does not have yet. */
  #sumUp (): void {
    if (this.#isSummedUp && this.#isOwner) return
    this.#unfinished.clear()
    this.#abandoned.clear()
    this.#open.clear()
    this.ceilings.clear()
    for (const row of this.#sql.unfinished.all() as unknown as UnfinishedRow[]) {
      this.#enter(row.id, chargeOf(row))
      if (row.abandoned_at !== null) this.abandoned(row)
    }
    for (const [id, { charge }] of this.#reserved) this.#enter(id, charge)
    this.#isSummedUp = true
  }
}

/** A key is printable, so nothing that is in it or in a subject is taken for the end of it. */
function inScope (name: string | number, subject: string): string {
  return `${name}\n${subject}`
}

function chargeTo (request: ReserveRequest, { fromGrants }: Share): Charge {
  const { subject, periodStart, microcredits, session } = request
  return {
    subject,
    periodStart,
    sessionId: session?.id ?? null,
    fromPeriod: microcredits - fromGrants,
    fromGrants,
    fromWindows: microcredits,
    held: heldBy(request)
  }
}

function chargeFrom (row: ChargeRow): Charge {
  const { subject, microcredits, granted } = row
  return {
    subject,
    periodStart: row.period_start,
    fromPeriod: microcredits - granted,
    fromGrants: granted,
    sessionId: row.session_id,
    fromWindows: microcredits,
    held: heldFrom(row.holds)
  }
}

/** What it is charged with as long as it is unfinished, and from its end on. */
function chargeOf (row: UnfinishedRow): Charge {
  const charge = chargeFrom(row)
  return row.refunded === 0 ? charge : { ...charge, fromPeriod: 0, fromWindows: 0 }
}

/** Enters the credits of these unfinished rows, which are about to end, into the accounts of their periods. */
export function spendFor (condition: string): string {
  return `INSERT INTO credits (subject, period_start, used)
    SELECT subject, period_start, CAST(min(total(iif(refunded = 0, microcredits - granted, 0)), ${maxSum}) AS INTEGER)
    FROM tasks WHERE ${condition} GROUP BY subject, period_start
    ON CONFLICT DO UPDATE SET used = min(used + excluded.used, ${maxSum});`
}

/**
 * Sums that JavaScript can't read back exactly would shut the account: they stop there. What goes back after that may
 * be more than they have: it stops at 0, or its task could never end.
 */
function statements (db: DatabaseSync) {
  return {
    unfinished: db.prepare(`SELECT ${unfinishedColumns} FROM tasks WHERE ended_at IS NULL`),
    used: db.prepare('SELECT used FROM credits WHERE subject = ? AND period_start = ?'),
    spend: db.prepare(`INSERT INTO credits (subject, period_start, used) VALUES (?, ?, ?)
      ON CONFLICT DO UPDATE SET used = min(used + excluded.used, ${maxSum})`),
    giveBack: db.prepare('UPDATE credits SET used = max(0, used - ?) WHERE subject = ? AND period_start = ?'),
    refund: db.prepare(`UPDATE credits SET used = max(0, used - ?), refunds = refunds + 1
      WHERE subject = ? AND period_start = ? AND refunds < ?`),
    granted: db.prepare('SELECT granted FROM accounts WHERE subject = ?'),
    grant: db.prepare('INSERT INTO grants (subject, microcredits, created_at) VALUES (?, ?, ?)'),
    take: db.prepare('UPDATE accounts SET granted = granted - ? WHERE subject = ?'),
    add: db.prepare(`INSERT INTO accounts (subject, granted) VALUES (?, ?)
      ON CONFLICT DO UPDATE SET granted = min(granted + excluded.granted, ${maxSum})`),
    spentIn: db.prepare('SELECT uses, microcredits FROM session_budgets WHERE subject = ? AND session_id = ?'),
    use: db.prepare(`INSERT INTO session_budgets (subject, session_id, uses, microcredits, expires_at)
      VALUES (?, ?, 1, ?, ?)
      ON CONFLICT DO UPDATE SET uses = uses + 1, microcredits = min(microcredits + excluded.microcredits, ${maxSum})`),
    unuse: db.prepare(`UPDATE session_budgets
      SET uses = uses - ?, microcredits = max(0, min(microcredits - ?, ${maxSum}))
      WHERE subject = ? AND session_id = ?`)
  }
}
