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
  options: Type.Optional(options)
}, { title: 'a model', additionalProperties: false })

/** config/models.json: what the operator knows of the models. */
const modelsFile = Type.Object({
  models: Type.Array(model, { title: 'a list of models' })
}, { title: 'a mapping with models', additionalProperties: false })

export interface ModelsReading {
  readonly models: readonly Model[]
  readonly problems: readonly SettingsProblem[]
}

/** Reads models.json beside the config file. There need not be one; one that is broken is a problem. */
export function readModels (configPath: string, readFile: ReadFile): ModelsReading {
  const path = join(dirname(configPath), 'models.json')
  const problem = (problem: string, expected: string, source = path): ModelsReading =>
    ({ models: [], problems: [{ setting: 'models', source, problem, expected }] })
  let text
  try {
    text = readFile(path)
  } catch (error) {
    const reason = reasonOf(error)
    return reason === 'ENOENT' || reason === 'ENOTDIR' ? { models: [], problems: [] } : problem(`can not be read (${reason})`, 'a file that can be read, or none')
  }
  const expected = 'JSON with each key once'
  if (!isJson(text)) return problem('is no JSON', expected)
  // JSON is YAML too, and its reader knows the lines and keys that stand there twice.
  const { value, faults: [fault], lineOf } = parseYaml(text)
  if (fault !== undefined) return problem(fault.problem, expected, `${path}:${fault.line}`)
  const problems = problemsIn(value).map(({ path: at, problem, expected }) =>
    ({ setting: at.length === 0 ? 'models' : pathText(at), source: `${path}:${lineOf(at) ?? 1}`, problem, expected }))
  return { models: problems.length > 0 ? [] : (value as { models: readonly Model[] }).models, problems }
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
