import { recent } from './recent.ts'

/** How long a call is remembered whose outcome was told as unknown, ms. */
export const unknownMs = 30_000
/** Calls that one process remembers at a time. */
const maxUnknown = 10_000

/**
 * The calls without a task whose outcome was told as unknown, for `unknownMs`: a client that sends one again is told
 * the same, and buys nothing. They are known by the fingerprint of their subject and body; nothing of their content is
 * kept. Both reject with `GW_STORE_DOWN` while the store is away.
 */
export interface UnknownCalls {
  remember (subject: string, fingerprint: string): Promise<void>
  has (subject: string, fingerprint: string): Promise<boolean>
}

/** Those of one process, which are gone when it ends: it answers at once. */
export function localUnknownCalls (elapsed: () => number) {
  const until = recent<number>(maxUnknown)
  return {
    remember (fingerprint: string): void { until.set(fingerprint, elapsed() + unknownMs) },
    has: (fingerprint: string): boolean => (until.get(fingerprint) ?? -Infinity) > elapsed()
  }
}
