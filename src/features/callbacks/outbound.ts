import type { FastifyInstance } from 'fastify'
import { createHash, hkdfSync } from 'node:crypto'
import { hostList, isPublicName } from '../../domain/egress.ts'
import { quoted } from '../../domain/json.ts'
import { Secret, type SecretRef } from '../../domain/secret.ts'
import { instant } from '../../domain/time.ts'
import {
  type Deliveries, type Delivery, type DeliveryAttempt, type DueDelivery, hasArrived, webhookHeaders, webhookPrefix,
  type WebhookSender
} from '../../domain/webhooks.ts'
import { badBody, gatewayError } from '../../errors.ts'
import { readRoute, type ReadServices } from '../../http/guarded-routes.ts'

/** From an attempt that has failed to the next one, ms. After the last it is given up. */
export const retryMs: readonly number[] = [30_000, 120_000, 600_000, 3_600_000, 21_600_000]

/** The id of a task's message, the same at each attempt, so that its receiver can tell when it comes twice. */
export function messageId (taskId: string): string {
  return `msg_${createHash('sha256').update(taskId).digest('base64url').slice(0, 27)}`
}

/**
 * What a host checks our messages with. Derived for this use and this host (RFC 5869 section 3.2): with the secret of
 * one host nobody can sign for another or mint a session, and there is no further secret to keep.
 */
export function webhookSecret (sessionSecret: Secret, host: string): Secret {
  const key = Buffer.from(hkdfSync('sha256', sessionSecret.reveal(), '', `webhook:${host}`, 32))
  return new Secret(webhookPrefix + key.toString('base64'))
}

/** Delivers the ends of tasks to the servers that callers have named, each at least once; gives up after some hours. */
export interface WebhookDispatcher {
  /** Starts what is due, as far as there is room, and waits for none of it. Throws `GW_STORE_DOWN`. */
  runOnce (): Promise<void>
  /** Ends what is under way without a note of it: the next dispatcher does it once more. */
  close (): Promise<void>
}

export interface WebhookDispatcherOptions {
  readonly deliveries: Deliveries
  readonly sender: WebhookSender
  readonly hosts: CallbackHosts
  /** The session secrets, newest first: a message has a signature for each. */
  readonly secrets: SecretRef<readonly Secret[]>
  readonly now: () => number
  /** Told once for each that is given up. */
  readonly onGivenUp: (taskId: string, last: DeliveryAttempt) => void
  /** A round failed, or an attempt could not be kept, and is made again. */
  readonly onTrouble: (error: unknown) => void
}

/** Messages under way at a time: a server that lets each wait for its time-out holds up others no longer than that. */
const maxUnderWay = 20

export function webhookDispatcher (options: WebhookDispatcherOptions): WebhookDispatcher {
  const { deliveries, sender, hosts, secrets, now, onGivenUp, onTrouble } = options
  const underWay = new Map<string, Promise<void>>()
  let current: Promise<void> | null = null
  let isClosed = false
  let hasMore = false

  const bring = async ({ taskId, url, body }: DueDelivery): Promise<DeliveryAttempt> => {
    const at = now()
    if (!hosts.permits(url)) return { at, status: null, error: 'host-not-allowed' }
    const keys = secrets.current.map(secret => webhookSecret(secret, new URL(url).hostname))
    const headers = {
      'content-type': 'application/json',
      ...webhookHeaders(keys, { id: messageId(taskId), sentAt: at, body })
    }
    return { at, ...(await sender.send({ url, headers, body })) }
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
    runOnce: async () => { if (!isClosed) await round() },
    async close () {
      isClosed = true
      await sender.close()
      await Promise.all(underWay.values())
    }
  }
}

/** Where callers may have the end of a task delivered to: `callbacks.allowedHosts`. */
export interface CallbackHosts {
  /** Nothing is delivered to anybody. */
  readonly isEmpty: boolean
  /**
   * The URL, if it may be called. Throws `GW_BAD_REQUEST` for what is no such URL, `GW_CALLBACK_DENIED` for other
   * hosts.
   */
  check (url: unknown): string
  /** Whether a URL that was checked before may still be called. */
  permits (url: string): boolean
}

const maxUrlLength = 2048

/**
 * Only https, on any port, for the certificate proves the host. Which addresses its name leads to is judged at each
 * connection (`guardedLookup`), and not here, where it could change again.
 */
export function callbackHosts (hosts: readonly string[]): CallbackHosts {
  const isListed = hostList(hosts)
  // An address in the URL is never resolved, so nobody would judge it later.
  const mayCall = (hostname: string): boolean => isListed(hostname) && isPublicName(hostname)

  return {
    isEmpty: hosts.length === 0,
    check (url) {
      const parsed = parse(url)
      if (!mayCall(parsed.hostname)) {
        throw gatewayError('GW_CALLBACK_DENIED', { about: `callback_url with the host ${quoted(parsed.hostname)}` })
      }
      return parsed.href
    },
    permits (url) {
      const parsed = URL.parse(url)
      return parsed !== null && mayCall(parsed.hostname)
    }
  }
}

function parse (url: unknown): URL {
  // What a lenient parser would mend (RFC 3986 knows no space and no backslash) is not what somebody else would read.
  if (typeof url !== 'string' || url.length > maxUrlLength || /[^\x21-\x7e]|\\/.test(url)) throw bad('an https: URL')
  const parsed = /^https:\/\/[^/]/i.test(url) ? URL.parse(url) : null
  if (parsed === null) throw bad('an https: URL')
  if (parsed.username !== '' || parsed.password !== '') throw bad('a URL without credentials')
  if (url.includes('#')) throw bad('a URL without a fragment')
  return parsed
}

function bad (expected: string) {
  return badBody(`callback_url must be ${expected}`)
}

/**
 * How the delivery of a task's end went, for the task's owner. The URL is not repeated: it may hold a secret of the
 * receiver's.
 */
export function deliveryRoutes (app: FastifyInstance, services: ReadServices, deliveries: Deliveries): void {
  readRoute(
    app,
    services,
    {
      url: '/gateway/tasks/:taskId/deliveries',
      operation: 'listDeliveries',
      scope: 'tasks:read',
      query: [],
      task: 'own'
    },
    async ({ task: { taskId } }) => shownDelivery(taskId, await deliveries.of(taskId))
  )
}

function shownDelivery (taskId: string, delivery: Delivery | null) {
  const { attempts = [], nextAt = null } = delivery ?? {}
  return {
    webhookId: delivery && messageId(taskId),
    state: delivery === null ? 'none' : stateOf(delivery),
    attempts: attempts.map(({ at, status, error }) => ({ at: instant(at), status, error })),
    nextAttemptAt: nextAt === null ? null : instant(nextAt)
  }
}

/** waiting: for the end of the task · due: sent soon, or once more at its time · delivered · given-up */
function stateOf ({ attempts, nextAt }: Delivery): string {
  if (nextAt !== null) return 'due'
  if (attempts.length === 0) return 'waiting'
  return attempts.some(hasArrived) ? 'delivered' : 'given-up'
}
