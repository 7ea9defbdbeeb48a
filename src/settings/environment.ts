import { existsSync, realpathSync } from 'node:fs'
import { basename, dirname, isAbsolute, join, relative, resolve, sep } from 'node:path'
import type { GatewayFile } from './file-schema.ts'
import {
  baseUrl, boolean, choice, existingDirectory, file, host, list, origin, pageOrigin, type Parser, port, proxy, reachOf,
  store
} from './parsers.ts'
import {
  maxSecretBytes,
  nearestName,
  type ReadFile,
  reasonOf,
  InvalidSetting,
  type SettingsProblem
} from './problems.ts'
import { apiKeyRule, secret, secrets, signingSecretRule, tokenRule } from './secret-rules.ts'

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
    description:
      'Foreign origins that may call (CORS), of the web, apps and extensions, separated by commas. Same-origin pages need none.',
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

/** An empty variable counts as unset: compose files pass `${NAME:-}`. */
export type Environment = Readonly<Record<string, string | undefined>>

type Parsed<Name extends VariableName> = ReturnType<typeof variables[Name]['parse']>

/** The value of every variable; `undefined` where it is optional, has no default and is not set. */
export type EnvironmentValues = {
  readonly [Name in VariableName]: typeof variables[Name] extends { required: true } | { default: string }
    ? Parsed<Name>
    : Parsed<Name> | undefined
}

export interface EnvironmentReading {
  /** Values that could not be read are missing; then there is a problem that says so. */
  readonly values: Partial<EnvironmentValues>
  /** Where each value came from: `default`, `environment`, or the path that a `_FILE` variable names. */
  readonly origins: ReadonlyMap<string, string>
  readonly problems: readonly SettingsProblem[]
}

interface Sources {
  readonly env: Environment
  readonly cwd: string
  readonly readFile: ReadFile
}

interface Found {
  readonly text: string
  readonly source: string
}

export function readEnvironment (sources: Sources): EnvironmentReading {
  const env = withoutServiceLinks(sources.env)
  const problems = unknownVariables(env)
  const values: Record<string, unknown> = {}
  const origins = new Map<string, string>()
  for (const variable of environmentVariables) {
    let source = 'environment'
    try {
      const found = find(variable, { ...sources, env })
      source = found?.source ?? 'default'
      origins.set(variable.name, source)
      if (found !== undefined) values[variable.name] = variables[variable.name].parse(found.text, sources.cwd)
    } catch (error) {
      problems.push(problemOf(variable, source, error))
    }
  }
  return { values, origins, problems }
}

function problemOf ({ name, expected }: EnvironmentVariable, source: string, error: unknown): SettingsProblem {
  if (!(error instanceof InvalidSetting)) throw error
  return { setting: name, source, problem: error.message, expected: error.expected ?? expected }
}

function find (variable: EnvironmentVariable, { env, cwd, readFile }: Sources): Found | undefined {
  const { name, required } = variable
  const fileName = `${name}_FILE`
  const text = env[name]
  const path = variable.secret ? env[fileName] : undefined
  if (text !== undefined && path !== undefined) throw new InvalidSetting(`${fileName} is set as well`, 'one of the two')
  if (path !== undefined) return findInFile(fileName, resolve(cwd, path), cwd, readFile)
  if (text !== undefined) return { text, source: 'environment' }
  if (required) throw new InvalidSetting(`neither ${name} nor ${fileName} is set`)
  return variable.default === undefined ? undefined : { text: variable.default, source: 'default' }
}

function findInFile (fileName: string, path: string, cwd: string, readFile: ReadFile): Found {
  try {
    return { text: readFile(path, maxSecretBytes), source: path }
  } catch (error) {
    // The path is not shown: some put the secret itself into the _FILE variable.
    const problem = `${fileName} names no readable file (${reasonOf(error)}; a relative path counts from ${cwd})`
    throw new InvalidSetting(problem, 'the path of a text file')
  }
}

/**
 * Kubernetes and Docker announce a service called `gateway` by variables of our prefix, GATEWAY_PORT=tcp://10.0.0.1:80
 * among them; a service `gateway-admin` even by GATEWAY_ADMIN_PORT. They are nobody's settings.
 */
function withoutServiceLinks (env: Environment): Environment {
  return Object.fromEntries(Object.entries(env).filter(([name, value]) =>
    value !== undefined && value !== '' && !isServiceLink(name, value)))
}

