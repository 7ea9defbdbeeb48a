import type { Temporal } from 'temporal-polyfill'
import { dayMs, hourMs } from './time.ts'

/** How long a window lasts. `none`: there is one, and it never ends. */
export type WindowKind = 'hour' | 'day' | 'week' | 'month' | 'none'

/**
 * Where the windows of an account begin. Keep one object for each: what was reckoned last is remembered with it.
 *
 * A day begins when the clocks of the zone show the reset hour: the first time if they show it twice, and if they are
 * put ahead over it, when they show the hour that it has become (RFC 5545, section 3.3.5). An hour is 60 minutes,
 * counted from the start of its day, whose last one may be shorter; a week begins with the day of a Monday (ISO 8601),
 * a month with that of its first.
 */
export interface WindowRule {
  readonly kind: WindowKind
  /** Of the IANA database. One that is not `UTC` is loaded before, by `loadZones`. */
  readonly zone: string
  /** 0 to 23, on the clocks of the zone. */
  readonly resetHour: number
}

/** Windows of one rule tile time: each instant is in one of them, and none is empty. */
export interface Window {
  /**
   * Its name for ever: `hour:2026-11-30T05:00Z` (its start), `day:2026-11-30`, `week:2026-11-30` (its Monday),
   * `month:2026-11`, `none`. So a zone that is changed goes on with what was used in the day of that date.
   */
  readonly id: string
  /** Unix ms, the first instant after it; `null`: it never ends. */
  readonly endsAt: number | null
}

const endless: Window = { id: 'none', endsAt: null }
const utc = 'UTC'

/** Remembered until its end, or until the clock is put back before its start. */
const last = new WeakMap<WindowRule, { readonly startsAt: number, readonly endsAt: number, readonly window: Window }>()

/** The window that `now` (Unix ms) falls into. */
export function windowAt (rule: WindowRule, now: number): Window {
  if (rule.kind === 'none') return endless
  const known = last.get(rule)
  if (known !== undefined && now >= known.startsAt && now < known.endsAt) return known.window
  const found = reckon(rule, rule.kind, now)
  last.set(rule, found)
  return found.window
}

function reckon (rule: WindowRule, kind: Exclude<WindowKind, 'none'>, now: number) {
  const calendar = calendarOf(rule)
  const today = dayAt(calendar, now)
  const [first, next] = daysOf(kind, today)
  const [start, end] = [calendar.startOf(first), calendar.startOf(next)]
  if (kind !== 'hour') {
    const window = { id: `${kind}:${dateText(first).slice(0, kind === 'month' ? 7 : 10)}`, endsAt: end }
    return { startsAt: start, endsAt: end, window }
  }
  const startsAt = start + Math.floor((now - start) / hourMs) * hourMs
  const endsAt = Math.min(startsAt + hourMs, end)
  return { startsAt, endsAt, window: { id: `hour:${new Date(startsAt).toISOString().slice(0, 16)}Z`, endsAt } }
}

/** A date of the calendar, as the number of days since 1 January 1970. */
type Day = number

/** What depends on the zone. */
interface Calendar {
  /** What the calendar on the wall says. */
  readonly dateAt: (now: number) => Day
  /** When the day of a date begins, Unix ms. Never sooner for a later date. */
  readonly startOf: (day: Day) => number
}

/** The day that `now` is in: the last one that has begun, since clocks put back show a date again. */
function dayAt ({ dateAt, startOf }: Calendar, now: number): Day {
  let day = dateAt(now) + 1
  while (startOf(day) > now) day--
  return day
}

/** The day that a window begins with, and that of the next one. */
function daysOf (kind: Exclude<WindowKind, 'none'>, day: Day): readonly [Day, Day] {
  if (kind === 'week') {
    const monday = day - (((day + 3) % 7) + 7) % 7 // 1 January 1970 was a Thursday.
    return [monday, monday + 7]
  }
  if (kind !== 'month') return [day, day + 1]
  const date = new Date(day * dayMs)
  const [year, month] = [date.getUTCFullYear(), date.getUTCMonth()]
  return [Date.UTC(year, month) / dayMs, Date.UTC(year, month + 1) / dayMs]
}

function dateText (day: Day): string {
  return new Date(day * dayMs).toISOString()
}

let temporal: typeof Temporal | undefined

/** Awaited before windows in other zones than UTC are asked for: they need a library, which nothing else loads. */
export async function loadZones (rules: Iterable<Pick<WindowRule, 'zone'>>): Promise<void> {
  if ([...rules].some(({ zone }) => zone !== utc)) temporal = (await import('temporal-polyfill')).Temporal
}

/** Whether the IANA database of this Node knows a zone. `+01:00` is none: it has no summer. */
export function isZone (name: string): boolean {
  if (name === utc) return true
  try {
    return /^[A-Z]/i.test(new Intl.DateTimeFormat('en', { timeZone: name }).resolvedOptions().timeZone)
  } catch {
    return false
  }
}

function calendarOf ({ zone, resetHour }: WindowRule): Calendar {
  if (zone === utc) {
    return {
      dateAt: now => Math.floor(now / dayMs),
      startOf: day => day * dayMs + resetHour * hourMs
    }
  }
  if (temporal === undefined) throw new Error(`The zone ${zone} has not been loaded.`)
  const { Instant, PlainDate, PlainTime } = temporal
  const [epoch, plainTime] = [new PlainDate(1970, 1, 1), new PlainTime(resetHour)]
  return {
    dateAt: now => epoch.until(Instant.fromEpochMilliseconds(now).toZonedDateTimeISO(zone).toPlainDate()).days,
    startOf: day => epoch.add({ days: day }).toZonedDateTime({ timeZone: zone, plainTime }).epochMilliseconds
  }
}
