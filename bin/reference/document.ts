import swagger from '@fastify/swagger'
import type { FastifyInstance } from 'fastify'
import diagnostics from 'node:diagnostics_channel'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import packageFile from '../../package.json' with { type: 'json' }
import { type ErrorCode, errorTable } from '../../src/errors.ts'
import { createGateway } from '../../src/gateway.ts'
import { loadSettings } from '../../src/settings.ts'
import {
  type Credential, type DocumentedAnswer, type DocumentedOperation, eventData, everywhere, type HeaderName,
  operations, tags, unlisted
} from './operations.ts'
import { namedSchemas } from './schemas.ts'

export interface Parameter {
  readonly name: string
  readonly in: 'path' | 'query' | 'header'
  readonly required?: boolean
  readonly description?: string
  readonly schema: Readonly<Record<string, unknown>>
}

export interface Answer {
  readonly description: string
  readonly headers?: Readonly<Record<string, object>>
  readonly content?: Readonly<Record<string, { readonly schema: Readonly<Record<string, unknown>> }>>
}

export interface Operation {
  readonly operationId: string
  readonly tags: readonly string[]
  readonly summary: string
  readonly description?: string
  readonly security: ReadonlyArray<Readonly<Record<string, readonly string[]>>>
  readonly parameters?: readonly Parameter[]
  readonly requestBody?: { readonly required: boolean, readonly content: NonNullable<Answer['content']> }
  /** Refusals are references to the components. */
  readonly responses: Readonly<Record<string, Answer | { readonly $ref: string }>>
  /** Every error of the gateway's own that it may answer with. */
  readonly 'x-gateway-errors': readonly ErrorCode[]
}

/** As much of OpenAPI 3.1 as there is in it. */
export interface ReferenceDocument {
  readonly openapi: string
  readonly info: {
    readonly title: string
    readonly version: string
    readonly description: string
    readonly license: object
  }
  readonly tags: ReadonlyArray<{ readonly name: string, readonly description: string }>
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>
  readonly components: {
    readonly schemas: Readonly<Record<string, object>>
    readonly responses: Readonly<Record<string, Answer>>
    readonly headers: Readonly<Record<string, object>>
    readonly securitySchemes: Readonly<Record<string, object>>
  }
  readonly servers: readonly object[]
}

/** Refusals are alike on many routes: each is written out once. */
class SharedAnswers {
  readonly #names = new Map<string, string>()

