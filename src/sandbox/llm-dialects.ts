import type { IncomingHttpHeaders } from 'node:http'
import { isObject } from '../domain/json.ts'

/** Tokens of one call, as all dialects count them, each in its own words. */
export interface Tokens {
  /** Without those of the cache. */
  readonly input: number
  readonly cacheRead: number
  readonly cacheWrite: number
  /** Those of reasoning included. */
  readonly output: number
  readonly reasoning: number
}

export const noTokens: Tokens = { input: 0, cacheRead: 0, cacheWrite: 0, output: 0, reasoning: 0 }

/** What a request asks for, whatever its dialect. */
export interface Asked {
  readonly model: string
  /** array: a JSON array of chunks, as Gemini streams without `alt=sse`. */
  readonly form: 'json' | 'sse' | 'array'
  /** The last text of the user; its words choose the cases. */
  readonly prompt: string
  /** Tokens of all texts of the request: a quarter of their characters. */
  readonly inputTokens: number
  /** The tool to call; `null` when none is offered by a name in the prompt, or when it has been called already. */
  readonly tool: OfferedTool | null
  /** The dialect's own limit; `null` when the request has none. */
  readonly maxTokens: number | null
  /** How many answers at once. */
  readonly choices: number
  /** Whether a stream is to tell its usage where the dialect tells it only when asked. */
  readonly asksUsage: boolean
  /** A continuation that Gemini's client asks for by itself. */
  readonly continues: boolean
}

export interface OfferedTool {
  readonly name: string
  /** JSON Schema of its arguments. */
  readonly schema: unknown
}

/**
 * How usage is told. absent: nowhere · null, zero: at the end, after good numbers in each chunk · each: so far, in each
 * chunk · usual: as the dialect has it.
 */
export type UsageTold = 'usual' | 'absent' | 'null' | 'zero' | 'each'

/** What the model answers, before a dialect puts it into its words. Each piece is a token. */
export interface Reply {
  /** 24 lower-case hexadecimal digits. */
  readonly id: string
  /** Unix seconds. */
  readonly created: number
  /** What it thinks; the OpenAI dialects count it and do not show it. */
  readonly thoughts: readonly string[]
  /** Its text; empty when it calls a tool. */
  readonly pieces: readonly string[]
  readonly tool: { readonly name: string, readonly pieces: readonly string[] } | null
  readonly ends: 'stop' | 'length' | 'tool'
  readonly tokens: Tokens
  readonly usage: UsageTold
  /** responses: it ends with `response.failed`, all made. */
  readonly hasFailed: boolean
  /** Gemini: the answer goes on in another call. */
  readonly isContinued: boolean
}

/**
 * A piece of a stream. opening: before anything of the answer, such as the role · content · closing: what comes after
 * it, the terminal event among it · after: what comes after the terminal event.
 */
export interface StreamEvent {
  /** Of the line `event:`; `null`: there is none. */
  readonly name: string | null
  /** A JSON value; `[DONE]` goes out as it is. */
  readonly data: unknown
  readonly part: 'opening' | 'content' | 'closing' | 'after'
  /** With it the answer is whole, as its clients see it. */
  readonly isTerminal: boolean
  /** Tokens of output that have been made for it, those of reasoning included. */
  readonly tokens: number
}

export function event (
  part: StreamEvent['part'], data: unknown, { name = null, tokens = 0, isTerminal = false }: Partial<StreamEvent> = {}
): StreamEvent {
  return { name, data, part, isTerminal, tokens }
}

export type Body = Readonly<Record<string, unknown>>

/** One vendor's way to ask and to answer. */
export interface Dialect {
  readonly name: 'chat' | 'responses' | 'messages' | 'gemini'
  /** Its path; `model` and `operation` are named groups where they stand in it. */
  readonly path: RegExp
  /** The vendor's credential; empty without one. Those of the others are not looked at. */
  keyOf (headers: IncomingHttpHeaders): string
  /** Whether its usage tells what goes into the cache. */
  readonly tellsCacheWrites: boolean
  /** The header of the answer that names the request. */
  readonly requestIdHeader: string
  /** What is wrong with a request's headers and body beyond what all have in common, or `null`. */
  problemWith (body: Body, headers: IncomingHttpHeaders): string | null
  /** `path`: the groups of the path. */
  read (body: Body, path: Readonly<Record<string, string>>, query: URLSearchParams): Asked
  json (asked: Asked, reply: Reply): object
  events (asked: Asked, reply: Reply): readonly StreamEvent[]
  /** The vendor's shape of an error with this HTTP status. */
  error (status: number, message: string): object
  /** The same as an event in a stream. */
  errorEvent (status: number, message: string): StreamEvent
}

export function bearerOf ({ authorization = '' }: IncomingHttpHeaders): string {
  return /^bearer +(\S+)$/i.exec(authorization)?.[1] ?? ''
}

/** The objects of a list; none of what is no list. */
export function objectsIn (value: unknown): readonly Body[] {
  return Array.isArray(value) ? value.filter(isObject) : []
}

export function textIn (value: unknown): string {
  return typeof value === 'string' ? value : ''
}

/** A text, or the texts of a list of parts. */
export function textOf (content: unknown): string {
  return textIn(content) || objectsIn(content).map(({ text }) => textIn(text)).join(' ').trim()
}

/** The last text of the user among messages whose text is in the field of this name. */
export function lastOfUser (messages: readonly Body[], field: 'content' | 'parts'): string {
  return messages.filter(({ role }) => role === 'user').map(message => textOf(message[field])).findLast(Boolean) ?? ''
}

/** The first tool that the prompt names, unless its result is already there. */
export function wantedTool (tools: readonly OfferedTool[], prompt: string, hasResult: boolean): OfferedTool | null {
  return hasResult ? null : tools.find(({ name }) => name !== '' && prompt.includes(name)) ?? null
}

/** A whole number above 0, or `null`. */
export function countIn (value: unknown): number | null {
  return Number.isInteger(value) && Number(value) > 0 ? Number(value) : null
}

/** All strings in these fields, at any depth, but for roles and types: four characters are a token. */
export function inputTokensOf (body: Body): number {
  const { messages, system, input, instructions, contents, systemInstruction, tools } = body
  const lengthOf = (value: unknown): number => {
    if (typeof value === 'string') return value.length
    if (Array.isArray(value)) return value.reduce<number>((sum, part) => sum + lengthOf(part), 0)
    if (!isObject(value)) return 0
    const { role, type, ...texts } = value
    return lengthOf(Object.values(texts))
  }
  return Math.ceil(lengthOf([messages, system, input, instructions, contents, systemInstruction, tools]) / 4)
}

/**
 * Usage as `print` puts it, at the end of an answer: `undefined` where none is told, so that JSON leaves the field out.
 */
export function usageAtEnd (
  { tokens, usage }: Reply, print: (tokens: Tokens) => object
): object | null | undefined {
  if (usage === 'absent') return undefined
  if (usage === 'null') return null
  return print(usage === 'zero' ? noTokens : tokens)
}

/** Whether each chunk tells usage though the dialect does not. */
export function isToldEach ({ usage }: Reply): boolean {
  return usage === 'each' || usage === 'null' || usage === 'zero'
}
