/** Random numbers that a test can have again: same seed, same run. */
export interface Random {
  readonly seed: number
  /** 0 ≤ result < `below`, whole. */
  int (below: number): number
  pick<T> (choices: readonly T[]): T
}

/** Mulberry32, after https://github.com/cprosche/mulberry32. `TEST_SEED` repeats an earlier run; print `seed`. */
export function random (seed = Number(process.env.TEST_SEED ?? Math.floor(Math.random() * 2 ** 32))): Random {
  let state = seed >>> 0
  const next = (): number => {
    state = (state + 0x6D2B79F5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
  const int = (below: number): number => Math.floor(next() * below)
  return { seed, int, pick: choices => choices[int(choices.length)]! }
}
