import { globs } from './glob.ts'
import { type Microcredits, microcredits } from './pricing.ts'

export type Period = 'minute' | 'hour' | 'day' | 'month'

/** A plan as the operator wrote it (`plans` in config/gateway.yaml). */
export interface PlanRules {
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

const periodMs = { minute: 60_000, hour: 3_600_000, day: 86_400_000 } as const
