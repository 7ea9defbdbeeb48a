import type { Secret } from '../domain/secret.ts'
import type { Settings } from '../settings.ts'
import { environmentVariables, type VariableName } from './environment/variables.ts'
import { leaves, pathText } from './file/key-path.ts'
import { fileSecretSettings } from './secrets/file-secrets.ts'
import { maskedUrl } from './settings-error.ts'

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

function fileSecretsOf ({ issuerSecrets, turnstileSecret }: Settings, issuer: string | undefined): ReadonlyArray<Secret | undefined> {
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
