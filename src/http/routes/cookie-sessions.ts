import type { FastifyInstance, FastifyRequest } from 'fastify'
import { instant } from '../../domain/instant.ts'
import type { AuditTrail } from '../../domain/ledger/audit.ts'
import type { Revocations, Session } from '../../domain/sessions/session.ts'
import { isTokenId } from '../../domain/sessions/token-form.ts'
import { isTrustworthy } from '../../domain/sessions/web-origin.ts'
import type { Clock } from '../../domain/time.ts'
import { badRequest, gatewayError } from '../../errors.ts'
import type { Authenticate } from '../authenticate.ts'
import { contextOf } from '../call.ts'
import type { Rates } from '../rates.ts'
import { isForeignPage, type OwnOrigin } from '../sessions/origins.ts'
import type { SessionCookie } from '../sessions/session-cookie.ts'
import { sessionNotes } from '../sessions/session-notes.ts'
import { withSlowBodies } from '../slow-bodies.ts'

export interface CookieSessionRoutesOptions extends Clock {
  readonly authenticate: Authenticate
  readonly revocations: Revocations
  readonly audit: AuditTrail
  readonly cookie: SessionCookie
  readonly ownOrigin: OwnOrigin
  readonly rates: Pick<Rates, 'sessions'>
}

/** `null` is how the framework shows a schema that there is no body. */
const noBody = { type: 'object', nullable: true, additionalProperties: false } as const

/** A page swaps a token, which any script in it can read, for a cookie, which none can. */
export function cookieSessionRoutes (app: FastifyInstance, options: CookieSessionRoutesOptions): void {
  const { authenticate, revocations, cookie, ownOrigin, rates } = options
  const note = sessionNotes(options)

  app.post('/gateway/sessions/cookie', {
    config: { operation: 'swapSession' },
    schema: { body: noBody },
    ...withSlowBodies(authenticate, options.elapsed)
  }, async (request, reply) => {
    const { call, call: { session } } = contextOf(request, reply)
    holdSwap(session, request, ownOrigin(request))
    call.stage = 'admit'
    await rates.sessions(request, session.subject)
    const printed = await cookie.print(session)
    await note('mint', session.subject, printed.session, { insteadOf: session.id })
    // What scripts could read is worth nothing from here on, and of several swaps at once one gets the cookie. A person's
    // own token stays good, for it may be in use elsewhere.
    if (!isTokenId(session.id) && !await revocations.revoke(session.id, session.endsAt)) throw gatewayError('GW_BAD_SESSION')
    cookie.write(printed, reply)
    reply.code(201)
    return { subject: session.subject, expiresAt: instant(printed.session.expiresAt) }
  })
}

/**
 * A page that has a cookie set for its own session would have its visitors work in that. And a browser that is not on
 * https drops the cookie without a word: the page is told, and keeps its token.
 */
function holdSwap ({ isCookie }: Session, request: FastifyRequest, own: string | null): void {
  if (isCookie) throw badRequest('Send the session token to swap as Authorization: Bearer.')
  if (isForeignPage(request, own)) throw gatewayError('GW_ORIGIN_DENIED', { about: 'A cookie is for pages of the gateway\'s own origin.' })
  if (own === null || !isTrustworthy(new URL(own))) {
    throw badRequest('A session cookie needs https, and this request came without: behind a proxy set GATEWAY_TRUST_PROXY or ' +
      'GATEWAY_PUBLIC_URL. Else keep the token and send it as Authorization: Bearer.')
  }
}
