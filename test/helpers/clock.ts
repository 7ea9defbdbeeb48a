import type { Clock as Clocks } from '../../src/domain/time.ts'

/** A clock cranked by hand. It starts at a fixed instant, so that a test means the same tomorrow. */
export interface Clock extends Clocks {
  /** Time passes. */
  advance (ms: number): void
  /** Somebody sets the wall clock, forward or back; no time passes. */
  step (ms: number): void
}

export function clock (start = Date.UTC(2026, 0, 15, 12)): Clock {
  let passed = 0
  let wall = start
  return {
    now: () => wall + passed,
    elapsed: () => passed,
    advance (ms) { passed += ms },
    step (ms) { wall += ms }
  }
}
