import { badRequest } from '../../errors.ts'
import { fieldAt, numberAt } from '../bodies/fields.ts'
import { globs } from './glob.ts'

/** Bounds of one field of a request, as the operator wrote them (`caps` in config/gateway.yaml). */
export interface CapRule {
  readonly min?: number
  readonly max?: number
  readonly oneOf?: ReadonlyArray<string | number | boolean>
}

type Caps = (model: string, input: Readonly<Record<string, unknown>>) => void

/**
 * Holds a submit against every cap whose glob matches its model, whatever its case. A field that is absent is within
 * its bounds: the model's own default holds. Throws `GW_BAD_REQUEST`, which names the field and what it may be.
 */
export function caps (rules: Readonly<Record<string, Readonly<Record<string, CapRule>>>>): Caps {
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
