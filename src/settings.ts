import type { Model } from './domain/policy.ts'
import type { Secret } from './domain/secret.ts'
import { readDotEnv } from './settings/dot-env.ts'
import {
  type Environment, type EnvironmentReading, environmentRuleProblems, readEnvironment, upstreamWarnings
} from './settings/environment.ts'
import { fileRuleProblems, fileWarnings } from './settings/file-rules.ts'
import type { GatewayFile } from './settings/file-schema.ts'
import {
  type GatewayFileReading, leaves, type ModelsReading, pathText, readGatewayFile, readModels
} from './settings/file.ts'
import { shownList, shownSecrets } from './settings/parsers.ts'
import { isLasting, maskedUrl, type ReadFile, readText, SettingsError } from './settings/problems.ts'
import { equalSecretProblems, type FileSecret, fileSecretSettings, readFileSecrets } from './settings/secrets.ts'
import { type EnvironmentSettings, secretVariables, shownVariables } from './settings/variables.ts'

export { readDotEnv } from './settings/dot-env.ts'
export type { GatewayFile } from './settings/file-schema.ts'
export { gatewayFileSchema, gatewayFileSchemaText } from './settings/file.ts'
export { type LiveSecrets, liveSecrets, type SecretNews } from './settings/secrets.ts'
export { SettingsError, type SettingsProblem } from './settings/problems.ts'
export { environmentVariables } from './settings/variables.ts'

/**
 * Everything that an operator can decide: what each row of `variables` gives, under its `key`, and what the files say.
 * Frozen, and secrets print as `[secret]`.
 */
export interface Settings extends EnvironmentSettings {
  readonly file: GatewayFile
  /** What models.json says, beside the config file or as shipped. */
  readonly models: readonly Model[]
  /** Secrets shared with issuers, by the issuer's name: at least one each, all of which verify. */
  readonly issuerSecrets: ReadonlyMap<string, readonly Secret[]>
  readonly turnstileSecret: Secret | undefined
  /** The plain files that secrets came from, absolute, by their setting: what is in them may change (`liveSecrets`). */
  readonly secretFiles: ReadonlyMap<string, string>
  /** Sentences for the log, at every start. */
  readonly warnings: readonly string[]
  /** For each variable and each value of the file: `default`, `environment`, or the path that it came from. */
  readonly origins: ReadonlyMap<string, string>
}

export interface SettingsSources {
  readonly env: Environment
  /** Relative paths count from here. */
  readonly cwd: string
  readonly readFile?: ReadFile
}

/**
 * Brings the settings together: defaults, then the config file, then the environment.
 * Reads files and nothing else. Throws a `SettingsError` with every problem that there is, none of which holds the
 * value of a secret.
 */
export function loadSettings ({ env, cwd, readFile = readText }: SettingsSources): Settings {
  const environment = readEnvironment({ env, cwd, readFile })
  const configPath = environment.values.configPath!
  const config = readGatewayFile(configPath, readFile)
  const fileSecrets = readFileSecrets(config, cwd, readFile)
  const models = readModels(configPath, readFile)
  const problems = [
    ...environment.problems,
    ...environmentRuleProblems(environment, config.file, cwd),
    ...config.problems,
    ...fileRuleProblems(config.file, config.broken).map(config.locate),
    ...fileSecrets.problems,
    ...models.problems,
    ...equalSecretProblems(environment, config, fileSecrets.secrets)
  ]
  if (problems.length > 0) throw new SettingsError(problems)
  return settingsOf(environment, config, fileSecrets.secrets, models)
}

/** The settings of this process: its environment, and the files in its folder. Throws a `SettingsError`. */
export function processSettings (): Settings {
  const cwd = process.cwd()
  return loadSettings({ env: { ...readDotEnv(cwd), ...process.env }, cwd })
}

function settingsOf (
  environment: EnvironmentReading,
  config: GatewayFileReading,
  fileSecrets: readonly FileSecret[],
  { models, warnings }: ModelsReading
): Settings {
  return Object.freeze({
    // Without a problem every value is there that is required or has a default.
    ...environment.values as EnvironmentSettings,
    file: config.file,
    models,
    issuerSecrets: new Map(fileSecrets.flatMap(({ issuer, values }) =>
      issuer === undefined ? [] : [[issuer, values] as const])),
    turnstileSecret: fileSecrets.find(({ issuer }) => issuer === undefined)?.values[0],
    secretFiles: secretFilesOf(environment, fileSecrets),
    warnings: [...upstreamWarnings(environment), ...fileWarnings(config), ...warnings],
    origins: new Map([...environment.origins, ...config.origins])
  })
}

function secretFilesOf (
  { origins }: EnvironmentReading,
  fileSecrets: readonly FileSecret[]
): ReadonlyMap<string, string> {
  const places = secretVariables.map(name => [name, origins.get(name)!] as const)
  return new Map([
    ...places.filter(([, place]) => place !== 'environment' && place !== 'default'),
    ...fileSecrets.map(({ path, source }) => [pathText(path), source] as const)
  ].filter(([, path]) => isLasting(path)))
}

/** Each setting in force, by name. Secrets are shown as fingerprints. */
export function shownSettings (settings: Settings): ReadonlyMap<string, string> {
  return new Map([
    ...shownVariables(settings),
    ...leaves(settings.file).map(({ path, value }) => [pathText(path), valueText(value)] as const),
    ...fileSecretSettings(settings.file).map(({ path, issuer, file }) =>
      [pathText(path), `${valueText(file)} (${shownSecrets(fileSecretsOf(settings, issuer))})`] as const)
  ])
}

function fileSecretsOf (
  { issuerSecrets, turnstileSecret }: Settings,
  issuer: string | undefined
): readonly Secret[] {
  return issuer === undefined ? [turnstileSecret!] : issuerSecrets.get(issuer)!
}

/**
 * The settings in force, a line each: name, value, and where the value came from. Secrets are shown as fingerprints,
 * which tell two apart and give neither away.
 */
export function describeSettings (settings: Settings): string {
  const rows = [...shownSettings(settings)]
  const nameWidth = Math.max(...rows.map(([name]) => name.length))
  const valueWidth = Math.max(...rows.map(([, value]) => value.length))
  return rows.map(([name, value]) =>
    `${name.padEnd(nameWidth)}  ${value.padEnd(valueWidth)}  (from ${settings.origins.get(name)})`).join('\n')
}

function valueText (value: unknown): string {
  if (typeof value !== 'object') return maskedUrl(String(value))
  return shownList(Array.isArray(value) ? value : [])
}
