import type { FastifyRequest } from 'fastify'
import type { ErrorFacts } from '../../http/context.ts'
import { badRequest } from '../../errors.ts'

/** The four ways in which vendors have an LLM called. */
export type DialectName = 'chat' | 'responses' | 'messages' | 'gemini'

/** One of the ways, as far as it differs from the others outside of bodies and events. */
export interface Dialect {
  readonly name: DialectName
  /** As in logs, metrics and the ledger. */
  readonly operation: 'chatCompletions' | 'responses' | 'messages' | 'generateContent'
  /** The routes' patterns here. */
  readonly urls: readonly string[]
  /** Where the upstream takes its key; it goes nowhere else. */
  readonly credential: 'authorization' | 'x-api-key' | 'x-goog-api-key'
  /** What of a request's headers reaches the upstream, names and values in turn. Throws `GW_BAD_REQUEST`. */
  headersOf (request: FastifyRequest): string[]
  /** An error as a body of JSON: its SDK makes its own class of it. */
  errorBody (error: ErrorFacts): string
  /**
   * An error as the last event of a stream that has begun, of a kind that no SDK repeats by itself, also not when it is
   * the first event.
   */
  errorEvent (error: ErrorFacts): string
  /** What its SDKs pass over between two events, and a proxy takes for life. */
  readonly heartbeat: string
}

/** One SDK loses an event that has a comment right before it: the empty line is part of this. */
const comment = ': hb\n\n'

/** What OpenAI calls them, by their status. */
const openaiTypes: Readonly<Record<number, string>> = {
  401: 'authentication_error',
  402: 'insufficient_quota',
  403: 'permission_error',
  429: 'rate_limit_error'
}

/** An outcome that is not known has the type of an error that no SDK repeats, whatever its status. */
function openaiType ({ status, code }: ErrorFacts): string {
  if (code === 'GW_OUTCOME_UNKNOWN') return 'invalid_request_error'
  return openaiTypes[status] ?? (status >= 500 ? 'server_error' : 'invalid_request_error')
}

function openaiBody (error: ErrorFacts): string {
  const { code, message } = error
  return JSON.stringify({ error: { message, type: openaiType(error), code, param: null } })
}

function named ({ code, message }: ErrorFacts): string {
  return `${code}: ${message}`
}

const noHeaders = (): string[] => []

const chat: Dialect = {
  name: 'chat',
  operation: 'chatCompletions',
  urls: ['/v1/chat/completions'],
  credential: 'authorization',
  headersOf: noHeaders,
  errorBody: openaiBody,
  errorEvent: ({ code, message }) =>
    event(null, { error: { message, type: 'invalid_request_error', code, param: null } }),
  heartbeat: comment
}

const responses: Dialect = {
  name: 'responses',
  operation: 'responses',
  urls: ['/v1/responses'],
  credential: 'authorization',
  headersOf: noHeaders,
  errorBody: openaiBody,
  errorEvent: error =>
    event('error', {
      // Without a number of some kind one SDK takes the event for garbage, and its user sees none of its words.
      type: 'error', code: 'invalid_request_error', message: named(error), param: null, sequence_number: 0
    }),
  heartbeat: comment
}

const messages: Dialect = {
  name: 'messages',
  operation: 'messages',
  urls: ['/v1/messages'],
  credential: 'x-api-key',
  headersOf: anthropicHeaders,
  errorBody: error => JSON.stringify({
    type: 'error', error: { type: error.code, message: named(error) }, request_id: error.requestId
  }),
  errorEvent: error => event('error', { type: 'error', error: { type: error.code, message: named(error) } }),
  heartbeat: event('ping', { type: 'ping' })
}

const gemini: Dialect = {
  name: 'gemini',
  operation: 'generateContent',
  // A name of a model may have slashes in it. Today's stock SDK calls /v1.
  urls: ['/v1beta/models/*', '/v1/models/*'],
  credential: 'x-goog-api-key',
  headersOf: noHeaders,
  errorBody: geminiError,
  errorEvent: error => `data: ${geminiError(error)}\n\n`,
  heartbeat: comment
}

export const dialects: readonly Dialect[] = [chat, responses, messages, gemini]

