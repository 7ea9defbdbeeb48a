import { apiKeyRule, secret, secrets, signingSecretRule, tokenRule } from '../secrets/strength.ts'
import { baseUrl, origin, pageOrigin, proxy } from './addresses.ts'
import { boolean, choice, existingDirectory, file, host, list, port, store, type Parser } from './parsers.ts'

interface Variable {
  /** As one would write it; `undefined` when there is none. */
  readonly default: string | undefined
  readonly required: boolean
  /** A secret may also be in a file: the variable with `_FILE` at its end names it. No message shows its value. */
  readonly secret: boolean
  readonly description: string
  /** Ends the sentence that begins with "expected". */
  readonly expected: string
  readonly parse: Parser<unknown>
}

const setting = { required: false, secret: false } as const
const optional = { ...setting, default: undefined } as const
const optionalSecret = { default: undefined, required: false, secret: true } as const
const requiredSecret = { default: undefined, required: true, secret: true } as const
const levels = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const
const makeOne = 'for example made by `openssl rand -base64 48`'

/** Every environment variable, once. */
export const variables = {
  APIXO_API_KEY: {
    ...requiredSecret,
    description: 'One APIXO key, or several separated by commas or lines.',
    expected: 'the key of your APIXO account',
    parse: secrets(apiKeyRule)
  },
  APIXO_BASE_URL: {
    ...setting,
    default: 'https://api.apixo.ai',
    description: 'The task API, with or without `/api/v1`.',
    expected: 'an https: URL such as https://api.apixo.ai, without credentials, query or fragment',
    parse: baseUrl('/api/v1')
  },
  APIXO_LLM_BASE_URL: {
    ...setting,
    default: 'https://llm.apixo.ai',
    description: 'The LLM gateway, with or without `/v1`.',
    expected: 'an https: URL such as https://llm.apixo.ai, without credentials, query or fragment',
    parse: baseUrl('/v1', '/v1beta')
  },
  GATEWAY_INSECURE_UPSTREAM: {
    ...setting,
    default: 'false',
    description: 'Allows `http:` and private upstreams that are not loopback; warns at every start.',
    expected: 'true or false',
    parse: boolean
  },
  HOST: {
    ...setting,
    default: '127.0.0.1',
    description: 'The address to listen on (image: `0.0.0.0`).',
    expected: 'an IP address or a host name',
    parse: host
  },
  PORT: {
    ...setting,
    default: '8080',
    description: 'The port to listen on; 0 takes any free one.',
    expected: 'a whole number, 0 to 65535',
    parse: port
  },
  GATEWAY_SESSION_SECRET: {
    ...requiredSecret,
    description: 'Signs session tokens; at least 32 bytes. Several, newest first, let it rotate.',
    expected: `at least 32 random bytes, ${makeOne}`,
    parse: secrets(signingSecretRule)
  },
  GATEWAY_ISSUER_TOKEN: {
    ...optionalSecret,
    description: 'The app\'s backend mints sessions with it. Unset: minting is off.',
    expected: `at least 12 random bytes, ${makeOne}`,
    parse: secret(tokenRule)
  },
  GATEWAY_ADMIN_TOKEN: {
    ...optionalSecret,
    description: 'Opens the admin API and `/metrics`. Unset: admin is off.',
    expected: `at least 12 random bytes, ${makeOne}`,
    parse: secret(tokenRule)
  },
  GATEWAY_ADMIN_PORT: {
    ...optional,
    description: 'A second listener for `/gateway/admin` and `/metrics`. Unset: the main port, by admin token.',
    expected: 'a whole number, 0 to 65535, other than PORT',
    parse: port
  },
  GATEWAY_STORE: {
    ...setting,
    default: 'sqlite:./data/gateway.db',
    description: '`sqlite:<path>` (its folder is made), `sqlite::memory:`, `redis://…` or `rediss://…`.',
    expected: 'sqlite:./data/gateway.db, sqlite::memory:, redis://host:6379/0 or rediss://host:6379/0',
    parse: store
  },
  GATEWAY_ALLOWED_ORIGINS: {
    ...setting,
    default: '',
    description: 'Foreign origins that may call (CORS), of the web, apps and extensions, separated by commas. Same-origin pages need none.',
    expected: 'origins without a path, separated by commas: https://app.example',
    parse: list(pageOrigin)
  },
  GATEWAY_TRUST_PROXY: {
    ...setting,
    default: '',
    description: 'Proxies whose `x-forwarded-*` counts: addresses, networks, `loopback`, `linklocal`, `uniquelocal`.',
    expected: 'the addresses of your own proxies, separated by commas: 10.0.0.0/8, ::1, loopback',
    parse: list(proxy)
  },
  GATEWAY_PUBLIC_URL: {
    ...optional,
    description: 'The gateway\'s own origin, as callers and APIXO see it.',
    expected: 'an origin without a path: https://gateway.example',
    parse: origin
  },
  GATEWAY_STATIC_DIR: {
    ...optional,
    description: 'A built front end to serve at `/`, on the same origin.',
    expected: 'an existing directory',
    parse: existingDirectory
  },
  GATEWAY_CONFIG: {
    ...setting,
    default: 'config/gateway.yaml',
    description: 'The config file. It must exist.',
    expected: 'the path of a file',
    parse: file
  },
  LOG_LEVEL: {
    ...setting,
    default: 'info',
    description: 'trace, debug, info, warn, error, fatal or silent.',
    expected: `one of: ${levels.join(', ')}`,
    parse: choice(...levels)
  }
} as const satisfies Record<string, Variable>

export type VariableName = keyof typeof variables

/** What is known of a variable, for tables, samples and tests. */
export interface EnvironmentVariable extends Omit<Variable, 'parse'> {
  readonly name: VariableName
}

/** The table behind README, `.env.example` and `apixo-gateway check`, in the order in which people read it. */
export const environmentVariables: readonly EnvironmentVariable[] =
  Object.entries(variables).map(([name, { parse, ...row }]) => ({ name: name as VariableName, ...row }))
