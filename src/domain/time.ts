/**
 * The two clocks. Whatever is shown, stored or signed goes by the wall; whatever is waited for goes by the time that has
 * passed, since an operator, NTP or a resumed machine may set the wall clock at any moment, by an hour or a day.
 */
export interface Clock {
  /** The wall clock, Unix ms. It may be put forward and back. */
  readonly now: () => number
  /** Milliseconds since some instant that means nothing. It never goes back, and knows no steps; not shared, nor stored. */
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
