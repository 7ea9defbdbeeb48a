import { Check } from 'typebox/schema'
import { nearestName } from '../nearest-name.ts'
import { shown } from '../settings-error.ts'
import { isMapping, schemaOfKey, type JsonSchema, type Mapping } from './json-schema.ts'
import type { KeyPath } from './key-path.ts'

/** A problem of the config file, before the file's name and the line are known. */
export interface FileProblem {
  readonly path: KeyPath
  readonly problem: string
  readonly expected: string
}

/**
 * Every place where `value` breaks the schema. The library decides what is valid; the walk down to the smallest
 * part that is not makes a sentence of each, and has no limit to their number.
 */
export function fileProblems (schema: JsonSchema, value: unknown, path: KeyPath = []): FileProblem[] {
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
  return isMapping(value) && type === 'object' ? problemsOfMapping(schema, value, path) : []
}

/** A mapping is judged by the form with which it shares most keys, so that one misspelt key is named as such. */
function problemsOfChoice (schema: JsonSchema, value: unknown, path: KeyPath): FileProblem[] {
  const forms = schema.anyOf!.filter(({ type }) => type === 'object')
  if (!isMapping(value) || forms.length === 0) return [wrongValue(schema, value, path)]
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
  if (isMapping(value)) return Object.keys(value).length === 0 ? 'is an empty mapping' : 'is a mapping'
  if (path.length === 0 || /secret/i.test(String(path.at(-1)))) return `is a ${typeof value}`
  return `is ${typeof value === 'string' ? shown(value) : String(value)}`
}
