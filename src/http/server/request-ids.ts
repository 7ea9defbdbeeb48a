import { randomBytes } from 'node:crypto'

/**
 * Ids that no two requests share, across replicas and restarts: a random part drawn once, and a counter. The caller's
 * own `x-request-id` is not taken over: it would let a caller write into the operator's log.
 */
export function requestIds (): () => string {
  const prefix = randomBytes(6).toString('base64url')
  let count = 0
  return () => `${prefix}-${(++count).toString(36)}`
}
