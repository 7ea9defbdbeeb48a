import type { Timers } from '../domain/timers.ts'

/** The timers of Node. None of them keeps the program from ending. */
export function nodeTimers (): Timers {
  return {
    after (ms, run) {
      const timer = setTimeout(run, ms).unref()
      return () => clearTimeout(timer)
    }
  }
}
