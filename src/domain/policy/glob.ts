/**
 * Compiles globs in which `*` is the only wildcard. Empty means none: nothing matches.
 * `ignoreCase` is for rules that cost money (prices, caps): `Sora-2` must not slip past a rule for `sora-2`.
 */
export function globs (patterns: readonly string[], { ignoreCase = false } = {}): (name: string) => boolean {
  const plain = (text: string) => ignoreCase ? text.toLowerCase() : text
  const parts = patterns.map(pattern => plain(pattern).split('*'))
  return name => parts.some(pieces => matches(plain(name), pieces))
}

/**
 * Whether a name is made of these pieces with anything between them. Taking each piece at its first place is enough,
 * and linear: as a regular expression, a pattern of many stars would run for minutes.
 */
function matches (name: string, pieces: readonly string[]): boolean {
  const [first, last] = [pieces[0]!, pieces.at(-1)!]
  if (pieces.length === 1) return name === first
  const end = name.length - last.length
  if (!name.startsWith(first) || !name.endsWith(last)) return false
  let at = first.length
  for (const piece of pieces.slice(1, -1)) {
    const found = name.indexOf(piece, at)
    if (found === -1) return false
    at = found + piece.length
  }
  return at <= end
}
