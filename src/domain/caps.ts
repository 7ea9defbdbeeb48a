import { RE2JS } from 're2js'
import { badRequest } from '../errors.ts'
import { fold, isObject, type Member, quoted } from './json.ts'
import { byModel, globs } from './policy.ts'

/** A field of a request's body that rules name by a dotted path such as `input.duration`, made to be read often. */
export interface Field {
  readonly path: string
  /**
   * Its value; `undefined` when there is none. Another spelling of a name of the path is a `GW_BAD_REQUEST`, beside the
   * name as well: an upstream that takes `Duration` or `numImages` too would read that, and no rule would hold it.
   */
  readonly valueIn: (body: object) => unknown
  /** The same where money depends on it: what is no plain number is a `GW_BAD_REQUEST`. */
  readonly numberIn: (body: object) => number | undefined
}

export function fieldAt (path: string): Field {
  const names = path.split('.').map(name => ({ name, spelling: spellingOf(name) }))

  const valueIn = (body: object): unknown => {
    let value: unknown = body
    for (const { name, spelling } of names) {
      if (typeof value !== 'object' || value === null) return undefined
      // The names of the body itself are all known ones: `nameCheck`.
      const other = value === body ? undefined : otherIn(value, name, spelling)
      if (other !== undefined) throw badRequest(`Write ${quoted(name)} of ${path} and not ${quoted(other)}.`)
      if (!Object.hasOwn(value, name)) return undefined
      value = (value as Record<string, unknown>)[name]
    }
    return value
  }

  return {
    path,
    valueIn,
    numberIn: body => {
      const value = valueIn(body)
      if (value === undefined) return undefined
      if (!isPlainNumber(value)) throw badRequest(`${path} must be a plain number.`)
      return value
    }
  }
}

/**
 * A number within 2^53, so that it means the same to every reader. A text that looks like one, `1e309` or null is none.
 */
export function isPlainNumber (value: unknown): value is number {
  return typeof value === 'number' && Number.isFinite(value) && Math.abs(value) <= Number.MAX_SAFE_INTEGER
}

/** All ways to write a name that somebody may read alike: `num_images`, `numImages`, `Num-Images`. */
function spellingOf (name: string): string {
  return /^[a-z0-9]*$/.test(name) ? name : fold(name).replace(/[\s_-]+/g, '')
}

/** More names of one object are not read anew for each field: fifteen caps and 49,000 names took 0.7 s. */
const fewNames = 50

/** A name of the object that is another spelling of this one. */
function otherIn (value: object, name: string, spelling: string): string | undefined {
  if (Array.isArray(value)) return undefined
  return namesLike(value, spelling)
    .find(given => given !== name && mayBeAlike(given, spelling) && spellingOf(given) === spelling)
}

/** Most names begin with another letter. */
function mayBeAlike (given: string, spelling: string): boolean {
  const [one, other] = [given.charCodeAt(0) | 0x20, spelling.charCodeAt(0)]
  return one === other || !isLetter(one) || !isLetter(other)
}

function isLetter (code: number): boolean {
  return code >= 0x61 && code <= 0x7a
}

/** The names of each object of many, by how they are read. */
const knownNames = new WeakMap<object, ReadonlyMap<string, readonly string[]>>()

/** The names of an object among which those of a spelling are; of few, all. */
function namesLike (value: object, spelling: string): readonly string[] {
  const known = knownNames.get(value)
  if (known !== undefined) return known.get(spelling) ?? []
  const names = Object.keys(value)
  if (names.length <= fewNames) return names
  knownNames.set(value, Map.groupBy(names, spellingOf))
  return namesLike(value, spelling)
}

/**
 * Text with its ASCII letters in lower case and all else as it is: `K`, the sign of Kelvin, is no k. It has the length
 * that it had.
 */
export function asciiFold (text: string): string {
  return text.replace(/[A-Z]+/g, letters => letters.toLowerCase())
}

/** Longer texts are not looked into, and refused: as long as any prompt may be. */
export const maxPatternText = 20_000
/** Steps of a compiled pattern: each of them may be taken for each character. */
const maxPatternSize = 1000

/**
 * A regular expression in the syntax of RE2, which takes time in proportion to the text whatever is in either: no
 * prompt can be written that holds up the gateway. It matches anywhere in the text, unless it says `^` or `$`.
 *
 * Throws a `RangeError` that says what is wrong with it: lookarounds and references to groups are no part of RE2.
 */
export function textPattern (source: string): (text: string) => boolean {
  let pattern: RE2JS
  try {
    pattern = RE2JS.compile(source)
  } catch (error) {
    throw new RangeError((error as Error).message.replace(/^error parsing regexp: /, ''))
  }
  if (pattern.programSize() > maxPatternSize) throw new RangeError('it is too large')
  return text => pattern.test(text)
}

type Plain = string | number | boolean

/** Bounds of one field of a request, as the operator wrote them (`caps` in config/gateway.yaml). */
export interface CapRule {
  /** It has to be there. */
  readonly required?: boolean
  /** What is written into a body that leaves it out. */
  readonly default?: Plain
  readonly min?: number
  readonly max?: number
  /** Texts whatever the case of their ASCII letters. */
  readonly oneOf?: readonly Plain[]
  readonly maxItems?: number
  /** What a text has to have in it, and what it must not have. */
  readonly pattern?: string
  readonly not?: string
}

