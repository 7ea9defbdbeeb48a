import type { DatabaseSync } from 'node:sqlite'
import {
  type CreditAccounts, type CreditBalance, type Grant, type LedgerTerms, type ReserveRequest, type SessionBudget,
  type SessionSpent, tooMuchGranted
} from '../../domain/ledger.ts'
import type { Microcredits } from '../../domain/policy.ts'
import { type GroupCommit, read } from './database.ts'

/** Which accounts a price is taken from, and goes back to. */
interface Charge {
  readonly subject: string
  readonly periodStart: number
  readonly fromPeriod: Microcredits
  readonly fromGrants: Microcredits
  /** The session whose own limits it counts against; `null` for one that has none. */
  readonly sessionId: string | null
}

/** What is set aside for a submit that is not sent yet. */
export interface Reservation {
  readonly request: ReserveRequest
  readonly charge: Charge
  /** Unix ms. */
  readonly createdAt: number
  readonly leaseUntil: number
}

/** The columns of `tasks` that a charge is made of. */
export const chargeColumns = 'subject, period_start, microcredits, granted, session_id'

export interface ChargeRow {
  readonly subject: string
  readonly period_start: number
  readonly microcredits: Microcredits
  /** The part of it that is from grants. */
  readonly granted: Microcredits
  readonly session_id: string | null
}

interface AccountsOptions {
  readonly terms: LedgerTerms
  readonly now: () => number
}

/**
 * What each subject has: unfinished tasks, credits of a period and of grants, and what its sessions with limits of
 * their own have taken.
 *
 * What is only reserved stands in memory: one server owns the file, so nobody else needs to know of it, and a crash
 * gives it back by itself, for nothing was sent. All else is in the file, which is asked each time, because the command
 * line may give credits and release charges while a server runs.
 *
 * But for the number of unfinished tasks: to count rows at every submit would need an index that costs as much as all
 * the rest of the ledger (measured: 22 of 46 µs). They are counted in memory, from the file at start and whenever a
 * transaction is undone.
 *
 * `spend` and what follows it, up to `taskEnded`, are for use within a transaction of the ledger.
 */
export class SubjectAccounts implements CreditAccounts {
  readonly #group: GroupCommit
  readonly #terms: AccountsOptions['terms']
  readonly #now: () => number
  readonly #sql: ReturnType<typeof statements>
  readonly #reserved = new Map<number, Reservation>()
  /** Of what is reserved. */
  readonly #fingerprints = new Map<string, string>()
  readonly #held = { ofPeriods: new Sums(), ofGrants: new Sums(), ofSessions: new Sums(), uses: new Sums() }
  readonly #unfinished = new Sums()

