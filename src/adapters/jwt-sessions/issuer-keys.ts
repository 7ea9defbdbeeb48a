import { createSecretKey, type KeyObject } from 'node:crypto'
import { errors, type JWTVerifyGetKey } from 'jose'
import { derived, type Live } from '../../domain/live.ts'
import type { Secret } from '../../domain/secret.ts'

/** Finds the key of a token by its header. Another function each time that the issuer publishes other keys. */
export type KeySet = JWTVerifyGetKey

/** The keys that an issuer signs with. Neither method throws; `undefined`: none are known. */
export interface IssuerKeys {
  /** The keys as far as known. Sees to it that they do not grow old, mostly without waiting for that. */
  current (): Promise<KeySet | undefined>
  /** The keys after asking the issuer once more, or as they were when it was asked a moment ago. */
  renewed (): Promise<KeySet | undefined>
}

/** The secrets that an issuer shares with us. While they rotate, a token under any of them is good. */
export function sharedKeys (secrets: Live<readonly Secret[]>): IssuerKeys {
  const keys = derived(secrets, list => anyOf(list.map(secret => createSecretKey(Buffer.from(secret.reveal())))))
  return { current: async () => keys.current, renewed: async () => keys.current }
}

/** Tokens rarely name the shared secret that signed them: each is tried, as with published keys that have no `kid`. */
function anyOf (keys: readonly KeyObject[]): KeySet {
  return async () => {
    throw Object.assign(new errors.JWKSMultipleMatchingKeys(), {
      async * [Symbol.asyncIterator] () { yield * keys }
    })
  }
}

/** As an issuer's documents were read. */
export interface Publication {
  /** Each key. Two publications of the same ones are one, in whatever order: an issuer may have several servers. */
  readonly texts: ReadonlySet<string>
  readonly keys: KeySet
}

export interface PublishedKeysOptions {
  readonly load: () => Promise<Publication>
  /** Monotonic ms: an issuer's new key must not have to wait for a wall clock that was put back. */
  readonly elapsed: () => number
  readonly onFailed: (error: unknown) => void
  /** One of those before is gone. */
  readonly onChanged: () => void
}

/** From this age on they are renewed while they are used, ms. */
const freshMs = 600_000
/** From this age on they are not used before the issuer was asked: it may have taken one back, ms. */
const staleMs = 1_200_000
/** Made-up key ids must not become a flood of requests to the issuer: it is asked once in this time, ms. */
const coolDownMs = 30_000
/** The same while there are no keys at all and nobody can be let in, ms. */
const emptyCoolDownMs = 5000

/**
 * The keys that an issuer publishes. One request at a time, whoever asks; while the issuer is down or answers rubbish,
 * the keys known before stay in use.
 */
export function publishedKeys ({ load, elapsed, onFailed, onChanged }: PublishedKeysOptions): IssuerKeys {
  let published: Publication | undefined
  let confirmedAt = -Infinity
  let restUntil = -Infinity
  let running: Promise<void> | undefined

  const ask = async (): Promise<void> => {
    try {
      const [before, next] = [published, await load()]
      confirmedAt = elapsed()
      if (before?.texts.symmetricDifference(next.texts).size === 0) return
      published = next
      if (before?.texts.isSubsetOf(next.texts) === false) onChanged()
    } catch (error) {
      onFailed(error)
    } finally {
      running = undefined
    }
  }

  const renew = async (): Promise<void> => {
    if (running === undefined && elapsed() >= restUntil) {
      restUntil = elapsed() + (published === undefined ? emptyCoolDownMs : coolDownMs)
      running = ask()
    }
    await running
  }

  // At start, so that the first caller need not wait. It starts no cool-down: the next token asks again if it fails.
  running = ask()

  return {
    async current () {
      const age = elapsed() - confirmedAt
      const renewal = age >= freshMs ? renew() : undefined
      if (age >= staleMs) await renewal
      return published?.keys
    },

    async renewed () {
      await renew()
      return published?.keys
    }
  }
}
