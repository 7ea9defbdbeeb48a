import { isUtf8 } from 'node:buffer'
import { badRequest } from '../errors.ts'

/**
 * A JSON object as it was sent: its parsed form to decide by, and the untouched text of each top-level value to send
 * on.
 */
interface JsonDocument {
  readonly value: Readonly<Record<string, unknown>>
  /** Top-level name → its value's own text, so that a 64-bit integer leaves as it came. */
  readonly texts: ReadonlyMap<string, string>
}

/** Deeper than any documented input, and shallow enough that a recursive walk is safe. */
export const maxDepth = 64
/** Names in one document, all levels together; as many objects and arrays. */
export const maxNames = 50_000
/**
 * Characters of all names together: folding makes up to eighteen of one, and fifteen megabytes of them took seconds.
 */
const maxNameCharacters = 500_000
/** Characters of one name: combining marks are put in order when it is folded, and 320,000 of them took 90 s. */
const maxNameLength = 256
/** Of each character, written as an escape. */
const escapeLength = '\\u0301'.length

const quote = 0x22
const backslash = 0x5c
const comma = 0x2c
const colon = 0x3a
const openBrace = 0x7b
const closeBrace = 0x7d
const openBracket = 0x5b
const closeBracket = 0x5d

/** An open `{` or `[`: `names` is null in an array. */
interface Level { readonly names: Set<string> | null, name: string }

/**
 * Reads a request body so strictly that no reader can take it for something else: one JSON object in UTF-8 without a
 * name given twice, two names alike but for case, `__proto__`, or depths that break a parser. Two parsers that disagree
 * on such a document are how a forbidden field passes a check (RFC 8259 section 4 leaves duplicate names open). Throws
 * `GW_BAD_REQUEST`, which names what to change.
 */
export function readJson (bytes: Buffer): JsonDocument {
  if (!isUtf8(bytes)) {
    throw badRequest(startsInUtf16(bytes) ? 'The body is in UTF-16: send UTF-8.' : 'The body is not valid UTF-8.')
  }
  const text = bytes.toString('utf8')
  if (text.startsWith('\uFEFF')) throw badRequest('The body begins with a byte order mark (BOM): send it without.')
  const texts = scan(text)
  const value = parse(text)
  if (!isObject(value)) throw badRequest('The body must be a JSON object.')
  return { value, texts }
}

/** By its byte order mark, as Windows programs write it. */
function startsInUtf16 ([first, second]: Buffer): boolean {
  return (first === 0xff && second === 0xfe) || (first === 0xfe && second === 0xff)
}

/**
 * Two names that fold alike may be one name to somebody: a case-blind parser, or one that knows Unicode (`ſ` is an s).
 */
export function fold (name: string): string {
  if (/^[\x20-\x40\x5b-\x7e]*$/.test(name)) return name // nearly all of them
  if (/^[\x20-\x7e]*$/.test(name)) return name.toLowerCase()
  return name.normalize('NFKC').toUpperCase().toLowerCase()
}

/**
 * Text that may be stored, logged and shown, as a pattern of schemas: no control character, and no half of a surrogate
 * pair. A store writes every such half down as the same sign, and two subjects would be one.
 */
export const printable = '^[^\\p{Cc}\\p{Cs}]+$'
const printablePattern = new RegExp(printable, 'u')

export function isPrintable (text: string): boolean {
  return printablePattern.test(text)
}

