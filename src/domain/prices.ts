import { badRequest } from '../errors.ts'
import { asciiFold, type CapRules, type Field, fieldAt, leastCount } from './caps.ts'
import { byModel, globs, type Microcredits, microcredits, type Model } from './policy.ts'
import { tokenGlob } from './token-prices.ts'

/** What a submit costs, fixed when it is reserved. */
export interface Price {
  readonly microcredits: Microcredits
  /** Whether a failed task gives its credits back. */
  readonly refundable: boolean
}

/** What a price may depend on, as the caller wrote it. */
export interface PricedBody {
  readonly input: Readonly<Record<string, unknown>>
  readonly provider?: unknown
}

type Plain = string | number | boolean

/** Dotted field → the values of which it has to have one. All fields have to match; none at all always does. */
export type Conditions = Readonly<Record<string, Plain | readonly Plain[]>>

/** What a submit costs, as the operator wrote it: credits for each unit of all fields of `per`. */
interface SubmitRule {
  readonly credits: number
  readonly per?: string | readonly string[]
  /** What counts for a field of `per` that is absent. It is never sent. */
  readonly default?: number | Readonly<Record<string, number>>
  /** The least credits of a submit. */
  readonly min?: number
  readonly onFailed?: 'refund' | 'charge'
}

/** One of several rules, of which the first that matches counts. The last one has no `when`. */
export interface ConditionalRule extends SubmitRule {
  readonly when?: Conditions
}

/** What a tool costs that the upstream runs. */
interface ServerToolRule {
  /** Credits. */
  readonly perCall: number
  /** The most input tokens that what it finds in one call comes to. */
  readonly tokensPerCall: number
  readonly maxCalls?: number
}

/** What tokens cost, in credits for a million. One that is left out costs as much as plain ones in its direction. */
export interface TokenRule {
  readonly inputPerMillion: number
  readonly outputPerMillion: number
  readonly cacheReadPerMillion?: number
  readonly cacheWritePerMillion?: number
  readonly cacheWriteHourPerMillion?: number
  readonly imageInputPerMillion?: number
  readonly audioInputPerMillion?: number
  readonly reasoningPerMillion?: number
  readonly imageOutputPerMillion?: number
  readonly audioOutputPerMillion?: number
  /** Whether an answer may hold reasoning that is not shown; it may when this is absent. */
  readonly hidesReasoning?: boolean
  /** The most tokens of a picture, and of any other file. */
  readonly tokensPerImage?: number
  readonly tokensPerFile?: number
  /** The most tokens that the model takes in; what is longer it refuses. */
  readonly contextTokens?: number
  /** Tools that the upstream runs; one that is not here is refused. */
  readonly serverTools?: Readonly<Record<string, ServerToolRule>>
  /** Tier of service → what its tokens cost as a multiple; one that is not here is refused. */
  readonly serviceTiers?: Readonly<Record<string, number>>
}

/** A price as the operator wrote it (`prices` in config/gateway.yaml). Prices per token are not for submits. */
export type PriceRule = number | SubmitRule | readonly ConditionalRule[] | TokenRule

/** Glob of models → price. */
export type PriceRules = Readonly<Record<string, PriceRule>>

/** The rules of a submit's price, whichever form they were written in. `null`: a price per token. */
export function submitRules (price: PriceRule): readonly ConditionalRule[] | null {
  if (typeof price === 'number') return [{ credits: price }]
  if (isList(price)) return price
  return 'inputPerMillion' in price ? null : [price]
}

function isList (price: PriceRule): price is readonly ConditionalRule[] {
  return Array.isArray(price)
}

/** What a submit would cost, and by which rule. */
export interface Quote {
  readonly price: Price
  readonly rule: ListedRule
}

type QuoteOf = (body: PricedBody) => Quote

const otherwise: readonly ConditionalRule[] = [{ credits: 1 }]

