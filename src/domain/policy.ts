import { badRequest } from '../errors.ts'
import { fieldAt, numberAt } from './json.ts'
import { dayMs, hourMs } from './time.ts'

/**
 * Compiles globs in which `*` is the only wildcard. Empty means none: nothing matches. `ignoreCase` is for rules that
 * cost money (prices, caps): `Sora-2` must not slip past a rule for `sora-2`.
 */
export function globs (patterns: readonly string[], { ignoreCase = false } = {}): (name: string) => boolean {
  const plain = (text: string) => ignoreCase ? text.toLowerCase() : text
  const parts = patterns.map(pattern => plain(pattern).split('*'))
  return name => parts.some(pieces => matches(plain(name), pieces))
}

/**
 * Whether a name is made of these pieces with anything between them. Taking each piece at its first place is enough,
 * and linear: as a regular expression, a pattern of many stars would run for minutes.
 */
function matches (name: string, pieces: readonly string[]): boolean {
  const [first, last] = [pieces[0]!, pieces.at(-1)!]
  if (pieces.length === 1) return name === first
  const end = name.length - last.length
  if (!name.startsWith(first) || !name.endsWith(last)) return false
  let at = first.length
  for (const piece of pieces.slice(1, -1)) {
    const found = name.indexOf(piece, at)
    if (found === -1) return false
    at = found + piece.length
  }
  return at <= end
}

/** Bounds of one field of a request, as the operator wrote them (`caps` in config/gateway.yaml). */
interface CapRule {
  readonly min?: number
  readonly max?: number
  readonly oneOf?: ReadonlyArray<string | number | boolean>
}

/** Glob of models → path of a field → its bounds. */
type CapRules = Readonly<Record<string, Readonly<Record<string, CapRule>>>>

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
function leastCount (rules: CapRules, path: string): (model: string) => number {
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

type Category = 'image' | 'video' | 'audio' | 'text'
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
type PollingIntervals = Readonly<Record<'image' | 'video' | 'audio' | '*', number>>

export function intervalBy (polling: PollingIntervals, models: readonly Model[]): (model: string) => number {
  const category = categoryOf(models)
  return model => {
    const found = category(model)
    return polling[found === null || found === 'text' ? '*' : found]
  }
}

/** What the use of a model costs, as its callers may read it; in credits. */
export type ListedPrice = Exclude<PriceRule, number>

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
type PriceRule =
  | number
  | {
    readonly credits: number
    readonly per?: string
    readonly default?: number
    readonly onFailed?: 'refund' | 'charge'
  }
  | { readonly inputPerMillion: number, readonly outputPerMillion: number }

type Pricing = (model: string, input: Readonly<Record<string, unknown>>) => Price

/** Highest number of units a price may be multiplied with: far above any duration or count, far below overflow. */
const maxUnits = 1_000_000

/**
 * The price of a submit: by the first rule whose glob matches the model, whatever its case, else one credit. A count
 * below the least that the model's caps allow, or below 1 where they say nothing, is priced as that: a tenth of a
 * picture is a picture. Throws `GW_BAD_REQUEST` when the field that sets the price is missing or is no plain positive
 * number.
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
    typeof rule === 'object' && 'inputPerMillion' in rule
      ? []
      : [{ matches: globs([models], { ignoreCase: true }), rule }]
  )
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

type Period = 'minute' | 'hour' | 'day' | 'month'

/** A plan as the operator wrote it (`plans` in config/gateway.yaml). */
interface PlanRules {
  readonly models: readonly string[]
  readonly requestsPerMinute: number
  readonly pollsPerMinute: number
  readonly concurrentTasks: number
  readonly credits: number | 'unlimited'
  readonly period: Period
}

/** What a session may do. */
export interface Plan {
  readonly name: string
  readonly models: readonly string[]
  readonly permits: (model: string) => boolean
  /** Submits and LLM calls, per subject. */
  readonly requestsPerMinute: number
  /** Status calls, per subject. */
  readonly pollsPerMinute: number
  /** Unfinished tasks, per subject. */
  readonly concurrentTasks: number
  /** Per period and subject; `null` is unlimited. */
  readonly credits: Microcredits | null
  readonly period: Period
}

/** Compiles every plan once, at start. */
export function plans (rules: Readonly<Record<string, PlanRules>>): ReadonlyMap<string, Plan> {
  return new Map(Object.entries(rules).map(([name, rule]) => [name, {
    ...rule,
    name,
    permits: globs(rule.models),
    credits: rule.credits === 'unlimited' ? null : microcredits(rule.credits)
  }]))
}

/** The UTC period that `now` falls into, as Unix ms: `[start, end)`. */
export function periodAt (period: Period, now: number): { readonly start: number, readonly end: number } {
  if (period === 'month') {
    const date = new Date(now)
    const [year, month] = [date.getUTCFullYear(), date.getUTCMonth()]
    return { start: Date.UTC(year, month), end: Date.UTC(year, month + 1) }
  }
  const length = periodMs[period]
  const start = Math.floor(now / length) * length
  return { start, end: start + length }
}

const periodMs = { minute: 60_000, hour: hourMs, day: dayMs } as const
