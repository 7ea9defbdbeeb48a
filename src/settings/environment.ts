import { existsSync, realpathSync } from 'node:fs'
import { basename, dirname, isAbsolute, join, relative, resolve, sep } from 'node:path'
import type { GatewayFile } from './file-schema.ts'
import { insecurityOf, reachOf } from './parsers.ts'
import {
  maxSecretBytes,
  nearestName,
  type ReadFile,
  reasonOf,
  InvalidSetting,
  type SettingsProblem
} from './problems.ts'
import {
  type EnvironmentSettings, type EnvironmentVariable, environmentVariables, type VariableName, variables
} from './variables.ts'

/** An empty variable counts as unset: compose files pass `${NAME:-}`. */
export type Environment = Readonly<Record<string, string | undefined>>

export interface EnvironmentReading {
  /** Values that could not be read are missing; then there is a problem that says so. */
  readonly values: Partial<EnvironmentSettings>
  /** By variable, where its value came from: `default`, `environment`, or the path that its `_FILE` names. */
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
      values[variable.key] = found === undefined ? undefined : variables[variable.name].parse(found.text, sources.cwd)
    } catch (error) {
      problems.push(problemOf(variable, source, error))
    }
  }
  return { values, origins, problems }
}

function problemOf ({ name, expected }: EnvironmentVariable, source: string, error: unknown): SettingsProblem {
  /* c8 ignore next: a fault of a parser, which no value is known to reach */
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
    ...alarmSecretProblems(reading, file, locate),
    ...staticDirectoryProblems(reading, file, cwd, locate)
  ]
}

/** Upstreams that must not be used without GATEWAY_INSECURE_UPSTREAM=true, and why. */
function insecureUpstreams ({ values }: EnvironmentReading) {
  return (['APIXO_BASE_URL', 'APIXO_LLM_BASE_URL'] as const).flatMap(name => {
    const url = values[variables[name].key]
    const reason = url === undefined ? undefined : insecurityOf(url)
    return reason === undefined ? [] : [{ name, reason }]
  })
}

function upstreamProblems (reading: EnvironmentReading, locate: Locate): SettingsProblem[] {
  if (reading.values.insecureUpstream === true) return []
  return insecureUpstreams(reading).map(({ name, reason }) =>
    locate(name, reason, 'https: and a public host, or GATEWAY_INSECURE_UPSTREAM=true'))
}

/** Sentences for the log, at every start. */
export function upstreamWarnings (reading: EnvironmentReading): readonly string[] {
  if (reading.values.insecureUpstream !== true) return []
  const reasons = insecureUpstreams(reading).map(({ reason }) => reason)
  if (reasons.length === 0) return ['GATEWAY_INSECURE_UPSTREAM=true is not needed: both upstreams are safe.']
  return [`GATEWAY_INSECURE_UPSTREAM=true: the APIXO key is sent although ${reasons.join(', and ')}.`]
}

function portProblems ({ values }: EnvironmentReading, locate: Locate): SettingsProblem[] {
  const port = values.adminPort
  // Zero takes any free port, so two of them differ.
  if (port === undefined || port === 0 || port !== values.port) return []
  return [locate('GATEWAY_ADMIN_PORT', `${port} is PORT as well`, 'a port of its own')]
}

/** APIXO has to reach us from the internet, and the path that it calls holds a secret. */
function publicUrlProblems (
  { values, problems }: EnvironmentReading, { callbacks }: GatewayFile, locate: Locate
): SettingsProblem[] {
  const name = 'GATEWAY_PUBLIC_URL'
  if (!callbacks.inbound || problems.some(({ setting }) => setting === name)) return []
  const url = URL.parse(values.publicUrl ?? '')
  if (url?.protocol === 'https:' && reachOf(url.hostname) === 'public') return []
  const problem = url === null ? 'is not set, and callbacks.inbound is true' : `${url.origin} can not take callbacks`
  return [locate(name, problem, 'an https: origin that APIXO can reach, or callbacks.inbound: false')]
}

/** Without a signature anybody could tell the operator anything. */
function alarmSecretProblems (
  { values, problems }: EnvironmentReading, { alarms: { url } }: GatewayFile, locate: Locate
): SettingsProblem[] {
  const name = 'GATEWAY_ALARM_SECRET'
  if (url === undefined || values.alarmSecrets !== undefined) return []
  if (problems.some(({ setting }) => setting === name)) return []
  return [locate(name, 'is not set, and alarms.url is', variables[name].expected)]
}

/** A folder that is served to everybody must not hold what nobody may see. */
function staticDirectoryProblems (
  { values, origins }: EnvironmentReading, { issuers, guests }: GatewayFile, cwd: string, locate: Locate
): SettingsProblem[] {
  const directory = values.staticDir
  if (directory === undefined) return []
  const store = values.store?.kind === 'sqlite' ? [values.store.path] : []
  const dotEnv = [join(cwd, '.env')].filter(path => existsSync(path))
  const named = [...issuers.map(({ secretFile }) => secretFile), guests.turnstileSecretFile]
    .flatMap(path => path === undefined ? [] : resolve(cwd, path))
  const files = [...origins.values(), values.configPath!, ...store, ...dotEnv, ...named]
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
