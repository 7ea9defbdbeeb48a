/** A clock cranked by hand. It starts at a fixed instant, so that a test means the same tomorrow. */
export interface Clock {
  readonly now: () => number
  advance (ms: number): void
}

export function clock (start = Date.UTC(2026, 0, 15, 12)): Clock {
  let time = start
  return {
    now: () => time,
    advance (ms) { time += ms }
  }
}
