import { createHmac } from 'node:crypto'
import type { Secret } from './secret.ts'

/** One message on its way to a server that a caller has named. */
export interface WebhookRequest {
  readonly url: string
  /** None of them is the caller's choice. */
  readonly headers: Readonly<Record<string, string>>
  readonly body: Buffer
}

/**
 * Brings one message. Follows no redirect, repeats nothing, and lets nobody choose an address within our own network.
 */
export interface WebhookSender {
  /** Never rejects. The answer's body is not read. */
  send (request: WebhookRequest): Promise<Pick<DeliveryAttempt, 'status' | 'error'>>
  /** Ends what still runs. */
  close (): Promise<void>
}

/** Why a message did not arrive. */
export type DeliveryError =
  /** Its host is not on the operator's list any more. */
  | 'host-not-allowed'
  /** The host's name leads into a network that is not to be called. */
  | 'address-refused'
  /** No connection, or none that its certificate proves. */
  | 'unreachable'
  | 'timeout'
  /** The connection ended before an answer, or what came was no HTTP. */
  | 'broken'

/** What came of one try. */
export interface DeliveryAttempt {
  /** Unix ms. */
  readonly at: number
  /** HTTP status of the answer; `null` when there was none. */
  readonly status: number | null
  readonly error: DeliveryError | null
}

/** The end of a task, to be told to the server that its caller has named. */
export interface Delivery {
  readonly taskId: string
  readonly url: string
  /** In the order in which they were made. */
  readonly attempts: readonly DeliveryAttempt[]
  /** When the next one is due, Unix ms; `null` while the task runs, and when there is nothing more to do. */
  readonly nextAt: number | null
}

/** With the final answer of its task, byte for byte. */
export interface DueDelivery extends Delivery { readonly body: Buffer }

/**
 * What is still to be told, and what was. A delivery is made with its reservation (`ReserveRequest.deliverTo`), is due
 * at once from the atomic step that ends the task, and is forgotten with it. All throw `GW_STORE_DOWN`.
 */
export interface Deliveries {
  /** Those that are due, the one that has waited longest first. */
  due (limit: number): Promise<readonly DueDelivery[]>
  /**
   * Keeps an attempt and when the next is due, `null` for never, in one atomic step. Where nothing was due any more
   * nothing is: another replica may have been luckier.
   */
  attempted (taskId: string, attempt: DeliveryAttempt, nextAt: number | null): Promise<void>
  /** `null`: nobody asked to be told about this task, or there is none. */
  of (taskId: string): Promise<Delivery | null>
}

/** Whether the receiver has taken it: any 2xx. */
export function hasArrived ({ status }: Pick<DeliveryAttempt, 'status'>): boolean {
  return status !== null && status >= 200 && status < 300
}

/** What is signed of a message. */
export interface WebhookMessage {
  /** The same at each attempt: a receiver knows a message by it that comes twice. Without a dot, which separates. */
  readonly id: string
  /** Unix ms. */
  readonly sentAt: number
  readonly body: Buffer
}

/** What such a secret begins with; the rest is its key, in base64. */
export const webhookPrefix = 'whsec_'

/**
 * The headers that prove where a message is from, one signature for each secret in use, so that a secret can be
 * replaced while both are known.
 *
 * https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
 */
export function webhookHeaders (
  secrets: readonly Secret[],
  { id, sentAt, body }: WebhookMessage
): Record<string, string> {
  const timestamp = String(Math.floor(sentAt / 1000))
  const sign = (secret: Secret): string => {
    const key = Buffer.from(secret.reveal().slice(webhookPrefix.length), 'base64')
    return `v1,${createHmac('sha256', key).update(`${id}.${timestamp}.`).update(body).digest('base64')}`
  }
  return { 'webhook-id': id, 'webhook-timestamp': timestamp, 'webhook-signature': secrets.map(sign).join(' ') }
}
