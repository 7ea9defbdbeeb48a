import { resolve } from 'node:path'
import type { Secret, SecretRef } from '../domain/secret.ts'
import type { Settings } from '../settings.ts'
import type { EnvironmentReading } from './environment.ts'
import type { GatewayFile } from './file-schema.ts'
import { type GatewayFileReading, type KeyPath, pathText } from './file.ts'
import { apiKeyRule, secret, type SecretRule, secrets, signingSecretRule } from './parsers.ts'
import {
  InvalidSetting, maxSecretBytes, type ReadFile, readShortText, reasonOf, type SettingsProblem
} from './problems.ts'
import { secretVariables, variables } from './variables.ts'

type Values = readonly Secret[]

interface SecretSetting {
  readonly setting: string
  readonly values: Values
  readonly locate: (problem: string, expected: string) => SettingsProblem
}

/** Using one secret for two settings lets the holder of one role take the other. */
export function equalSecretProblems (
  environment: EnvironmentReading, config: GatewayFileReading, fileSecrets: readonly FileSecret[]
): readonly SettingsProblem[] {
  const holders = [...secretsOfEnvironment(environment), ...secretsOfFile(config, fileSecrets)]
  return holders.flatMap(({ values, locate }, index) => {
    const twin = holders.slice(0, index).find(other => other.values.some(secret => has(values, secret)))
    return twin === undefined ? [] : [locate(`has the value of ${twin.setting}`, 'a value of its own')]
  })
}

function secretsOfEnvironment ({ values, origins }: EnvironmentReading): SecretSetting[] {
  return secretVariables.map(setting => ({
    setting,
    values: [values[variables[setting].key] ?? []].flat(),
    locate: (problem, expected) => ({ setting, source: origins.get(setting)!, problem, expected })
  }))
}

function secretsOfFile ({ locate }: GatewayFileReading, secrets: readonly FileSecret[]): SecretSetting[] {
  return secrets.map(({ path, values }) => ({
    setting: pathText(path),
    values,
    locate: (problem, expected) => locate({ path, problem, expected })
  }))
}

/** A setting of the config file that names a file with a secret. */
interface FileSecretSetting {
  readonly path: KeyPath
  /** The issuer that it belongs to; `undefined` for the one of Turnstile. */
  readonly issuer: string | undefined
  readonly file: string
  /** Ends the sentence that begins with "expected". */
  readonly expected: string
  readonly parse: (text: string) => Secret | Values
}

export interface FileSecret extends Pick<FileSecretSetting, 'path' | 'issuer'> {
  /** The file's path, absolute. */
  readonly source: string
  readonly values: Values
}

/** `issuers[].secretFile` and `guests.turnstileSecretFile`, where they are set. */
export function fileSecretSettings (
  { issuers, guests: { turnstileSecretFile } }: Pick<GatewayFile, 'issuers' | 'guests'>
): readonly FileSecretSetting[] {
  const shared = { expected: `${expectedFor(signingSecretRule)}, or with several, a line each`, parse: secretLines }
  const turnstile = { expected: expectedFor(apiKeyRule), parse: secret(apiKeyRule) }
  return [
    ...issuers.flatMap(({ issuer, secretFile: file }, index) =>
      file === undefined ? [] : { path: ['issuers', index, 'secretFile'], issuer, file, ...shared }),
    ...(turnstileSecretFile === undefined
      ? []
      : [{ path: ['guests', 'turnstileSecretFile'], issuer: undefined, file: turnstileSecretFile, ...turnstile }])
  ]
}

/** Lines alone: a secret that somebody else has chosen may have a comma in it. */
const linesOf = secrets(signingSecretRule, /[\r\n]/)
/** For a rotation two are enough; a token is not held against more. */
const maxShared = 5

function secretLines (text: string): Values {
  const values = linesOf(text)
  if (values.length > maxShared) throw new InvalidSetting(`holds ${values.length} values, more than ${maxShared}`)
  return values
}

function expectedFor ({ minBytes }: SecretRule): string {
  return `a file with a secret of at least ${minBytes} bytes`
}

/** Reads the files that the config file names. */
export function readFileSecrets (
  { file, locate }: GatewayFileReading, cwd: string, readFile: ReadFile
): { readonly secrets: readonly FileSecret[], readonly problems: readonly SettingsProblem[] } {
  const problems: SettingsProblem[] = []
  const secrets = fileSecretSettings(file).flatMap(({ path, issuer, file, expected, parse }) => {
    const source = resolve(cwd, file)
    try {
      return [{ path, issuer, source, values: [parse(textOf(source, readFile))].flat() }]
    } catch (error) {
      problems.push(locate({ path, problem: (error as Error).message, expected }))
      return []
    }
  })
  return { secrets, problems }
}

function textOf (path: string, readFile: ReadFile): string {
  try {
    return readFile(path, maxSecretBytes)
  } catch (error) {
    // The path is not shown: some put the secret itself there.
    throw new InvalidSetting(`names no readable file (${reasonOf(error)})`)
  }
}

