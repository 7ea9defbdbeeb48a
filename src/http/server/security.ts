/**
 * On every answer: none is stored by a cache that others share, none is sniffed into a page, framed or run. A page of
 * the gateway's own replaces what it must.
 */
export const secureHeaders = {
  'cache-control': 'no-store',
  'content-security-policy': "default-src 'none'; sandbox",
  'x-content-type-options': 'nosniff'
} as const

/** What is left of a subject's budget: draft-ietf-httpapi-ratelimit-headers-03. */
export const budgetHeaders = ['ratelimit-limit', 'ratelimit-remaining', 'ratelimit-reset'] as const

/** Read by pages of other origins; to a script a header that is not among them is not there. */
export const exposedHeaders = [
  'x-gateway-error', 'x-request-id', 'request-id', ...budgetHeaders, 'retry-after', 'x-should-retry', 'etag', 'allow',
  'content-disposition', 'idempotency-replayed', 'content-range'
] as const

/** CORS as @fastify/cors writes it, for what never gets to it. */
export function corsHeaders (origin: string | undefined, allowed: ReadonlySet<string>): Record<string, string> {
  if (origin === undefined || !allowed.has(origin)) return { vary: 'Origin' }
  return { vary: 'Origin', 'access-control-allow-origin': origin, 'access-control-expose-headers': exposedHeaders.join(', ') }
}
