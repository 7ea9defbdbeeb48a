import { recent } from './recent.ts'
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

/** Models whose rules are remembered: more than there are. A caller may name any others. */
const maxModels = 1000

/** Remembers what rules make of a model, so that a request only looks it up. */
export function byModel<Value extends {}> (make: (model: string) => Value): (model: string) => Value {
  const made = recent<Value>(maxModels, { memoMethod: make })
  return model => made.memo(model)
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

/** Credits in millionths, so that sums are exact: a credit is 1,000,000 of them. Always a safe integer. */
export type Microcredits = number

/** Rounded up, and nothing above 0 to less than one: a price of a fraction of a millionth is not free. */
export function microcredits (credits: number): Microcredits {
  const rounded = Math.ceil(Number((credits * 1_000_000).toFixed(3)))
  return credits > 0 ? Math.max(1, rounded) : rounded
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
  readonly pool?: string | undefined
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
  /** Of sessions that have none of their own; `null` for none. */
  readonly pool: string | null
}

/** Compiles every plan once, at start. */
export function plans (rules: Readonly<Record<string, PlanRules>>): ReadonlyMap<string, Plan> {
  return new Map(Object.entries(rules).map(([name, rule]) => [name, {
    ...rule,
    name,
    pool: rule.pool ?? null,
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
