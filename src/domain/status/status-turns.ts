/** An answer to a status call, of a task that runs; or of one that has just ended, for who does not know it yet. */
export interface LastStatus {
  readonly status: number
  readonly contentType: string
  readonly body: Buffer
}

export type Turn =
  /** Ask the upstream now, and say what it said. */
  | { readonly mine: true }
  /**
   * `last` is `null` while the first answer is still on its way to another replica. `nextInMs` is 0 while somebody asks:
   * an answer is due at any time.
   */
  | { readonly mine: false, readonly last: LastStatus | null, readonly nextInMs: number }

/** Who of all replicas asks the upstream about a task: one, at most once per interval. */
export interface StatusTurns {
  /**
   * One atomic step: of N calls at a time, one gets the turn, until it ends it or has had time enough. Throws `GW_STORE_DOWN`.
   *
   * `hasNews`: somebody says that the task has ended. That gets a turn before the interval is over, unless one that had
   * news was taken within the interval, or somebody asks just now.
   */
  take (taskId: string, intervalMs: number, hasNews?: boolean): Promise<Turn>
  /**
   * Ends a turn: its answer is everybody's for `intervalMs` from now; `null` (no answer came) makes the turn free again.
   * Throws `GW_STORE_DOWN`.
   */
  end (taskId: string, last: LastStatus | null, intervalMs: number): Promise<void>
}
