import send, { type SendOptions, type SendResult } from '@fastify/send'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { ReadStream } from 'node:fs'
import { realpath } from 'node:fs/promises'
import { posix, sep } from 'node:path'
import { type ErrorCode, gatewayError } from '../../errors.ts'
import { isOwnPath } from '../../http/server.ts'

/**
 * Serves a front end on the gateway's own origin, where its pages may have a session cookie. Names that begin with a
 * dot are not served, nor is anything outside of the folder. When a browser opens a page that is no file, it gets
 * index.html, for a front end has routes of its own. `root`: the absolute path of a built front end, with an
 * index.html.
 */
export function staticFileRoutes (app: FastifyInstance, root: string): void {
  // A browser keeps what it has and asks each time whether that is still good: names need not change with their
  // content.
  const options: SendOptions = { root, dotfiles: 'ignore', cacheControl: false, onFile: assertInside(root) }

  app.route({
    method: ['GET', 'HEAD'],
    url: '/*',
    config: { operation: 'showFile', uncounted: true },
    async handler (request, reply) {
      const path = pathOf(request.raw.url!)
      // Whatever lies in the folder: no file may stand where there will be a route one day.
      if (isOwnPath(posix.normalize(decodeURIComponent(path)).toLowerCase())) throw gatewayError('GW_NOT_FOUND')
      const found = await send(request.raw, path, options)
      const isPage = found.statusCode === 404 && opensPage(request)
      return answer(reply, isPage ? await send(request.raw, '/index.html', options) : found)
    }
  })
}

/** What a link within the folder leads to may be anything of this machine. */
function assertInside (folder: string) {
  return async (path: string): Promise<void> => {
    // A file that is gone by now is as little there as one outside.
    const [root, file] = await Promise.all([folder, path].map(name => realpath(name).catch(() => '')))
    if (!file!.startsWith(root + sep)) throw gatewayError('GW_NOT_FOUND')
  }
}

/** A request may name the host in its target (RFC 9112 section 3.2.2); the router has passed over that, too. */
function pathOf (target: string): string {
  const [path] = target.split('?', 1) as [string]
  const own = path.replace(/^https?:\/\/.*?\//i, '/')
  if (!own.startsWith('/')) throw gatewayError('GW_NOT_FOUND')
  return own
}

/** The front end decides what may run in its pages: our own policy is taken off, and `nosniff` stays. */
function answer (reply: FastifyReply, found: SendResult): FastifyReply {
  if (found.type === 'error') {
    throw gatewayError(codes[found.statusCode] ?? 'GW_NOT_FOUND', {
      about: 'The path is none, or a condition or range can not be met.',
      cause: found.metadata.error
    })
  }
  reply.removeHeader('content-security-policy')
  if (found.type === 'file') hold(reply, found)
  return reply.code(found.statusCode).headers({ ...found.headers, 'cache-control': 'no-cache' }).send(found.stream)
}

/** A malformed path, a condition or a range that can't be met; a file that can't be read. */
const codes: Readonly<Record<number, ErrorCode>> = {
  400: 'GW_BAD_REQUEST', 412: 'GW_BAD_REQUEST', 416: 'GW_BAD_REQUEST', 500: 'GW_INTERNAL'
}

function opensPage ({ headers: { accept = '' } }: FastifyRequest): boolean {
  return accept.includes('text/html')
}

/** A file that got shorter on its way ends the connection: the next answer on it would be taken for the rest. */
function hold ({ raw }: FastifyReply, { stream, headers }: SendResult): void {
  // Of what has no body the stream is no file's, and has read nothing that could be counted.
  stream.once('end', () => {
    if ((stream as Partial<ReadStream>).bytesRead! < Number(headers['Content-Length'])) raw.destroy()
  })
}
