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
