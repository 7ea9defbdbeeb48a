/** Runs something later. Tests crank it by hand. */
export interface Timers {
  /** Calls `run` once, `ms` from now, unless what it returns is called before. A program may end while it waits. */
  after (ms: number, run: () => void): () => void
}
