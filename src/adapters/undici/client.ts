import type { Pool } from 'undici'
import type { Lookup } from '../../domain/egress.ts'
import { keepAliveMarginMs } from '../../domain/upstream.ts'

/** How the upstream and the hosts of its results are called. */
export interface ClientOptions {
  /** `https://api.apixo.ai`, with a path prefix if there is one, without `/api/v1`. */
  readonly baseUrl: string
  readonly connectMs: number
  readonly headersMs: number
  readonly bodyIdleMs: number
  readonly keepAliveMs: number
  readonly userAgent: string
  /** For a certificate authority of the operator's own, in PEM. */
  readonly ca?: string | undefined
}

/** Sockets to one host. A submit holds one until its answer. */
const maxConnections = 512

/** `lookup`: resolves names of hosts in place of the system. */
export function connectionOptions (
  { connectMs, headersMs, bodyIdleMs, keepAliveMs, ca }: ClientOptions, lookup?: Lookup
): Pool.Options {
  return {
    connections: maxConnections,
    pipelining: 1,
    connect: { timeout: connectMs, ca, ...(lookup === undefined ? {} : { lookup }) },
    headersTimeout: headersMs,
    bodyTimeout: bodyIdleMs,
    // Shorter than a server's own, so that a submit rarely meets a socket that is being closed on it.
    keepAliveTimeout: keepAliveMs,
    keepAliveMaxTimeout: keepAliveMs,
    keepAliveTimeoutThreshold: keepAliveMarginMs,
    // One connection for all, and its loss were the loss of all.
    allowH2: false
  }
}

/** How a call to another server has failed. `unreachable`: there was no connection, and so nothing was sent. */
export type CallFailure = 'connect-timeout' | 'timeout' | 'broken' | 'unreachable'

/**
 * What undici says itself comes after the connection stood, but for the wait for one; names, addresses and certificates
 * have codes of the system's own.
 */
export function failureOf ({ code, name }: { readonly code?: unknown, readonly name?: unknown }): CallFailure {
  if (code === 'UND_ERR_CONNECT_TIMEOUT') return 'connect-timeout'
  if (name === 'TimeoutError' || code === 'UND_ERR_HEADERS_TIMEOUT' || code === 'UND_ERR_BODY_TIMEOUT') return 'timeout'
  const wasConnected =
    name === 'AbortError' || name === 'HTTPParserError' || /^UND_ERR_|^(?:ECONNRESET|EPIPE)$/.test(String(code))
  return wasConnected ? 'broken' : 'unreachable'
}
