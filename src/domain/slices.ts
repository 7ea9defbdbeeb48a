import type { Clock, Timers } from './time.ts'

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
