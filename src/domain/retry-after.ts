/** How long a `retry-after` asks to wait, ms: seconds, or a date (RFC 9110 section 10.2.3). `null` when it is neither. */
export function retryAfterMs (text: string, now: number): number | null {
  if (/^\d{1,9}$/.test(text)) return Number(text) * 1000
  const date = /^[A-Z][a-z]{2}, [\w :]+ GMT$/.test(text) ? Date.parse(text) : NaN
  return Number.isNaN(date) ? null : Math.max(0, date - now)
}
