import Fastify from 'fastify'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { createRequire } from 'node:module'
import type { AddressInfo } from 'node:net'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type { ReadableStream } from 'node:stream/web'
import type { Test } from 'tap'
import { createGateway } from '../../src/gateway.ts'
import { guestSettings, type GatewaySettings } from '../../src/package/guest.ts'
import { createHandler, expressMiddleware, gateway, type Handler } from '../../src/package/index.ts'
import { apiKey, sessionSecret } from './gateway.ts'
import { issuerToken } from './http-caller.ts'

const require = createRequire(import.meta.url) // it has no types

/** The origin that is listed. */
export const page = 'https://app.example'

/** As an operator would write them into a program. */
export function settingsOver ({ origin }: { readonly origin: string }): Given {
  return {
    env: {
      APIXO_API_KEY: apiKey,
      APIXO_BASE_URL: origin,
      GATEWAY_SESSION_SECRET: sessionSecret,
      GATEWAY_ISSUER_TOKEN: issuerToken,
      GATEWAY_STORE: 'sqlite::memory:',
      GATEWAY_ALLOWED_ORIGINS: page,
      PORT: '0',
      LOG_LEVEL: 'silent'
    },
    config: {
      plans: { default: { requestsPerMinute: 1000, pollsPerMinute: 1000, concurrentTasks: 100, credits: 50 } },
      prices: { '*': 1 },
      limits: { bodyBytes: 2000 },
      results: { hosts: ['127.0.0.1'] }
    }
  }
}

/** Both are there. */
type Given = GatewaySettings & { readonly env: Record<string, string>, readonly config: Record<string, any> }

/** The origin of a program that has a gateway in it, and ends with the test. */
type Host = (t: Test, settings: GatewaySettings) => Promise<string>

/** Wherever a gateway may run; the first is a server of its own. */
export const hosts: Readonly<Record<string, Host>> = {
  async 'by itself' (t, settings) {
    const own = await createGateway(guestSettings(settings))
    t.teardown(() => own.close())
    return await own.listen()
  },

  async 'in a Fastify' (t, settings) {
    const app = Fastify({ bodyLimit: 10 })
    await app.register(gateway, settings)
    app.get('/hello', async () => ({ hello: 'host' }))
    app.setErrorHandler(async (_error, _request, reply) => await reply.code(500).send('an error of the host'))
    t.teardown(() => app.close())
    return await app.listen({ port: 0, host: '127.0.0.1' })
  },

  async 'in an Express' (t, settings) {
    const handler = handlerOf(t, settings)
    const express = require('express')
    const app = express()
    app.use(expressMiddleware(handler), express.json())
    app.get('/hello', (_request: IncomingMessage, response: any) => { response.json({ hello: 'host' }) })
    return await listening(t, createServer(app))
  },

  async 'as a function of fetch' (t, settings) {
    const handler = handlerOf(t, settings)
    return await listening(t, fetchServer((request, address) => handler.isOwn(new URL(request.url).pathname)
      ? handler(request, { address })
      : Promise.resolve(Response.json({ hello: 'host' }))))
  }
}

export function handlerOf (t: Test, settings: Parameters<typeof createHandler>[0]): Handler {
  const handler = createHandler(settings)
  t.teardown(() => handler.close())
  return handler
}

/** As frameworks do that answer a `Request` with a `Response`. */
export function fetchServer (answer: (request: Request, address: string) => Promise<Response>): Server {
  const serve = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const gone = new AbortController()
    response.on('close', () => gone.abort())
    const hasBody = request.headers['content-length'] !== undefined || request.headers['transfer-encoding'] !== undefined
    const { status, headers, body } = await answer(
      new Request(`http://${request.headers.host}${request.url}`, {
        method: request.method!,
        headers: headersOf(request),
        signal: gone.signal,
        ...(hasBody ? { body: Readable.toWeb(request) as BodyInit, duplex: 'half' } : {})
      }),
      request.socket.remoteAddress!
    )
    response.writeHead(status, [...headers].flat())
    if (body === null) response.end()
    else await pipeline(Readable.fromWeb(body as ReadableStream<Uint8Array>), response)
  }
  return createServer((request, response) => {
    serve(request, response).catch(() => response.destroy())
  })
}

function headersOf ({ rawHeaders }: IncomingMessage): Headers {
  const headers = new Headers()
  for (let index = 0; index < rawHeaders.length; index += 2) headers.append(rawHeaders[index]!, rawHeaders[index + 1]!)
  return headers
}

async function listening (t: Test, server: Server): Promise<string> {
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => { server.closeAllConnections(); server.close() })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}
