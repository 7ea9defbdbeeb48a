import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { Gateway } from '../gateway.ts'
import { type GatewaySettings, guestSettings, openGuest } from './guest.ts'

/** The addresses of the gateway, wherever it runs. Below `/*` what it does not know is its own 404. */
export const ownAddresses = [
  '/api/v1/*', '/v1/*', '/v1beta/*', '/gateway', '/gateway/*', '/livez', '/readyz', '/metrics'
] as const

/** Whether the gateway answers there; else the host does. */
export function isOwnAddress (path: string): boolean {
  return ownAddresses.some(own => own.endsWith('*') ? path.startsWith(own.slice(0, -1)) : path === own)
}

/**
 * The gateway as a plugin: `await app.register(gateway, { config, env })`. It is a Fastify of its own whose requests
 * come by the host's port, so nothing crosses over: it sets no hook, error handler or 404 handler of its host, and its
 * answers carry none of the host's headers. Hooks that the host has before a route is found (`onRequest`) run before
 * it, as they are the host's to say who gets in at all. Closes with its host, after what runs.
 *
 * A gateway with a server of its own also keeps callers from holding connections, which here is the host's to do: its
 * `requestTimeout`, `http.headersTimeout` and `http.maxConnections`. `GATEWAY_TRUST_PROXY` is ours, and the
 * host's `trustProxy` does not count.
 *
 * Rejects with a `SettingsError` that says what to change. Must be registered without a prefix, on HTTP/1.1.
 */
export async function gateway (app: FastifyInstance, settings: GatewaySettings): Promise<void> {
  if (app.prefix !== '') {
    throw new Error(`apixo-gateway: the prefix ${app.prefix} can not be: SDKs, cookies and signed links know the ` +
      'gateway by its addresses. Register it without a prefix, or give it a host name of its own.')
  }
  if (app.initialConfig.http2 === true) {
    throw new Error('apixo-gateway: it speaks HTTP/1.1. Leave http2 to the proxy before this server.')
  }
  await mount(app, await openGuest(guestSettings(settings)))
}

/**
 * Leads the gateway's addresses to it, and closes it with its host. Where the host has a route of the same address
 * already, such as `/livez`, that one stays.
 */
export async function mount (app: FastifyInstance, guest: Gateway): Promise<void> {
  await guest.app.ready()
  // Not in a handler: the host would have read the body, or have refused it.
  const onRequest = (request: FastifyRequest, reply: FastifyReply): void => {
    reply.hijack()
    guest.app.routing(request.raw, reply.raw)
  }
  /* c8 ignore next: a hook that answers is never followed by the handler */
  const handler = (): never => { throw new Error('a request of the gateway has come past it') }
  const schema: object = { hide: true } // for the host's documentation: these are not its routes
  for (const url of ownAddresses) {
    const method = app.supportedMethods.filter(method => !app.hasRoute({ method, url }))
    // Silent, as the host would log the URL, which may hold a ticket.
    if (method.length > 0) app.route({ url, method, onRequest, handler, schema, logLevel: 'silent' })
  }
  app.addHook('preClose', () => guest.close())
}