/**
 * The price of a submit: by the first glob that matches the model, whatever its case, and the first of its rules that
 * matches the body; else one credit.
 *
 * A field that is absent, or has another type, matches no condition. A text that matches by the case of its letters
 * alone costs the dearer of its rule and the last one: an upstream that minds case may take it for anything.
 *
 * A count below the least that the model's caps allow, or below 1 where they say nothing, is priced as that: a tenth of
 * a picture is a picture. Throws `GW_BAD_REQUEST` when a field that sets the price is missing or is no plain positive
 * number, and when the price is beyond all credits.
 */
export function quotes (rules: PriceRules, capRules: CapRules): (model: string, body: PricedBody) => Quote {
  const rulesOf = rulesFor(rules)
  const quoteOf = byModel(model => compile(rulesOf(model), path => leastCount(capRules, model, path)))
  return (model, body) => quoteOf(model)(body)
}

/** Whether submits of a model cost nothing, whatever is in them; by the same rules as their price. */
export function freeModels (rules: PriceRules): (model: string) => boolean {
  const rulesOf = rulesFor(rules)
  return byModel(model => rulesOf(model).every(({ credits, min = 0 }) => credits === 0 && min === 0))
}

function rulesFor (rules: PriceRules): (model: string) => readonly ConditionalRule[] {
  const rows = Object.entries(rules).flatMap(([models, price]) => {
    const rules = submitRules(price)
    return rules === null ? [] : [{ matches: globs([models], { ignoreCase: true }), rules }]
  })
  return model => rows.find(({ matches }) => matches(model))?.rules ?? otherwise
}

function compile (rules: readonly ConditionalRule[], leastOf: (path: string) => number): QuoteOf {
  const compiled = rules.map(rule => ({ match: condition(rule.when ?? {}), quoteOf: product(rule, leastOf) }))
  const last = compiled.at(-1)!.quoteOf
  const conditional = compiled.slice(0, -1)
  return body => {
    for (const { match, quoteOf } of conditional) {
      const found = match(body)
      if (found === 'exact') return quoteOf(body)
      if (found === 'folded') return dearer(quoteOf(body), last(body))
    }
    return last(body)
  }
}

function dearer (one: Quote, other: Quote): Quote {
  const { price: { microcredits }, rule } = other.price.microcredits > one.price.microcredits ? other : one
  return { price: { microcredits, refundable: one.price.refundable && other.price.refundable }, rule }
}

/** How a body matches: `folded`, when at least one text does so by the case of its letters alone. */
type Match = 'exact' | 'folded' | null

function condition (when: Conditions): (body: PricedBody) => Match {
  const fields = Object.entries(when).map(([path, values]) => valueMatch(fieldAt(path), [values].flat()))
  return body => {
    let match: Match = 'exact'
    for (const matchOf of fields) {
      const found = matchOf(body)
      if (found === null) return null
      if (found === 'folded') match = found
    }
    return match
  }
}

function valueMatch ({ valueIn }: Field, values: readonly Plain[]): (body: PricedBody) => Match {
  const exact = new Set<unknown>(values)
  const texts = values.filter(value => typeof value === 'string')
  const folded = new Set(texts.map(asciiFold))
  const longest = Math.max(0, ...texts.map(({ length }) => length))
  return body => {
    const value = valueIn(body)
    if (exact.has(value)) return 'exact'
    // Folding keeps the length: what is longer, a whole book perhaps, need not be folded to be told apart.
    if (typeof value !== 'string' || value.length > longest) return null
    return folded.has(asciiFold(value)) ? 'folded' : null
  }
}

/** A field that multiplies a price. */
interface Factor {
  readonly field: Field
  readonly whenAbsent: number | undefined
  readonly least: number
}

/** The fields of `per`, in either form. */
export function perFields ({ per = [] }: SubmitRule): readonly string[] {
  return [per].flat()
}

/** What counts where a field of `per` is absent, in either form of `default`. */
export function defaultOf ({ default: value }: SubmitRule, path: string): number | undefined {
  return typeof value === 'object' ? value[path] : value
}

