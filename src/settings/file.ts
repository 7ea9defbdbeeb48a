import { dirname, join } from 'node:path'
import Type from 'typebox'
import { Check } from 'typebox/schema'
import {
  type Document, isAlias, isMap, isSeq, LineCounter, type Node, parseDocument, visit, type YAMLError
} from 'yaml'
import { isObject, jsonValue } from '../domain/json.ts'
import { categories, type Model } from '../domain/policy.ts'
import { modelPattern } from '../domain/upstream.ts'
import { gatewayFile, type GatewayFile } from './file-schema.ts'
import { nearestName, type ReadFile, reasonOf, type SettingsProblem, shown } from './problems.ts'

/** The keywords that our schema uses, as far as this program reads them. */
export interface JsonSchema {
  readonly type?: string
  readonly title?: string
  readonly description?: string
  readonly default?: unknown
  readonly required?: readonly string[]
  readonly properties?: Readonly<Record<string, JsonSchema>>
  readonly patternProperties?: Readonly<Record<string, JsonSchema>>
  readonly items?: JsonSchema
  readonly anyOf?: readonly JsonSchema[]
}

/** The JSON Schema of the config file as an operator writes it: whatever has a default may be missing. */
export function gatewayFileSchema (): JsonSchema {
  const schema = JSON.parse(JSON.stringify(gatewayFile), (_key, node) => {
    if (!Array.isArray(node?.required)) return node
    const { required, ...rest } = node
    const needed = required.filter((name: string) => !('default' in node.properties[name]))
    return needed.length > 0 ? { ...rest, required: needed } : rest
  })
  return { $schema: 'http://json-schema.org/draft-07/schema#', ...schema }
}

/** The text of config/gateway.schema.json, for editors. */
export function gatewayFileSchemaText (): string {
  return `${JSON.stringify(gatewayFileSchema(), null, 2)}\n`
}

/** The schema of a key: a known one, or, where names are free, any whose pattern matches. */
function schemaOfKey (schema: JsonSchema, key: string): JsonSchema | undefined {
  const { properties = {}, patternProperties = {} } = schema
  if (Object.hasOwn(properties, key)) return properties[key]
  return Object.entries(patternProperties).find(([pattern]) => new RegExp(pattern).test(key))?.[1]
}

/**
 * Fills in the defaults of a schema, in the schema's order of keys. Nothing of `value` is changed. (`Value.Default` of
 * `typebox/value` would do the same, and cost every start 40 ms of import.)
 */
function withDefaults (schema: JsonSchema, value: unknown): unknown {
  const given = value === undefined ? schema.default : value
  if (schema.anyOf !== undefined) return frozen(given)
  if (Array.isArray(given)) return Object.freeze(given.map(item => withDefaults(schema.items!, item)))
  return isObject(given) ? mappingWithDefaults(schema, given) : Object.freeze(given)
}

/** No form of a choice has defaults. */
function frozen (value: unknown): unknown {
  if (typeof value === 'object' && value !== null) for (const item of Object.values(value)) frozen(item)
  return Object.freeze(value)
}

function mappingWithDefaults (schema: JsonSchema, given: Mapping): unknown {
  const keys = new Set([...Object.keys(schema.properties ?? {}), ...Object.keys(given)])
  const entries = [...keys].flatMap(key => {
    const value = withDefaults(schemaOfKey(schema, key)!, given[key])
    return value === undefined ? [] : [[key, value] as const]
  })
  const mapping = Object.fromEntries(entries)
  // A plan is looked up by a name that a caller may have chosen: `constructor` must find nothing.
  if (schema.patternProperties !== undefined) Object.setPrototypeOf(mapping, null)
  return Object.freeze(mapping)
}

type Mapping = Readonly<Record<string, unknown>>

/** The way to a value of the config file: keys of mappings, indexes of lists. */
export type KeyPath = ReadonlyArray<string | number>

/** A key path as people write it: `prices["sora-2*"].credits`, `issuers[0].plan`. */
export function pathText (path: KeyPath): string {
  return path.map((key, index) => {
    if (typeof key === 'number') return `[${key}]`
    if (!/^[A-Za-z_][\w-]*$/.test(key)) return `[${JSON.stringify(key)}]`
    return index === 0 ? key : `.${key}`
  }).join('')
}

/** One value of the file, as small as people name them: a list of plain values and an empty mapping are values too. */
interface Leaf {
  readonly path: KeyPath
  readonly value: unknown
}

