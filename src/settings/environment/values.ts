import { resolve } from 'node:path'
import { nearestName } from '../nearest-name.ts'
import { Refusal, type SettingsProblem } from '../settings-error.ts'
import { maxSecretBytes, reasonOf, type ReadFile } from '../text-file.ts'
import { environmentVariables, variables, type EnvironmentVariable, type VariableName } from './variables.ts'

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
  if (!(error instanceof Refusal)) throw error
  return { setting: name, source, problem: error.message, expected: error.expected ?? expected }
}

function find (variable: EnvironmentVariable, { env, cwd, readFile }: Sources): Found | undefined {
  const { name, required } = variable
  const fileName = `${name}_FILE`
  const text = env[name]
  const path = variable.secret ? env[fileName] : undefined
  if (text !== undefined && path !== undefined) throw new Refusal(`${fileName} is set as well`, 'one of the two')
  if (path !== undefined) return findInFile(fileName, resolve(cwd, path), cwd, readFile)
  if (text !== undefined) return { text, source: 'environment' }
  if (required) throw new Refusal(`neither ${name} nor ${fileName} is set`)
  return variable.default === undefined ? undefined : { text: variable.default, source: 'default' }
}

function findInFile (fileName: string, path: string, cwd: string, readFile: ReadFile): Found {
  try {
    return { text: readFile(path, maxSecretBytes), source: path }
  } catch (error) {
    // The path is not shown: some put the secret itself into the _FILE variable.
    const problem = `${fileName} names no readable file (${reasonOf(error)}; a relative path counts from ${cwd})`
    throw new Refusal(problem, 'the path of a text file')
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
