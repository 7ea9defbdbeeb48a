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

/** A value, or the promise of one: what is known at once has nothing to wait for. */
export type Awaitable<Value> = Value | Promise<Value>

/** Goes on with a value, at once when it is there. What `next` throws then is thrown at once too. */
export function after<Value, Next> (
  value: Awaitable<Value>, next: (value: Value) => Awaitable<Next>
): Awaitable<Next> {
  return value instanceof Promise ? value.then(next) : next(value)
}

/** Work for many at a time, done in slices: whatever else there is to do has its turn in between. */
export interface Slices {
  /**
   * Calls `run` for each item, in order, when all that was given before is done: at once where that is soon. The items
   * are those there are now; what has become of one of them since is for `run` to see.
   */
  each<Item> (items: Iterable<Item>, run: (item: Item) => void): void
  /** Forgets what has not been done. */
  clear (): void
}

interface SlicesOptions extends Pick<Clock, 'elapsed'> {
  readonly timers: Timers
}

/** A slice ends with the item at which it has lasted so long, ms. A thousand events took twenty-five. */
export const sliceMs = 3

export function slices ({ elapsed, timers }: SlicesOptions): Slices {
  /** Does the next piece of what was asked for; `false`: there was none left. */
  const jobs: Array<() => boolean> = []
  let isAtWork = false

  const workOn = (): boolean => {
    const start = elapsed()
    for (let job = jobs[0]; job !== undefined; job = jobs[0]) {
      if (!job()) jobs.shift()
      else if (elapsed() - start >= sliceMs) return false
    }
    return true
  }
  const work = (): void => {
    let isDone = false
    try {
      isDone = workOn()
    } finally {
      // One that throws keeps nothing from the others.
      isAtWork = !isDone
      if (isAtWork) timers.after(0, work)
    }
  }

  return {
    each (items, run) {
      const rest = [...items].values()
      jobs.push(() => {
        const { done, value } = rest.next()
        if (!done) run(value)
        return !done
      })
      if (isAtWork) return
      isAtWork = true
      work()
    },
    clear () { jobs.length = 0 }
  }
}
