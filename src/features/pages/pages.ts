import type { FastifyInstance, FastifyReply } from 'fastify'
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileRoutes } from './files.ts'

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
function readPage (path: string, more: readonly string[] = []): ServedPage {
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

function sendPage (reply: FastifyReply, { html, contentSecurityPolicy }: ServedPage): FastifyReply {
  reply.headers({
    'content-security-policy': contentSecurityPolicy,
    // Windows of other sites can not reach into this one, and are not told where a link came from.
    'cross-origin-opener-policy': 'same-origin',
    'referrer-policy': 'no-referrer'
  })
  return reply.type('text/html; charset=utf-8').send(html)
}

/**
 * The playground and the ways to it, the page that an invitation's link leads to, and what other pages import. All are
 * the same for everybody: the playground's script finds out over the same routes as every other page whether there is a
 * session. `hasFrontEnd`: one is served at `/`.
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

  // It takes nothing: programs that preview links, and scanners of mail, fetch it as they like. What it opens is in the
  // link's fragment, which only the browser knows, and is sent when somebody presses the button.
  const invitation = readPage('invitation.html')
  app.get('/gateway/invitation', { config: { operation: 'showInvitation' } }, (_request, reply) =>
    sendPage(reply, invitation)
  )

  // Of the reference, whose other forms are files. Few ever look at it: it is read when somebody does.
  let reference: ServedPage | null = null
  app.get('/gateway/docs', { config: { operation: 'showReference' } }, (_request, reply) => {
    reference ??= readPage('reference/docs.html', ['img-src data:'])
    return sendPage(reply, reference)
  })

  fileRoutes(app)
}
