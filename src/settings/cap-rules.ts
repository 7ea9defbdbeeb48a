import { capProblem, type CapRule } from '../domain/caps.ts'
import { textPattern } from '../domain/patterns.ts'
import type { GatewayFile } from './file-schema.ts'
import type { FileProblem, KeyPath } from './file.ts'
import { isOfInput, warning } from './price-rules.ts'
import { shown } from './problems.ts'

/** A cap of one field, and where it stands in the file. */
interface PlacedCap {
  readonly path: KeyPath
  readonly field: string
  readonly rule: CapRule
}

function capsIn ({ caps }: GatewayFile): readonly PlacedCap[] {
  return Object.entries(caps).flatMap(([glob, fields]) =>
    Object.entries(fields).map(([field, rule]) => ({ path: ['caps', glob, field], field, rule })))
}

/** What must hold for caps beyond the shape of their keys. */
export function capProblems (file: GatewayFile): FileProblem[] {
  return capsIn(file).flatMap(cap => {
    const broken = [...boundProblems(cap), ...kindProblems(cap), ...patternProblems(cap)]
    return broken.length > 0 ? broken : defaultProblems(cap)
  })
}

function boundProblems ({ path, rule: { min = -Infinity, max = Infinity } }: PlacedCap): FileProblem[] {
  if (min <= max) return []
  return [{ path, problem: `min ${min} is greater than max ${max}`, expected: 'a min no greater than max' }]
}

/** A field that has to be two things at once can't be anything. */
function kindProblems ({ path, rule: { min, max, maxItems, pattern, not } }: PlacedCap): FileProblem[] {
  const kinds = [
    min !== undefined || max !== undefined ? 'a number' : [],
    maxItems !== undefined ? 'a list' : [],
    pattern !== undefined || not !== undefined ? 'a text' : []
  ].flat()
  if (kinds.length < 2) return []
  return [{ path, problem: `asks for ${kinds.join(' and for ')}`, expected: 'bounds of one kind' }]
}

function patternProblems ({ path, rule }: PlacedCap): FileProblem[] {
  return (['pattern', 'not'] as const).flatMap(key => {
    const problem = rule[key] === undefined ? null : problemOfPattern(rule[key])
    if (problem === null) return []
    return [{
      path: [...path, key],
      problem: `is no regular expression of RE2 (${problem})`,
      expected: 'one without lookarounds and references to groups'
    }]
  })
}

function problemOfPattern (source: string): string | null {
  try {
    textPattern(source)
    return null
  } catch (error) {
    return (error as RangeError).message
  }
}

function defaultProblems ({ path, field, rule }: PlacedCap): FileProblem[] {
  if (rule.default === undefined) return []
  const at = [...path, 'default']
  if (!isOfInput(field)) return [{ path: at, problem: `is for ${field}`, expected: 'a field of the input' }]
  if (rule.required === true) {
    return [{ path: at, problem: 'stands beside required', expected: 'one of the two: what is written in is there' }]
  }
  const problem = capProblem(rule)(rule.default)
  if (problem === null) return []
  return [{ path: at, problem: `is ${shown(String(rule.default))}, outside its own cap`, expected: `what ${problem}` }]
}

/** What may be meant as it stands, and most often is not. */
export function capWarnings (file: GatewayFile): FileProblem[] {
  return capsIn(file)
    .filter(({ field }) => !isOfInput(field) && field !== 'provider')
    .map(({ path, field }) => warning(path, `is ${field}, which no cap sees: write input.${field}.`))
}
