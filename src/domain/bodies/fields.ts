import { badRequest } from '../../errors.ts'
import { fold, quoted } from './json.ts'

/**
 * The value at a dotted path such as `input.duration`; `undefined` when there is none. A name that only folds to one of
 * the path's is a `GW_BAD_REQUEST`: an upstream that does not mind case would read `Duration`, and no rule would hold it.
 */
export function fieldAt (body: object, path: string): unknown {
  let value: unknown = body
  for (const name of path.split('.')) {
    if (typeof value !== 'object' || value === null) return undefined
    if (!Object.hasOwn(value, name)) {
      refuseLookAlike(value, name, path)
      return undefined
    }
    value = (value as Record<string, unknown>)[name]
  }
  return value
}

function refuseLookAlike (value: object, name: string, path: string): void {
  if (Array.isArray(value)) return
  const alike = namesIn(value).get(fold(name))
  if (alike !== undefined) throw badRequest(`Write ${quoted(name)} of ${path} and not ${quoted(alike)}.`)
}

/** The names of each object that was asked about, by how they fold: fifteen caps and 49,000 names took 0.7 s without. */
const foldedNames = new WeakMap<object, ReadonlyMap<string, string>>()

function namesIn (value: object): ReadonlyMap<string, string> {
  let names = foldedNames.get(value)
  if (names === undefined) {
    names = new Map(Object.keys(value).map(name => [fold(name), name]))
    foldedNames.set(value, names)
  }
  return names
}

/**
 * A number that money or a bound depends on: a plain JSON number within 2^53, so that it means the same to every reader.
 * A text that looks like one, `1e309` or null is a `GW_BAD_REQUEST`.
 */
export function numberAt (body: object, path: string): number | undefined {
  const value = fieldAt(body, path)
  if (value === undefined) return undefined
  if (typeof value !== 'number' || !Number.isFinite(value) || Math.abs(value) > Number.MAX_SAFE_INTEGER) {
    throw badRequest(`${path} must be a plain number.`)
  }
  return value
}
