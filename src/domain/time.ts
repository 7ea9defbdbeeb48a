/**
 * The two clocks. Whatever is shown, stored or signed goes by the wall; whatever is waited for goes by the time that
 * has passed, since an operator, NTP or a resumed machine may set the wall clock at any moment, by an hour or a day.
 */
export interface Clock {
  /** The wall clock, Unix ms. It may be put forward and back. */
  readonly now: () => number
  /**
   * Milliseconds since some instant that means nothing. It never goes back, and knows no steps; not shared, nor stored.
   */
  readonly elapsed: () => number
}

/**
 * The wall clock, but no further ahead than the time that has passed since now: by it nothing seems older than it is
 * because the clock was put ahead. Where the clock is put back, it goes back too.
 */
export function steadyClock ({ now, elapsed }: Clock): () => number {
  const start = now() - elapsed()
  return () => Math.min(now(), start + elapsed())
}

export const systemClock: Clock = {
  now: Date.now,
  elapsed: () => Math.trunc(performance.now())
}

export const hourMs = 3_600_000
export const dayMs = 24 * hourMs

/** Runs something later. Tests crank it by hand. */
export interface Timers {
  /** Calls `run` once, `ms` from now, unless what it returns is called before. A program may end while it waits. */
  after (ms: number, run: () => void): () => void
}

/** The timers of Node. None of them keeps the program from ending. */
export const systemTimers: Timers = {
  after (ms, run) {
    const timer = setTimeout(run, ms).unref()
    return () => clearTimeout(timer)
  }
}

/** The last instant that a `Date` knows, Unix ms. */
export const endOfTime = 8.64e15

/** Unix milliseconds as people and JSON have them: ISO 8601, UTC. */
export function instant (ms: number): string {
  return new Date(ms).toISOString()
}

/**
 * The longest wait that a `retry-after` of ours asks for, seconds: clients read 60 and more in opposite ways, as "at
 * once again" or as minutes of silence.
 */
export const longestRetryAfter = 59

/**
 * A wait as a `retry-after` of ours, whole seconds from 1 to 59. Never 0, at which SDKs burn all their tries at once.
 */
export function retryAfterSeconds (waitMs: number): number {
  return Math.min(longestRetryAfter, Math.max(1, Math.ceil(waitMs / 1000)))
}

/**
 * How long a `retry-after` asks to wait, ms: seconds, or a date (RFC 9110 section 10.2.3). `null` when it is neither.
 */
export function retryAfterMs (text: string, now: number): number | null {
  if (/^\d{1,9}$/.test(text)) return Number(text) * 1000
  const date = /^[A-Z][a-z]{2}, [\w :]+ GMT$/.test(text) ? Date.parse(text) : NaN
  return Number.isNaN(date) ? null : Math.max(0, date - now)
}
