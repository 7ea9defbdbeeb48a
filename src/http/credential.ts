import type { IncomingHttpHeaders } from 'node:http'
import { badRequest, gatewayError, type GatewayError, isGatewayError } from '../errors.ts'
import type { OtherSecret } from './context.ts'
import { sessionCookieName } from './session-cookie.ts'

export const proofHeader = 'x-apixo-proof'

/**
 * Finds the caller's token where stock SDKs put their key: `Authorization: Bearer` (RFC 6750 section 2.1), `x-api-key`,
 * `x-goog-api-key`. `null` when there is none.
 *
 * It reads the raw headers: Node keeps only the first of two `Authorization` headers, and which of them counts would
 * then depend on the reader. Repeated or contradicting ones are a 400, another scheme than Bearer is no session.
 */
export function credentialOf (rawHeaders: readonly string[]): string | null {
  const seen = new Set<string>()
  let token: string | null = null
  for (let index = 0; index < rawHeaders.length; index += 2) {
    const name = credentialHeader(rawHeaders[index]!)
    if (name === null) continue
    if (seen.has(name)) throw bad(`the header ${name} is given twice`)
    seen.add(name)
    const found = name === 'authorization' ? bearer(rawHeaders[index + 1]!) : rawHeaders[index + 1]!
    if (token !== null && found !== token) throw bad(`${[...seen].join(' and ')} carry different tokens`)
    token = found
  }
  return token
}

/** Looked at by length first: most headers are none of these, and lower-casing each would cost more than the search. */
function credentialHeader (rawName: string): string | null {
  const length = rawName.length
  if (length !== 13 && length !== 9 && length !== 14) return null
  const name = rawName.toLowerCase()
  return name === 'authorization' || name === 'x-api-key' || name === 'x-goog-api-key' ? name : null
}

function bearer (value: string): string {
  const token = /^bearer +([\w.~+/=-]+)$/i.exec(value)?.[1]
  if (token === undefined) throw gatewayError('GW_BAD_SESSION')
  return token
}

function bad (about: string) {
  return badRequest(`Send one session token: ${about}.`)
}

/** The parties that hold a token of the server's own, and no session. */
type TokenHolder = 'issuer' | 'admin'

/** As `credentialOf`, for a route that takes one of the server's own tokens: no error there speaks of sessions. */
export function serverTokenOf (rawHeaders: readonly string[], holder: TokenHolder): string {
  let credential
  try {
    credential = credentialOf(rawHeaders)
  } catch (error) {
    throw isGatewayError(error) && error.code === 'GW_BAD_SESSION' ? wrongToken(holder) : error
  }
  if (credential === null) throw noToken(holder)
  return credential
}

export function noToken (holder: TokenHolder): GatewayError {
  return gatewayError('GW_NO_SESSION', { about: `Send the ${holder} token: Authorization: Bearer <token>.` })
}

export function wrongToken (holder: TokenHolder): GatewayError {
  const setting = `GATEWAY_${holder.toUpperCase()}_TOKEN`
  return gatewayError('GW_BAD_SESSION', {
    about: `This is not the ${holder} token: send what the gateway has as ${setting}.`
  })
}

/** Not in a header: a request for such a route presents its secret by its path or body. */
const inPathOrBody: ReadonlySet<OtherSecret | undefined> = new Set<OtherSecret>(['invitation', 'callback', 'ticket'])
const inHeader = ['authorization', 'x-api-key', 'x-goog-api-key', proofHeader] as const

/** Of a request that has failed. */
export interface FailedRequest {
  readonly method: string | undefined
  readonly headers: IncomingHttpHeaders
  readonly opensWith: OtherSecret | undefined
}

/**
 * Whether a failure says nothing about the address that it came from: any page can make the browsers of its visitors
 * ask for what is not there, and a preflight has not asked for anything yet. A request that presents a secret is a
 * guess, wherever it says that it comes from, for other programs than browsers write what they like.
 */
export function isBlameless (
  { method, headers, opensWith }: FailedRequest, isOurs: (origin: string) => boolean
): boolean {
  if (inPathOrBody.has(opensWith) || inHeader.some(name => headers[name] !== undefined)) return false
  if (headers.cookie?.includes(sessionCookieName)) return false
  if (method === 'OPTIONS' && headers['access-control-request-method'] !== undefined) return true
  const { origin, 'sec-fetch-site': site } = headers
  return site === 'cross-site' || site === 'same-site' || (origin !== undefined && !isOurs(origin))
}
