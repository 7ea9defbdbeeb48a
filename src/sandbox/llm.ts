import { randomBytes } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { isObject, jsonValue } from '../domain/json.ts'
import type { Timers } from '../domain/time.ts'
import { followed, type LlmCalls, type LlmRecord } from './llm-calls.ts'
import { type LlmCase, llmCasesIn, type LlmPlan, vendorRefusal } from './llm-cases.ts'
import { chat } from './llm-chat.ts'
import type { Asked, Dialect, Reply } from './llm-dialects.ts'
import { gemini } from './llm-gemini.ts'
import { messages } from './llm-messages.ts'
import { responses } from './llm-responses.ts'
import { type Stream, writeStream } from './llm-streams.ts'
import { type Answer, type Exchange, gzipped, plainly, send } from './responses.ts'

/** What the LLM gateway of the sandbox knows. */
export interface LlmWorld {
  readonly models: ReadonlySet<string>
  readonly calls: LlmCalls
  /** Keys that are refused, with the HTTP status. */
  readonly refused: Map<string, number>
  readonly keys: ReadonlySet<string>
  readonly timers: Timers
  /** Unix milliseconds. */
  readonly now: () => number
}

/** The models of the LLM gateway that APIXO's pages name. @see https://apixo.ai/docs/models/text/claude */
export const llmModels: readonly string[] = [
  'claude-opus-4-7', 'claude-opus-4-6', 'claude-opus-4-6-thinking', 'claude-opus-4-5-20251101', 'claude-sonnet-4-6',
  'claude-sonnet-4-6-thinking', 'claude-sonnet-4-5-20250929', 'claude-haiku-4-5-20251001',
  'gpt-5.2', 'gpt-5.2-codex', 'gpt-5.3-codex', 'gpt-5.4',
  'gemini-3.1-pro-preview', 'gemini-3.1-flash-lite-preview', 'gemini-3-pro-preview', 'gemini-3-flash-preview',
  'gemini-2.5-pro'
]

const dialects: readonly Dialect[] = [chat, responses, messages, gemini]

/** One request whose path is an LLM call's. */
interface Found {
  readonly dialect: Dialect
  /** The named groups of its path. */
  readonly path: Readonly<Record<string, string>>
  readonly query: URLSearchParams
}

/** The dialect of a POST, or `null`. Its path is not decoded: no model needs it. */
export function llmFound (method: string | undefined, path: string, query: string | undefined): Found | null {
  if (method !== 'POST') return null
  for (const dialect of dialects) {
    const found = dialect.path.exec(path)
    if (found) return { dialect, path: found.groups ?? {}, query: new URLSearchParams(query) }
  }
  return null
}

/** The words of an answer: what it says first, then it counts. */
const words = ['Hello', ' from', ' the', ' sandbox', ' that', ' stands', ' in', ' for', ' APIXO.']

function piecesOf ({ pieces = words.length, pieceLength = 0, echoesKey }: LlmPlan, key: string): string[] {
  const list = Array.from({ length: pieces }, (_, at) => (words[at] ?? ` ${at}`).padEnd(pieceLength, '.'))
  return echoesKey ? [key, ...list] : list
}

/** What a tool is called with: something of the right type for each field that its schema demands. */
function argumentsFor (schema: unknown): Record<string, unknown> {
  const { properties, required } = isObject(schema) ? schema : {}
  const types = isObject(properties) ? properties : {}
  const values: Readonly<Record<string, unknown>> = { number: 1, integer: 1, boolean: true, array: [], object: {} }
  return Object.fromEntries((Array.isArray(required) ? required : []).map(name => {
    const field = types[name]
    const type = isObject(field) ? String(field.type).toLowerCase() : 'string'
    return [name, values[type] ?? 'Paris']
  }))
}

/** A call that is not refused. */
interface Asking {
  readonly dialect: Dialect
  readonly asked: Asked
  readonly plan: LlmPlan
  readonly key: string
}

/** Pieces of four characters. */
function inFours (text: string): string[] {
  return Array.from(text.matchAll(/.{1,4}/gs), ([piece]) => piece)
}

function replyTo ({ dialect, asked, plan, key }: Asking, now: number): Reply {
  const tool = asked.tool && { name: asked.tool.name, pieces: inFours(JSON.stringify(argumentsFor(asked.tool.schema))) }
  const limit = asked.maxTokens ?? Infinity
  const thoughts = Array.from({ length: Math.min(plan.thoughts ?? 0, limit) }, (_, at) => `thought ${at} `)
  const wanted = piecesOf(plan, key)
  // A tool is called whole: arguments cut in half would be no JSON.
  const pieces = tool === null ? wanted.slice(0, limit - thoughts.length) : []
  const made = (tool?.pieces.length ?? pieces.length) + thoughts.length
  const length = pieces.length < wanted.length ? 'length' : 'stop'
  return {
    id: randomBytes(12).toString('hex'),
    created: Math.floor(now / 1000),
    thoughts,
    pieces,
    tool,
    ends: tool === null ? length : 'tool',
    tokens: {
      input: asked.inputTokens,
      cacheRead: plan.isCached ? 90 : 0,
      cacheWrite: plan.isCached && dialect.tellsCacheWrites ? 5 : 0,
      output: made * asked.choices,
      reasoning: thoughts.length * asked.choices
    },
    usage: plan.usage ?? 'usual',
    hasFailed: plan.hasFailed ?? false,
    isContinued: plan.isContinued === true && !asked.continues
  }
}

