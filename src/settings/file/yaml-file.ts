import { isAlias, isMap, isSeq, LineCounter, parseDocument, type Document, type Node } from 'yaml'
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
}

/** Parses YAML 1.2, strictly. No fault quotes the text: it may turn out to be the wrong file. */
export function parseYaml (text: string): YamlFile {
  const lines = new LineCounter()
  const document = parseDocument(text, { version: '1.2', prettyErrors: false, stringKeys: true, lineCounter: lines })
  const faults = [...document.errors, ...document.warnings]
  if (faults.length > 0) {
    return unreadable(faults.map(({ message, pos }) =>
      ({ problem: withoutExcerpt(message), line: lines.linePos(pos[0]).line })))
  }
  try {
    return { value: document.toJS() ?? {}, faults: [], lineOf: path => lineOf(document, path, lines) }
  } catch {
    return unreadable([{ problem: 'an alias has no anchor, or there are too many aliases', line: undefined }])
  }
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
