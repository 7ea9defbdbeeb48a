import type { Timers } from '../../src/domain/time.ts'
import type { Clock } from './clock.ts'

/** Timers of a clock that is cranked by hand: nothing runs until `run` is called. */
export interface CrankedTimers extends Timers {
  /** Runs what is due, in the order of its time. */
  run (): void
  /** Timers that wait. */
  readonly waiting: number
}

export function crankedTimers ({ elapsed }: Pick<Clock, 'elapsed'>): CrankedTimers {
  const waiting = new Set<{ readonly at: number, readonly run: () => void }>()
  return {
    after (ms, run) {
      const timer = { at: elapsed() + ms, run }
      waiting.add(timer)
      return () => { waiting.delete(timer) }
    },
    run () {
      const due = [...waiting].filter(({ at }) => at <= elapsed()).sort((one, other) => one.at - other.at)
      for (const timer of due) if (waiting.delete(timer)) timer.run()
    },
    get waiting () { return waiting.size }
  }
}
