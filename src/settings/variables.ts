import {
  apiKeyRule, baseUrl, boolean, choice, existingDirectory, file, host, list, origin, pageOrigin, type Parser, port,
  proxy, secret, secrets, shownList, shownSecret, shownSecrets, shownStore, signingSecretRule, store, tokenRule,
  webhookSecrets
} from './parsers.ts'

/** An environment variable, and the setting that it becomes. */
interface Variable<Parsed, Shown = Parsed> {
  /** The name of its value among `Settings`. */
  readonly key: string
  /** As one would write it; `undefined` when there is none. */
  readonly default: string | undefined
  readonly required: boolean
  /** A secret may also be in a file: the variable with `_FILE` at its end names it. No message shows its value. */
  readonly secret: boolean
  /** For README and for people who ask what it does. */
  readonly description: string
  /** Ends the sentence that begins with "expected". */
  readonly expected: string
  readonly parse: Parser<Parsed>
  /** A value that is set, as `apixo-gateway check` and the audit trail show it: of a secret the fingerprint. */
  readonly show: (value: Shown) => string
}

const unset = 'unset'

const setting = { required: false, secret: false } as const
const optional = { ...setting, default: undefined } as const
const optionalSecret = { default: undefined, required: false, secret: true } as const
const requiredSecret = { default: undefined, required: true, secret: true } as const
const levels = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const
const makeOne = 'for example made by `openssl rand -base64 48`'

/** Every environment variable, once. */
export const variables = {
  APIXO_API_KEY: {
    /** At least one. */
    key: 'apiKeys',
    ...requiredSecret,
    description: 'One APIXO key, or several separated by commas or lines.',
    expected: 'the key of your APIXO account',
    parse: secrets(apiKeyRule),
    show: shownSecrets
  },
  APIXO_BASE_URL: {
    /** Without `/api/v1` and without a slash at its end: `https://api.apixo.ai`. */
    key: 'tasksBaseUrl',
    ...setting,
    default: 'https://api.apixo.ai',
    description: 'The task API, with or without `/api/v1`.',
    expected: 'an https: URL such as https://api.apixo.ai, without credentials, query or fragment',
    parse: baseUrl('/api/v1'),
    show: String
  },
  APIXO_LLM_BASE_URL: {
    /** Without `/v1` and without a slash at its end: `https://llm.apixo.ai`. */
    key: 'llmBaseUrl',
    ...setting,
    default: 'https://llm.apixo.ai',
    description: 'The LLM gateway, with or without `/v1`.',
    expected: 'an https: URL such as https://llm.apixo.ai, without credentials, query or fragment',
    parse: baseUrl('/v1', '/v1beta'),
    show: String
  },
  GATEWAY_INSECURE_UPSTREAM: {
    key: 'insecureUpstream',
    ...setting,
    default: 'false',
    description: 'Allows `http:` and private upstreams that are not loopback; warns at every start.',
    expected: 'true or false',
    parse: boolean,
    show: String
  },
  HOST: {
    key: 'host',
    ...setting,
    default: '127.0.0.1',
    description: 'The address to listen on (image: `0.0.0.0`).',
    expected: 'an IP address or a host name',
    parse: host,
    show: String
  },
  PORT: {
    key: 'port',
    ...setting,
    default: '8080',
    description: 'The port to listen on; 0 takes any free one.',
    expected: 'a whole number, 0 to 65535',
    parse: port,
    show: String
  },
  GATEWAY_SESSION_SECRET: {
    /** At least one, newest first: sign with the first, verify with all. */
    key: 'sessionSecrets',
    ...requiredSecret,
    description: 'Signs session tokens; at least 32 bytes. Several, newest first, let it rotate.',
    expected: `at least 32 random bytes, ${makeOne}`,
    parse: secrets(signingSecretRule),
    show: shownSecrets
  },
  GATEWAY_ISSUER_TOKEN: {
    key: 'issuerToken',
    ...optionalSecret,
    description: 'The app\'s backend mints sessions with it. Unset: minting is off.',
    expected: `at least 12 random bytes, ${makeOne}`,
    parse: secret(tokenRule),
    show: shownSecret
  },
  GATEWAY_ADMIN_TOKEN: {
    key: 'adminToken',
    ...optionalSecret,
    description: 'Opens the admin API and `/metrics`. Unset: admin is off.',
    expected: `at least 12 random bytes, ${makeOne}`,
    parse: secret(tokenRule),
    show: shownSecret
  },
  GATEWAY_ALARM_SECRET: {
    /** At least one, newest first. */
    key: 'alarmSecrets',
    ...optionalSecret,
    description: 'Signs what is sent to `alarms.url`: `whsec_` and a key in base64. Several, newest first, let it rotate.',
    expected: 'whsec_ and 24 to 64 random bytes in base64, for example made by `openssl rand -base64 48`',
    parse: webhookSecrets,
    show: shownSecrets
  },
  GATEWAY_ADMIN_PORT: {
    key: 'adminPort',
    ...optional,
    description: 'A second listener for `/gateway/admin` and `/metrics`. Unset: the main port, by admin token.',
    expected: 'a whole number, 0 to 65535, other than PORT',
    parse: port,
    show: String
  },
  GATEWAY_STORE: {
    key: 'store',
    ...setting,
    default: 'sqlite:./data/gateway.db',
    description: '`sqlite:<path>` (its folder is made), `sqlite::memory:`, `redis://…` or `rediss://…`.',
    expected: 'sqlite:./data/gateway.db, sqlite::memory:, redis://host:6379/0 or rediss://host:6379/0',
    parse: store,
    show: shownStore
  },
  GATEWAY_ALLOWED_ORIGINS: {
    key: 'allowedOrigins',
    ...setting,
    default: '',
    description:
      'Foreign origins that may call (CORS), of the web, apps and extensions, separated by commas. Same-origin pages need none.',
    expected: 'origins without a path, separated by commas: https://app.example',
    parse: list(pageOrigin),
    show: shownList
  },
  GATEWAY_TRUST_PROXY: {
    key: 'trustProxy',
    ...setting,
    default: '',
    description: 'Proxies whose `x-forwarded-*` counts: addresses, networks, `loopback`, `linklocal`, `uniquelocal`.',
    expected: 'the addresses of your own proxies, separated by commas: 10.0.0.0/8, ::1, loopback',
    parse: list(proxy),
    show: shownList
  },
  GATEWAY_PUBLIC_URL: {
    key: 'publicUrl',
    ...optional,
    description: 'The gateway\'s own origin, as callers and APIXO see it.',
    expected: 'an origin without a path: https://gateway.example',
    parse: origin,
    show: String
  },
  GATEWAY_STATIC_DIR: {
    /** Absolute. */
    key: 'staticDir',
    ...optional,
    description: 'A built front end to serve at `/`, on the same origin.',
    expected: 'an existing directory',
    parse: existingDirectory,
    show: String
  },
  GATEWAY_CONFIG: {
    /** Absolute. */
    key: 'configPath',
    ...setting,
    default: 'config/gateway.yaml',
    description: 'The config file. It must exist.',
    expected: 'the path of a file',
    parse: file,
    show: String
  },
  LOG_LEVEL: {
    key: 'logLevel',
    ...setting,
    default: 'info',
    description: 'trace, debug, info, warn, error, fatal or silent.',
    expected: `one of: ${levels.join(', ')}`,
    parse: choice(...levels),
    show: String
  }
} as const satisfies Record<string, Variable<unknown, never>>

