import type { Live } from '../live.ts'
import type { Secret } from '../secret.ts'
import type { CallbackHosts } from './callback-hosts.ts'
import type { Courier } from './courier.ts'
import { type Deliveries, type DeliveryAttempt, type DueDelivery, hasArrived, messageId, retryMs } from './deliveries.ts'
import { webhookHeaders, webhookSecret } from './webhook-signature.ts'

/** Tells the ends of tasks to the servers that callers have named, each at least once, or gives up after some hours. */
export interface Deliverer {
  /** Starts what is due, as far as there is room, and waits for none of it. Throws `GW_STORE_DOWN`. */
  round (): Promise<void>
  /** Ends what is under way without a note of it: whoever is next does it once more. */
  close (): Promise<void>
}

export interface DelivererOptions {
  readonly deliveries: Deliveries
  readonly courier: Courier
  readonly hosts: CallbackHosts
  /** The session secrets, newest first: a message has a signature for each. */
  readonly secrets: Live<readonly Secret[]>
  readonly now: () => number
  /** Told once for each that is given up. */
  readonly onGivenUp: (taskId: string, last: DeliveryAttempt) => void
  /** A round failed, or an attempt could not be kept, and is made again. */
  readonly onTrouble: (error: unknown) => void
}

/** Messages under way at a time: a server that lets each wait for its time-out holds up others no longer than that. */
const maxUnderWay = 20

export function deliverer (options: DelivererOptions): Deliverer {
  const { deliveries, courier, hosts, secrets, now, onGivenUp, onTrouble } = options
  const underWay = new Map<string, Promise<void>>()
  let current: Promise<void> | null = null
  let isClosed = false
  let hasMore = false

  const bring = async ({ taskId, url, body }: DueDelivery): Promise<DeliveryAttempt> => {
    const at = now()
    if (!hosts.permits(url)) return { at, status: null, error: 'host-not-allowed' }
    const keys = secrets.current.map(secret => webhookSecret(secret, new URL(url).hostname))
    const headers = { 'content-type': 'application/json', ...webhookHeaders(keys, { id: messageId(taskId), sentAt: at, body }) }
    return { at, ...await courier.bring({ url, headers, body }) }
  }

  const attempt = async (delivery: DueDelivery): Promise<void> => {
    const made = await bring(delivery)
    if (isClosed) return
    const waitMs = hasArrived(made) || made.error === 'host-not-allowed' ? undefined : retryMs[delivery.attempts.length]
    await deliveries.attempted(delivery.taskId, made, waitMs === undefined ? null : now() + waitMs)
    if (waitMs === undefined && !hasArrived(made)) onGivenUp(delivery.taskId, made)
  }

  const start = (delivery: DueDelivery): void => {
    underWay.set(delivery.taskId, attempt(delivery).catch(onTrouble).finally(() => {
      underWay.delete(delivery.taskId)
      if (hasMore) round().catch(onTrouble)
    }))
  }

  const run = async (): Promise<void> => {
    // Those of now, for one may be over, and be in the list still, by the time that the list is here.
    const earlier = new Set(underWay.keys())
    const due = await deliveries.due(maxUnderWay * 2)
    const waiting = due.filter(({ taskId }) => !earlier.has(taskId))
    const room = isClosed ? 0 : maxUnderWay - underWay.size
    hasMore = !isClosed && waiting.length > room
    for (const delivery of waiting.slice(0, room)) start(delivery)
  }

  const round = (): Promise<void> => {
    current ??= run().finally(() => { current = null })
    return current
  }

  return {
    round: async () => { if (!isClosed) await round() },
    async close () {
      isClosed = true
      await courier.close()
      await Promise.all(underWay.values())
    }
  }
}