/** The value of a text that somebody else has written; `undefined`: it is no JSON. */
export function jsonValue (text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** Whether a value that JSON gave is an object, and no array. */
export function isObject (value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** A caller's own word in a message: quoted and cut, so that it can't pass for ours. */
export function quoted (word: string): string {
  return JSON.stringify(word.length > 64 ? `${word.slice(0, 64)}…` : word)
}

/** The own text of each element of an array: part of a text that `readJson` has let pass. */
export function elementTexts (array: string): string[] {
  const texts: string[] = []
  let depth = 0
  let start = 1
  const endElement = (end: number) => {
    texts.push(array.slice(start, end).trim())
    start = end + 1
  }
  for (let at = 0; at < array.length; at++) {
    switch (array.charCodeAt(at)) {
      case quote:
        at = endOfString(array, at)
        break
      case openBrace:
      case openBracket:
        depth++
        break
      case closeBrace:
      case closeBracket:
        if (--depth === 0) endElement(at)
        break
      case comma:
        if (depth === 1) endElement(at)
        break
      default:
    }
  }
  return texts
}

function parse (text: string): unknown {
  const value = jsonValue(text)
  if (value === undefined) throw badRequest('The body is not valid JSON.')
  return value
}

/**
 * One pass over the text for what `JSON.parse` does not tell. It takes the grammar on trust: a text it misreads is not
 * JSON, and the parser that runs next refuses it. Strings are crossed by `indexOf`, so megabytes of base64 cost little.
 */
function scan (text: string): Map<string, string> {
  const texts = new Map<string, string>()
  const levels: Level[] = []
  let level: Level | undefined
  let expectsName = false
  let count = 0
  let characters = 0
  let containers = 0
  let valueAt = 0
  const endValue = (end: number) => {
    if (levels.length !== 1 || level!.names === null || level!.name === '') return
    texts.set(level!.name, text.slice(valueAt, end).trim())
    // Once for each name: where commas follow without one, each of them would read the same text again.
    level!.name = ''
  }
  for (let at = 0; at < text.length; at++) {
    switch (text.charCodeAt(at)) {
      case quote: {
        const end = endOfString(text, at)
        if (expectsName) {
          if (++count > maxNames) throw badRequest(`The body has more than ${maxNames} names.`)
          if ((characters += end - at) > maxNameCharacters) {
            throw badRequest(`The names in the body have more than ${maxNameCharacters} characters.`)
          }
          takeName(level!, nameAt(text, at, end), levels.at(-2))
          expectsName = false
        }
        at = end
        break
      }
      case colon:
        if (levels.length === 1) valueAt = at + 1
        break
      case openBrace:
      case openBracket:
        if (levels.length === maxDepth) throw badRequest(`The body is nested more than ${maxDepth} levels deep.`)
        if (++containers > maxNames) throw badRequest(`The body has more than ${maxNames} objects and arrays.`)
        expectsName = text.charCodeAt(at) === openBrace
        level = { names: expectsName ? new Set() : null, name: '' }
        levels.push(level)
        break
      case closeBrace:
      case closeBracket:
        endValue(at)
        levels.pop()
        level = levels.at(-1)
        expectsName = false
        break
      case comma:
        endValue(at)
        expectsName = level !== undefined && level.names !== null
        break
      default:
    }
  }
  return texts
}

/** Where the string that begins here ends: at its closing quote. */
export function endOfString (text: string, start: number): number {
  for (let end = text.indexOf('"', start + 1); end !== -1; end = text.indexOf('"', end + 1)) {
    let escapes = 0
    while (text.charCodeAt(end - 1 - escapes) === backslash) escapes++
    if (escapes % 2 === 0) return end
  }
  return text.length
}

/** The name between these quotes. */
export function nameAt (text: string, start: number, end: number): string {
  if (end - start - 1 > maxNameLength * escapeLength) throw longName()
  const raw = text.slice(start + 1, end)
  const name = raw.includes('\\') ? String(parse(`"${raw}"`)) : raw
  if (name.length > maxNameLength) throw longName()
  return name
}

function longName () {
  return badRequest(`A name in the body has more than ${maxNameLength} characters.`)
}

function takeName (level: Level, name: string, parent: Level | undefined): void {
  if (name === '') throw badRequest('A name in the body is empty.')
  // What these two do to an object that is merged or copied later: CWE-1321.
  if (name === '__proto__' || (name === 'prototype' && parent?.name === 'constructor')) {
    throw badRequest(`The name ${quoted(name)} is not accepted.`)
  }
  const folded = fold(name)
  if (level.names!.has(folded)) {
    throw badRequest(`The name ${quoted(name)} is given twice, or differs from another only in case.`)
  }
  level.names!.add(folded)
  level.name = name
}

/** A member for a JSON object. */
export interface Member {
  /** The names of the objects around it, and its own as the last. */
  readonly names: readonly string[]
  readonly value: string | number | boolean | Readonly<Record<string, number | boolean>>
}

/**
 * Puts members into the text of a JSON object that `readJson` has let pass, each as the first of its own object, which
 * must be there. Every other character stays as it is and where it is. `within` are the names on the way to the object
 * that the members' own names count from.
 */
export function insertMembers (text: string, members: readonly Member[], within: readonly string[] = []): string {
  // Those of one object go there together: to find it in fifteen megabytes takes a tenth of a second.
  const byObject = Map.groupBy(members, ({ names }) => JSON.stringify(names.slice(0, -1)))
  const insertions = [...byObject.values()].map(its => {
    const around = [...within, ...its[0]!.names.slice(0, -1)]
    const start = around.reduce((open, name) => objectAt(text, open, name), text.indexOf('{')) + 1
    const texts = its.map(({ names, value }) => `${JSON.stringify(names.at(-1))}:${JSON.stringify(value)}`)
    const isEmpty = /^\s*\}/.test(text.slice(start))
    return { start, inserted: texts.reverse().join(',') + (isEmpty ? '' : ',') }
  })
  let result = ''
  let end = 0
  for (const { start, inserted } of insertions.sort((one, other) => one.start - other.start)) {
    result += text.slice(end, start) + inserted
    end = start
  }
  return result + text.slice(end)
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
