import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js'
import type { Answer, Operation, ReferenceDocument } from '../../bin/reference/document.ts'

/** What was answered to a call. */
export interface SeenAnswer {
  readonly method: string
  /** Without the query. */
  readonly path: string
  readonly status: number
  readonly headers: Headers
  readonly text: string
}

/** Holds real answers to the document. */
export interface ReferenceCheck {
  /** What is wrong with an answer; empty: it is as the document says. */
  faultsOf (answer: SeenAnswer): readonly string[]
  /** `POST /gateway/sessions`: of which no answer has been seen that is none of the gateway's own errors. */
  unseen (): readonly string[]
}

interface Place { readonly name: string, readonly pattern: RegExp, readonly operation: Operation }

export function referenceCheck (document: ReferenceDocument): ReferenceCheck {
  const { paths, components } = document
  const ajv = new Ajv2020({ strict: false, validateFormats: false, allErrors: true })
  ajv.addSchema({ $id: 'reference', components: { ...components, schemas: closed(components.schemas) } })
  const compiled = new Map<string, ValidateFunction>()
  const checkOf = (schema: object): ValidateFunction => {
    const text = JSON.stringify(schema).replaceAll('"#/', '"reference#/')
    const check = compiled.get(text) ?? ajv.compile(JSON.parse(text))
    compiled.set(text, check)
    return check
  }
  const places = Object.entries(paths).flatMap(([path, item]) =>
    Object.entries(item).map(([method, operation]): Place => ({
      name: `${method.toUpperCase()} ${path}`,
      operation,
      pattern: new RegExp(`^${method.toUpperCase()} ${path.replaceAll(/\{\w+\}/g, '[^/]+')}$`)
    })))
    // What is written out goes before what is a parameter.
    .sort((one, other) => one.name.split('{').length - other.name.split('{').length)
  const unseen = new Set(places.map(({ name }) => name))

  const faultsIn = ({ status, headers, text }: SeenAnswer, operation: Operation): string[] => {
    const said = operation.responses[status] ?? operation.responses['default']
    if (said === undefined) return [`${status} is not documented: ${text}`]
    const answer = '$ref' in said ? components.responses[said.$ref.split('/').at(-1)!]! : said
    return [...errorFaults(headers, operation), ...headerFaults(headers, answer, Object.keys(components.headers)),
      ...bodyFaults(headers, text, answer, checkOf)]
  }

  return {
    faultsOf (seen) {
      const place = places.find(({ pattern }) => pattern.test(`${seen.method} ${seen.path}`))
      if (place === undefined) return [`${seen.method} ${seen.path} is not documented`]
      if (seen.headers.get('x-gateway-error') === null) unseen.delete(place.name)
      return faultsIn(seen, place.operation).map(fault => `${place.name} ${seen.status}: ${fault}`)
    },
    unseen: () => [...unseen]
  }
}

function errorFaults (headers: Headers, { 'x-gateway-errors': codes }: Operation): string[] {
  const code = headers.get('x-gateway-error')
  return code === null || codes.some(one => one === code) ? [] : [`the error ${code} is not documented`]
}

/** `retry-after` and its like may be missing; what is there has to be known. */
function headerFaults (headers: Headers, { headers: known = {} }: Answer, all: readonly string[]): string[] {
  return all.filter(name => headers.has(name) && known[name] === undefined).map(name => `the header ${name} is not documented`)
}

function bodyFaults (
  headers: Headers, text: string, { content = {} }: Answer, checkOf: (schema: object) => ValidateFunction
): string[] {
  const type = headers.get('content-type')?.split(';', 1)[0]
  if (text === '' || type === undefined) return Object.keys(content).length > 0 && text === '' ? ['there is no body'] : []
  const body = content[type] ?? content['application/octet-stream']
  if (body === undefined) return [`a body of ${type} is not documented`]
  if (type !== 'application/json' || body !== content[type]) return []
  const check = checkOf(body.schema)
  return check(JSON.parse(text)) ? [] : (check.errors ?? []).map(error => JSON.stringify(error))
}

/** An answer has what its schema says and nothing else, where the schema does not say that there may be more. */
function closed<Schema> (schema: Schema): Schema {
  if (Array.isArray(schema)) return schema.map(closed) as Schema
  if (typeof schema !== 'object' || schema === null) return schema
  const inner = Object.fromEntries(Object.entries(schema).map(([name, value]) => [name, closed(value)]))
  return { ...'properties' in schema && { additionalProperties: false }, ...inner } as Schema
}
