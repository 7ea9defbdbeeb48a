import { badRequest } from '../../errors.ts'
import { fieldAt, numberAt } from '../bodies/fields.ts'
import { globs } from './glob.ts'

/** Bounds of one field of a request, as the operator wrote them (`caps` in config/gateway.yaml). */
export interface CapRule {
  readonly min?: number
  readonly max?: number
  readonly oneOf?: ReadonlyArray<string | number | boolean>
}

/** Glob of models → path of a field → its bounds. */
export type CapRules = Readonly<Record<string, Readonly<Record<string, CapRule>>>>

type Caps = (model: string, input: Readonly<Record<string, unknown>>) => void

/**
 * Holds a submit against every cap whose glob matches its model, whatever its case. A field that is absent is within
 * its bounds: the model's own default holds. Throws `GW_BAD_REQUEST`, which names the field and what it may be.
 */
export function caps (rules: CapRules): Caps {
  const rows = Object.entries(rules).map(([models, fields]) => ({
    matches: globs([models], { ignoreCase: true }),
    fields: Object.entries(fields)
  }))
  return (model, input) => {
    for (const { matches, fields } of rows) {
      if (matches(model)) for (const [path, rule] of fields) hold({ input }, path, rule)
    }
  }
}

/** The least count at a path that a model's caps let through, where they say so; else 1. Always above 0. */
export function leastCount (rules: CapRules, path: string): (model: string) => number {
  const rows = Object.entries(rules).flatMap(([models, fields]) => {
    const min = fields[path]?.min ?? 0
    return min > 0 ? [{ matches: globs([models], { ignoreCase: true }), min }] : []
  })
  return model => {
    const mins = rows.filter(({ matches }) => matches(model)).map(({ min }) => min)
    return mins.length === 0 ? 1 : Math.max(...mins)
  }
}

function hold (body: object, path: string, { min, max, oneOf }: CapRule): void {
  if (min !== undefined || max !== undefined) {
    const value = numberAt(body, path)
    if (value !== undefined && min !== undefined && value < min) throw badRequest(`${path} must be at least ${min}.`)
    if (value !== undefined && max !== undefined && value > max) throw badRequest(`${path} must be at most ${max}.`)
  }
  const value = fieldAt(body, path)
  if (oneOf !== undefined && value !== undefined && !oneOf.some(allowed => allowed === value)) {
    throw badRequest(`${path} must be one of ${oneOf.join(', ')}.`)
  }
}
