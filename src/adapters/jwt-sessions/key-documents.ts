import { createLocalJWKSet, type JWK } from 'jose'
import type { Publication } from './issuer-keys.ts'

export interface KeyDocumentsOptions {
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
export function keyDocuments ({ issuer, jwksUrl, algorithms, timeoutMs }: KeyDocumentsOptions): () => Promise<Publication> {
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

/** Redirects are refused: only the URL itself was trusted. What it says is counted as it comes, after decompression. */
async function read (url: string, signal: AbortSignal): Promise<string> {
  const response = await fetch(url, { signal, redirect: 'manual', headers: { accept: 'application/json' } })
  const chunks: Uint8Array[] = []
  let length = 0
  for await (const chunk of response.body ?? []) {
    length += chunk.byteLength
    if (length > maxBytes) throw new Error(`${url} has more than ${maxBytes} bytes`)
    chunks.push(chunk)
  }
  if (response.status !== 200) throw new Error(`${url} answered ${response.status}`)
  return Buffer.concat(chunks).toString()
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
