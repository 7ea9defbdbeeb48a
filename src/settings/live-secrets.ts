import type { Live } from '../domain/live.ts'
import { Secret } from '../domain/secret.ts'
import type { Settings } from '../settings.ts'
import { variables } from './environment.ts'
import type { SecretVariable } from './secret-rules.ts'
import { Refusal } from './settings-error.ts'
import { readShortText, reasonOf } from './text-file.ts'

/** The secrets in use. Those that came from files follow their files, when they are told to. */
export interface LiveSecrets {
  readonly apiKeys: Live<readonly Secret[]>
  /** Newest first: sign with the first, verify with all. */
  readonly sessionSecrets: Live<readonly Secret[]>
  readonly issuerToken: Live<Secret | undefined>
  readonly adminToken: Live<Secret | undefined>
  /**
   * Reads the files again, by the rules of the start, and takes what is good. Of what is not, the value in use stays,
   * whatever happened to its file. Returns what is news since the last time; throws nothing.
   */
  refresh (): readonly SecretNews[]
}

/** What became of a file. No text in it holds the value of a secret. */
export type SecretNews = {
  readonly setting: SecretVariable
  /** The file's path. */
  readonly source: string
} & (
  /** Fingerprints of those in use now, and of those that are so no longer: none when a problem has passed. */
  | { readonly inUse: readonly string[], readonly gone: readonly string[] }
  | { readonly problem: string, readonly expected: string }
)

type Values = readonly Secret[]
type Held = Map<SecretVariable, Values>
interface Offer { readonly setting: SecretVariable, readonly source: string, values: Values, problem: string | null }
interface Holder { readonly name: string, readonly values: Values }

export function liveSecrets (settings: Settings): LiveSecrets {
  const held = heldAtStart(settings)
  const fixed = fixedHolders(settings)
  const problems = new Map<SecretVariable, string>()

  const news = ({ setting, source, values, problem }: Offer): SecretNews[] => {
    const before = held.get(setting)!
    if (values === before && problem === (problems.get(setting) ?? null)) return []
    if (problem !== null) {
      problems.set(setting, problem)
      return [{ setting, source, problem, expected: variables[setting].expected }]
    }
    problems.delete(setting)
    held.set(setting, values)
    const gone = before.filter(secret => !has(values, secret))
    return [{ setting, source, inUse: fingerprints(values), gone: fingerprints(gone) }]
  }

  return {
    apiKeys: { get current () { return held.get('APIXO_API_KEY')! } },
    sessionSecrets: { get current () { return held.get('GATEWAY_SESSION_SECRET')! } },
    issuerToken: { get current () { return held.get('GATEWAY_ISSUER_TOKEN')![0] } },
    adminToken: { get current () { return held.get('GATEWAY_ADMIN_TOKEN')![0] } },
    refresh () {
      const offers = [...settings.secretFiles].map(([setting, source]) => read(setting, source, held.get(setting)!))
      refuseTwins(offers, held, fixed)
      return offers.flatMap(news)
    }
  }
}

function heldAtStart ({ apiKeys, sessionSecrets, issuerToken, adminToken }: Settings): Held {
  return new Map([
    ['APIXO_API_KEY', apiKeys],
    ['GATEWAY_SESSION_SECRET', sessionSecrets],
    ['GATEWAY_ISSUER_TOKEN', [issuerToken ?? []].flat()],
    ['GATEWAY_ADMIN_TOKEN', [adminToken ?? []].flat()]
  ])
}

/** Secrets that only a start reads. */
function fixedHolders ({ issuerSecrets, turnstileSecret }: Settings): readonly Holder[] {
  return [
    { name: 'issuers[].secretFile', values: [...issuerSecrets.values()] },
    { name: 'guests.turnstileSecretFile', values: [turnstileSecret ?? []].flat() }
  ]
}

/** What a file has to offer, or what is in use and the reason why that stays. */
function read (setting: SecretVariable, source: string, before: Values): Offer {
  try {
    const values = [variables[setting].parse(readShortText(source))].flat().map(value => new Secret(value))
    return { setting, source, values: isSame(values, before) ? before : values, problem: null }
  } catch (error) {
    const problem = error instanceof Refusal ? error.message : `can not be read (${reasonOf(error)})`
    return { setting, source, values: before, problem }
  }
}

/** No two may be equal, as at the start. Two that change places in one go are not. */
function refuseTwins (offers: readonly Offer[], held: Held, fixed: readonly Holder[]): void {
  for (;;) {
    const offered = new Map(offers.map(({ setting, values }) => [setting, values]))
    const holders = [...[...held].map(([name, values]) => ({ name, values: offered.get(name) ?? values })), ...fixed]
    const twinOf = ({ setting, values }: Offer) =>
      holders.find(other => other.name !== setting && other.values.some(secret => has(values, secret)))
    const twin = offers.find(offer => offer.values !== held.get(offer.setting) && twinOf(offer) !== undefined)
    if (twin === undefined) return
    twin.problem = `has the value of ${twinOf(twin)!.name}`
    twin.values = held.get(twin.setting)!
  }
}

function isSame (one: Values, other: Values): boolean {
  return one.length === other.length && one.every((secret, index) => secret.equals(other[index]!))
}

function has (values: Values, secret: Secret): boolean {
  return values.some(value => value.equals(secret))
}

function fingerprints (values: Values): string[] {
  return values.map(({ fingerprint }) => fingerprint)
}
