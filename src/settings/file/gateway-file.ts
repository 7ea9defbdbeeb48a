import type { SettingsProblem } from '../settings-error.ts'
import { reasonOf, type ReadFile } from '../text-file.ts'
import { withDefaults } from './defaults.ts'
import { gatewayFileSchema, isMapping, type Mapping } from './json-schema.ts'
import { leaves, pathText, type KeyPath } from './key-path.ts'
import { fileProblems, type FileProblem } from './problems.ts'
import type { GatewayFile } from './schema.ts'
import { parseYaml } from './yaml-file.ts'

type Section = keyof GatewayFile

export interface GatewayFileReading {
  /** With all defaults. A section with a problem in it stands here with its defaults, and is named in `broken`. */
  readonly file: GatewayFile
  readonly broken: ReadonlySet<Section>
  readonly problems: readonly SettingsProblem[]
  /** For every value: the path of the file, or `default`. */
  readonly origins: ReadonlyMap<string, string>
  /** Gives a problem its place: the file's path, and the line when it is known. */
  readonly locate: (problem: FileProblem) => SettingsProblem
}

type Locate = GatewayFileReading['locate']

/** Reads config/gateway.yaml. Throws nothing: all that is wrong is in `problems`. */
export function readGatewayFile (path: string, readFile: ReadFile): GatewayFileReading {
  const text = textOf(path, readFile)
  if (typeof text !== 'string') return unreadable([text], () => text)
  const { value, faults, lineOf } = parseYaml(text)
  const source = (line: number | undefined): string => line === undefined ? path : `${path}:${line}`
  const locate: Locate = (found) => ({
    setting: found.path.length === 0 ? 'GATEWAY_CONFIG' : pathText(found.path),
    source: source(lineOf(found.path)),
    problem: found.problem,
    expected: found.expected
  })
  if (faults.length === 0) return validated(path, value, locate)
  const problems = faults.map(({ problem, line, expected = 'YAML 1.2 with each key once' }) =>
    ({ ...locate({ path: [], problem, expected }), source: source(line) }))
  return unreadable(problems, locate)
}

function textOf (path: string, readFile: ReadFile): string | SettingsProblem {
  try {
    return readFile(path)
  } catch (error) {
    const expected = 'the config file, here or where GATEWAY_CONFIG says'
    return { setting: 'GATEWAY_CONFIG', source: path, problem: `can not be read (${reasonOf(error)})`, expected }
  }
}

function validated (path: string, value: unknown, locate: Locate): GatewayFileReading {
  const schema = gatewayFileSchema()
  const found = fileProblems(schema, value)
  const problems = found.map(locate)
  if (!isMapping(value)) return unreadable(problems, locate)
  const broken = new Set(found.map(problem => problem.path[0] as Section))
  const usable = Object.fromEntries(Object.entries(value).filter(([key]) => !broken.has(key as Section)))
  const file = withDefaults(schema, usable) as GatewayFile
  return { file, broken, problems, origins: originsOf(path, file, usable), locate }
}

/** Nothing of the file is known, so there is no section that a further rule could judge. */
function unreadable (problems: readonly SettingsProblem[], locate: Locate): GatewayFileReading {
  const file = withDefaults(gatewayFileSchema(), {}) as GatewayFile
  return { file, broken: new Set(Object.keys(file) as Section[]), problems, origins: new Map(), locate }
}

function originsOf (path: string, file: GatewayFile, value: Mapping): ReadonlyMap<string, string> {
  return new Map(leaves(file).map(leaf => [pathText(leaf.path), isWritten(value, leaf.path) ? path : 'default']))
}

function isWritten (value: unknown, path: KeyPath): boolean {
  const [key, ...rest] = path
  if (key === undefined) return true
  if (typeof value !== 'object' || value === null || !Object.hasOwn(value, key)) return false
  return isWritten((value as Mapping)[key], rest)
}
