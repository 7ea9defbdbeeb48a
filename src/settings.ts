import type { Model } from './domain/policy/models.ts'
import { Secret } from './domain/secret.ts'
import type { StoreSettings } from './settings/environment/parsers.ts'
import { environmentRuleProblems, upstreamWarnings } from './settings/environment/rules.ts'
import {
  readEnvironment, type Environment, type EnvironmentReading, type EnvironmentValues
} from './settings/environment/values.ts'
import { readGatewayFile, type GatewayFileReading } from './settings/file/gateway-file.ts'
import { pathText } from './settings/file/key-path.ts'
import { fileRuleProblems, fileWarnings } from './settings/file/rules.ts'
import type { GatewayFile } from './settings/file/schema.ts'
import { type ModelsReading, readModels } from './settings/models.ts'
import { readFileSecrets, type FileSecret } from './settings/secrets/file-secrets.ts'
import { equalSecretProblems, secretVariables } from './settings/secrets/rules.ts'
import { SettingsError } from './settings/settings-error.ts'
import { isLasting, readText, type ReadFile } from './settings/text-file.ts'

export { describeSettings, shownSettings } from './settings/description.ts'
export { readDotEnv } from './settings/environment/dot-env.ts'
export { environmentVariables, type EnvironmentVariable, type VariableName } from './settings/environment/variables.ts'
export type { Environment } from './settings/environment/values.ts'
export type { CapSettings, GatewayFile, IssuerSettings, PlanSettings, PriceSettings } from './settings/file/schema.ts'
export { gatewayFileSchema, gatewayFileSchemaText } from './settings/file/json-schema.ts'
export { type LiveSecrets, liveSecrets, type SecretNews } from './settings/secrets/live-secrets.ts'
export type { StoreSettings } from './settings/environment/parsers.ts'
export { SettingsError, type SettingsProblem } from './settings/settings-error.ts'
export type { ReadFile } from './settings/text-file.ts'

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

function secretFilesOf ({ origins }: EnvironmentReading, fileSecrets: readonly FileSecret[]): ReadonlyMap<string, string> {
  const places = secretVariables.map(name => [name, origins.get(name)!] as const)
  return new Map([
    ...places.filter(([, place]) => place !== 'environment' && place !== 'default'),
    ...fileSecrets.map(({ path, source }) => [pathText(path), source] as const)
  ].filter(([, path]) => isLasting(path)))
}
