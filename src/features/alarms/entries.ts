import { createHash } from 'node:crypto'
import type { ActiveAlarm, BookedAlarm, SeenAlarm, ToldAlarm } from '../../domain/alarms.ts'
import { instant } from '../../domain/time.ts'

/** A replica that has said nothing more of an alarm for so long is gone, and what it saw is over, ms. */
export const seenMs = 300_000
/** How often a replica says that an alarm is still on, ms. */
export const sayEveryMs = 60_000
/** From a message that did not arrive to the next try, ms; the last one again and again. */
export const retryMs: readonly number[] = [30_000, 120_000, 600_000, 3_600_000]

const neverTold: ToldAlarm = { isOn: false, grade: null, at: null, attempts: 0, nextAt: 0 }

/** What is to be said about an alarm. */
type News = 'raised' | 'cleared'

/**
 * What may be said of an alarm beside its words. What is not here stays in the log: an error of a library may have
 * anything in it.
 */
const toldFields: ReadonlySet<string> = new Set([
  'account', 'balance', 'batchId', 'below', 'count', 'faults', 'issuer', 'keyId', 'percent', 'reason', 'refusals',
  'reservation', 'resetsAt', 'setting', 'state', 'subject', 'taskId', 'to', 'usual', 'window'
])
const maxFieldLength = 256

/** As it is written into the book. `until`: Unix ms. */
export function seenFrom (alarm: ActiveAlarm, until: number): SeenAlarm {
  const { kind, about, grade = null, since, count, text, fields } = alarm
  const details = Object.entries(fields).filter(([name, value]) => toldFields.has(name) &&
    (typeof value === 'number' || (typeof value === 'string' && value.length <= maxFieldLength)))
  return { kind, about, grade, since, until, count, text, details: Object.fromEntries(details) as SeenAlarm['details'] }
}

/** By so much the clocks of two replicas may differ, ms. */
const skewMs = 60_000

/** All instants are Unix ms. What is in the future by more than clocks differ is over: a clock was put back since. */
function isBetween (now: number, from: number, lastsMs: number): boolean {
  return now >= from - skewMs && now < from + lastsMs
}

function isOn ({ seen }: BookedAlarm, now: number): boolean {
  return isBetween(now, seen.until - seenMs, seenMs)
}

/** `null`: nothing, or not yet. */
export function newsOf (entry: BookedAlarm, now: number, leastMs: number): News | null {
  const { seen } = entry
  const { isOn: isTold, grade, at, attempts, nextAt } = entry.told ?? neverTold
  const on = isOn(entry, now)
  const isWorse = on && isTold && (seen.grade ?? 0) > (grade ?? 0)
  if (on === isTold && !isWorse) return null
  if (at !== null && isBetween(now, at, leastMs)) return null
  if (attempts > 0 && isBetween(now, nextAt - waitAfter(attempts), waitAfter(attempts))) return null
  return on ? 'raised' : 'cleared'
}

/** It is over, and there is nothing more to say for as long as the next one would have to wait. */
export function isForgettable (entry: BookedAlarm, now: number, leastMs: number): boolean {
  const { isOn: isTold, at } = entry.told ?? neverTold
  return !isOn(entry, now) && !isTold && (at === null || !isBetween(now, at, leastMs))
}

function waitAfter (attempts: number): number {
  return retryMs[Math.min(attempts, retryMs.length) - 1]!
}

/** What stands in the book after a message. */
export function toldAfter (entry: BookedAlarm, news: News, hasArrived: boolean, now: number): ToldAlarm {
  const told = entry.told ?? neverTold
  if (hasArrived) return { isOn: news === 'raised', grade: entry.seen.grade, at: now, attempts: 0, nextAt: 0 }
  const attempts = told.attempts + 1
  return { ...told, attempts, nextAt: now + waitAfter(attempts) }
}

interface Message { readonly id: string, readonly body: Buffer }

/** The id is the same at each try, whichever replica makes it. `gateway`: our own origin. */
export function messageOf (entry: BookedAlarm, news: News, now: number, gateway: string | null): Message {
  const { name, seen: { kind, about, grade, since, count, text, details } } = entry
  const { at, grade: toldGrade } = entry.told ?? neverTold
  const data = { kind, about, text, since: instant(since), count, grade, details, gateway }
  return {
    id: idOf(JSON.stringify([name, news, at, toldGrade])),
    body: bodyOf(`alarm.${news}`, now, data)
  }
}

/** For a receiver that is being set up. */
export function testMessage (now: number, gateway: string | null): Message {
  const data = { text: 'This is a test: no alarm is on because of it.', gateway }
  return { id: idOf(`test ${now} ${Math.random()}`), body: bodyOf('alarm.test', now, data) }
}

/** https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md#payload-structure */
function bodyOf (type: string, now: number, data: object): Buffer {
  return Buffer.from(JSON.stringify({ type, timestamp: instant(now), data }))
}

function idOf (text: string): string {
  return `msg_${createHash('sha256').update(text).digest('base64url').slice(0, 27)}`
}
