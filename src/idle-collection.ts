import type { Clock, Timers } from './domain/time.ts'

/** What this process holds and has used. */
export interface Usage {
  /** Memory of the heap, whether or not something is in it, bytes. */
  readonly heapBytes: number
  /** Time of processors since the start, ms. */
  readonly cpuMs: number
}

export interface IdleCollectionParts {
  /** A full collection, in one pause. */
  readonly collect: () => void
  readonly usage: () => Usage
  readonly elapsed: Clock['elapsed']
  readonly timers: Timers
}

/** How often it looks, ms. */
const everyMs = 1000
/** A process that has used less of a processor in that time has nothing to do, ms. */
const idleMs = 50
/** Less than this is not worth a pause, bytes. */
const worthBytes = 8_388_608
/** A collection is followed by so many times its own length without one: at most a thousandth of the time is pauses. */
const restFactor = 1000

/**
 * Gives back what a load has left when there is nothing to do. By itself V8 collects when memory is asked for, and its
 * way for idle times, the memory reducer, goes by the rate of the last allocations: a process that falls silent keeps
 * the rate of its load, and with it all of the load's memory. A collection that it was asked for also wakes the
 * reducer, which then gives back what is scattered. After a start it would cost more than it gives: the code that
 * collects is 2 MB.
 */
export function collectWhenIdle ({ collect, usage, elapsed, timers }: IdleCollectionParts): void {
  let last = usage()
  /** What the start or the last collection has left, and less when V8 has given back more since. */
  let keptBytes = last.heapBytes
  /** By `elapsed`. */
  let notBefore = -Infinity
  const look = (): void => {
    const { heapBytes, cpuMs } = usage()
    const isIdle = cpuMs - last.cpuMs < idleMs
    keptBytes = Math.min(keptBytes, heapBytes)
    if (isIdle && heapBytes - keptBytes >= worthBytes && elapsed() >= notBefore) {
      const began = elapsed()
      collect()
      notBefore = elapsed() + restFactor * (elapsed() - began)
      keptBytes = usage().heapBytes
    }
    last = usage()
    timers.after(everyMs, look)
  }
  timers.after(everyMs, look)
}

/** Of the process that this is. */
export function processUsage (): Usage {
  const { user, system } = process.cpuUsage()
  return { heapBytes: process.memoryUsage().heapTotal, cpuMs: (user + system) / 1000 }
}