/** Glob of models → path of a field → its bounds. */
export type CapRules = Readonly<Record<string, Readonly<Record<string, CapRule>>>>

/** What caps look at, and write into. */
export interface CappedBody {
  readonly input: Record<string, unknown>
  readonly provider?: unknown
}

type Caps = (model: string, body: CappedBody) => readonly Member[]

/**
 * Holds a submit against every cap whose glob matches its model, whatever its case. A field that is absent is within
 * its bounds, as the model's own default holds, unless the cap has a default itself or says that it is required.
 *
 * Defaults are written into `input`, and given back as what has to be written into its text. Throws `GW_BAD_REQUEST`,
 * which names the field and what it may be.
 */
export function caps (rules: CapRules): Caps {
  const rows = Object.entries(rules).map(([models, fields]) => ({
    matches: globs([models], { ignoreCase: true }),
    caps: Object.entries(fields).map(([path, rule]) => capOf(path, rule))
  }))
  const capsOf = byModel(model => rows.flatMap(({ matches, caps }) => matches(model) ? caps : []))
  return (model, body) => {
    const caps = capsOf(model)
    const members = caps.flatMap(cap => fill(body, cap))
    for (const cap of caps) hold(body, cap)
    return members
  }
}

interface Cap {
  readonly field: Field
  readonly rule: CapRule
  readonly problemOf: (value: unknown) => string | null
}

function capOf (path: string, rule: CapRule): Cap {
  return { field: fieldAt(path), rule, problemOf: capProblem(rule) }
}

function hold (body: CappedBody, { field: { path, valueIn }, rule, problemOf }: Cap): void {
  const value = valueIn(body)
  if (value === undefined) {
    if (rule.required === true) throw badRequest(`Set ${path}.`)
    return
  }
  const problem = problemOf(value)
  if (problem !== null) throw badRequest(`${path} ${problem}.`)
}

function fill (body: CappedBody, { field: { path, valueIn }, rule: { default: value } }: Cap): readonly Member[] {
  if (value === undefined || valueIn(body) !== undefined) return []
  const names = path.split('.').slice(1)
  const parentAt = (around: unknown, name: string) => isObject(around) ? around[name] : undefined
  const parent = names.slice(0, -1).reduce(parentAt, body.input)
  if (!isObject(parent)) throw badRequest(`Set ${path.slice(0, path.lastIndexOf('.'))}, an object.`)
  Object.assign(parent, { [names.at(-1)!]: value })
  return [{ names, value }]
}

/**
 * What is wrong with a value that is there, as the rest of a sentence; `null`: it is within its bounds. Throws a
 * `RangeError` when a pattern is none.
 */
export function capProblem (rule: CapRule): (value: unknown) => string | null {
  const all = [numberCheck(rule), choiceCheck(rule), listCheck(rule), textCheck(rule)]
  const checks = all.filter(check => check !== null)
  return value => {
    for (const check of checks) {
      const problem = check(value)
      if (problem !== null) return problem
    }
    // To many a reader that is as good as absent, and what counts then is not what the cap says.
    return value === null && (rule.required === true || rule.default !== undefined) ? 'must not be null' : null
  }
}

type Check = (value: unknown) => string | null

function numberCheck ({ min, max }: CapRule): Check | null {
  if (min === undefined && max === undefined) return null
  return value => {
    if (!isPlainNumber(value)) return 'must be a plain number'
    if (min !== undefined && value < min) return `must be at least ${min}`
    return max !== undefined && value > max ? `must be at most ${max}` : null
  }
}

function choiceCheck ({ oneOf }: CapRule): Check | null {
  if (oneOf === undefined) return null
  const folded = (value: unknown) => typeof value === 'string' ? asciiFold(value) : value
  const allowed = new Set(oneOf.map(folded))
  return value => allowed.has(folded(value)) ? null : `must be one of ${oneOf.join(', ')}`
}

function listCheck ({ maxItems }: CapRule): Check | null {
  if (maxItems === undefined) return null
  return value => {
    if (!Array.isArray(value)) return 'must be a list'
    return value.length > maxItems ? `must have at most ${maxItems} items` : null
  }
}

function textCheck ({ pattern, not }: CapRule): Check | null {
  if (pattern === undefined && not === undefined) return null
  const [has, hasNot] = [pattern, not].map(source => source === undefined ? null : textPattern(source))
  return value => {
    if (typeof value !== 'string') return 'must be a text'
    if (value.length > maxPatternText) return `must have at most ${maxPatternText} characters`
    if (has?.(value) === false) return 'is not of the form that is asked for here'
    return hasNot?.(value) === true ? 'has something in it that is not accepted here' : null
  }
}

/** The least count at a path that a model's caps let through, where they say so; else 1. Always above 0. */
export function leastCount (rules: CapRules, model: string, path: string): number {
  const mins = Object.entries(rules).flatMap(([models, { [path]: rule }]) => {
    const min = rule?.min ?? 0
    return min > 0 && globs([models], { ignoreCase: true })(model) ? [min] : []
  })
  return mins.length === 0 ? 1 : Math.max(...mins)
}
