import { METHODS } from 'node:http'
import type { FastifyInstance } from 'fastify'
import { gatewayError } from '../../errors.ts'

const operation = 'methodNotAllowed'

/**
 * Registers routes so that every other method on their URLs is a 405 with `allow` (RFC 9110 section 15.5.6), said
 * before anybody reads a body. OPTIONS is left to CORS.
 */
export async function withMethods (app: FastifyInstance, register: () => Promise<void>): Promise<void> {
  for (const method of METHODS) {
    // CONNECT never arrives as a request.
    if (method !== 'CONNECT' && !app.supportedMethods.includes(method)) app.addHttpMethod(method, { hasBody: true })
  }
  const allowed = new Map<string, string[]>()
  app.addHook('onRoute', ({ url, method, config }) => {
    if (config?.operation !== operation) allowed.set(url, [...allowed.get(url) ?? [], ...[method].flat()])
  })
  await register()
  for (const [url, methods] of allowed) {
    const refuse = async () => { throw gatewayError('GW_METHOD_NOT_ALLOWED', { allow: methods.join(', ') }) }
    app.route({
      url,
      method: app.supportedMethods.filter(method => method !== 'OPTIONS' && !methods.includes(method)),
      config: { operation },
      onRequest: refuse,
      handler: refuse
    })
  }
}
