import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http'
import { createServer } from 'node:https'
import type { Test } from 'tap'
import type { Resolve } from '../../src/domain/egress.ts'
import type { GatewayOptions } from '../../src/gateway.ts'
import { certificate } from './certificate.ts'
import { httpPort } from './http-server.ts'

export interface ReceivedMessage {
  readonly path: string
  readonly headers: IncomingHttpHeaders
  readonly body: Buffer
}

/** A caller's own server, by name, on this machine. */
export interface WebhookReceiver {
  /** `https://app.test:<port>` */
  readonly origin: string
  readonly host: string
  readonly port: number
  readonly messages: readonly ReceivedMessage[]
  /** What a gateway needs to find and to trust it. */
  readonly webhooks: NonNullable<GatewayOptions['webhooks']>
  /** How the next messages are answered; 204 when there is none left. */
  readonly answers: Answer[]
}

export type Answer = (request: IncomingMessage, response: ServerResponse) => void

const host = 'app.test'

export const status = (code: number, headers: Readonly<Record<string, string>> = {}): Answer =>
  (_request, response) => { response.writeHead(code, headers).end('thank you') }

export async function webhookReceiver (t: Test): Promise<WebhookReceiver> {
  const { cert, key } = certificate(t, host, '*.app.test')
  const messages: ReceivedMessage[] = []
  const answers: Answer[] = []
  const server = createServer({ cert, key }, (request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      messages.push({ path: request.url!, headers: request.headers, body: Buffer.concat(chunks) })
      const answer = answers.shift() ?? status(204)
      answer(request, response)
    })
  })
  const port = await httpPort(t, server)
  const resolve: Resolve = (_hostname, _options, done) =>
    setImmediate(done, null, [{ address: '127.0.0.1', family: 4 }])
  return {
    origin: `https://${host}:${port}`,
    host,
    port,
    messages,
    answers,
    webhooks: { ca: cert, resolve, isAllowed: () => true }
  }
}
