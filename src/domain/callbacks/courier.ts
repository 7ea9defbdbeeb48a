import type { DeliveryAttempt } from './deliveries.ts'

/** One message on its way to a server that a caller has named. */
export interface Letter {
  readonly url: string
  /** None of them is the caller's choice. */
  readonly headers: Readonly<Record<string, string>>
  readonly body: Buffer
}

/** Brings one message. Follows no redirect, repeats nothing, and lets nobody choose an address within our own network. */
export interface Courier {
  /** Never rejects. The answer's body is not read. */
  bring (letter: Letter): Promise<Pick<DeliveryAttempt, 'status' | 'error'>>
  /** Ends what still runs. */
  close (): Promise<void>
}