  referenceTo (status: number, answer: Answer): { readonly $ref: string } {
    const text = JSON.stringify(answer)
    const alike = [...this.#names.values()].filter(name => name.startsWith(`Refused${status}`)).length
    const name = this.#names.get(text) ?? `Refused${status}${alike === 0 ? '' : `-${alike + 1}`}`
    this.#names.set(text, name)
    return { $ref: `#/components/responses/${name}` }
  }

  byName (): Record<string, Answer> {
    const answers = Array.from(this.#names, ([text, name]): [string, Answer] => [name, JSON.parse(text)])
    return Object.fromEntries(answers.sort(([one], [other]) => one < other ? -1 : 1))
  }
}

const settingsFile = `
plans: { default: { models: ["*"], credits: 100 }, guest: { models: ["*"], credits: 5 } }
prices: { "text-*": { inputPerMillion: 1, outputPerMillion: 1 }, "*": 1 }
batches: { enabled: true }
callbacks: { inbound: true, allowedHosts: [app.example] }
guests: { enabled: true }
`

/** The routes of a gateway with all that it has, as the plugin finds them. */
async function foundRoutes (): Promise<{ readonly paths: Readonly<Record<string, Readonly<Record<string, any>>>> }> {
  const cwd = await mkdtemp(join(tmpdir(), 'reference-'))
  await writeFile(join(cwd, 'gateway.yaml'), settingsFile)
  const settings = loadSettings({
    cwd,
    env: {
      APIXO_API_KEY: 'no-key-is-needed-here',
      GATEWAY_SESSION_SECRET: 'a-secret-that-signs-nothing-at-all-0001',
      GATEWAY_ISSUER_TOKEN: 'an-issuer-token-for-nobody-0001',
      GATEWAY_ADMIN_TOKEN: 'an-admin-token-for-nobody-0001',
      GATEWAY_PUBLIC_URL: 'https://gateway.example',
      GATEWAY_STORE: 'sqlite::memory:',
      GATEWAY_CONFIG: 'gateway.yaml',
      LOG_LEVEL: 'silent'
    }
  })
  // The plugin has to be there before the routes are; the gateway itself knows nothing of it.
  const onServer = (message: unknown): void => {
    (message as { readonly fastify: FastifyInstance }).fastify.register(swagger, {
      openapi: { openapi: '3.1.0' },
      transform: ({ schema, url, route: { config } }) => {
        const operation = config?.operation ?? 'none'
        return { url, schema: { ...schema, operationId: operation, hide: unlisted.has(operation), 'x-query': config?.query } }
      }
    })
  }
  diagnostics.subscribe('fastify.initialization', onServer)
  const gateway = await createGateway(settings).finally(() => diagnostics.unsubscribe('fastify.initialization', onServer))
  try {
    await gateway.app.ready()
    return JSON.parse(JSON.stringify(gateway.app.swagger()))
  } finally {
    await gateway.close()
    await rm(cwd, { recursive: true })
  }
}

/** All that the gateway answers: its routes, and what bin/reference/operations.ts says of them. */
export async function referenceDocument (): Promise<ReferenceDocument> {
  const { paths } = await foundRoutes()
  const shared = new SharedAnswers()
  const described = Object.entries(paths).flatMap(([path, item]) => withOperations(path, item, shared))
  return {
    openapi: '3.1.0',
    info: {
      title: packageFile.name,
      version: packageFile.version,
      description: introduction(),
      license: { name: packageFile.license, identifier: packageFile.license }
    },
    servers: [{ url: '/', description: 'This gateway.' }],
    tags: Object.entries(tags).map(([name, description]) => ({ name, description })),
    paths: Object.fromEntries(described),
    components: { schemas: namedSchemas(), responses: shared.byName(), headers, securitySchemes }
  }
}

function introduction (): string {
  const rows = errorTable.map(({ code, status }) => `| \`${code}\` | ${status} |`)
  return [
    'Keeps the APIXO API key off the client: a session takes its place. Send its token as `Authorization: Bearer`, as ' +
    '`x-api-key`, as `x-goog-api-key`, or have it in a cookie; never in the query.',
    'Every error of the gateway\'s own has its code in the header `x-gateway-error`, and in the body. An answer without ' +
    'that header is the upstream\'s own. `x-should-retry: false` means: do not send it again.',
    'Another method on a route is 405 with `allow`; what is no route, and what is off, is 404.',
    `| Code | Status |\n|---|---|\n${rows.join('\n')}`
  ].join('\n\n')
}

const geminiOperations = ['generateContent', 'streamGenerateContent'] as const

/** The two operations of Gemini are one route, whose wildcard takes slashes too. */
function withOperations (
  path: string, item: Readonly<Record<string, any>>, shared: SharedAnswers
): Array<[string, Record<string, Operation>]> {
  if (!path.endsWith('{*}')) {
    const operations = Object.entries(item)
      .map(([method, found]) => [method, operationOf(path, found, shared)] as const)
    return [[path, Object.fromEntries(operations)]]
  }
  const version = path.startsWith('/v1/') ? 'V1' : ''
  return geminiOperations.map(name => {
    const target = path.replace('{*}', `{model}:${name}`)
    const { parameters, ...found } = item.post
    const operation = operationOf(target, found, shared)
    return [target, {
      post: {
        ...operation,
        operationId: name + version,
        summary: `Gemini's ${name}`,
        parameters: [
          pathParameter('model'),
          { name: 'alt', in: 'query', schema: { enum: ['sse', 'json'] } },
          ...(operation.parameters ?? [])
        ]
      }
    }]
  })
}

function operationOf (path: string, found: any, shared: SharedAnswers): Operation {
  const { operationId } = found
  const documented = operations[operationId]
  /* c8 ignore next: the command fails when it happens */
  if (documented === undefined) throw new Error(`${path}: bin/reference/operations.ts says nothing of ${operationId}`)
  const { tag, summary, description, credential, answers, errors, passesOn, errorBody = 'Error' } = documented
  const parameters = [
    ...(found.parameters ?? []).filter((one: Parameter) => one.in === 'path').map((one: Parameter) => pathParameter(one.name)),
    ...queryOf(path, documented, found),
    ...(documented.headers ?? []).map(name => ({ name, in: 'header', ...requestHeaders[name] }) as const)
  ]
  const requestBody = bodyOf(documented, found)
  const codes = errorTable.map(({ code }) => code)
    .filter(code => [...errors, ...everywhere].includes(code) && !(isHealth(documented) && code !== 'GW_INTERNAL'))
  return {
    operationId,
    tags: [tag],
    summary,
    ...description !== undefined && { description },
    security: security[credential],
    ...parameters.length > 0 && { parameters },
    ...requestBody !== null && { requestBody },
    responses: {
      ...Object.fromEntries(Object.entries(answers).map(([status, answer]) => [status, answerOf(answer)])),
      ...refusals(codes, errorBody, passesOn === true, shared)
    },
    'x-gateway-errors': codes
  }
}

/** Nobody is throttled there, and nothing can be wrong with a request. */
function isHealth ({ tag }: DocumentedOperation): boolean {
  return tag === 'Health'
}

function pathParameter (name: string): Parameter {
  const description = pathParameters[name]
  /* c8 ignore next: the command fails when it happens */
  if (description === undefined) throw new Error(`bin/reference/document.ts says nothing of the parameter ${name}`)
  return { name, in: 'path', required: true, description, schema: { type: 'string' } }
}

/** The schema's, or the names that the route takes; the two must agree with what is said of them. */
function queryOf (path: string, { query = {}, requiredQuery = [] }: DocumentedOperation, found: any): Parameter[] {
  const bySchema = (found.parameters ?? []).filter((one: Parameter) => one.in === 'query')
  const { 'x-query': taken } = found
  /* c8 ignore next 3: the command fails when it happens */
  if (taken !== undefined && [...taken].sort().join() !== Object.keys(query).sort().join()) {
    throw new Error(`${path} takes ${taken.join()} in its query, and bin/reference/operations.ts says ${Object.keys(query)}`)
  }
  const named = Object.entries(query).map(([name, description]) => ({
    name, in: 'query' as const, ...requiredQuery.includes(name) && { required: true }, description, schema: { type: 'string' }
  }))
  return [...bySchema, ...named]
}

function bodyOf ({ body, bodyIsOptional = false }: DocumentedOperation, found: any): NonNullable<Operation['requestBody']> | null {
  if (body !== undefined) {
    return { required: !bodyIsOptional, content: { 'application/json': { schema: reference(body) } } }
  }
  const schema = found.requestBody?.content['application/json'].schema
  // What takes no body has an object without properties.
  if (schema?.properties === undefined) return null
  const { nullable, ...plain } = schema
  return { required: !bodyIsOptional, content: { 'application/json': { schema: plain } } }
}

function reference (name: string): { readonly $ref: string } {
  return { $ref: `#/components/schemas/${name}` }
}

function headersOf (names: readonly HeaderName[]): Record<string, object> {
  return Object.fromEntries(['x-request-id', ...names].map(name => [name, { $ref: `#/components/headers/${name}` }]))
}

function answerOf ({ description, schema, types = [], headers = [], events = [] }: DocumentedAnswer): Answer {
  // OpenAPI has a word for events from 3.2 on, which few programs read yet.
  const told = Object.fromEntries(events.map(name => [name, reference(eventData[name])]))
  const content = {
    ...schema !== undefined && { 'application/json': { schema: reference(schema) } },
    ...Object.fromEntries(types.map(type =>
      [type, { schema: { type: type === 'application/json' ? 'object' : 'string', ...events.length > 0 && { 'x-events': told } } }]))
  }
  return { description, headers: headersOf(headers), ...Object.keys(content).length > 0 && { content } }
}

/** Of the gateway's own errors one answer for each status. `passesOn`: any other answer is the upstream's. */
function refusals (
  codes: readonly ErrorCode[], errorBody: string, passesOn: boolean, shared: SharedAnswers
): Operation['responses'] {
  const isOurs = errorBody === 'Error'
  const byStatus = Map.groupBy(errorTable.filter(({ code }) => codes.includes(code)), ({ status }) => status)
  const rows = Array.from(byStatus, ([status, list]): [string, { readonly $ref: string }] => {
    const names: HeaderName[] = ['x-should-retry', ...isOurs ? [] : ['request-id'] as const]
    if (status === 401) names.push('www-authenticate')
    if (status === 429 || status === 503) names.push('retry-after')
    const own = list.map(({ code }) => code)
    return [String(status), shared.referenceTo(status, {
      description: own.map(code => `\`${code}\``).join(', ') + (passesOn ? ', or the upstream\'s own' : ''),
      headers: {
        ...headersOf(names),
        'x-gateway-error': { schema: { enum: own }, description: 'Not on an answer of the upstream\'s own.' }
      },
      content: {
        'application/json': {
          schema: passesOn ? { anyOf: [reference(errorBody), reference('VendorBody')] } : reference(errorBody)
        }
      }
    })]
  })
  return { ...Object.fromEntries(rows), ...passesOn && { default: passedOn(isOurs ? ['retry-after'] : ['retry-after', 'request-id']) } }
}

function passedOn (headers: readonly HeaderName[]): Answer {
  return {
    description: 'The upstream\'s own answer.',
    headers: headersOf(headers),
    content: { 'application/json': { schema: reference('VendorBody') } }
  }
}

const pathParameters: Readonly<Record<string, string>> = {
  model: 'The name of a model.',
  taskId: 'The task\'s id; somebody else\'s is as one that does not exist.',
  batchId: 'The batch\'s id.',
  index: 'Of the result, from 0.',
  ticket: 'From a link to a result.',
  secret: 'From the address that the upstream was given.',
  id: 'As the list has it.'
}

const requestHeaders: Readonly<Record<NonNullable<DocumentedOperation['headers']>[number], Omit<Parameter, 'name' | 'in'>>> = {
  'Idempotency-Key': {
    description: 'The same request with the same key is made once, and answered again; another one is 422.',
    schema: { type: 'string', minLength: 1, maxLength: 255 }
  },
  'Last-Event-ID': { description: 'The last event that was read.', schema: { type: 'string' } },
  Range: { description: 'One range of bytes.', schema: { type: 'string', examples: ['bytes=0-1023'] } },
  'x-apixo-proof': { description: 'From guests alone, where one is asked for.', schema: { type: 'string' } },
  'anthropic-version': { description: '`2023-06-01` when absent.', schema: { type: 'string' } },
  'anthropic-beta': { description: 'Names with commas between them.', schema: { type: 'string' } }
}

const integer = { type: 'integer', minimum: 0 }
const text = { type: 'string' }

const headers: Readonly<Record<Exclude<HeaderName, 'x-gateway-error'> | 'x-request-id', object>> = {
  'x-request-id': { description: 'As in the operator\'s log.', schema: text },
  'request-id': { description: 'The same, where stock SDKs look for it.', schema: text },
  'ratelimit-limit': { description: 'Requests in a window.', schema: integer },
  'ratelimit-remaining': { description: 'How many are left in it.', schema: integer },
  'ratelimit-reset': { description: 'Seconds to its end.', schema: integer },
  'retry-after': { description: 'Seconds, from 1 to 60. A longer wait stands in the body.', schema: { type: 'integer', minimum: 1 } },
  'x-should-retry': { description: '`false`: do not send it again.', schema: { const: 'false' } },
  'x-gateway-credits': {
    description: 'When 80 % or all is used: `subject;used=80;left=12.5;reset=3600`, and `pool` in the same way (RFC 9651).', schema: text
  },
  'idempotency-replayed': { description: 'The answer of the first request with this key.', schema: { const: 'true' } },
  'set-cookie': { description: 'The session\'s cookie, HttpOnly.', schema: text },
  'content-disposition': { description: 'With a name for the file.', schema: text },
  'content-range': { description: 'Which part it is.', schema: text },
  etag: { description: 'For `if-none-match`.', schema: text },
  'www-authenticate': { description: 'RFC 6750.', schema: text }
}

const caller = [{ bearer: [] }, { apiKey: [] }, { googleApiKey: [] }]
const security: Readonly<Record<Credential, Operation['security']>> = {
  caller: [...caller, { cookie: [] }],
  bearer: caller,
  issuer: [{ issuerToken: [] }],
  admin: [{ adminToken: [] }],
  page: []
}

const securitySchemes = {
  bearer: { type: 'http', scheme: 'bearer', description: 'A session\'s token.' },
  apiKey: { type: 'apiKey', in: 'header', name: 'x-api-key', description: 'The same token, where Anthropic\'s SDK may put it.' },
  googleApiKey: { type: 'apiKey', in: 'header', name: 'x-goog-api-key', description: 'The same token, where Google\'s SDK puts it.' },
  cookie: {
    type: 'apiKey',
    in: 'cookie',
    name: '__Host-apixo_session',
    description: 'For pages of the gateway\'s own origin, and of those it permits.'
  },
  issuerToken: { type: 'http', scheme: 'bearer', description: '`GATEWAY_ISSUER_TOKEN`, which the app\'s backend has.' },
  adminToken: { type: 'http', scheme: 'bearer', description: '`GATEWAY_ADMIN_TOKEN`, which the operator has.' }
}
