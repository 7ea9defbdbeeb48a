import send, { type SendOptions, type SendResult } from '@fastify/send'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { createHash } from 'node:crypto'
import { type ReadStream, readFileSync } from 'node:fs'
import { realpath } from 'node:fs/promises'
import { dirname, join, posix, sep } from 'node:path'
import { type ErrorCode, gatewayError } from '../../errors.ts'

/** What a browser is shown. */
interface ServedPage {
  readonly html: string
  /** Allows the page's own scripts and styles, by their SHA-256, and no others; it talks to our own origin alone. */
  readonly contentSecurityPolicy: string
}

const pages = join(import.meta.dirname, '../../pages')

/**
 * Reads a page of `src/pages/`, such as `playground/playground.html`. It is served in one piece: the files that it
 * names as styles and scripts take the places where it names them. `more`: what its policy allows as well, such as
 * `img-src 'self'`.
 */
export function readPage (path: string, more: readonly string[] = []): ServedPage {
  const file = join(pages, path)
  const contentOf = (name: string): string => readFileSync(join(dirname(file), name), 'utf8')
  const html = readFileSync(file, 'utf8')
    .replace(/<link rel="stylesheet" href="([\w./]+)">/g, (_, name: string) => `<style>\n${contentOf(name)}</style>`)
    .replace(/<script src="([\w./]+)"><\/script>/g, (_, name: string) => `<script>\n${contentOf(name)}</script>`)
  const rules = [
    "default-src 'none'",
    `script-src ${sourcesOf('script', html)}`,
    `style-src ${sourcesOf('style', html)}`,
    "connect-src 'self'",
    ...more,
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'"
  ]
  return { html, contentSecurityPolicy: rules.join('; ') }
}

/** https://www.w3.org/TR/CSP3/#grammardef-hash-source */
function sourcesOf (element: string, html: string): string {
  const texts = [...html.matchAll(new RegExp(`<${element}>(.*?)</${element}>`, 'gs'))].map(([, text]) => text!)
  return texts.map(text => `'sha256-${createHash('sha256').update(text).digest('base64')}'`).join(' ')
}

/**
 * The playground, and the ways to it. It is served the same to everybody: its script finds out over the same routes as
 * every other page whether there is a session. `hasFrontEnd`: one is served at `/`.
 */
export function pageRoutes (app: FastifyInstance, { hasFrontEnd }: { readonly hasFrontEnd: boolean }): void {
  const playground = readPage('playground/playground.html', ["img-src 'self' data:", "media-src 'self'"])

  app.get('/gateway/', { config: { operation: 'showPlayground' } }, (_request, reply) => sendPage(reply, playground))

  // The place is fixed: a query, which may have a token in it, is not passed on.
  if (!hasFrontEnd) {
    app.get('/', { config: { operation: 'findPlayground' } }, (_request, reply) => reply.redirect('/gateway/', 302))
  }
  app.get('/gateway', { config: { operation: 'findPlayground' } }, (_request, reply) =>
    reply.redirect('/gateway/', 308)
  )
}

export function sendPage (reply: FastifyReply, { html, contentSecurityPolicy }: ServedPage): FastifyReply {
  reply.headers({
    'content-security-policy': contentSecurityPolicy,
    // Windows of other sites can not reach into this one, and are not told where a link came from.
    'cross-origin-opener-policy': 'same-origin',
    'referrer-policy': 'no-referrer'
  })
  return reply.type('text/html; charset=utf-8').send(html)
}

/** The gateway's own, whatever lies in the folder: no file may stand where there will be a route one day. */
const reserved = /^\/(?:api\/v1|v1|v1beta|gateway|livez|readyz|metrics)(?:\/|$)/i

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
      if (reserved.test(posix.normalize(decodeURIComponent(path)))) throw gatewayError('GW_NOT_FOUND')
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
