import { hash, randomBytes } from 'node:crypto'
import type { ReservationId, Task } from '../ledger/ledger.ts'

/** The reservation that a callback's secret was made for. */
export interface CalledBack {
  readonly reservation: ReservationId
  readonly subject: string
  readonly model: string
  /** The key that it was sent with: only its account knows the task. */
  readonly keyId: string
  /** `null` while nobody knows its id: the submit is on its way, or its answer was lost. */
  readonly task: Task | null
}

/**
 * Finds reservations by the secrets that their callbacks come with. A store knows the hashes alone (`Step`: sent), so that
 * nobody can call back for us who has read the store.
 */
export interface CallbackSecrets {
  /** `null`: there is none, or none any more. Throws `GW_STORE_DOWN`. */
  reservationOf (secretHash: string): Promise<CalledBack | null>
}

/** Where the upstream is to call. */
export interface CallbackAddress {
  /** Whoever has it can make us ask for a status: never logged, never stored. */
  readonly url: string
  readonly secretHash: string
}

/** The route on which callbacks come in. */
export const callbackPath = '/gateway/callbacks/'

/** Makes addresses that nobody can guess, 256 random bits each. `publicUrl`: our own origin as the upstream sees it. */
export function callbackAddresses (publicUrl: string): () => CallbackAddress {
  return () => {
    const secret = randomBytes(32).toString('base64url')
    return { url: `${publicUrl}${callbackPath}${secret}`, secretHash: secretHashOf(secret) }
  }
}

/**
 * What a secret is looked up by. How long a look-up takes depends on the hash, of which a guess says nothing: there is
 * nothing to compare in constant time.
 */
export function secretHashOf (secret: string): string {
  return hash('sha256', secret, 'base64url')
}

/** Whether it could be a secret of ours. */
export function isSecretForm (text: string): boolean {
  return /^[\w-]{43}$/.test(text)
}
