import { createLocalJWKSet, errors, type JWK, type JWTVerifyGetKey } from 'jose'
import { createSecretKey, type KeyObject } from 'node:crypto'
import { boundedText } from '../../domain/egress.ts'
import { memoized, type Secret, type SecretRef } from '../../domain/secret.ts'
import type { Awaitable } from '../../domain/time.ts'

/** Finds the key of a token by its header. Another function each time that the issuer publishes other keys. */
export type KeySet = JWTVerifyGetKey

/** The keys that an issuer signs with. Neither method throws; `undefined`: none are known. */
export interface IssuerKeys {
  /** The keys as far as known. Sees to it that they do not grow old, mostly without waiting for that. */
  current (): Awaitable<KeySet | undefined>
  /** The keys after asking the issuer once more, or as they were when it was asked a moment ago. */
  renewed (): Promise<KeySet | undefined>
}

/** The secrets that an issuer shares with us. While they rotate, a token under any of them is good. */
export function sharedKeys (secrets: SecretRef<readonly Secret[]>): IssuerKeys {
  const keys = memoized(secrets, list => anyOf(list.map(secret => createSecretKey(Buffer.from(secret.reveal())))))
  return { current: () => keys.current, renewed: async () => keys.current }
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
interface Publication {
  /** Each key. Two publications of the same ones are one, in whatever order: an issuer may have several servers. */
  readonly texts: ReadonlySet<string>
  readonly keys: KeySet
}

interface PublishedKeysOptions {
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
 * The keys that an issuer publishes. One request at a time, for all callers; while the issuer is down or answers
 * rubbish, the keys known before stay in use.
 *
 * jose's own `createRemoteJWKSet` (6.2) does not keep these promises. Keys that have grown old it does not use while
 * the issuer is away, and a failed request begins no cool-down, so that each token asks again. It goes by the wall
 * clock, has no bound on what it reads, tells nobody that a key is gone, asks for new ones only because of a `kid` and
 * not because of a signature, and knows no discovery. What finds the key of a token is jose's, `createLocalJWKSet`.
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
    current () {
      const age = elapsed() - confirmedAt
      const renewal = age >= freshMs ? renew() : undefined
      return age >= staleMs ? renewal!.then(() => published?.keys) : published?.keys
    },

    async renewed () {
      await renew()
      return published?.keys
    }
  }
}

interface KeyDocumentsOptions {
  readonly issuer: string
  /** Without it the issuer's own configuration says where. */
  readonly jwksUrl?: string
  readonly algorithms: readonly string[]
  /** For all documents together, ms. */
  readonly timeoutMs: number
}

const maxBytes = 262_144
const maxKeys = 100

/**
 * Reads the documents in which an issuer publishes its keys. Rejects when they can not be had in time, are too long, or
 * hold no key that would fit.
 */
export function keyDocuments ({
  issuer,
  jwksUrl,
  algorithms,
  timeoutMs
}: KeyDocumentsOptions): () => Promise<Publication> {
  let known = jwksUrl
  return async () => {
    const signal = AbortSignal.timeout(timeoutMs)
    const url = known ?? await discover(issuer, signal)
    // The issuer may move its keys: where they were found is asked anew once they are no longer there.
    known = jwksUrl
    const text = await read(url, signal)
    const fitting = fittingKeys(JSON.parse(text), algorithms)
    known = url
    return { texts: new Set(fitting.map(textOf)), keys: createLocalJWKSet({ keys: fitting }) }
  }
}

/** https://openid.net/specs/openid-connect-discovery-1_0.html#ProviderConfig (sections 4.1 and 4.3) */
async function discover (issuer: string, signal: AbortSignal): Promise<string> {
  const { issuer: named, jwks_uri: jwksUri } =
    JSON.parse(await read(`${issuer.replace(/\/$/, '')}/.well-known/openid-configuration`, signal)) ?? {}
  if (named !== issuer) throw new Error('the configuration is that of another issuer')
  const url = typeof jwksUri === 'string' ? URL.parse(jwksUri) : null
  // Over plain http: a stranger on the way could add keys. An issuer on this machine has no way for strangers.
  if (url === null || (url.protocol !== 'https:' && url.origin !== new URL(issuer).origin)) {
    throw new Error('the configuration names no https: URL of keys')
  }
  return url.href
}

/** Redirects are refused: only the URL itself was trusted. */
async function read (url: string, signal: AbortSignal): Promise<string> {
  const response = await fetch(url, { signal, redirect: 'manual', headers: { accept: 'application/json' } })
  const text = response.body === null ? '' : await boundedText(response.body, maxBytes, url)
  if (response.status !== 200) throw new Error(`${url} answered ${response.status}`)
  return text
}

const keyTypes: Readonly<Record<string, string>> = { RS: 'RSA', PS: 'RSA', ES: 'EC', Ed: 'OKP' }

/** Keys for something else, secret ones, and what is no key at all are left out, so that they spoil no others. */
function fittingKeys (set: unknown, algorithms: readonly string[]): JWK[] {
  const types = new Set(algorithms.map(algorithm => keyTypes[algorithm.slice(0, 2)]))
  const fits = (key: JWK | null): boolean => types.has(key?.kty) && key!.d === undefined &&
    (key!.use ?? 'sig') === 'sig' && (key!.alg === undefined || algorithms.includes(key!.alg))
  const { keys } = (set ?? {}) as { keys?: Array<JWK | null> }
  const fitting = Array.isArray(keys) ? keys.filter(fits) as JWK[] : []
  if (fitting.length === 0) throw new Error(`no key for ${algorithms.join(', ')} is published`)
  return fitting.slice(0, maxKeys)
}

/** The same for the same key, in whatever order its members stand. */
function textOf (key: JWK): string {
  return JSON.stringify(Object.entries(key).sort(([one], [other]) => one < other ? -1 : 1))
}
