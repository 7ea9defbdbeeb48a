/** The last instant that a `Date` knows, Unix ms. */
export const endOfTime = 8.64e15

/** Unix milliseconds as people and JSON have them: ISO 8601, UTC. */
export function instant (ms: number): string {
  return new Date(ms).toISOString()
}