function isServiceLink (name: string, value: string): boolean {
  return /^GATEWAY_(?:\w+_)?SERVICE_(?:HOST|PORT(?:_\w+)?)$/.test(name) ||
    /^GATEWAY_(?:\w+_)?PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?$/.test(name) ||
    (/^GATEWAY_(?:\w+_)?PORT$/.test(name) && /^(?:tcp|udp|sctp):\/\//.test(value))
}

function unknownVariables (env: Environment): SettingsProblem[] {
  const known = environmentVariables.flatMap(({ name, secret }) => secret ? [name, `${name}_FILE`] : [name])
  return Object.keys(env)
    .filter(name => name.startsWith('GATEWAY_') && !known.includes(name as VariableName))
    .map(name => ({
      setting: name,
      source: 'environment',
      problem: 'there is no such variable',
      expected: `a known name; the nearest is ${nearestName(name, known)}`
    }))
}

type Locate = (setting: VariableName, problem: string, expected: string) => SettingsProblem

/** What must hold between variables, and between them and the config file. */
export function environmentRuleProblems (
  reading: EnvironmentReading, file: GatewayFile, cwd: string
): readonly SettingsProblem[] {
  const locate: Locate = (setting, problem, expected) =>
    ({ setting, source: reading.origins.get(setting)!, problem, expected })
  return [
    ...upstreamProblems(reading, locate),
    ...portProblems(reading, locate),
    ...publicUrlProblems(reading, file, locate),
    ...staticDirectoryProblems(reading, file, cwd, locate)
  ]
}

const upstreams = ['APIXO_BASE_URL', 'APIXO_LLM_BASE_URL'] as const

function upstreamProblems ({ values }: EnvironmentReading, locate: Locate): SettingsProblem[] {
  if (values.GATEWAY_INSECURE_UPSTREAM === true) return []
  return upstreams.flatMap(name => {
    const insecurity = values[name]?.insecurity
    if (insecurity === undefined) return []
    return [locate(name, insecurity, 'https: and a public host, or GATEWAY_INSECURE_UPSTREAM=true')]
  })
}

/** Sentences for the log, at every start. */
export function upstreamWarnings ({ values }: EnvironmentReading): readonly string[] {
  if (values.GATEWAY_INSECURE_UPSTREAM !== true) return []
  const reasons = upstreams.flatMap(name => values[name]?.insecurity ?? [])
  if (reasons.length === 0) return ['GATEWAY_INSECURE_UPSTREAM=true is not needed: both upstreams are safe.']
  return [`GATEWAY_INSECURE_UPSTREAM=true: the APIXO key is sent although ${reasons.join(', and ')}.`]
}

function portProblems ({ values }: EnvironmentReading, locate: Locate): SettingsProblem[] {
  const port = values.GATEWAY_ADMIN_PORT
  // Zero takes any free port, so two of them differ.
  if (port === undefined || port === 0 || port !== values.PORT) return []
  return [locate('GATEWAY_ADMIN_PORT', `${port} is PORT as well`, 'a port of its own')]
}

/** APIXO has to reach us from the internet, and the path that it calls holds a secret. */
function publicUrlProblems (
  { values, problems }: EnvironmentReading, { callbacks }: GatewayFile, locate: Locate
): SettingsProblem[] {
  const name = 'GATEWAY_PUBLIC_URL'
  if (!callbacks.inbound || problems.some(({ setting }) => setting === name)) return []
  const url = URL.parse(values[name] ?? '')
  if (url?.protocol === 'https:' && reachOf(url.hostname) === 'public') return []
  const problem = url === null ? 'is not set, and callbacks.inbound is true' : `${url.origin} can not take callbacks`
  return [locate(name, problem, 'an https: origin that APIXO can reach, or callbacks.inbound: false')]
}

/** A folder that is served to everybody must not hold what nobody may see. */
function staticDirectoryProblems (
  { values, origins }: EnvironmentReading, { issuers, guests }: GatewayFile, cwd: string, locate: Locate
): SettingsProblem[] {
  const directory = values.GATEWAY_STATIC_DIR
  if (directory === undefined) return []
  const store = values.GATEWAY_STORE?.kind === 'sqlite' ? [values.GATEWAY_STORE.path] : []
  const dotEnv = [join(cwd, '.env')].filter(path => existsSync(path))
  const named = [...issuers.map(({ secretFile }) => secretFile), guests.turnstileSecretFile]
    .flatMap(path => path === undefined ? [] : resolve(cwd, path))
  const files = [...origins.values(), values.GATEWAY_CONFIG!, ...store, ...dotEnv, ...named]
  // A link in the folder is served as what it leads to, and a linked folder may be the one that a path leads into.
  const inside = files.find(
    path => isAbsolute(path) && (contains(directory, path) || contains(realPath(directory), realPath(path)))
  )
  if (inside === undefined) return []
  const expected = 'a folder with a front end and nothing else'
  return [locate('GATEWAY_STATIC_DIR', `${inside} lies in it and would be served`, expected)]
}

/** Where a path leads; of one that is not there yet, where it would be. */
function realPath (path: string): string {
  return existsSync(path) ? realpathSync(path) : join(realPath(dirname(path)), basename(path)) // `/` is there
}

function contains (directory: string, path: string): boolean {
  const way = relative(directory, path)
  return way !== '..' && !way.startsWith(`..${sep}`) && !isAbsolute(way)
}
