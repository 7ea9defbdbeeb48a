import { endOfString, nameAt } from './json.ts'

/** A member for a JSON object. */
export interface Member {
  /** The names of the objects around it, and its own as the last. */
  readonly names: readonly string[]
  readonly value: string | number | boolean
}

/**
 * Puts members into the text of a JSON object that `readJson` has let pass, each as the first of its own object, which
 * must be there. Every other character stays as it is and where it is. `within` are the names on the way to the object
 * that the members' own names count from.
 */
export function insertMembers (text: string, members: readonly Member[], within: readonly string[] = []): string {
  return members.reduce((text, { names, value }) => {
    const around = [...within, ...names.slice(0, -1)]
    const start = around.reduce((open, name) => objectAt(text, open, name), text.indexOf('{')) + 1
    const rest = text.slice(start)
    const comma = /^\s*\}/.test(rest) ? '' : ','
    return `${text.slice(0, start)}${JSON.stringify(names.at(-1))}:${JSON.stringify(value)}${comma}${rest}`
  }, text)
}

/** Where the object under this name begins, in the object that begins at `open`. */
function objectAt (text: string, open: number, name: string): number {
  let depth = 0
  let expectsName = false
  for (let at = open; at < text.length; at++) {
    switch (text.charAt(at)) {
      case '"': {
        const end = endOfString(text, at)
        if (expectsName && nameAt(text, at, end) === name) return text.indexOf('{', end)
        expectsName = false
        at = end
        break
      }
      case '{':
      case '[':
        expectsName = ++depth === 1
        break
      case '}':
      case ']':
        depth--
        break
      case ',':
        expectsName = depth === 1
        break
      default:
    }
  }
  /* c8 ignore next: whoever asks has seen it there */
  throw new Error('there is no such object')
}
