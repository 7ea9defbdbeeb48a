import { type TProperties, type TSchema, Type } from 'typebox'

// The words that the schema of the config file is written in. A `title` says what is expected, in the words of a
// message and of an editor's tooltip; a `description` says what the value does.

// `setTimeout` takes a longer wait for one millisecond.
const maxMilliseconds = 2 ** 31 - 1

function wholeNumber (unit: string, maximum: number, value: number, description: string) {
  const title = `a whole number${unit}, 1 ${maximum === Number.MAX_SAFE_INTEGER ? 'or more' : `to ${maximum}`}`
  return Type.Integer({ title, description, minimum: 1, maximum, default: value })
}

export function count (value: number, description: string) {
  return wholeNumber('', Number.MAX_SAFE_INTEGER, value, description)
}

/** A count that may be none at all. */
export function countOrNone (value: number, description: string) {
  return Type.Integer({ ...count(value, description), title: 'a whole number, 0 or more', minimum: 0 })
}

export function bytes (value: number, description: string) {
  return wholeNumber(' of bytes', Number.MAX_SAFE_INTEGER, value, description)
}

export function milliseconds (value: number, description: string) {
  return wholeNumber(' of milliseconds', maxMilliseconds, value, description)
}

/** A time that may be none at all. */
export function millisecondsOrNone (value: number, description: string) {
  const title = `a whole number of milliseconds, 0 to ${maxMilliseconds}`
  return Type.Integer({ ...milliseconds(value, description), title, minimum: 0 })
}

export function seconds (value: number, description: string) {
  return wholeNumber(' of seconds', maxMilliseconds, value, description)
}

export function days (value: number, description: string) {
  return wholeNumber(' of days', 36500, value, description)
}

/** Credits, and what multiplies them. */
export function amount (description: string) {
  return Type.Number({ title: 'a number, 0 to 1000000000', description, minimum: 0, maximum: 1e9 })
}

export function flag (value: boolean, description: string) {
  return Type.Boolean({ title: 'true or false', description, default: value })
}

/** One of several words. */
export function oneOf<const Words extends string[]> (
  words: readonly [...Words], value: Words[number], description: string
) {
  return Type.Enum(words, { title: wordTitle(words), description, default: value })
}

/** One of several words, none of which is the default. */
export function word<const Words extends string[]> (words: readonly [...Words], description: string) {
  return Type.Enum(words, { title: wordTitle(words), description })
}

function wordTitle (words: readonly string[]): string {
  return `one of: ${words.join(', ')}`
}

export function text (pattern: string, title: string, description: string) {
  return Type.String({ pattern, title, description })
}

export function name (title: string, value: string, description: string) {
  return Type.String({ minLength: 1, title, description, default: value })
}

export const exact = { additionalProperties: false } as const

/** A mapping with known keys and no others. */
export function group<Keys extends TProperties> (keys: Keys) {
  return Type.Object(keys, { ...exact, title: 'a mapping of known keys' })
}

/** A group that may be missing as a whole. */
export function section<Keys extends TProperties> (description: string, keys: Keys) {
  return Type.Object(keys, { ...exact, title: 'a mapping of known keys', description, default: {} })
}

/** A `*` is the only wildcard. Digits alone are refused: JavaScript would move such a key before those above it. */
export const glob = {
  pattern: '^(?=.*[^0-9])[A-Za-z0-9._*:@/-]{1,128}$',
  title: 'a model id or a glob: letters, digits, ".", "_", "-", ":", "@", "/", and "*" for any run of characters'
} as const

/** A mapping from globs. */
export function modelMap<Value extends TSchema> (what: string, value: Value, description: string) {
  const title = `${what}, each under ${glob.title}`
  return Type.Record(Type.String({ pattern: glob.pattern }), value, { ...exact, title, description, default: {} })
}

const hostName = '[a-z0-9-]+(?:\\.[a-z0-9-]+)*'

/** Hosts; `*.` in front takes any name below a domain of two parts or more, never the bare domain. */
export function hosts (value: readonly string[], description: string) {
  return Type.Array(Type.String({
    pattern: `^(?:\\*\\.[a-z0-9-]+\\.)?${hostName}$|^\\[[0-9a-f:.]+\\]$`,
    title: 'a host in lower case without scheme, port or path; "*." in front takes any name below it: *.apixo.ai'
  }), { title: 'a list of hosts', description, default: [...value] })
}

/** A field of a request's body. Names of JavaScript's own (`__proto__`) are none. */
const fieldName = '[A-Za-z0-9][A-Za-z0-9_-]*'
export const fieldPath = `^${fieldName}(?:\\.${fieldName})*$`
/** One below `input`, where a submit has all that is the model's own. */
export const inputPath = `^input(?:\\.${fieldName})+$`
/** What a price may depend on. */
export const conditionPath = `^(?:provider|input(?:\\.${fieldName})+)$`
