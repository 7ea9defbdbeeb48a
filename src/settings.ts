import type { Model } from './domain/policy.ts'
import { Secret } from './domain/secret.ts'
import {
  type Environment, type EnvironmentReading, environmentRuleProblems, type EnvironmentValues, environmentVariables,
  readEnvironment, upstreamWarnings, type VariableName
} from './settings/environment.ts'
import { fileRuleProblems, fileWarnings } from './settings/file-rules.ts'
import type { GatewayFile } from './settings/file-schema.ts'
import {
  type GatewayFileReading, leaves, type ModelsReading, pathText, readGatewayFile, readModels
} from './settings/file.ts'
import type { StoreSettings } from './settings/parsers.ts'
import { isLasting, maskedUrl, type ReadFile, readText, SettingsError } from './settings/problems.ts'
import {
  equalSecretProblems, type FileSecret, fileSecretSettings, readFileSecrets, secretVariables
} from './settings/secrets.ts'

export { readDotEnv } from './settings/dot-env.ts'
export { environmentVariables, type EnvironmentVariable, type VariableName } from './settings/environment.ts'
export type { Environment } from './settings/environment.ts'
export type { CapSettings, GatewayFile, IssuerSettings, PlanSettings, PriceSettings } from './settings/file-schema.ts'
export { gatewayFileSchema, gatewayFileSchemaText } from './settings/file.ts'
export { type LiveSecrets, liveSecrets, type SecretNews } from './settings/secrets.ts'
export type { StoreSettings } from './settings/parsers.ts'
export { SettingsError, type SettingsProblem } from './settings/problems.ts'
export type { ReadFile } from './settings/problems.ts'