export type VariableName = keyof typeof variables

type Row<Name extends VariableName> = typeof variables[Name]
type ValueOf<Name extends VariableName> = ReturnType<Row<Name>['parse']>

/** The settings that the environment gives; `undefined` where one is optional, has no default and is not set. */
export type EnvironmentSettings = {
  readonly [Name in VariableName as Row<Name>['key']]: Row<Name> extends { required: true } | { default: string }
    ? ValueOf<Name>
    : ValueOf<Name> | undefined
}

/** By this the compiler holds that a row shows what it parses. */
const rows: { readonly [Name in VariableName]: Variable<ValueOf<Name>> & Pick<Row<Name>, 'key'> } = variables

/** What is known of a variable, for tables, samples and tests. */
export interface EnvironmentVariable extends Omit<Variable<unknown>, 'parse' | 'show'> {
  readonly name: VariableName
}

/** The table behind README, `.env.example` and `apixo-gateway check`, in the order in which people read it. */
export const environmentVariables: readonly EnvironmentVariable[] =
  Object.entries(variables).map(([name, { parse, show, ...row }]) => ({ name: name as VariableName, ...row }))

type SecretName = { [Name in VariableName]: Row<Name> extends { secret: true } ? Name : never }[VariableName]

export const secretVariables =
  environmentVariables.filter(({ secret }) => secret).map(({ name }) => name as SecretName)

/** Each variable, and its value as people may see it: secrets as fingerprints. */
export function shownVariables (settings: EnvironmentSettings): ReadonlyArray<readonly [VariableName, string]> {
  return environmentVariables.map(({ name }) => [name, shownVariable(name, settings)])
}

function shownVariable<Name extends VariableName> (name: Name, settings: EnvironmentSettings): string {
  const { key, show } = rows[name]
  const value = settings[key] as ValueOf<Name> | undefined
  return value === undefined ? unset : show(value)
}