export function leaves (value: unknown, path: KeyPath = []): readonly Leaf[] {
  const entries = entriesOf(value)
  return entries.length === 0 ? [{ path, value }] : entries.flatMap(([key, item]) => leaves(item, [...path, key]))
}

function entriesOf (value: unknown): ReadonlyArray<readonly [string | number, unknown]> {
  if (isObject(value)) return Object.entries(value)
  return Array.isArray(value) && value.some(isObject) ? [...value.entries()] : []
}

/** A problem of the config file, before the file's name and the line are known. */
export interface FileProblem {
  readonly path: KeyPath
  readonly problem: string
  readonly expected: string
}

/**
 * Every place where `value` breaks the schema. The library decides what is valid; the walk down to the smallest part
 * that is not makes a sentence of each, and has no limit to their number.
 */
function fileProblems (schema: JsonSchema, value: unknown, path: KeyPath = []): FileProblem[] {
  if (Check(schema, value)) return []
  if (schema.anyOf !== undefined) return problemsOfChoice(schema, value, path)
  const inner = problemsInside(schema, value, path)
  return inner.length > 0 ? inner : [wrongValue(schema, value, path)]
}

function problemsInside (schema: JsonSchema, value: unknown, path: KeyPath): FileProblem[] {
  const { type, items } = schema
  if (Array.isArray(value) && items !== undefined) {
    return value.flatMap((item, index) => fileProblems(items, item, [...path, index]))
  }
  return isObject(value) && type === 'object' ? problemsOfMapping(schema, value, path) : []
}

/** A mapping is judged by the form with which it shares most keys, so that one misspelt key is named as such. */
function problemsOfChoice (schema: JsonSchema, value: unknown, path: KeyPath): FileProblem[] {
  const list = schema.anyOf!.find(({ type }) => type === 'array')
  if (Array.isArray(value) && value.length > 0 && list !== undefined) return fileProblems(list, value, path)
  const forms = schema.anyOf!.filter(({ type }) => type === 'object')
  if (!isObject(value) || forms.length === 0) return [wrongValue(schema, value, path)]
  const keys = Object.keys(value)
  const shared = (form: JsonSchema): number => keys.filter(key => schemaOfKey(form, key) !== undefined).length
  return fileProblems(forms.reduce((best, form) => shared(form) > shared(best) ? form : best), value, path)
}

function problemsOfMapping (schema: JsonSchema, value: Mapping, path: KeyPath): FileProblem[] {
  const missing = (schema.required ?? []).filter(key => !Object.hasOwn(value, key)).map(key => ({
    path: [...path, key],
    problem: 'is missing',
    expected: schema.properties![key]!.title!
  }))
  const present = Object.keys(value).flatMap(key => {
    const known = schemaOfKey(schema, key)
    return known === undefined ? unknownKey(schema, key, path) : fileProblems(known, value[key], [...path, key])
  })
  return [...missing, ...present]
}

function unknownKey (schema: JsonSchema, key: string, path: KeyPath): FileProblem {
  const at = [...path, key]
  if (schema.properties === undefined) return { path: at, problem: 'can not be a name here', expected: schema.title! }
  const nearest = nearestName(key, Object.keys(schema.properties))
  return { path: at, problem: 'there is no such key', expected: `a known key; the nearest is ${nearest}` }
}

function wrongValue (schema: JsonSchema, value: unknown, path: KeyPath): FileProblem {
  return { path, problem: given(value, path), expected: schema.title! }
}

/**
 * Says what was given. Not where a secret was to be named, as some put the secret itself there, nor when all of the
 * file is a text, as it is another file then.
 */
function given (value: unknown, path: KeyPath): string {
  if (value === null || value === '') return 'is empty'
  if (Array.isArray(value)) return value.length === 0 ? 'is an empty list' : 'is a list'
  if (isObject(value)) return Object.keys(value).length === 0 ? 'is an empty mapping' : 'is a mapping'
  if (path.length === 0 || /secret/i.test(String(path.at(-1)))) return `is a ${typeof value}`
  return `is ${typeof value === 'string' ? shown(value) : String(value)}`
}

interface YamlFile {
  /** Plain data; an empty file is an empty mapping. */
  readonly value: unknown
  /** What keeps the text from being read at all; then `value` is empty. */
  readonly faults: readonly YamlFault[]
  /** The line of a key, or of the nearest one above it that is there. */
  readonly lineOf: (path: KeyPath) => number | undefined
}

interface YamlFault {
  readonly problem: string
  readonly line: number | undefined
  /** Ends the sentence that begins with "expected"; `undefined`: the reader of the file knows better. */
  readonly expected: string | undefined
}

