import { createHmac, hkdfSync } from 'node:crypto'
import { Secret } from '../secret.ts'

/** What is signed of a message. */
export interface WebhookMessage {
  /** The same at each attempt: who receives it twice knows it by that. Without a dot, which separates. */
  readonly id: string
  /** Unix ms. */
  readonly sentAt: number
  readonly body: Buffer
}

const prefix = 'whsec_'

/**
 * What a host checks our messages with. Derived for this use and this host (RFC 5869 section 3.2): whoever runs one host
 * can neither sign for another nor mint a session, and there is no further secret to keep.
 */
export function webhookSecret (sessionSecret: Secret, host: string): Secret {
  const key = Buffer.from(hkdfSync('sha256', sessionSecret.reveal(), '', `webhook:${host}`, 32))
  return new Secret(prefix + key.toString('base64'))
}

/**
 * The headers that prove where a message is from, one signature for each secret in use, so that a secret can be replaced
 * while both are known.
 *
 * https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
 */
export function webhookHeaders (secrets: readonly Secret[], { id, sentAt, body }: WebhookMessage): Record<string, string> {
  const timestamp = String(Math.floor(sentAt / 1000))
  const sign = (secret: Secret): string => {
    const key = Buffer.from(secret.reveal().slice(prefix.length), 'base64')
    return `v1,${createHmac('sha256', key).update(`${id}.${timestamp}.`).update(body).digest('base64')}`
  }
  return { 'webhook-id': id, 'webhook-timestamp': timestamp, 'webhook-signature': secrets.map(sign).join(' ') }
}
