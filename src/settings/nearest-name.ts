import { distance } from 'fastest-levenshtein'

/**
 * The known name that is nearest to a misspelt one, by the part of its letters that it shares. The prefix does not
 * count, as who writes GATEWAY_API_KEY means APIXO_API_KEY.
 */
export function nearestName (name: string, known: readonly string[]): string {
  return known.reduce((nearest, other) => difference(name, other) < difference(name, nearest) ? other : nearest)
}

/** Edits per letter, 0 to 1. Edits alone would find any short name nearer than a long one with a word missing. */
function difference (one: string, other: string): number {
  const [a, b] = [bare(one), bare(other)]
  return distance(a, b) / Math.max(a.length, b.length, 1)
}

function bare (name: string): string {
  return name.replace(/^(?:GATEWAY|APIXO)_/, '')
}
