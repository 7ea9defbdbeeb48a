import { globs } from './glob.ts'
import type { PriceRule } from './pricing.ts'

export type Category = 'image' | 'video' | 'audio' | 'text'
export const categories: readonly Category[] = ['image', 'video', 'audio', 'text']

/** A model as the operator wrote it down (`config/models.json`). */
export interface Model {
  readonly id: string
  readonly category: Category
  /** Its callers may name this provider; of the others only `auto` is known. */
  readonly provider?: 'official'
  /** Passed on to callers as it is: what a page needs to draw its form. */
  readonly options?: Readonly<Record<string, unknown>>
}

/** The category of a model, whatever its case; `null` when the operator has not written it down. */
export function categoryOf (models: readonly Model[]): (model: string) => Category | null {
  const known = new Map(models.map(({ id, category }) => [id.toLowerCase(), category]))
  return model => known.get(model.toLowerCase()) ?? null
}

/** Whether a model's callers may ask for the official provider, whatever the case of its name. */
export function officialModels (models: readonly Model[]): (model: string) => boolean {
  const official = new Set(models.filter(({ provider }) => provider === 'official').map(({ id }) => id.toLowerCase()))
  return model => official.has(model.toLowerCase())
}

/** Least time between two upstream status calls of one task, ms, by category; `*` is for all others. */
export type PollingIntervals = Readonly<Record<'image' | 'video' | 'audio' | '*', number>>

export function intervalBy (polling: PollingIntervals, models: readonly Model[]): (model: string) => number {
  const category = categoryOf(models)
  return model => {
    const found = category(model)
    return polling[found === null || found === 'text' ? '*' : found]
  }
}

/** What the use of a model costs, as its callers may read it; in credits. */
export type ListedPrice =
  | { readonly credits: number, readonly per?: string, readonly default?: number, readonly onFailed?: 'refund' | 'charge' }
  | { readonly inputPerMillion: number, readonly outputPerMillion: number }

/**
 * The rule by which a model is priced: the first whose glob matches, of those per token for text models and of the
 * others for tasks, as in `pricing`. `null`: a text model without a price per token.
 */
export function priceList (rules: Readonly<Record<string, PriceRule>>): (model: Model) => ListedPrice | null {
  const rows = Object.entries(rules).map(([models, rule]) => ({
    matches: globs([models], { ignoreCase: true }),
    price: typeof rule === 'number' ? { credits: rule } : rule
  }))
  return ({ id, category }) => {
    const isText = category === 'text'
    const row = rows.find(({ matches, price }) => matches(id) && 'inputPerMillion' in price === isText)
    return row?.price ?? (isText ? null : { credits: 1 })
  }
}
