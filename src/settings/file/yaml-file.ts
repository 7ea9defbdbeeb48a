import { isAlias, isMap, isSeq, LineCounter, parseDocument, visit, type Document, type Node, type YAMLError } from 'yaml'
import { shown } from '../settings-error.ts'
import type { KeyPath } from './key-path.ts'

export interface YamlFile {
  /** Plain data; an empty file is an empty mapping. */
  readonly value: unknown
  /** What keeps the text from being read at all; then `value` is empty. */
  readonly faults: readonly YamlFault[]
  /** The line of a key, or of the nearest one above it that is there. */
  readonly lineOf: (path: KeyPath) => number | undefined
}

export interface YamlFault {
  readonly problem: string
  readonly line: number | undefined
  /** Ends the sentence that begins with "expected"; `undefined`: the reader of the file knows better. */
  readonly expected: string | undefined
}

/**
 * Parses YAML 1.2, strictly. No fault quotes the text, since it may turn out to be the wrong file; but for a key that
 * stands there twice, which nobody finds without its name.
 */
export function parseYaml (text: string): YamlFile {
  const lines = new LineCounter()
  const document = parseDocument(text, { version: '1.2', prettyErrors: false, stringKeys: true, lineCounter: lines })
  const faults = [...document.errors, ...document.warnings]
  if (faults.length > 0) {
    return unreadable(faults.map(fault => faultOf(fault, document, lines)))
  }
  try {
    return { value: document.toJS() ?? {}, faults: [], lineOf: path => lineOf(document, path, lines) }
  } catch {
    return unreadable([{ problem: 'an alias has no anchor, or there are too many aliases', line: undefined, expected: undefined }])
  }
}

function faultOf ({ code, message, pos: [offset] }: YAMLError, document: Document, lines: LineCounter): YamlFault {
  const { line } = lines.linePos(offset)
  const twins = code === 'DUPLICATE_KEY' ? twinsAt(document, offset) : null
  if (twins === null) return { problem: withoutExcerpt(message), line, expected: undefined }
  const { key, firstOffset } = twins
  const firstLine = lines.linePos(firstOffset).line
  const places = firstLine === line ? `in line ${line}` : `in line ${firstLine} and in line ${line}`
  return { problem: `${shown(key)} stands there twice, ${places}`, line, expected: 'each key once: merge the second into the first' }
}

/** The key that stands at this offset, and where it stood before in the same mapping. */
function twinsAt (document: Document, offset: number): { readonly key: string, readonly firstOffset: number } | null {
  let twins: ReturnType<typeof twinsAt> = null
  visit(document, {
    Map (_, { items }) {
      const keys = (items as Array<{ readonly key: Node }>).map(({ key }) => ({ key: String(key), offset: key.range![0] }))
      const second = keys.find(key => key.offset === offset)
      if (second === undefined) return undefined
      twins = { key: second.key, firstOffset: keys.find(({ key }) => key === second.key)!.offset }
      return visit.BREAK
    }
  })
  return twins
}

function unreadable (faults: readonly YamlFault[]): YamlFile {
  return { value: {}, faults, lineOf: () => undefined }
}

/** The library quotes what it has found after a colon and after a few words; what is left says enough. */
function withoutExcerpt (message: string): string {
  return message.replace(/(?:(?<=Unknown directive|escape sequence) |: ).*$/s, '')
}

function lineOf (document: Document, path: KeyPath, lines: LineCounter): number | undefined {
  let node = document.contents as Node | undefined
  let offset: number | undefined
  for (const key of path) {
    const parent = isAlias(node) ? node.resolve(document) : node
    const pair = isMap<Node, Node>(parent) ? parent.items.find(pair => String(pair.key) === key) : undefined
    const place = isSeq<Node>(parent) ? parent.items[Number(key)] : pair?.key
    if (place === undefined) break
    offset = place.range![0]
    node = pair?.value ?? place
  }
  return offset === undefined ? undefined : lines.linePos(offset).line
}