/** Everything that an operator can decide. Frozen, and secrets print as `[secret]`. */
export interface Settings {
  /** At least one. */
  readonly apiKeys: readonly Secret[]
  /** Without `/api/v1` and without a slash at its end: `https://api.apixo.ai`. */
  readonly tasksBaseUrl: string
  /** Without `/v1` and without a slash at its end: `https://llm.apixo.ai`. */
  readonly llmBaseUrl: string
  readonly insecureUpstream: boolean
  readonly host: string
  readonly port: number
  /** At least one, newest first: sign with the first, verify with all. */
  readonly sessionSecrets: readonly Secret[]
  readonly issuerToken: Secret | undefined
  readonly adminToken: Secret | undefined
  readonly adminPort: number | undefined
  readonly store: StoreSettings
  readonly allowedOrigins: readonly string[]
  readonly trustProxy: readonly string[]
  readonly publicUrl: string | undefined
  /** Absolute. */
  readonly staticDir: string | undefined
  /** Absolute. */
  readonly configPath: string
  readonly logLevel: EnvironmentValues['LOG_LEVEL']
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
  const configPath = environment.values.GATEWAY_CONFIG!
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

function settingsOf (
  environment: EnvironmentReading,
  config: GatewayFileReading,
  fileSecrets: readonly FileSecret[],
  { models, warnings }: ModelsReading
): Settings {
  // Without a problem every value is there that is required or has a default.
  const values = environment.values as EnvironmentValues
  const wrapped = (value: string | undefined): Secret | undefined => value === undefined ? undefined : new Secret(value)
  return Object.freeze({
    apiKeys: values.APIXO_API_KEY.map(key => new Secret(key)),
    tasksBaseUrl: values.APIXO_BASE_URL.url,
    llmBaseUrl: values.APIXO_LLM_BASE_URL.url,
    insecureUpstream: values.GATEWAY_INSECURE_UPSTREAM,
    host: values.HOST,
    port: values.PORT,
    sessionSecrets: values.GATEWAY_SESSION_SECRET.map(key => new Secret(key)),
    issuerToken: wrapped(values.GATEWAY_ISSUER_TOKEN),
    adminToken: wrapped(values.GATEWAY_ADMIN_TOKEN),
    adminPort: values.GATEWAY_ADMIN_PORT,
    store: values.GATEWAY_STORE,
    allowedOrigins: values.GATEWAY_ALLOWED_ORIGINS,
    trustProxy: values.GATEWAY_TRUST_PROXY,
    publicUrl: values.GATEWAY_PUBLIC_URL,
    staticDir: values.GATEWAY_STATIC_DIR,
    configPath: values.GATEWAY_CONFIG,
    logLevel: values.LOG_LEVEL,
    file: config.file,
    models,
    issuerSecrets: new Map(fileSecrets.flatMap(({ issuer, values }) =>
      issuer === undefined ? [] : [[issuer, values.map(value => new Secret(value))] as const])),
    turnstileSecret: wrapped(fileSecrets.find(({ issuer }) => issuer === undefined)?.values[0]),
    secretFiles: secretFilesOf(environment, fileSecrets),
    warnings: [...upstreamWarnings(environment), ...fileWarnings(config.file), ...warnings],
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

const unset = 'unset'

/** Each variable as `apixo-gateway check` shows it. */
const values: Readonly<Record<VariableName, (settings: Settings) => string>> = {
  APIXO_API_KEY: ({ apiKeys }) => fingerprints(apiKeys),
  APIXO_BASE_URL: ({ tasksBaseUrl }) => tasksBaseUrl,
  APIXO_LLM_BASE_URL: ({ llmBaseUrl }) => llmBaseUrl,
  GATEWAY_INSECURE_UPSTREAM: ({ insecureUpstream }) => String(insecureUpstream),
  HOST: ({ host }) => host,
  PORT: ({ port }) => String(port),
  GATEWAY_SESSION_SECRET: ({ sessionSecrets }) => fingerprints(sessionSecrets),
  GATEWAY_ISSUER_TOKEN: ({ issuerToken }) => fingerprints([issuerToken]),
  GATEWAY_ADMIN_TOKEN: ({ adminToken }) => fingerprints([adminToken]),
  GATEWAY_ADMIN_PORT: ({ adminPort = unset }) => String(adminPort),
  GATEWAY_STORE: ({ store }) => store.kind === 'sqlite' ? `sqlite:${store.path}` : store.address,
  GATEWAY_ALLOWED_ORIGINS: ({ allowedOrigins }) => allowedOrigins.join(', ') || 'none',
  GATEWAY_TRUST_PROXY: ({ trustProxy }) => trustProxy.join(', ') || 'none',
  GATEWAY_PUBLIC_URL: ({ publicUrl = unset }) => publicUrl,
  GATEWAY_STATIC_DIR: ({ staticDir = unset }) => staticDir,
  GATEWAY_CONFIG: ({ configPath }) => configPath,
  LOG_LEVEL: ({ logLevel }) => logLevel
}

/** Each setting in force, by name. Secrets are shown as fingerprints. */
export function shownSettings (settings: Settings): ReadonlyMap<string, string> {
  return new Map([
    ...environmentVariables.map(({ name }) => [name, values[name](settings)] as const),
    ...leaves(settings.file).map(({ path, value }) => [pathText(path), valueText(value)] as const),
    ...fileSecretSettings(settings.file).map(({ path, issuer, file }) =>
      [pathText(path), `${valueText(file)} (${fingerprints(fileSecretsOf(settings, issuer))})`] as const)
  ])
}

function fileSecretsOf (
  { issuerSecrets, turnstileSecret }: Settings,
  issuer: string | undefined
): ReadonlyArray<Secret | undefined> {
  return issuer === undefined ? [turnstileSecret] : issuerSecrets.get(issuer)!
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

function fingerprints (secrets: ReadonlyArray<Secret | undefined>): string {
  return secrets.map(secret => secret === undefined ? unset : `sha256:${secret.fingerprint}`).join(', ')
}

function valueText (value: unknown): string {
  if (typeof value !== 'object') return maskedUrl(String(value))
  return (Array.isArray(value) ? value : []).join(', ') || 'none'
}