/** The refusal that a call meets before it is looked at more closely, or what it asks for. */
function readCall (
  { models, keys, refused }: LlmWorld, { dialect, path, query }: Found, { headers }: IncomingMessage, bytes: Buffer
): Answer | Asked {
  const key = dialect.keyOf(headers)
  if (!keys.has(key)) return vendorRefusal(dialect, 401, 'Invalid or missing API key')
  const status = refused.get(key)
  if (status !== undefined) return vendorRefusal(dialect, status, 'This key is refused')
  const body = jsonValue(bytes.toString())
  if (!isObject(body)) return vendorRefusal(dialect, 400, 'The body is not a JSON object')
  const problem = dialect.problemWith(body, headers)
  if (problem !== null) return vendorRefusal(dialect, 400, problem)
  const asked = dialect.read(body, path, query)
  if (!models.has(asked.model)) return vendorRefusal(dialect, 404, `The model ${asked.model} does not exist`)
  const { unknown } = llmCasesIn(asked.prompt)
  return unknown.length === 0
    ? asked
    : vendorRefusal(dialect, 400, `No such sandbox case: ${unknown.join(', ')}`)
}

/** Everything that one answer needs. */
interface Answering extends Omit<Asking, 'key'> {
  readonly reply: Reply
  readonly record: LlmRecord
  readonly exchange: Exchange
  readonly timers: Timers
  readonly acceptsGzip: boolean
}

function requestId ({ dialect, reply, plan }: Answering): Record<string, string> {
  return { ...plan.headers, [dialect.requestIdHeader]: `req_${reply.id}` }
}

function sendJson (answering: Answering, rows: readonly LlmCase[]): void {
  const { dialect, asked, reply, plan, record, exchange, acceptsGzip } = answering
  record.made(reply.tokens)
  const { turn } = plan
  if (turn?.then === 'error') {
    record.end('cut')
    return send(exchange.response, vendorRefusal(dialect, 502, 'The prompt asked for this error'))
  }
  if (turn?.then === 'cut') record.end('cut')
  const offered = plan.gzip === 'offered' && acceptsGzip ? gzipped : null
  const deliver = offered ?? rows.find(({ json }) => json && json !== plainly)?.json ?? plainly
  const headers = { 'content-type': 'application/json', ...requestId(answering) }
  deliver(exchange, { status: 200, headers, body: JSON.stringify(dialect.json(asked, reply)) })
}

function sendStream (answering: Answering): void {
  const { dialect, asked, reply, plan, record, exchange: { response, hold }, timers, acceptsGzip } = answering
  const { input, cacheRead, cacheWrite, reasoning } = reply.tokens
  record.add({ input, cacheRead, cacheWrite })
  const isArray = asked.form === 'array'
  const write = () => { writeStream(stream).catch(/* c8 ignore next: a bug */ error => response.destroy(error)) }
  const stream: Stream = {
    response,
    form: isArray ? 'array' : 'sse',
    headers: {
      'content-type': isArray ? 'application/json' : 'text/event-stream; charset=utf-8',
      'cache-control': 'no-cache',
      ...requestId(answering)
    },
    events: dialect.events(asked, reply),
    plan: {
      turn: plan.turn ?? null,
      hasCrlf: plan.hasCrlf ?? false,
      hasDataLines: plan.hasDataLines ?? false,
      isGzipped: plan.gzip === 'always' || (plan.gzip === 'offered' && acceptsGzip),
      pauseMs: plan.pauseMs ?? 0
    },
    error: dialect.errorEvent(503, 'The prompt asked for this error'),
    timers,
    hold,
    told ({ tokens, isTerminal }) {
      record.add({ output: tokens })
      if (isTerminal) {
        record.add({ reasoning })
        record.end('complete')
      }
    },
    broke: () => record.end('cut')
  }
  if (plan.slowStart) hold(write)
  else write()
}

/** Answers one LLM call. `exchange.key` is not looked at: each dialect has its own header. */
export function answerLlm (
  world: LlmWorld, found: Found, request: IncomingMessage, body: Buffer, exchange: Exchange
): void {
  const { dialect } = found
  const { response } = exchange
  const key = dialect.keyOf(request.headers)
  const asked = readCall(world, found, request, body)
  const isRefused = 'status' in asked
  const [model, prompt] = isRefused ? ['', ''] : [asked.model, asked.prompt]
  const record = world.calls.begin({ dialect: dialect.name, model, key, prompt })
  if (isRefused) {
    record.end('refused')
    return send(response, asked)
  }
  const { cases } = llmCasesIn(prompt)
  const plan: LlmPlan = Object.assign({}, ...cases.map(row => row.plan))
  const reply = replyTo({ dialect, asked, plan, key }, world.now())
  const other = cases.find(row => row.instead)
  if (other?.instead) {
    if (other.makes === 'lost') record.made(reply.tokens)
    record.end(other.makes === 'lost' ? 'cut' : 'refused')
    return other.instead(dialect)(exchange, { status: 200, headers: {}, body: '' })
  }
  const acceptsGzip = /\bgzip\b/.test(String(request.headers['accept-encoding'] ?? ''))
  const { timers } = world
  followed(response, record)
  const answering = { dialect, asked, reply, plan, record, exchange: { ...exchange, key }, timers, acceptsGzip }
  return asked.form === 'json' ? sendJson(answering, cases) : sendStream(answering)
}

/** Answers `GET /sandbox/llm`, no address of APIXO's: how many calls came to which end, and their tokens. */
export function llmTotals ({ calls }: LlmWorld, response: ServerResponse): void {
  const body = JSON.stringify(calls.totals())
  send(response, { status: 200, headers: { 'content-type': 'application/json' }, body })
}
