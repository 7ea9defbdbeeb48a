import type { FastifyInstance, FastifyReply } from 'fastify'

/** What a browser is shown; its policy lets nothing run but what is in it. */
export interface ServedPage { readonly html: string, readonly contentSecurityPolicy: string }

export interface PageRoutesOptions {
  readonly playground: ServedPage
  /** A front end is served at `/`. */
  readonly hasFrontEnd: boolean
}

/**
 * The playground, and the ways to it. It is the same for everybody, and knows nobody: who is calling, it finds out as
 * every page does.
 */
export function pageRoutes (app: FastifyInstance, { playground, hasFrontEnd }: PageRoutesOptions): void {
  app.get('/gateway/', { config: { operation: 'showPlayground' } }, (_request, reply) => sendPage(reply, playground))

  // A fixed place: whatever else was in the address, such as a token in its query, leads nowhere.
  if (!hasFrontEnd) app.get('/', { config: { operation: 'findPlayground' } }, (_request, reply) => reply.redirect('/gateway/', 302))
  app.get('/gateway', { config: { operation: 'findPlayground' } }, (_request, reply) => reply.redirect('/gateway/', 308))
}

export function sendPage (reply: FastifyReply, { html, contentSecurityPolicy }: ServedPage): FastifyReply {
  reply.headers({
    'content-security-policy': contentSecurityPolicy,
    // No window of another site has a hold on this one, nor is told where a link has led to.
    'cross-origin-opener-policy': 'same-origin',
    'referrer-policy': 'no-referrer'
  })
  return reply.type('text/html; charset=utf-8').send(html)
}
