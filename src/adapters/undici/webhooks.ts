import { lookup as resolveName } from 'node:dns'
import { Agent } from 'undici'
import { guardedLookup, isWithin, refusedAddress, type Resolve } from '../../domain/egress.ts'
import type { DeliveryError, WebhookSender } from '../../domain/webhooks.ts'
import { failureOf } from './upstream.ts'

export interface UndiciWebhooksOptions {
  readonly userAgent: string
  readonly connectMs: number
  /** From the beginning to the answer, ms; half a minute when absent. */
  readonly timeoutMs?: number | undefined
  /** For a certificate authority of the operator's own, in PEM. */
  readonly ca?: string | undefined
  readonly resolve?: Resolve | undefined
  /** Whether a connection may lead to this address. */
  readonly isAllowed?: ((address: string) => boolean) | undefined
}

const halfMinuteMs = 30_000
/** Sockets to one host. */
const maxConnections = 20

/**
 * Webhooks over undici. It has no key and no cookie to lose, follows no redirect, and holds each new connection against
 * the addresses its name leads to at that moment. Of the answer only the status is looked at.
 */
export function undiciWebhooks (options: UndiciWebhooksOptions): WebhookSender {
  const {
    userAgent,
    timeoutMs = halfMinuteMs,
    resolve = resolveName,
    isAllowed = address => isWithin('public', address)
  } = options
  const agent = new Agent({
    connections: maxConnections,
    pipelining: 0, // connections are not reused, so that the address is checked for each message
    connect: {
      timeout: options.connectMs,
      lookup: guardedLookup(resolve, isAllowed),
      ca: options.ca
    },
    allowH2: false
  })

  return {
    async send ({ url, headers, body }) {
      const { origin, pathname, search } = new URL(url)
      try {
        const { statusCode, body: answer } = await agent.request({
          origin,
          path: pathname + search,
          method: 'POST',
          headers: { ...headers, 'user-agent': userAgent },
          body,
          signal: AbortSignal.timeout(timeoutMs)
        })
        // Nobody reads it, so nobody can be kept busy with it: the connection ends.
        answer.on('error', () => { /* it was ended by us */ }).destroy()
        return { status: statusCode, error: null }
      } catch (error) {
        return { status: null, error: wordFor(error as { readonly code?: unknown, readonly name?: unknown }) }
      }
    },
    close: () => agent.destroy()
  }
}

function wordFor (error: { readonly code?: unknown, readonly name?: unknown }): DeliveryError {
  if (error.code === refusedAddress) return 'address-refused'
  const failure = failureOf(error)
  return failure === 'connect-timeout' ? 'timeout' : failure
}
