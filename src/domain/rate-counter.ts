import { recent } from './recent.ts'
import type { Clock } from './time.ts'

/** What was counted of a key in the window that is open now. */
export interface RateWindow {
  readonly count: number
  /** Until the next one may begin, ms; 0: none is open. */
  readonly endsInMs: number
}

/**
 * Counts the calls of each key in fixed windows, so that at most twice a limit passes in any time as long as a window.
 * One begins with the first call after the end of the last, and no step of a wall clock makes it longer or shorter. All
 * calls of one key name the same length.
 *
 * A counter in this process answers at once. A promise rejects with `GW_STORE_DOWN` while the store can't count.
 */
export interface RateCounter {
  /** Counts one call, which is in the answer. Each of N parallel calls gets a count of its own. */
  hit (key: string, windowMs: number): RateWindow | Promise<RateWindow>
  /** What a call would find, without counting it. */
  look (key: string, windowMs: number): RateWindow | Promise<RateWindow>
}

export interface LocalRatesOptions extends Pick<Clock, 'elapsed'> {
  /** Keys that are remembered; the one counted longest ago is forgotten first. */
  readonly maxKeys: number
}

const noWindow: RateWindow = { count: 0, endsInMs: 0 }

/** A counter that answers at once. */
export interface LocalRates extends RateCounter {
  hit (key: string, windowMs: number): RateWindow
  look (key: string, windowMs: number): RateWindow
}

/** The counter of one process, in its memory. */
export function localRates ({ elapsed, maxKeys }: LocalRatesOptions): LocalRates {
  const windows = recent<{ readonly startedAt: number, count: number }>(maxKeys)

  return {
    hit (key, windowMs) {
      const now = elapsed()
      let window = windows.get(key)
      if (window === undefined || window.startedAt + windowMs <= now) {
        windows.set(key, window = { startedAt: now, count: 0 })
      }
      return { count: ++window.count, endsInMs: window.startedAt + windowMs - now }
    },
    look (key, windowMs) {
      const window = windows.get(key)
      const endsInMs = window === undefined ? 0 : window.startedAt + windowMs - elapsed()
      return window === undefined || endsInMs <= 0 ? noWindow : { count: window.count, endsInMs }
    }
  }
}
