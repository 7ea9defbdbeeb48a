import type { FastifyInstance, FastifyReply } from 'fastify'

/** What a browser is shown; its policy lets nothing run but what is in it. */
export interface ServedPage { readonly html: string, readonly contentSecurityPolicy: string }

export interface PageRoutesOptions {
  readonly playground: ServedPage
  /** A front end is served at `/`. */
  readonly hasFrontEnd: boolean
}

/**
 * The playground, and the ways to it. It is served the same to everybody: who is signed in, its script finds out over the
 * same routes as every other page.
 */
export function pageRoutes (app: FastifyInstance, { playground, hasFrontEnd }: PageRoutesOptions): void {
  app.get('/gateway/', { config: { operation: 'showPlayground' } }, (_request, reply) => sendPage(reply, playground))

  // The place is fixed: a query, which may have a token in it, is not passed on.
  if (!hasFrontEnd) app.get('/', { config: { operation: 'findPlayground' } }, (_request, reply) => reply.redirect('/gateway/', 302))
  app.get('/gateway', { config: { operation: 'findPlayground' } }, (_request, reply) => reply.redirect('/gateway/', 308))
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
