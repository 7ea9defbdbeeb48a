import { gatewayError } from '../errors.ts'
import { ownPrefixes } from './session.ts'
import { dayMs, hourMs } from './time.ts'

/** A proof that is good, and is not known to have been used. */
export interface Proof {
  /** Two proofs have two, and one has the same one however it is written. */
  readonly id: string
  /** Unix ms. It is no longer good from then on. */
  readonly expiresAt: number
}

/** What a proof is for when it is to begin a session; else it is for a submit of the guest of that name. */
export const newSession = 'session'

/** Tells whether a guest has done what is asked of guests. */
export interface GuestProofs {
  /**
   * `null`: it is none, is forged, is past its time, or is for something else. `purpose`: `newSession`, or a guest's
   * name. `ip`: the address that it comes from. Throws `GW_OVERLOADED` while it can not tell.
   */
  verify (proof: string, purpose: string, ip: string): Promise<Proof | null>
}

/** Makes what guests have to solve. */
export interface ProofChallenges {
  /** A challenge whose solution proves something for this purpose alone, as JSON. */
  challenge (purpose: string): Promise<object>
}

/** Remembers which proofs have been used, over all replicas and restarts. */
export interface SpentProofs {
  /**
   * Uses up a proof, in one atomic step that is on disk when it resolves: of N calls at a time exactly one is told
   * `true`. `expiresAt` (Unix ms): it may be forgotten then, and nothing is spent from then on. Throws `GW_STORE_DOWN`.
   */
  spend (id: string, expiresAt: number): Promise<boolean>
}

/** Counts guests, over all replicas and restarts. */
export interface GuestCounts {
  /**
   * Counts one more of that name if there is room for it, in one atomic step that is on disk when it resolves. 0: it is
   * counted; else how long there is no room, ms. Windows are fixed and begin with a first one: at most twice the limit
   * in any. Throws `GW_STORE_DOWN`.
   */
  take (name: string, limit: number, windowMs: number): Promise<number>
  /** Undoes one `take` that has counted. Throws `GW_STORE_DOWN`. */
  putBack (name: string): Promise<void>
}

/** Where a guest comes from. */
interface Visitor {
  readonly ip: string
  /** What sessions are counted by: the address, or the /64 that it is in. */
  readonly address: string
}

/** Sessions for anybody. All throw `GW_SCOPE_DENIED` for a proof that is not good, and `GW_STORE_DOWN`. */
export interface Guests {
  /** Lets one more guest in, and uses its proof up. Throws `GW_THROTTLED` when there have been too many. */
  admit (proof: string | undefined, visitor: Visitor): Promise<void>
  /** Lets a guest submit one task, and uses its proof up. */
  prove (proof: string | undefined, subject: string, ip: string): Promise<void>
}

interface GuestsOptions {
  /** `null`: guests prove nothing. */
  readonly proofs: GuestProofs | null
  readonly spent: SpentProofs
  readonly counts: GuestCounts
  readonly sessionsPerAddressPerDay: number
}

export const proofHeader = 'x-apixo-proof'

/**
 * Addresses are cheap: this also bounds somebody who rents many. In any hour at most as many sessions begin as this
 * many addresses may begin in a day; what guests cost is then at most that many times the credits of their plan.
 */
const addressesPerHour = 100

const prefix = ownPrefixes.guest

export function isGuest (subject: string): boolean {
  return subject.startsWith(prefix)
}

/**
 * What a guest's proofs are for. A session in a cookie has the subject of the one it was exchanged for, so theirs are
 * the same.
 */
export function guestName (subject: string): string {
  return subject.slice(prefix.length)
}

/**
 * An address that has had its sessions does not count for the hour: it can't use up what is for all. A visitor that is
 * refused because the hour is full keeps the sessions of the day.
 */
export function guests ({ proofs, spent, counts, sessionsPerAddressPerDay }: GuestsOptions): Guests {
  const use = async (proof: string | undefined, purpose: string, ip: string): Promise<void> => {
    if (proofs === null) return
    if (proof === undefined) {
      throw denied('is missing: guests begin a session, and submit each task, with a fresh proof')
    }
    const good = await proofs.verify(proof, purpose, ip)
    if (good === null || !await spent.spend(good.id, good.expiresAt)) {
      throw denied('is forged, too old, used before, or for something else: get a new one')
    }
  }
  const take = async (name: string, limit: number, windowMs: number): Promise<void> => {
    const waitMs = await counts.take(name, limit, windowMs)
    if (waitMs > 0) throw gatewayError('GW_THROTTLED', { retryAfterSeconds: Math.ceil(waitMs / 1000) })
  }
  return {
    async admit (proof, { ip, address }) {
      await use(proof, newSession, ip)
      const own = `address ${address}`
      await take(own, sessionsPerAddressPerDay, dayMs)
      await take('everybody', addressesPerHour * sessionsPerAddressPerDay, hourMs).catch(async error => {
        await counts.putBack(own)
        throw error
      })
    },
    prove: (proof, subject, ip) => use(proof, guestName(subject), ip)
  }
}

function denied (reason: string) {
  return gatewayError('GW_SCOPE_DENIED', { about: `The proof in ${proofHeader} ${reason}.` })
}
