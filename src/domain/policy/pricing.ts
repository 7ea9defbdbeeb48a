import { badRequest } from '../../errors.ts'
import { numberAt } from '../bodies/fields.ts'
import { type CapRules, leastCount } from './caps.ts'
import { globs } from './glob.ts'

/** Credits in millionths, so that sums are exact: a credit is 1,000,000 of them. Always a safe integer. */
export type Microcredits = number

/** Rounded up, and nothing above 0 to less than one: a price of a fraction of a millionth is not free. */
export function microcredits (credits: number): Microcredits {
  const rounded = Math.ceil(Number((credits * 1_000_000).toFixed(3)))
  return credits > 0 ? Math.max(1, rounded) : rounded
}

/** What a submit costs, fixed when it is reserved. */
export interface Price {
  readonly microcredits: Microcredits
  /** Whether a failed task gives its credits back. */
  readonly refundable: boolean
}

/** A price as the operator wrote it (`prices` in config/gateway.yaml). Prices per token are not for submits. */
export type PriceRule = number
  | { readonly credits: number, readonly per?: string, readonly default?: number, readonly onFailed?: 'refund' | 'charge' }
  | { readonly inputPerMillion: number, readonly outputPerMillion: number }

type Pricing = (model: string, input: Readonly<Record<string, unknown>>) => Price

/** Highest number of units a price may be multiplied with: far above any duration or count, far below overflow. */
const maxUnits = 1_000_000

/**
 * The price of a submit: by the first rule whose glob matches the model, whatever its case, else one credit. A count below
 * the least that the model's caps allow, or below 1 where they say nothing, is priced as that: a tenth of a picture is a
 * picture. Throws `GW_BAD_REQUEST` when the field that sets the price is missing or is no plain positive number.
 */
export function pricing (rules: Readonly<Record<string, PriceRule>>, capRules: CapRules): Pricing {
  const rows = submitRows(rules).map(({ matches, rule }) =>
    ({ matches, priceOf: typeof rule === 'number' ? flat(rule) : compile(rule, capRules) }))
  const otherwise = flat(1)
  return (model, input) => (rows.find(row => row.matches(model))?.priceOf ?? otherwise)(input, model)
}

/** Whether submits of a model cost nothing, whatever is in them; by the same rule as their price. */
export function freeModels (rules: Readonly<Record<string, PriceRule>>): (model: string) => boolean {
  const rows = submitRows(rules)
  return model => {
    const rule = rows.find(row => row.matches(model))?.rule
    return (typeof rule === 'object' ? rule.credits : rule) === 0
  }
}

/** Prices per token are not for submits. */
function submitRows (rules: Readonly<Record<string, PriceRule>>) {
  return Object.entries(rules).flatMap(([models, rule]) =>
    typeof rule === 'object' && 'inputPerMillion' in rule ? [] : [{ matches: globs([models], { ignoreCase: true }), rule }])
}

function flat (credits: number, refundable = true) {
  const price: Price = { microcredits: microcredits(credits), refundable }
  return () => price
}

type CountedRule = Extract<PriceRule, { readonly credits: number }>

function compile ({ credits, per, default: units, onFailed }: CountedRule, capRules: CapRules) {
  const refundable = onFailed !== 'charge'
  if (per === undefined) return flat(credits, refundable)
  const leastOf = leastCount(capRules, per)
  return (input: Readonly<Record<string, unknown>>, model: string): Price => {
    const count = numberAt({ input }, per) ?? units
    if (count === undefined) throw badRequest(`Set ${per}: it makes the price.`)
    if (count <= 0 || count > maxUnits) throw badRequest(`${per} must be above 0 and at most ${maxUnits}.`)
    const price = microcredits(credits * Math.max(count, leastOf(model)))
    if (!Number.isSafeInteger(price)) throw badRequest(`${per} makes a price beyond all credits.`)
    return { microcredits: price, refundable }
  }
}
