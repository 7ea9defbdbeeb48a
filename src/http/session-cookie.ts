import cookies from '@fastify/cookie'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { PrintedSession, Session, SessionIssuer } from '../domain/session.ts'
import { badRequest } from '../errors.ts'
import type { OwnOrigin } from './authenticate.ts'

/** The cookie that a session may be in, for pages of the gateway's own origin. */
export interface SessionCookie {
  /** The token in the cookie; `null` when there is none. */
  read (request: FastifyRequest): string | null
  /** A session for the cookie, in place of that one. Throws `GW_BAD_REQUEST` when it is too long for browsers. */
  print (session: Session): Promise<PrintedSession>
  write (printed: PrintedSession, reply: FastifyReply): void
  /** Prints a session in a cookie anew when less than half of its time is left, unless it ends by then anyhow. */
  slide (session: Session, reply: FastifyReply): Promise<void>
  clear (reply: FastifyReply): void
}

interface SessionCookieOptions {
  readonly issuer: SessionIssuer
  /** How long a cookie lasts that nobody uses. */
  readonly cookieMaxAgeSeconds: number
  /**
   * No cookie lasts longer: another issuer's token that it stands in for may be good for years, and is not checked
   * again.
   */
  readonly maxTtlSeconds: number
  readonly ownOrigin: OwnOrigin
  readonly now: () => number
}

/**
 * The prefix makes browsers hold it to this host, this path and https: no other host of the domain can plant it (RFC
 * 6265bis section 4.1.3.2).
 */
export const sessionCookieName = '__Host-apixo_session'
const longestName = `${sessionCookieName}_65535`
/**
 * No script reads it. `Strict` costs nothing here: what a page of ours asks for is same-site, also when a link in a
 * mail has led to the page; a link from there to a result itself is what tickets are for.
 */
const attributes = { path: '/', httpOnly: true, secure: true, sameSite: 'strict' } as const
/** Browsers quietly drop a cookie whose name and value are longer (RFC 6265bis section 5.6). */
const maxCookieBytes = 4096

export async function sessionCookie (
  app: FastifyInstance, { issuer, cookieMaxAgeSeconds, maxTtlSeconds, ownOrigin, now }: SessionCookieOptions
): Promise<SessionCookie> {
  await app.register(cookies, { hook: false })
  const maxAgeMs = cookieMaxAgeSeconds * 1000
  /** To a browser all ports of a host are one: two gateways on one host would put out each other's cookies. */
  const nameFor = (request: FastifyRequest): string => {
    const own = ownOrigin(request)
    const port = own === null ? '' : new URL(own).port // '' for the scheme's own
    return port === '' ? sessionCookieName : `${sessionCookieName}_${port}`
  }
  /** In place of one that has been set on the way here. */
  const set = (reply: FastifyReply, value: string, maxAge: number): void => {
    reply.removeHeader('set-cookie')
    reply.header('set-cookie', app.serializeCookie(nameFor(reply.request), value, { ...attributes, maxAge }))
  }
  const write = ({ token, session: { expiresAt } }: PrintedSession, reply: FastifyReply): void =>
    set(reply, token, Math.max(0, Math.floor((expiresAt - now()) / 1000)))

  return {
    read (request) {
      const { cookie } = request.headers
      return (cookie !== undefined && app.parseCookie(cookie)[nameFor(request)]) || null
    },
    async print (session) {
      const endsAt = Math.min(session.endsAt, now() + maxTtlSeconds * 1000)
      const printed = await issuer.printCookie({ ...session, endsAt }, now() + maxAgeMs)
      if (longestName.length + printed.token.length <= maxCookieBytes) return printed
      throw badRequest('This session is too long for a cookie: mint it with shorter lists.')
    },
    write,
    async slide (session, reply) {
      const { expiresAt, endsAt } = session
      if (expiresAt < endsAt && expiresAt - now() < maxAgeMs / 2) {
        write(await issuer.printCookie(session, now() + maxAgeMs), reply)
      }
    },
    clear: reply => set(reply, '', 0)
  }
}
