/**
 * On every answer: none is stored by a cache that others share, none is sniffed into a page, framed or run. A page of
 * the gateway's own replaces what it must.
 */
export const secureHeaders = {
  'cache-control': 'no-store',
  'content-security-policy': "default-src 'none'; sandbox",
  'x-content-type-options': 'nosniff'
} as const

/** Read by pages of other origins. */
export const exposedHeaders = [
  'x-gateway-error', 'x-request-id', 'ratelimit-limit', 'ratelimit-remaining', 'ratelimit-reset', 'retry-after',
  'idempotency-replayed', 'content-range'
] as const