/** The secrets in use. Those that came from files follow their files, when they are told to. */
export interface LiveSecrets {
  readonly apiKeys: SecretRef<readonly Secret[]>
  /** Newest first: sign with the first, verify with all. */
  readonly sessionSecrets: SecretRef<readonly Secret[]>
  readonly issuerToken: SecretRef<Secret | undefined>
  readonly adminToken: SecretRef<Secret | undefined>
  /** Newest first: a message has a signature for each. None: there are no messages. */
  readonly alarmSecrets: SecretRef<readonly Secret[]>
  /** Shared with issuers, by the issuer's name: verify with all. */
  readonly issuerSecrets: ReadonlyMap<string, SecretRef<readonly Secret[]>>
  readonly turnstileSecret: SecretRef<Secret | undefined>
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

/** A setting, and the secrets that it has: none where it is not set. */
interface Holder extends Pick<FileSecretSetting, 'expected' | 'parse'>, SecretRef<Values> {
  readonly setting: string
  /** `undefined`: they are in no file, and stay. */
  readonly source: string | undefined
  current: Values
  problem: string | null
}
interface Offer { readonly holder: Holder, readonly source: string, values: Values, problem: string | null }

export function liveSecrets (settings: Settings): LiveSecrets {
  const named = fileSecretSettings(settings.file)
  const holders = [...variableHolders(settings), ...fileHolders(settings, named)]
  const holderOf = (setting: string): Holder | undefined => holders.find(holder => holder.setting === setting)
  const all = (setting: string): SecretRef<Values> => holderOf(setting)!
  const one = (setting: string): SecretRef<Secret | undefined> => {
    const holder = holderOf(setting)
    return { get current () { return holder?.current[0] } }
  }

  return {
    apiKeys: all('APIXO_API_KEY'),
    sessionSecrets: all('GATEWAY_SESSION_SECRET'),
    issuerToken: one('GATEWAY_ISSUER_TOKEN'),
    adminToken: one('GATEWAY_ADMIN_TOKEN'),
    alarmSecrets: all('GATEWAY_ALARM_SECRET'),
    issuerSecrets: new Map(
      named.flatMap(({ issuer, path }) => (issuer === undefined ? [] : [[issuer, all(pathText(path))]]))
    ),
    turnstileSecret: one('guests.turnstileSecretFile'),
    refresh () {
      const offers = holders.flatMap(holder => holder.source === undefined ? [] : read(holder, holder.source))
      refuseTwins(offers, holders)
      return offers.flatMap(taken)
    }
  }
}

function variableHolders (settings: Settings): Holder[] {
  return secretVariables.map(setting => {
    const { key, expected, parse } = variables[setting]
    return {
      setting,
      expected,
      parse,
      source: settings.secretFiles.get(setting),
      current: [settings[key] ?? []].flat(),
      problem: null
    }
  })
}

function fileHolders (
  { issuerSecrets, turnstileSecret, secretFiles }: Settings,
  named: readonly FileSecretSetting[]
): Holder[] {
  return named.map(({ path, issuer, expected, parse }) => {
    const setting = pathText(path)
    const current = issuer === undefined ? [turnstileSecret!] : issuerSecrets.get(issuer)!
    return { setting, expected, parse, source: secretFiles.get(setting), current, problem: null }
  })
}

/** What a file has to offer, or what is in use and the reason why that stays. */
function read (holder: Holder, source: string): Offer {
  try {
    const values = [holder.parse(readShortText(source))].flat()
    return { holder, source, values: isSame(values, holder.current) ? holder.current : values, problem: null }
  } catch (error) {
    const problem = error instanceof InvalidSetting ? error.message : `can not be read (${reasonOf(error)})`
    return { holder, source, values: holder.current, problem }
  }
}

/** No two may be equal, as at the start. Two that change places in one go are not. */
function refuseTwins (offers: readonly Offer[], holders: readonly Holder[]): void {
  for (;;) {
    const offered = new Map(offers.map(({ holder, values }) => [holder, values]))
    const twinOf = ({ holder, values }: Offer): Holder | undefined =>
      holders.find(
        other => other !== holder && (offered.get(other) ?? other.current).some(secret => has(values, secret))
      )
    const twin = offers.find(offer => offer.values !== offer.holder.current && twinOf(offer) !== undefined)
    if (twin === undefined) return
    twin.problem = `has the value of ${twinOf(twin)!.setting}`
    twin.values = twin.holder.current
  }
}

/** Takes what is offered into use, and returns it if that is news. */
function taken ({ holder, source, values, problem }: Offer): SecretNews[] {
  const { setting, expected, current: before } = holder
  const rotated = values !== before
  if (!rotated && problem === holder.problem) return []
  holder.problem = problem
  if (problem !== null) return [{ setting, source, problem, expected }]
  holder.current = values
  return [
    {
      setting,
      source,
      rotated,
      inUse: fingerprints(values),
      gone: fingerprints(before.filter(secret => !has(values, secret)))
    }
  ]
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