function product (rule: ConditionalRule, leastOf: (path: string) => number): QuoteOf {
  const [unit, least] = [microcredits(rule.credits), microcredits(rule.min ?? 0)]
  const refundable = rule.onFailed !== 'charge'
  const shown = listedRule(rule)
  const factors = perFields(rule).map((path): Factor =>
    ({ field: fieldAt(path), whenAbsent: defaultOf(rule, path), least: leastOf(path) }))
  if (factors.length === 0) {
    const quote: Quote = { price: { microcredits: Math.max(unit, least), refundable }, rule: shown }
    return () => quote
  }
  return body => {
    const price = Math.max(least, roundedUp(factors.reduce((sum, factor) => sum * countIn(body, factor), unit)))
    if (!Number.isSafeInteger(price)) throw badRequest(`${perFields(rule).join(' × ')} makes a price beyond all credits.`)
    return { price: { microcredits: price, refundable }, rule: shown }
  }
}

/** Counts may have fractions, and floats have noise: no price is rounded up for the noise. */
function roundedUp (price: number): Microcredits {
  return Number.isInteger(price) ? price : Math.ceil(Number(price.toFixed(3)))
}

/** Highest number of units a price may be multiplied with: far above any duration or count, far below overflow. */
const maxUnits = 1_000_000

function countIn (body: PricedBody, { field: { path, numberIn }, whenAbsent, least }: Factor): number {
  const count = numberIn(body) ?? whenAbsent
  if (count === undefined) throw badRequest(`Set ${path}: it makes the price.`)
  if (count <= 0 || count > maxUnits) throw badRequest(`${path} must be above 0 and at most ${maxUnits}.`)
  return Math.max(count, least)
}

/** What the use of a model costs, as its callers may read it; in credits. */
export type ListedPrice = TokenRule | ListedSubmitPrice

/** As the operator wrote it. Of several rules the last one, which counts when no other matches; then all of them. */
interface ListedSubmitPrice extends SubmitRule {
  /** In their order: the first that matches counts. */
  readonly rules?: readonly ListedRule[]
}

/** A rule in one form: values, fields and what counts when they are absent, whichever way it was written. */
export interface ListedRule {
  readonly when: Readonly<Record<string, readonly Plain[]>>
  readonly credits: number
  readonly per: readonly string[]
  readonly default: Readonly<Record<string, number>>
  readonly min: number
  readonly onFailed: 'refund' | 'charge'
}

/**
 * The price of a model as in `quotes`: the first whose glob matches, of those per token for text models and of the
 * others for tasks. `null`: a text model without a price per token.
 */
export function priceList (rules: PriceRules): (model: Model) => ListedPrice | null {
  const rows = Object.entries(rules).map(([models, price]) => ({
    matches: submitRules(price) === null ? tokenGlob(models) : globs([models], { ignoreCase: true }),
    price: listed(price)
  }))
  return ({ id, category }) => {
    const isText = category === 'text'
    const row = rows.find(({ matches, price }) => matches(id) && 'inputPerMillion' in price === isText)
    return row?.price ?? (isText ? null : { credits: 1 })
  }
}

function listed (price: PriceRule): ListedPrice {
  if (typeof price === 'number') return { credits: price }
  if (!isList(price)) return price
  const { when, ...last } = price.at(-1)!
  return { ...last, rules: price.map(listedRule) }
}

function listedRule (rule: ConditionalRule): ListedRule {
  const { when = {}, credits, min = 0, onFailed = 'refund' } = rule
  const per = perFields(rule)
  return {
    when: Object.fromEntries(Object.entries(when).map(([path, values]) => [path, [values].flat()])),
    credits,
    per,
    default: Object.fromEntries(per.flatMap(path => {
      const value = defaultOf(rule, path)
      return value === undefined ? [] : [[path, value]]
    })),
    min,
    onFailed
  }
}
