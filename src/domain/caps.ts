import { badRequest } from '../errors.ts'
import { type Field, fieldAt } from './fields.ts'
import { byModel, globs } from './policy.ts'

/** Bounds of one field of a request, as the operator wrote them (`caps` in config/gateway.yaml). */
interface CapRule {
  readonly min?: number
  readonly max?: number
  readonly oneOf?: ReadonlyArray<string | number | boolean>
}

/** Glob of models → path of a field → its bounds. */
export type CapRules = Readonly<Record<string, Readonly<Record<string, CapRule>>>>

type Caps = (model: string, body: object) => void

/**
 * Holds a submit against every cap whose glob matches its model, whatever its case. A field that is absent is within
 * its bounds: the model's own default holds. Throws `GW_BAD_REQUEST`, which names the field and what it may be.
 */
export function caps (rules: CapRules): Caps {
  const capsOf = byModel(model => fieldsFor(rules, model).map(([path, rule]) => ({ field: fieldAt(path), rule })))
  return (model, body) => {
    for (const { field, rule } of capsOf(model)) hold(body, field, rule)
  }
}

function fieldsFor (rules: CapRules, model: string): ReadonlyArray<readonly [path: string, rule: CapRule]> {
  return Object.entries(rules).flatMap(([models, fields]) =>
    globs([models], { ignoreCase: true })(model) ? Object.entries(fields) : [])
}

/** The least count at a path that a model's caps let through, where they say so; else 1. Always above 0. */
export function leastCount (rules: CapRules, model: string, path: string): number {
  const mins = fieldsFor(rules, model).flatMap(([name, { min = 0 }]) => name === path && min > 0 ? [min] : [])
  return mins.length === 0 ? 1 : Math.max(...mins)
}

function hold (body: object, { path, numberIn, valueIn }: Field, { min, max, oneOf }: CapRule): void {
  if (min !== undefined || max !== undefined) {
    const value = numberIn(body)
    if (value !== undefined && min !== undefined && value < min) throw badRequest(`${path} must be at least ${min}.`)
    if (value !== undefined && max !== undefined && value > max) throw badRequest(`${path} must be at most ${max}.`)
  }
  const value = valueIn(body)
  if (oneOf !== undefined && value !== undefined && !oneOf.some(allowed => allowed === value)) {
    throw badRequest(`${path} must be one of ${oneOf.join(', ')}.`)
  }
}
