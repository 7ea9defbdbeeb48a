import type { FastifyInstance } from 'fastify'
import { readJson } from '../../domain/bodies/json.ts'
import { gatewayError } from '../../errors.ts'

/** Longest body of the gateway's own routes. They are read outside the bound on bytes in flight, so they are small. */
const ownBodyBytes = 65_536

/**
 * How the routes of this scope get their bodies: JSON in UTF-8 and never compressed, for a bomb needs a decoder.
 * Mirrored routes take the bytes as they came, the gateway's own the parsed object. An empty body is no body.
 */
export function readBodies (app: FastifyInstance, as: 'bytes' | 'object'): void {
  app.addHook('preParsing', (request, _reply, _payload, next) => {
    const encoding = request.headers['content-encoding']
    if (encoding === undefined || encoding === 'identity') next(null)
    else next(gatewayError('GW_UNSUPPORTED_MEDIA_TYPE', { about: 'Send the body without content-encoding.' }))
  })
  if (as === 'object') app.addHook('onRoute', route => { route.bodyLimit ??= ownBodyBytes })
  app.removeAllContentTypeParsers()
  const read = (body: Buffer): unknown => as === 'bytes' ? body : readJson(body).value
  app.addContentTypeParser<Buffer>('application/json', { parseAs: 'buffer' }, (_request, body, next) => {
    try {
      next(null, body.length === 0 ? undefined : read(body))
    } catch (error) {
      next(error as Error)
    }
  })
}
