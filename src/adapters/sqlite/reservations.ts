import type { SessionSpent } from '../../domain/ledger/credits.ts'
import type { IdempotencyKey } from '../../domain/ledger/idempotency.ts'
import type { Demand } from '../../domain/ledger/ledger.ts'
import type { Microcredits } from '../../domain/policy/pricing.ts'
import type { Charge } from './charges.ts'

export interface Reservation {
  readonly demand: Demand
  readonly charge: Charge
  /** Unix ms. */
  readonly createdAt: number
  readonly leaseUntil: number
}

/**
 * What is only reserved stands in memory. One server owns the file, so nobody else needs to know of it, and a crash
 * gives it back by itself: nothing was sent.
 */
export interface Reservations {
  add (id: number, reservation: Reservation): void
  get (id: number): Reservation | undefined
  /** `undefined`: it was not there. */
  remove (id: number): Reservation | undefined
  /** The fingerprint that a reservation with this idempotency key has. */
  fingerprintOf (subject: string, key: string): string | undefined
  /** What all of them hold of a period, and of a subject's grants. */
  heldOfPeriod (subject: string, periodStart: number): Microcredits
  heldOfGrants (subject: string): Microcredits
  heldOfSession (subject: string, sessionId: string): SessionSpent
  lapsed (now: number): readonly number[]
  subjects (): Iterable<string>
}

export function reservations (): Reservations {
  const all = new Map<number, Reservation>()
  const keys = new Map<string, IdempotencyKey>()
  const ofPeriods = new Map<string, Microcredits>()
  const ofGrants = new Map<string, Microcredits>()
  const ofSessions = new Map<string, Microcredits>()
  const uses = new Map<string, number>()

  const hold = ({ subject, periodStart, fromPeriod, fromGrants, sessionId }: Charge, sign: 1 | -1): void => {
    add(ofPeriods, inScope(periodStart, subject), sign * fromPeriod)
    if (fromGrants > 0) add(ofGrants, subject, sign * fromGrants)
    if (sessionId === null) return
    add(uses, inScope(sessionId, subject), sign)
    add(ofSessions, inScope(sessionId, subject), sign * (fromPeriod + fromGrants))
  }

  return {
    add (id, reservation) {
      const { demand: { subject, idempotency }, charge } = reservation
      all.set(id, reservation)
      hold(charge, 1)
      if (idempotency !== undefined) keys.set(inScope(idempotency.key, subject), idempotency)
    },
    get: id => all.get(id),
    remove (id) {
      const reservation = all.get(id)
      if (reservation === undefined) return undefined
      const { demand: { subject, idempotency }, charge } = reservation
      all.delete(id)
      hold(charge, -1)
      if (idempotency !== undefined) keys.delete(inScope(idempotency.key, subject))
      return reservation
    },
    fingerprintOf: (subject, key) => keys.get(inScope(key, subject))?.fingerprint,
    heldOfPeriod: (subject, periodStart) => ofPeriods.get(inScope(periodStart, subject)) ?? 0,
    heldOfGrants: subject => ofGrants.get(subject) ?? 0,
    heldOfSession (subject, sessionId) {
      const name = inScope(sessionId, subject)
      return { uses: uses.get(name) ?? 0, microcredits: ofSessions.get(name) ?? 0 }
    },
    lapsed: now => [...all].filter(([, { leaseUntil }]) => leaseUntil <= now).map(([id]) => id),
    * subjects () {
      for (const { demand } of all.values()) yield demand.subject
    }
  }
}

/** A key is printable, so nothing that is in it or in a subject is taken for the end of it. */
function inScope (name: string | number, subject: string): string {
  return `${name}\n${subject}`
}

function add (sums: Map<string, Microcredits>, name: string, change: Microcredits): void {
  const sum = (sums.get(name) ?? 0) + change
  if (sum === 0) sums.delete(name)
  else sums.set(name, sum)
}
