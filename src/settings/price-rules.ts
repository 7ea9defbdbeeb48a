import { asciiFold } from '../domain/fields.ts'
import { globs } from '../domain/policy.ts'
import { type ConditionalRule, type Conditions, defaultOf, perFields, type PriceRule, submitRules } from '../domain/prices.ts'
import type { GatewayFile } from './file-schema.ts'
import { type FileProblem, type KeyPath, pathText } from './file.ts'
import { shown } from './problems.ts'

/** A rule of a price, and where it stands in the file. */
interface PlacedRule {
  readonly path: KeyPath
  readonly rule: ConditionalRule
}

function rulesOf (glob: string, price: PriceRule): readonly PlacedRule[] {
  return (submitRules(price) ?? []).map((rule, index) => ({
    path: Array.isArray(price) ? ['prices', glob, index] : ['prices', glob],
    rule
  }))
}

/** What must hold for prices beyond the shape of their keys. */
export function priceProblems ({ prices }: GatewayFile): FileProblem[] {
  return [
    ...Object.entries(prices).flatMap(([glob, price]) => {
      const rules = rulesOf(glob, price)
      return [...rules.flatMap(factorProblems), ...rules.flatMap(deadRules), ...lastProblems(rules)]
    }),
    ...hiddenGlobs(prices).filter(({ glob }) => !isOldForm(prices[glob]!)).map(({ path, by }) => ({
      path,
      problem: `never counts, as ${pathText(['prices', by])} comes first`,
      expected: 'the narrower of two globs first'
    }))
  ]
}

function factorProblems ({ path, rule }: PlacedRule): FileProblem[] {
  const per = perFields(rule)
  const at = [...path, 'per']
  const twice = per.filter((field, index) => per.indexOf(field) !== index)
  const outside = isInList(path) ? per.filter(field => !isOfInput(field)) : []
  return [
    ...twice.map(field => ({ path: at, problem: `names ${field} twice`, expected: 'each field once' })),
    ...outside.map(field => ({ path: at, problem: `is ${field}`, expected: `input.${field}` })),
    ...defaultProblems(rule, per, [...path, 'default'])
  ]
}

function defaultProblems (
  { default: value }: ConditionalRule, per: readonly string[], path: KeyPath
): FileProblem[] {
  if (value === undefined) return []
  if (per.length === 0) {
    return [{ path, problem: 'stands without per', expected: 'beside it per, the field that it stands in for' }]
  }
  if (typeof value === 'number') {
    const expected = 'numbers, each under its field'
    return per.length === 1 ? [] : [{ path, problem: 'is one number for several fields', expected }]
  }
  return Object.keys(value).filter(field => !per.includes(field)).map(field =>
    ({ path: [...path, field], problem: 'is no field of per', expected: `one of ${per.join(', ')}` }))
}

function isInList (path: KeyPath): boolean {
  return path.length > 2
}

export function isOfInput (field: string): boolean {
  return field.startsWith('input.')
}

/** A sentence for the log, and where in the file it is about. */
export function warning (path: KeyPath, problem: string): FileProblem {
  return { path, problem, expected: '' }
}

function lastProblems (rules: readonly PlacedRule[]): FileProblem[] {
  const last = rules.at(-1)
  if (last?.rule.when === undefined) return []
  return [{
    path: last.path,
    problem: 'is the last rule, and has a when',
    expected: 'after it a rule without when, for all that matches no other'
  }]
}

/** A rule, or a value of it, that an earlier one always takes first. */
function deadRules (
  { path, rule: { when = {} } }: PlacedRule, index: number, rules: readonly PlacedRule[]
): FileProblem[] {
  const earlier = rules.slice(0, index)
  const coverOf = (conditions: Conditions) => earlier.find(({ rule }) => covers(rule.when ?? {}, conditions))
  const problem = (by: PlacedRule) => `never counts, as ${pathText(by.path)} comes first`
  const cover = coverOf(when)
  if (cover !== undefined) return [{ path, problem: problem(cover), expected: 'the rule with more conditions first' }]
  return Object.entries(when).flatMap(([field, values]) => [values].flat().flatMap(value => {
    const by = coverOf({ ...when, [field]: value })
    if (by === undefined) return []
    const at = [...path, 'when', field]
    return [{ path: at, problem: `${shown(String(value))} ${problem(by)}`, expected: 'each value in one rule' }]
  }))
}

/** Whether all that matches the narrow conditions matches the wide ones as well, whatever the case of its letters. */
function covers (wide: Conditions, narrow: Conditions): boolean {
  return Object.entries(wide).every(([field, values]) => {
    const [taken, given] = [valuesIn(values), narrow[field]]
    return given !== undefined && valuesIn(given).every(value => taken.includes(value))
  })
}

function valuesIn (values: Conditions[string]): ReadonlyArray<string | number | boolean> {
  return [values].flat().map(value => typeof value === 'string' ? asciiFold(value) : value)
}

/** Globs whose models an earlier one takes all. Prices per token and prices of submits do not see each other. */
function hiddenGlobs (prices: GatewayFile['prices']) {
  const rows = Object.entries(prices).map(([glob, price]) => ({ glob, isText: submitRules(price) === null }))
  return rows.flatMap(({ glob, isText }, index) => {
    // What a star of the later one stands for, a star of the earlier one has to take.
    const by = rows.slice(0, index).find(row => row.isText === isText && globs([row.glob], { ignoreCase: true })(glob))
    return by === undefined ? [] : [{ glob, path: ['prices', glob], by: by.glob }]
  })
}

/** As version 0.3.0 knew it. Files of that time start as they did, whatever is odd in them. */
function isOldForm (price: PriceRule): boolean {
  if (typeof price === 'number') return true
  return !Array.isArray(price) && !('min' in price) && !('per' in price && typeof price.per === 'object') &&
    !('default' in price && typeof price.default === 'object')
}

/** What may be meant as it stands, and most often is not. */
export function priceWarnings ({ prices }: GatewayFile): FileProblem[] {
  if (Object.keys(prices).length === 0) {
    return [warning(['prices'], 'is empty: every submit costs one credit, a film as much as a picture.')]
  }
  const rows = Object.entries(prices).map(([glob, price]) => rulesOf(glob, price))
  return [
    ...hiddenGlobs(prices).filter(({ glob }) => isOldForm(prices[glob]!)).map(({ path, by }) =>
      warning(path, `never counts, as ${pathText(['prices', by])} comes first.`)),
    ...rows.flat().flatMap(({ path, rule }) => perFields(rule).filter(field => !isOfInput(field)).map(field =>
      warning([...path, 'per'], `is ${field}, which no submit has: write input.${field}.`))),
    ...rows.flatMap(rules => {
      const last = rules.at(-1)
      const dearer = last && rules.find(({ rule }) => isCheaper(last.rule, rule))
      if (dearer === undefined) return []
      return [warning(last!.path, `may be cheaper than ${pathText(dearer.path)}, and counts when its fields are left out.`)]
    })
  ]
}

/** Whether there may be a submit that costs less by the first rule than by the second. */
function isCheaper (one: ConditionalRule, other: ConditionalRule): boolean {
  if (one.credits < other.credits || leastOf(one) < leastOf(other)) return true
  return perFields(other).some(field => !perFields(one).includes(field) ||
    (defaultOf(one, field) ?? Infinity) < (defaultOf(other, field) ?? 0))
}

/** What one unit of each field costs. */
function leastOf ({ credits, min = 0 }: ConditionalRule): number {
  return Math.max(credits, min)
}
