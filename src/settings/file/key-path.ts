import { isMapping } from './json-schema.ts'

/** The way to a value of the config file: keys of mappings, indexes of lists. */
export type KeyPath = ReadonlyArray<string | number>

/** A key path as people write it: `prices["sora-2*"].credits`, `issuers[0].plan`. */
export function pathText (path: KeyPath): string {
  return path.map((key, index) => {
    if (typeof key === 'number') return `[${key}]`
    if (!/^[A-Za-z_][\w-]*$/.test(key)) return `[${JSON.stringify(key)}]`
    return index === 0 ? key : `.${key}`
  }).join('')
}

/** One value of the file, as small as people name them: a list of plain values and an empty mapping are values too. */
export interface Leaf {
  readonly path: KeyPath
  readonly value: unknown
}

export function leaves (value: unknown, path: KeyPath = []): readonly Leaf[] {
  const entries = entriesOf(value)
  return entries.length === 0 ? [{ path, value }] : entries.flatMap(([key, item]) => leaves(item, [...path, key]))
}

function entriesOf (value: unknown): ReadonlyArray<readonly [string | number, unknown]> {
  if (isMapping(value)) return Object.entries(value)
  return Array.isArray(value) && value.some(isMapping) ? [...value.entries()] : []
}
