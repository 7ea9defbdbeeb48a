/**
 * The longest wait that a `retry-after` of ours asks for, seconds: clients read 60 and more in opposite ways, as "at once
 * again" or as minutes of silence.
 */
export const longestRetryAfter = 59

/** A wait as a `retry-after` of ours, whole seconds from 1 to 59. Never 0, at which SDKs burn all their tries at once. */
export function retryAfterSeconds (waitMs: number): number {
  return Math.min(longestRetryAfter, Math.max(1, Math.ceil(waitMs / 1000)))
}

/** How long a `retry-after` asks to wait, ms: seconds, or a date (RFC 9110 section 10.2.3). `null` when it is neither. */
export function retryAfterMs (text: string, now: number): number | null {
  if (/^\d{1,9}$/.test(text)) return Number(text) * 1000
  const date = /^[A-Z][a-z]{2}, [\w :]+ GMT$/.test(text) ? Date.parse(text) : NaN
  return Number.isNaN(date) ? null : Math.max(0, date - now)
}
