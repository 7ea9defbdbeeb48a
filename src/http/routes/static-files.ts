import { posix } from 'node:path'
import send, { type SendOptions, type SendResult } from '@fastify/send'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { type ErrorCode, gatewayError } from '../../errors.ts'

export interface StaticFileRoutesOptions {
  /** A built front end, with an index.html. Absolute. */
  readonly folder: string
}

/** What stays the gateway's own, whatever lies in the folder: a page must not stand where a route comes one day. */
const reserved = /^\/(?:api\/v1|v1|v1beta|gateway|livez|readyz|metrics)(?:\/|$)/i

/**
 * Serves a front end on the gateway's own origin, where its pages may have a session cookie. Names that begin with a dot
 * are not served, nor is anything outside of the folder. What a browser opens as a page and is no file is the index.html:
 * a front end has routes of its own.
 */
export function staticFileRoutes (app: FastifyInstance, { folder: root }: StaticFileRoutesOptions): void {
  // A browser keeps what it has and asks each time whether that is still good: names need not change with their content.
  const options: SendOptions = { root, dotfiles: 'ignore', cacheControl: false }

  app.route({
    method: ['GET', 'HEAD'],
    url: '/*',
    config: { operation: 'showFile' },
    async handler (request, reply) {
      const [path] = request.raw.url!.split('?', 1) as [string]
      if (reserved.test(posix.normalize(decodeURIComponent(path)))) throw gatewayError('GW_NOT_FOUND')
      const found = await send(request.raw, path, options)
      const isPage = found.statusCode === 404 && opensPage(request)
      return answer(reply, isPage ? await send(request.raw, '/index.html', options) : found)
    }
  })
}

/** A page says by itself what may run in it; that it is not sniffed is said of every answer. */
function answer (reply: FastifyReply, found: SendResult): FastifyReply {
  if (found.type === 'error') throw gatewayError(codes[found.statusCode] ?? 'GW_NOT_FOUND', { cause: found.metadata.error })
  reply.removeHeader('content-security-policy')
  return reply.code(found.statusCode).headers({ ...found.headers, 'cache-control': 'no-cache' }).send(found.stream)
}

/** A path that is none, a condition or a range that can't be met; a file that can't be read. */
const codes: Readonly<Record<number, ErrorCode>> = { 400: 'GW_BAD_REQUEST', 412: 'GW_BAD_REQUEST', 416: 'GW_BAD_REQUEST', 500: 'GW_INTERNAL' }

function opensPage ({ headers: { accept = '' } }: FastifyRequest): boolean {
  return accept.includes('text/html')
}
