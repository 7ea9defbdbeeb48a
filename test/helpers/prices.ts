import type { CapRules } from '../../src/domain/caps.ts'
import { type Price, type PricedBody, type PriceRules, quotes } from '../../src/domain/prices.ts'

/** What submits cost under these rules. */
export function pricing (rules: PriceRules, capRules: CapRules): (model: string, body: PricedBody) => Price {
  const quoteOf = quotes(rules, capRules)
  return (model, body) => quoteOf(model, body).price
}
