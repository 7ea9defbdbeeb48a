import { existsSync, realpathSync } from 'node:fs'
import { basename, dirname, isAbsolute, join, relative, resolve, sep } from 'node:path'
import type { GatewayFile } from '../file/schema.ts'
import type { SettingsProblem } from '../settings-error.ts'
import { reachOf } from './addresses.ts'
import type { EnvironmentReading } from './values.ts'
import type { VariableName } from './variables.ts'

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
  const inside = files.find(path => isAbsolute(path) && (contains(directory, path) || contains(realPath(directory), realPath(path))))
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
