import { dirname, join } from 'node:path'
import Type from 'typebox'
import { categories, type Model } from '../domain/policy/models.ts'
import type { JsonSchema } from './file/json-schema.ts'
import { pathText } from './file/key-path.ts'
import { fileProblems, type FileProblem } from './file/problems.ts'
import { parseYaml } from './file/yaml-file.ts'
import { shown, type SettingsProblem } from './settings-error.ts'
import { reasonOf, type ReadFile } from './text-file.ts'

const options = Type.Unsafe<Record<string, unknown>>({
  type: 'object',
  title: 'a mapping',
  description: 'What a page needs to draw the form of this model; passed on to callers as it is.'
})

const model = Type.Object({
  id: Type.String({ pattern: '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$', title: 'the name of a model' }),
  category: Type.Enum([...categories], { title: `one of ${categories.join(', ')}` }),
  provider: Type.Optional(Type.Enum(['official'], { title: 'official, or nothing' })),
  options: Type.Optional(options)
}, { title: 'a model', additionalProperties: false })

/** config/models.json: what the operator knows of the models. */
const modelsFile = Type.Object({
  models: Type.Array(model, { title: 'a list of models' })
}, { title: 'a mapping with models', additionalProperties: false })

export interface ModelsReading {
  readonly models: readonly Model[]
  readonly problems: readonly SettingsProblem[]
  /** Sentences for the log, at every start. */
  readonly warnings: readonly string[]
}

/** What we ship, for a config file that stands elsewhere and has none beside it. */
const shippedPath = join(import.meta.dirname, '../../config/models.json')

/**
 * Reads models.json beside the config file, or else the shipped one, with a warning: without it every model is polled as
 * the slowest are, and pages are shown none. One that is broken is a problem.
 */
export function readModels (configPath: string, readFile: ReadFile): ModelsReading {
  const path = join(dirname(configPath), 'models.json')
  const own = readIfThere(path, readFile)
  if (own !== null) return own
  const shipped = path === shippedPath ? null : readIfThere(shippedPath, readFile)
  const substitute = shipped === null ? 'no model has a category' : `the shipped ${shippedPath} counts`
  return { ...shipped ?? nothing, warnings: [`There is no models.json beside ${configPath}: ${substitute}.`] }
}

const nothing: ModelsReading = { models: [], problems: [], warnings: [] }

/** `null`: there is no such file. */
function readIfThere (path: string, readFile: ReadFile): ModelsReading | null {
  const problem = (problem: string, expected: string, source = path): ModelsReading =>
    ({ ...nothing, problems: [{ setting: 'models', source, problem, expected }] })
  let text
  try {
    text = readFile(path)
  } catch (error) {
    const reason = reasonOf(error)
    if (reason === 'ENOENT' || reason === 'ENOTDIR') return null
    return problem(`can not be read (${reason})`, 'a file that can be read, or none')
  }
  const expected = 'JSON with each key once'
  if (!isJson(text)) return problem('is no JSON', expected)
  // JSON is YAML too, and its reader knows the lines and keys that stand there twice.
  const { value, faults: [fault], lineOf } = parseYaml(text)
  if (fault !== undefined) return problem(fault.problem, fault.expected!, `${path}:${fault.line}`)
  const problems = problemsIn(value).map(({ path: at, problem, expected }) =>
    ({ setting: at.length === 0 ? 'models' : pathText(at), source: `${path}:${lineOf(at) ?? 1}`, problem, expected }))
  return problems.length > 0 ? { ...nothing, problems } : { ...nothing, models: (value as { models: readonly Model[] }).models }
}

function problemsIn (value: unknown): readonly FileProblem[] {
  const wrong = fileProblems(modelsFile as JsonSchema, value)
  return wrong.length > 0 ? wrong : repeated((value as { models: readonly Model[] }).models)
}

/** Prices and categories are looked up whatever the case of a name: two that differ in nothing else are one. */
function repeated (models: readonly Model[]): FileProblem[] {
  const seen = new Set<string>()
  return models.flatMap(({ id }, index) => {
    const isRepeated = seen.has(id.toLowerCase())
    seen.add(id.toLowerCase())
    return isRepeated ? [{ path: ['models', index, 'id'], problem: `${shown(id)} stands there twice`, expected: 'each model once' }] : []
  })
}

function isJson (text: string): boolean {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}
