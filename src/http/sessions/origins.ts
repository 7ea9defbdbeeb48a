import type { FastifyRequest } from 'fastify'
import { isInRange } from '../../domain/sessions/address-range.ts'
import type { Session } from '../../domain/sessions/session.ts'
import { gatewayError } from '../../errors.ts'
import { ipOf } from '../receive.ts'

/** The web origin of the gateway's own pages, as browsers write it; `null`: the request does not tell. */
export type OwnOrigin = (request: FastifyRequest) => string | null

/** `publicUrl`: as the operator says. Without it, as callers see us: through a proxy only if that is trusted. */
export function ownOrigins (publicUrl: string | undefined): OwnOrigin {
  if (publicUrl !== undefined) return () => publicUrl
  return ({ protocol, host }) => URL.parse(`${protocol}://${host}`)?.origin ?? null
}

/**
 * Throws `GW_ORIGIN_DENIED` where a session is used from somewhere it is not for. That is a 403, and no 401: the session
 * is good, and a page that took a new one of the same kind would be refused again.
 *
 * No script can set or drop `Origin` and `Sec-Fetch-Site` (https://fetch.spec.whatwg.org/#forbidden-request-header). Other
 * programs can: against whoever has stolen a token, `origins` are no help, and `addressRange` is.
 */
export function holdOrigin ({ isCookie, origins, addressRange }: Session, request: FastifyRequest, ownOrigin: OwnOrigin): void {
  if (isCookie && !isOwnPage(request, ownOrigin)) throw denied('A cookie counts only for pages of the gateway\'s own origin.')
  if (origins !== null && !isListed(origins, request, ownOrigin)) throw denied('This session is not for pages of this origin.')
  // A caller who has hung up has no address any more, and is in no network.
  if (addressRange !== null && !isInRange(ipOf(request), addressRange)) throw denied('This session is not for this address.')
}

/** A browser says that this comes from somewhere else than a page of ours, or from its own address bar. */
export function isForeignPage ({ method, headers: { origin, 'sec-fetch-site': site } }: FastifyRequest, own: string | null): boolean {
  if (origin !== undefined && origin !== own) return true
  return site !== undefined && site !== 'same-origin' && !(site === 'none' && reads(method))
}

/**
 * Cookies go along whoever asks, and `SameSite` stops other sites alone, not other hosts of ours. What changes something
 * is to come from a page of ours beyond doubt; what reads, not from any other (browsers that send neither header with a
 * GET of the same origin are still about).
 */
function isOwnPage (request: FastifyRequest, ownOrigin: OwnOrigin): boolean {
  const own = ownOrigin(request)
  const { method, headers: { origin, 'sec-fetch-site': site } } = request
  return !isForeignPage(request, own) && (reads(method) || site === 'same-origin' || origin !== undefined)
}

/** Browsers send no `Origin` with a GET of the same origin. Of the Sec-Fetch-* headers no other one is ever read. */
function isListed (origins: readonly string[], request: FastifyRequest, ownOrigin: OwnOrigin): boolean {
  const { method, headers: { origin, 'sec-fetch-site': site } } = request
  if (origin !== undefined) return origins.includes(origin)
  const own = reads(method) && site === 'same-origin' ? ownOrigin(request) : null
  return own !== null && origins.includes(own)
}

function denied (about: string) {
  return gatewayError('GW_ORIGIN_DENIED', { about })
}

/** HEAD is a GET without its body (RFC 9110 section 9.3.2). */
function reads (method: string): boolean {
  return method === 'GET' || method === 'HEAD'
}
