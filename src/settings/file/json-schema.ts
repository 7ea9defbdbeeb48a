import { gatewayFile } from './schema.ts'

/** The keywords that our schema uses, as far as this program reads them. */
export interface JsonSchema {
  readonly type?: string
  readonly title?: string
  readonly description?: string
  readonly default?: unknown
  readonly required?: readonly string[]
  readonly properties?: Readonly<Record<string, JsonSchema>>
  readonly patternProperties?: Readonly<Record<string, JsonSchema>>
  readonly items?: JsonSchema
  readonly anyOf?: readonly JsonSchema[]
}

/** The JSON Schema of the config file as an operator writes it: whatever has a default may be missing. */
export function gatewayFileSchema (): JsonSchema {
  const schema = JSON.parse(JSON.stringify(gatewayFile), (_key, node) => {
    if (!Array.isArray(node?.required)) return node
    const { required, ...rest } = node
    const needed = required.filter((name: string) => !('default' in node.properties[name]))
    return needed.length > 0 ? { ...rest, required: needed } : rest
  })
  return { $schema: 'http://json-schema.org/draft-07/schema#', ...schema }
}

/** The text of config/gateway.schema.json, for editors. */
export function gatewayFileSchemaText (): string {
  return `${JSON.stringify(gatewayFileSchema(), null, 2)}\n`
}

/** The schema of a key: a known one, or, where names are free, any whose pattern matches. */
export function schemaOfKey (schema: JsonSchema, key: string): JsonSchema | undefined {
  const { properties = {}, patternProperties = {} } = schema
  if (Object.hasOwn(properties, key)) return properties[key]
  return Object.entries(patternProperties).find(([pattern]) => new RegExp(pattern).test(key))?.[1]
}

export type Mapping = Readonly<Record<string, unknown>>

export function isMapping (value: unknown): value is Mapping {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
