import type { Test } from 'tap'
import { Secret } from '../../src/domain/secret.ts'
import { webhookHeaders } from '../../src/domain/webhooks.ts'
import { webhookSecret } from '../../src/features/callbacks/outbound.ts'
import { crankedGateway } from './cranked-gateway.ts'
import { sessionSecret, taskMs, type TestGatewayOptions } from './gateway.ts'
import { until } from './until.ts'
import { type ReceivedMessage, type WebhookReceiver, webhookReceiver } from './webhook-receiver.ts'

/** As many as needed: what is told of how a delivery went. */
export interface ShownDelivery {
  readonly webhookId: string | null
  readonly state: string
  readonly attempts: ReadonlyArray<{
    readonly at: string
    readonly status: number | null
    readonly error: string | null
  }>
  readonly nextAttemptAt: string | null
}

const plans =
  'plans: { default: { requestsPerMinute: 100000, pollsPerMinute: 100000, concurrentTasks: 1000, credits: unlimited } }'

/** A gateway whose callers may have the ends of their tasks delivered to a server of their own. */
export async function deliveringGateway (
  t: Test,
  { receiver, ...options }: TestGatewayOptions & { readonly receiver?: WebhookReceiver } = {}
) {
  const server = receiver ?? (await webhookReceiver(t))
  const gateway = await crankedGateway(t, {
    config: `${plans}\ncallbacks: { allowedHosts: [${server.host}, '*.app.test'] }`,
    webhooks: server.webhooks,
    ...options
  })
  const { submit, call, status, time, gateway: { tidy } } = gateway

  /** Resolves to the task's id. */
  const submitTo = async (token: string, url: string, prompt = 'a red cube'): Promise<string> => {
    const body = { request_type: 'callback', callback_url: url, input: { mode: 'text-to-image', prompt } }
    const reply = await submit(token, prompt, 'nano-banana', { body })
    if (reply.status !== 200) throw new Error(reply.text)
    return reply.json.data.taskId
  }
  const endOf = async (token: string, taskId: string): Promise<string> => {
    time.advance(taskMs)
    return (await status(token, taskId)).text
  }
  const deliveryOf = async (token: string, taskId: string): Promise<ShownDelivery> =>
    (await call(`/gateway/tasks/${taskId}/deliveries`, { token })).json
  /** A round of the housekeeping, and the attempts that it has begun. */
  const deliver = async (token: string, taskId: string): Promise<ShownDelivery> => {
    const { attempts: { length } } = await deliveryOf(token, taskId)
    await tidy()
    await until('the attempt to be noted', async () => (await deliveryOf(token, taskId)).attempts.length > length)
    return await deliveryOf(token, taskId)
  }
  return { ...gateway, server, submitTo, endOf, deliveryOf, deliver }
}

/** Whether a message is signed with the secret that this host was given. */
export function isSigned ({ headers, body }: ReceivedMessage, host: string, secret = sessionSecret): boolean {
  const sentAt = Number(headers['webhook-timestamp']) * 1000
  const expected = webhookHeaders([webhookSecret(new Secret(secret), host)], {
    id: String(headers['webhook-id']),
    sentAt,
    body
  })
  return String(headers['webhook-signature']).split(' ').includes(expected['webhook-signature']!)
}
