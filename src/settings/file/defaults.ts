import { isMapping, schemaOfKey, type JsonSchema } from './json-schema.ts'

/**
 * Fills in the defaults of a schema, in the schema's order of keys. Nothing of `value` is changed.
 * (`Value.Default` of `typebox/value` would do the same, and cost every start 40 ms of import.)
 */
export function withDefaults (schema: JsonSchema, value: unknown): unknown {
  const given = value === undefined ? schema.default : value
  if (Array.isArray(given)) return Object.freeze(given.map(item => withDefaults(schema.items!, item)))
  return isMapping(given) && schema.anyOf === undefined ? mappingWithDefaults(schema, given) : Object.freeze(given)
}

function mappingWithDefaults (schema: JsonSchema, given: Readonly<Record<string, unknown>>): unknown {
  const keys = new Set([...Object.keys(schema.properties ?? {}), ...Object.keys(given)])
  const entries = [...keys].flatMap(key => {
    const value = withDefaults(schemaOfKey(schema, key)!, given[key])
    return value === undefined ? [] : [[key, value] as const]
  })
  const mapping = Object.fromEntries(entries)
  // A plan is looked up by a name that a caller may have chosen: `constructor` must find nothing.
  if (schema.patternProperties !== undefined) Object.setPrototypeOf(mapping, null)
  return Object.freeze(mapping)
}
