/** A task's state has changed, or was seen for the first time; or a task has just been made. */
export interface TaskEvent {
  readonly subject: string
  readonly taskId: string
  readonly model: string
  /** The upstream's own word; empty when the task has just been made, and nobody has asked about it. */
  readonly state: string
  readonly isFinal: boolean
  /** When the gateway heard of it, Unix ms. */
  readonly at: number
  /** The envelope, byte for byte as the upstream gave it; empty when there is none yet. */
  readonly body: Buffer
}

/** Carries events between replicas: each to every listener on every replica, at most once. */
export interface TaskEvents {
  /** Never throws: who must not miss an event looks into the ledger as well. */
  publish (event: TaskEvent): void
  /** `onGap`: events may have been lost, and are over now. Returns the end of the subscription. */
  subscribe (listener: (event: TaskEvent) => void, onGap: () => void): () => void
}
