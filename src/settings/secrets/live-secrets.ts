import type { Live } from '../../domain/live.ts'
import { Secret } from '../../domain/secret.ts'
import type { Settings } from '../../settings.ts'
import { variables } from '../environment/variables.ts'
import { pathText } from '../file/key-path.ts'
import { Refusal } from '../settings-error.ts'
import { readShortText, reasonOf } from '../text-file.ts'
import { type FileSecretSetting, fileSecretSettings } from './file-secrets.ts'
import { secretVariables } from './rules.ts'

/** The secrets in use. Those that came from files follow their files, when they are told to. */
export interface LiveSecrets {
  readonly apiKeys: Live<readonly Secret[]>
  /** Newest first: sign with the first, verify with all. */
  readonly sessionSecrets: Live<readonly Secret[]>
  readonly issuerToken: Live<Secret | undefined>
  readonly adminToken: Live<Secret | undefined>
  /** Shared with issuers, by the issuer's name: verify with all. */
  readonly issuerSecrets: ReadonlyMap<string, Live<readonly Secret[]>>
  readonly turnstileSecret: Live<Secret | undefined>
  /**
   * Reads the files again, by the rules of the start, and takes what is good. Of what is not, the value in use stays,
   * whatever happened to its file. Returns what is news since the last time; throws nothing.
   */
  refresh (): readonly SecretNews[]
}

/** What became of a file. No text in it holds the value of a secret. */
export type SecretNews = {
  /** As people write it: `GATEWAY_SESSION_SECRET`, `issuers[0].secretFile`. */
  readonly setting: string
  /** The file's path. It has been read as a file before, so it is no secret in the wrong place. */
  readonly source: string
} & (
  /** Fingerprints of those in use now, and of those that were until now. Not `rotated`: only a problem has passed. */
  | { readonly rotated: boolean, readonly inUse: readonly string[], readonly gone: readonly string[] }
  | { readonly problem: string, readonly expected: string }
)

type Values = readonly Secret[]

/** A setting, and the secrets that it has: none where it is not set. */
interface Holder extends Pick<FileSecretSetting, 'expected' | 'parse'> {
  readonly setting: string
  /** `undefined`: they are in no file, and stay. */
  readonly source: string | undefined
  values: Values
  problem: string | null
}
interface Offer { readonly holder: Holder, readonly source: string, values: Values, problem: string | null }

export function liveSecrets (settings: Settings): LiveSecrets {
  const named = fileSecretSettings(settings.file)
  const holders = [...variableHolders(settings), ...fileHolders(settings, named)]
  const holderOf = (setting: string): Holder | undefined => holders.find(holder => holder.setting === setting)
  const all = (setting: string): Live<Values> => {
    const holder = holderOf(setting)!
    return { get current () { return holder.values } }
  }
  const one = (setting: string): Live<Secret | undefined> => {
    const holder = holderOf(setting)
    return { get current () { return holder?.values[0] } }
  }

  return {
    apiKeys: all('APIXO_API_KEY'),
    sessionSecrets: all('GATEWAY_SESSION_SECRET'),
    issuerToken: one('GATEWAY_ISSUER_TOKEN'),
    adminToken: one('GATEWAY_ADMIN_TOKEN'),
    issuerSecrets: new Map(named.flatMap(({ issuer, path }) => issuer === undefined ? [] : [[issuer, all(pathText(path))]])),
    turnstileSecret: one('guests.turnstileSecretFile'),
    refresh () {
      const offers = holders.flatMap(holder => holder.source === undefined ? [] : read(holder, holder.source))
      refuseTwins(offers, holders)
      return offers.flatMap(taken)
    }
  }
}

function variableHolders ({ apiKeys, sessionSecrets, issuerToken, adminToken, secretFiles }: Settings): Holder[] {
  const values = {
    APIXO_API_KEY: apiKeys, GATEWAY_SESSION_SECRET: sessionSecrets, GATEWAY_ISSUER_TOKEN: issuerToken, GATEWAY_ADMIN_TOKEN: adminToken
  }
  return secretVariables.map(setting =>
    ({ ...variables[setting], setting, source: secretFiles.get(setting), values: [values[setting] ?? []].flat(), problem: null }))
}

function fileHolders ({ issuerSecrets, turnstileSecret, secretFiles }: Settings, named: readonly FileSecretSetting[]): Holder[] {
  return named.map(({ path, issuer, expected, parse }) => {
    const setting = pathText(path)
    const values = issuer === undefined ? [turnstileSecret!] : issuerSecrets.get(issuer)!
    return { setting, expected, parse, source: secretFiles.get(setting), values, problem: null }
  })
}

/** What a file has to offer, or what is in use and the reason why that stays. */
function read (holder: Holder, source: string): Offer {
  try {
    const values = [holder.parse(readShortText(source))].flat().map(value => new Secret(value))
    return { holder, source, values: isSame(values, holder.values) ? holder.values : values, problem: null }
  } catch (error) {
    const problem = error instanceof Refusal ? error.message : `can not be read (${reasonOf(error)})`
    return { holder, source, values: holder.values, problem }
  }
}

/** No two may be equal, as at the start. Two that change places in one go are not. */
function refuseTwins (offers: readonly Offer[], holders: readonly Holder[]): void {
  for (;;) {
    const offered = new Map(offers.map(({ holder, values }) => [holder, values]))
    const twinOf = ({ holder, values }: Offer): Holder | undefined =>
      holders.find(other => other !== holder && (offered.get(other) ?? other.values).some(secret => has(values, secret)))
    const twin = offers.find(offer => offer.values !== offer.holder.values && twinOf(offer) !== undefined)
    if (twin === undefined) return
    twin.problem = `has the value of ${twinOf(twin)!.setting}`
    twin.values = twin.holder.values
  }
}

/** Takes what is offered into use, and returns it if that is news. */
function taken ({ holder, source, values, problem }: Offer): SecretNews[] {
  const { setting, expected, values: before } = holder
  const rotated = values !== before
  if (!rotated && problem === holder.problem) return []
  holder.problem = problem
  if (problem !== null) return [{ setting, source, problem, expected }]
  holder.values = values
  return [{ setting, source, rotated, inUse: fingerprints(values), gone: fingerprints(before.filter(secret => !has(values, secret))) }]
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