/** The SDK takes a number from 400 to 599 for an error, and ends without a word at anything else. */
function geminiError ({ status, code, message }: ErrorFacts): string {
  return JSON.stringify({ error: { code: status, message, status: code } })
}

function event (name: string | null, data: object): string {
  return `${name === null ? '' : `event: ${name}\n`}data: ${JSON.stringify(data)}\n\n`
}

/** The upstream wants a version: that of Anthropic's own documents. */
const anthropicVersion = '2023-06-01'

/**
 * Features in trial that keep things at the upstream, which are nobody's there, or that cost more than tokens say; each
 * has a date behind its name.
 */
const deniedBetas = [
  'files-api', 'code-execution', 'mcp-client', 'skills', 'message-batches', 'web-fetch', 'web-search', 'context-1m',
  'fast-mode', 'compact-'
]

function anthropicHeaders ({ headers }: FastifyRequest): string[] {
  const version = headers['anthropic-version'] ?? anthropicVersion
  if (typeof version !== 'string' || !/^[\w.-]{1,64}$/.test(version)) throw badRequest('anthropic-version is no date.')
  const beta = headers['anthropic-beta']
  if (beta === undefined) return ['anthropic-version', version]
  const betas = String(beta)
  if (!/^[\w., -]{1,1024}$/.test(betas)) throw badRequest('anthropic-beta is no list of names.')
  const names = betas.split(',').map(name => name.trim().toLowerCase())
  const denied = names.find(name => deniedBetas.some(it => name.startsWith(it)))
  if (denied !== undefined) throw badRequest(`anthropic-beta: ${denied} is not accepted here.`)
  return ['anthropic-version', version, 'anthropic-beta', betas]
}

const ofOpenAi = 'Of OpenAI\'s calls of models there are POST /v1/chat/completions and POST /v1/responses; ' +
  'GET /v1/models lists the models.'
/** What of each vendor's there is. */
export const thereIs: Readonly<Record<Dialect['name'], string>> = {
  chat: ofOpenAi,
  responses: ofOpenAi,
  messages: 'Of Anthropic\'s there is POST /v1/messages; GET /v1/models lists the models.',
  gemini: 'Of Gemini\'s there are POST /v1beta/models/{model}:generateContent and :streamGenerateContent; ' +
    'GET /v1beta/models lists the models.'
}

/** By its address, and where that is of several by what its SDK sends: OpenAI's sends nothing of its own. */
export function dialectOf ({ url, headers }: FastifyRequest): Dialect {
  if (url.startsWith('/v1beta')) return gemini
  if (url.startsWith('/v1/messages') || headers['anthropic-version'] !== undefined) return messages
  if (url.startsWith('/v1/responses')) return responses
  const isGemini = headers['x-goog-api-key'] !== undefined || headers['x-goog-api-client'] !== undefined
  return isGemini || /^\/v1\/[^?]*:/.test(url) ? gemini : chat
}

export function errorBodyFor (error: ErrorFacts, request: FastifyRequest): string {
  return dialectOf(request).errorBody(error)
}

/** How a dialect writes models. When they were made is not known here. */
interface ModelShape {
  one (name: string): object
  list (names: readonly string[]): object
}

const openAi: ModelShape = {
  one: id => ({ id, object: 'model', created: 0, owned_by: 'apixo' }),
  list: names => ({ object: 'list', data: names.map(openAi.one) })
}

const anthropic: ModelShape = {
  one: id => ({ type: 'model', id, display_name: id, created_at: '1970-01-01T00:00:00Z' }),
  list: names => ({
    data: names.map(anthropic.one), has_more: false, first_id: names[0] ?? null, last_id: names.at(-1) ?? null
  })
}

const google: ModelShape = {
  one: name => ({
    name: `models/${name}`, displayName: name, supportedGenerationMethods: ['generateContent', 'streamGenerateContent']
  }),
  list: names => ({ models: names.map(google.one) })
}

/** How each tells of models. */
export const modelShapes: Readonly<Record<Dialect['name'], ModelShape>> = {
  chat: openAi, responses: openAi, messages: anthropic, gemini: google
}