  constructor (db: DatabaseSync, group: GroupCommit, { terms, now }: AccountsOptions) {
    this.#group = group
    this.#terms = terms
    this.#now = now
    this.#sql = statements(db)
    this.#countUnfinished()
    group.onUndo(() => this.#countUnfinished())
  }

  /** Sets a place, a use and credits aside under this number, or says what is lacking. */
  reserve (id: number, request: ReserveRequest): 'slot' | 'uses' | 'credits' | null {
    const { subject, taskLimit, idempotency } = request
    if (this.#unfinished.of(subject) >= taskLimit) return 'slot'
    const charge = read(() => this.#chargeFor(request))
    if (typeof charge === 'string') return charge
    const createdAt = this.#now()
    this.#reserved.set(id, { request, charge, createdAt, leaseUntil: createdAt + this.#terms.reservedMs })
    if (idempotency !== undefined) this.#fingerprints.set(inScope(idempotency.key, subject), idempotency.fingerprint)
    this.#hold(charge, 1)
    this.#unfinished.add(subject, 1)
    return null
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
    if (reservation !== undefined) this.#unfinished.add(reservation.request.subject, -1)
    return reservation
  }

  /** Takes from the accounts in the file what a reservation has set aside. */
  spend ({ request: { session }, charge }: Reservation): void {
    const { subject, periodStart, fromPeriod, fromGrants } = charge
    if (session !== undefined) this.#sql.use.run(subject, session.id, fromPeriod + fromGrants, session.expiresAt)
    this.#sql.spend.run(subject, periodStart, fromPeriod)
    if (fromGrants > 0) this.#sql.take.run(fromGrants, subject)
  }

  /** A reservation stands in the file now, and not in memory. Its task takes the same place. */
  stored (id: number): void {
    this.#forget(id)
  }

  /** Nothing came of it: the session has its use again as well. */
  giveBack (row: ChargeRow): void {
    const charge = chargeFrom(row)
    this.#sql.giveBack.run(charge.fromPeriod, charge.subject, charge.periodStart)
    this.#returnRest(charge, 1)
  }

  /** Gives back credits alone. `false`: the period had as many refunds already. */
  refund (row: ChargeRow): boolean {
    const charge = chargeFrom(row)
    const { subject, periodStart, fromPeriod } = charge
    const refunded = this.#sql.refund.run(fromPeriod, subject, periodStart, this.#terms.refundsPerPeriod)
    if (refunded.changes === 0) return false
    this.#returnRest(charge, 0)
    return true
  }

  /** A task that had ended is unfinished again. */
  taskReopened (subject: string): void {
    this.#unfinished.add(subject, 1)
  }

  /** An unfinished task that stands in the file has ended. */
  taskEnded (subject: string): void {
    this.#unfinished.add(subject, -1)
  }

  async balanceOf (subject: string, periodStart: number): Promise<CreditBalance> {
    return read(() => ({
      used: this.#usedOf(subject, periodStart),
      granted: this.#grantedTo(subject),
      unfinished: this.#unfinished.of(subject)
    }))
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
  #chargeFor (request: ReserveRequest): Charge | 'uses' | 'credits' {
    const { subject, periodStart, microcredits, creditLimit, session } = request
    const lack = session === undefined ? null : this.#lackOf(request, session)
    if (lack !== null) return lack
    const sessionId = session?.id ?? null
    if (creditLimit === null) return { subject, periodStart, sessionId, fromPeriod: microcredits, fromGrants: 0 }
    const left = Math.max(0, creditLimit - this.#usedOf(subject, periodStart))
    const fromPeriod = Math.min(microcredits, left)
    const fromGrants = microcredits - fromPeriod
    if (fromGrants > 0 && fromGrants > this.#grantedTo(subject)) return 'credits'
    return { subject, periodStart, sessionId, fromPeriod, fromGrants }
  }

  /** What of a request its session has no room for. */
  #lackOf ({ subject, microcredits }: ReserveRequest, { id, uses, creditLimit }: SessionBudget) {
    const spent = this.#spentIn(subject, id)
    if (uses !== null && spent.uses >= uses) return 'uses'
    return creditLimit !== null && spent.microcredits + microcredits > creditLimit ? 'credits' : null
  }

  #usedOf (subject: string, periodStart: number): Microcredits {
    const row = this.#sql.used.get(subject, periodStart) as { used: number } | undefined
    return (row?.used ?? 0) + this.#held.ofPeriods.of(inScope(periodStart, subject))
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

  #hold ({ subject, periodStart, fromPeriod, fromGrants, sessionId }: Charge, sign: 1 | -1): void {
    const { ofPeriods, ofGrants, ofSessions, uses } = this.#held
    ofPeriods.add(inScope(periodStart, subject), sign * fromPeriod)
    if (fromGrants > 0) ofGrants.add(subject, sign * fromGrants)
    if (sessionId === null) return
    uses.add(inScope(sessionId, subject), sign)
    ofSessions.add(inScope(sessionId, subject), sign * (fromPeriod + fromGrants))
  }

  /** What the file has, and on top what it does not have yet. */
  #countUnfinished (): void {
    this.#unfinished.clear()
    for (const row of this.#sql.unfinished.all() as unknown as UnfinishedRow[]) {
      this.#unfinished.add(row.subject, row.count)
    }
    for (const { request } of this.#reserved.values()) this.#unfinished.add(request.subject, 1)
  }
}

interface UnfinishedRow { readonly subject: string, readonly count: number }

/** Sums by name. One that is 0 takes no memory. */
class Sums {
  readonly #sums = new Map<string, number>()

  of (name: string): number {
    return this.#sums.get(name) ?? 0
  }

  add (name: string, change: number): void {
    const sum = this.of(name) + change
    if (sum === 0) this.#sums.delete(name)
    else this.#sums.set(name, sum)
  }

  clear (): void {
    this.#sums.clear()
  }
}

/** A key is printable, so nothing that is in it or in a subject is taken for the end of it. */
function inScope (name: string | number, subject: string): string {
  return `${name}\n${subject}`
}

function chargeFrom (row: ChargeRow): Charge {
  const { subject, microcredits, granted } = row
  return {
    subject,
    periodStart: row.period_start,
    fromPeriod: microcredits - granted,
    fromGrants: granted,
    sessionId: row.session_id
  }
}

/** Sums that JavaScript can't read back exactly would shut the account: what goes back to it stops there. */
function statements (db: DatabaseSync) {
  return {
    unfinished: db.prepare('SELECT subject, count(*) AS count FROM tasks WHERE ended_at IS NULL GROUP BY subject'),
    used: db.prepare('SELECT used FROM credits WHERE subject = ? AND period_start = ?'),
    spend: db.prepare(`INSERT INTO credits (subject, period_start, used) VALUES (?, ?, ?)
      ON CONFLICT DO UPDATE SET used = min(used + excluded.used, ${Number.MAX_SAFE_INTEGER})`),
    giveBack: db.prepare('UPDATE credits SET used = used - ? WHERE subject = ? AND period_start = ?'),
    refund: db.prepare(`UPDATE credits SET used = used - ?, refunds = refunds + 1
      WHERE subject = ? AND period_start = ? AND refunds < ?`),
    granted: db.prepare('SELECT granted FROM accounts WHERE subject = ?'),
    grant: db.prepare('INSERT INTO grants (subject, microcredits, created_at) VALUES (?, ?, ?)'),
    take: db.prepare('UPDATE accounts SET granted = granted - ? WHERE subject = ?'),
    add: db.prepare(`INSERT INTO accounts (subject, granted) VALUES (?, ?)
      ON CONFLICT DO UPDATE SET granted = min(granted + excluded.granted, ${Number.MAX_SAFE_INTEGER})`),
    spentIn: db.prepare('SELECT uses, microcredits FROM session_budgets WHERE subject = ? AND session_id = ?'),
    use: db.prepare(`INSERT INTO session_budgets (subject, session_id, uses, microcredits, expires_at)
      VALUES (?, ?, 1, ?, ?)
      ON CONFLICT DO UPDATE SET uses = uses + 1, microcredits = microcredits + excluded.microcredits`),
    unuse: db.prepare(`UPDATE session_budgets SET uses = uses - ?, microcredits = microcredits - ?
      WHERE subject = ? AND session_id = ?`)
  }
}
