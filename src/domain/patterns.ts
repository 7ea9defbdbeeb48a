import { RE2JS } from 're2js'

/** Longer texts are not looked into, and refused: as long as any prompt may be. */
export const maxPatternText = 20_000
/** Steps of a compiled pattern: each of them may be taken for each character. */
const maxPatternSize = 1000

/**
 * A regular expression in the syntax of RE2, which takes time in proportion to the text whatever is in either: no
 * prompt can be written that holds up the gateway. It matches anywhere in the text, unless it says `^` or `$`.
 *
 * Throws a `RangeError` that says what is wrong with it: lookarounds and references to groups are no part of RE2.
 */
export function textPattern (source: string): (text: string) => boolean {
  let pattern: RE2JS
  try {
    pattern = RE2JS.compile(source)
  } catch (error) {
    throw new RangeError((error as Error).message.replace(/^error parsing regexp: /, ''))
  }
  if (pattern.programSize() > maxPatternSize) throw new RangeError('it is too large')
  return text => pattern.test(text)
}