/**
 * Parses YAML 1.2, strictly. No fault quotes the text, since it may turn out to be the wrong file; but for a key that
 * stands there twice, which nobody finds without its name.
 */
function parseYaml (text: string): YamlFile {
  const lines = new LineCounter()
  const document = parseDocument(text, { version: '1.2', prettyErrors: false, stringKeys: true, lineCounter: lines })
  const faults = [...document.errors, ...document.warnings]
  if (faults.length > 0) {
    return unreadableYaml(faults.map(fault => faultOf(fault, document, lines)))
  }
  try {
    return { value: document.toJS() ?? {}, faults: [], lineOf: path => lineOf(document, path, lines) }
  } catch {
    return unreadableYaml([
      { problem: 'an alias has no anchor, or there are too many aliases', line: undefined, expected: undefined }
    ])
  }
}

function faultOf ({ code, message, pos: [offset] }: YAMLError, document: Document, lines: LineCounter): YamlFault {
  const { line } = lines.linePos(offset)
  const twins = code === 'DUPLICATE_KEY' ? twinsAt(document, offset) : null
  if (twins === null) return { problem: withoutExcerpt(message), line, expected: undefined }
  const { key, firstOffset } = twins
  const firstLine = lines.linePos(firstOffset).line
  const places = firstLine === line ? `in line ${line}` : `in line ${firstLine} and in line ${line}`
  return {
    problem: `${shown(key)} stands there twice, ${places}`,
    line,
    expected: 'each key once: merge the second into the first'
  }
}

/** The key that stands at this offset, and where it stood before in the same mapping. */
function twinsAt (document: Document, offset: number): { readonly key: string, readonly firstOffset: number } | null {
  let twins: ReturnType<typeof twinsAt> = null
  visit(document, {
    Map (_, { items }) {
      const keys = (items as Array<{ readonly key: Node }>).map(({ key }) => ({
        key: String(key),
        offset: key.range![0]
      }))
      const second = keys.find(key => key.offset === offset)
      if (second === undefined) return undefined
      twins = { key: second.key, firstOffset: keys.find(({ key }) => key === second.key)!.offset }
      return visit.BREAK
    }
  })
  return twins
}

function unreadableYaml (faults: readonly YamlFault[]): YamlFile {
  return { value: {}, faults, lineOf: () => undefined }
}

/** The library quotes what it has found after a colon and after a few words; what is left says enough. */
function withoutExcerpt (message: string): string {
  return message.replace(/(?:(?<=Unknown directive|escape sequence) |: ).*$/s, '')
}

function lineOf (document: Document, path: KeyPath, lines: LineCounter): number | undefined {
  let node = document.contents as Node | undefined
  let offset: number | undefined
  for (const key of path) {
    const parent = isAlias(node) ? node.resolve(document) : node
    const pair = isMap<Node, Node>(parent) ? parent.items.find(pair => String(pair.key) === key) : undefined
    const place = isSeq<Node>(parent) ? parent.items[Number(key)] : pair?.key
    if (place === undefined) break
    offset = place.range![0]
    node = pair?.value ?? place
  }
  return offset === undefined ? undefined : lines.linePos(offset).line
}

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
  if (!isObject(value)) return unreadable(problems, locate)
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

const options = Type.Unsafe<Record<string, unknown>>({
  type: 'object',
  title: 'a mapping',
  description: 'What a page needs to draw the form of this model; passed on to callers as it is.'
})

const model = Type.Object({
  id: Type.String({ pattern: modelPattern.source, title: 'the name of a model' }),
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
 * Reads models.json beside the config file, or else the shipped one, with a warning: without it every model is polled
 * as the slowest are, and pages are shown none. One that is broken is a problem.
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
  if (jsonValue(text) === undefined) return problem('is no JSON', expected)
  // JSON is YAML too, and its reader knows the lines and keys that stand there twice.
  const { value, faults: [fault], lineOf } = parseYaml(text)
  if (fault !== undefined) return problem(fault.problem, fault.expected!, `${path}:${fault.line}`)
  const problems = problemsIn(value).map(({ path: at, problem, expected }) => ({
    setting: at.length === 0 ? 'models' : pathText(at),
    source: `${path}:${lineOf(at) ?? 1}`,
    problem,
    expected
  }))
  return problems.length > 0
    ? { ...nothing, problems }
    : { ...nothing, models: (value as { models: readonly Model[] }).models }
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
    return isRepeated
      ? [{ path: ['models', index, 'id'], problem: `${shown(id)} stands there twice`, expected: 'each model once' }]
      : []
  })
}
