import type { Alarm, AlarmBoard } from '../../domain/alarms.ts'
import type { CeilingAccounts, Ceilings, WindowState } from '../../domain/ceilings.ts'
import type { KeyRing } from '../../domain/key-ring.ts'
import type { Hold } from '../../domain/ledger.ts'
import { type Clock, instant } from '../../domain/time.ts'

/** How often each key is asked for its balance by this watch, ms. Whatever else asks for it is looked at too. */
export const probeEveryMs = 900_000

interface BalanceWatchOptions extends Pick<Clock, 'elapsed'> {
  readonly keys: Pick<KeyRing, 'states' | 'byId' | 'verify'>
  readonly alarms: Pick<AlarmBoard, 'set' | 'clear' | 'active'>
  /** USD. */
  readonly below: number
  readonly leads: () => Promise<boolean>
}

/** Raises an alarm when a key has less money upstream than that; on one of all replicas. */
export function balanceWatch ({ keys, alarms, below, leads, elapsed }: BalanceWatchOptions): () => Promise<void> {
  let probedAt = -Infinity

  const probe = (keyId: string): void => {
    keys.verify(keys.byId(keyId)!).catch(() => { /* never: a probe does not reject */ })
  }
  const judge = (keyId: string, balance: number): void => alarms.set({
    kind: 'upstream-balance',
    about: keyId,
    fields: { keyId, balance, below },
    text: 'this key has little money left at the upstream'
  }, balance < below)

  return async () => {
    const serving = await leads() ? keys.states().filter(({ state }) => state !== 'draining') : []
    for (const { kind, about } of alarms.active()) {
      if (kind === 'upstream-balance' && !serving.some(({ keyId }) => keyId === about)) alarms.clear(kind, about)
    }
    for (const { keyId, balance } of serving) if (balance !== null) judge(keyId, balance)
    if (elapsed() - probedAt < probeEveryMs) return
    probedAt = elapsed()
    for (const { keyId } of serving) probe(keyId) // nobody waits for it: what it says is looked at the next time
  }
}

/** How often the ceilings are looked at, ms. */
export const ceilingsEveryMs = 60_000
/** So much of a ceiling is news, percent. */
const grades = [100, 90, 80] as const

interface CeilingWatchOptions extends Clock {
  readonly ceilings: Pick<Ceilings, 'all'> & Pick<CeilingAccounts, 'stateOf'>
  readonly alarms: Pick<AlarmBoard, 'set' | 'clear' | 'active'>
  readonly leads: () => Promise<boolean>
}

/** Raises an alarm when so much of a ceiling of the gateway, a pool or a plan is used; on one of all replicas. */
export function ceilingWatch ({ ceilings, alarms, leads, now, elapsed }: CeilingWatchOptions): () => Promise<void> {
  let lookedAt = -Infinity

  return async () => {
    if (elapsed() - lookedAt < ceilingsEveryMs) return
    const holds = await leads() ? ceilings.all(now()) : []
    const states = await ceilings.stateOf(holds)
    lookedAt = elapsed()
    const names = new Set(holds.map(nameOf))
    for (const { kind, about } of alarms.active()) {
      if (kind === 'ceiling' && !names.has(about)) alarms.clear(kind, about) // its window is over
    }
    for (const [index, hold] of holds.entries()) {
      const percent = percentOf(states[index]!)
      const grade = grades.find(grade => percent >= grade)
      alarms.set(usedUp(hold, Math.floor(percent), grade), grade !== undefined)
    }
  }
}

function nameOf ({ account, window }: Hold): string {
  return `${account} ${window}`
}

/** What has nothing is used up. */
function percentOf ({ used, limit }: WindowState): number {
  return limit === 0 ? 100 : used / limit * 100
}

function usedUp (hold: Hold, percent: number, grade: number | undefined): Alarm {
  const { account, window, endsAt } = hold
  const resetsAt = endsAt === null ? null : instant(endsAt)
  const text = 'the credits of a ceiling are nearly or wholly used'
  return { kind: 'ceiling', about: nameOf(hold), grade, fields: { account, window, percent, resetsAt }, text }
}

/** The refusals of so long are counted together, ms. */
export const windowMs = 300_000
/** Fewer in a window are never unusual. */
export const leastRefusals = 50
/** Unusual is what is more than so many times the mean of the windows before. */
const timesUsual = 5
/** An hour. What goes on for longer is usual by then. */
const windowsKept = 12
/** Before so many windows nobody knows what is usual. */
const windowsNeeded = 3

interface RefusalWatchOptions extends Pick<Clock, 'elapsed'> {
  readonly alarms: Pick<AlarmBoard, 'set'>
  /** How many requests were refused with 401, 402 and 403 since the start. */
  readonly refusals: () => number
}

/** Raises an alarm when far more are refused than in the hour before: somebody guesses, or a login is broken. */
export function refusalWatch ({ alarms, refusals, elapsed }: RefusalWatchOptions): () => Promise<void> {
  const windows: number[] = []
  let beganAt = elapsed()
  let counted = refusals()

  return async () => {
    if (elapsed() - beganAt < windowMs) return
    const total = refusals()
    const count = total - counted
    const usual = windows.reduce((sum, one) => sum + one, 0) / Math.max(1, windows.length)
    const isKnown = windows.length >= windowsNeeded
    alarms.set(unusual(count, usual), isKnown && count >= leastRefusals && count > timesUsual * usual)
    windows.push(count)
    if (windows.length > windowsKept) windows.shift()
    beganAt = elapsed()
    counted = total
  }
}

function unusual (refusals: number, usual: number): Alarm {
  return {
    kind: 'refusals',
    about: '',
    fields: { refusals, usual: Math.round(usual) },
    text: 'far more requests than usual are refused with 401, 402 or 403'
  }
}
