import { posix } from 'node:path'
import send, { type SendOptions, type SendResult } from '@fastify/send'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { type ErrorCode, gatewayError } from '../../errors.ts'

export interface StaticFileRoutesOptions {
  /** The absolute path of a built front end, with an index.html. */
  readonly folder: string
}

/** The gateway's own, whatever lies in the folder: no file may stand where there will be a route one day. */
const reserved = /^\/(?:api\/v1|v1|v1beta|gateway|livez|readyz|metrics)(?:\/|$)/i

/**
 * Serves a front end on the gateway's own origin, where its pages may have a session cookie. Names that begin with a dot
 * are not served, nor is anything outside of the folder. When a browser opens a page that is no file, it gets index.html,
 * for a front end has routes of its own.
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

/** The front end decides what may run in its pages: our own policy is taken off, and `nosniff` stays. */
function answer (reply: FastifyReply, found: SendResult): FastifyReply {
  if (found.type === 'error') throw gatewayError(codes[found.statusCode] ?? 'GW_NOT_FOUND', { cause: found.metadata.error })
  reply.removeHeader('content-security-policy')
  return reply.code(found.statusCode).headers({ ...found.headers, 'cache-control': 'no-cache' }).send(found.stream)
}

/** A malformed path, a condition or a range that can't be met; a file that can't be read. */
const codes: Readonly<Record<number, ErrorCode>> = {
  400: 'GW_BAD_REQUEST', 412: 'GW_BAD_REQUEST', 416: 'GW_BAD_REQUEST', 500: 'GW_INTERNAL'
}

function opensPage ({ headers: { accept = '' } }: FastifyRequest): boolean {
  return accept.includes('text/html')
}
