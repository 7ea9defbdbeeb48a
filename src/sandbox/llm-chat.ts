import { isObject } from '../domain/json.ts'
import {
  type Asked, bearerOf, type Body, countIn, type Dialect, event, inputTokensOf, isToldEach, lastOfUser, objectsIn,
  type Reply, type StreamEvent, textIn, type Tokens, usageAtEnd, wantedTool
} from './llm-dialects.ts'

/** What OpenAI says with a status, in both of its dialects. */
const errorKinds: Readonly<Record<number, readonly [type: string, code: string | null]>> = {
  401: ['invalid_request_error', 'invalid_api_key'],
  402: ['insufficient_quota', 'insufficient_quota'],
  403: ['invalid_request_error', 'permission_denied'],
  404: ['invalid_request_error', 'model_not_found'],
  429: ['requests', 'rate_limit_exceeded']
}

/** @see https://platform.openai.com/docs/guides/error-codes */
export function openAiError (status: number, message: string): { error: { type: string, code: string | null } } {
  const [type, code] = errorKinds[status] ?? [status < 500 ? 'invalid_request_error' : 'server_error', null]
  return { error: Object.assign({ message }, { type, param: null, code }) }
}

function printUsage ({ input, cacheRead, cacheWrite, output, reasoning }: Tokens): object {
  const prompt = input + cacheRead + cacheWrite
  return {
    prompt_tokens: prompt,
    completion_tokens: output,
    total_tokens: prompt + output,
    prompt_tokens_details: { cached_tokens: cacheRead, cache_write_tokens: cacheWrite, audio_tokens: 0 },
    completion_tokens_details: { reasoning_tokens: reasoning, audio_tokens: 0 }
  }
}

const finishReasons = { stop: 'stop', length: 'length', tool: 'tool_calls' } as const

function common (kind: string, { model }: Asked, { id, created }: Reply): object {
  return { id: `chatcmpl-${id}`, object: kind, created, model, service_tier: 'default' }
}

function messageOf ({ id, pieces, tool }: Reply): object {
  if (tool === null) return { role: 'assistant', content: pieces.join(''), refusal: null }
  const call = { name: tool.name, arguments: tool.pieces.join('') }
  return { role: 'assistant', content: null, tool_calls: [{ id: `call_${id}`, type: 'function', function: call }] }
}

function json (asked: Asked, reply: Reply): object {
  const choice = { message: messageOf(reply), logprobs: null, finish_reason: finishReasons[reply.ends] }
  const choices = Array.from({ length: asked.choices }, (_, index) => ({ index, ...choice }))
  return { ...common('chat.completion', asked, reply), choices, usage: usageAtEnd(reply, printUsage) }
}

/** What the chunks add in turn, with the tokens made for it. What was thought is made before the first of them. */
function deltasOf ({ id, thoughts, pieces, tool }: Reply): Array<readonly [delta: object, tokens: number]> {
  const made = (at: number): number => at === 0 ? 1 + thoughts.length : 1
  if (tool === null) return pieces.map((content, at) => [{ content }, made(at)])
  const call = { index: 0, id: `call_${id}`, type: 'function', function: { name: tool.name, arguments: '' } }
  return [
    [{ tool_calls: [call] }, 0],
    ...tool.pieces.map((piece, at) =>
      [{ tool_calls: [{ index: 0, function: { arguments: piece } }] }, made(at)] as const)
  ]
}

/**
 * Role, content, reason of the end, then usage when it is asked for, and `[DONE]`. The reason makes the answer whole:
 * nobody misses what comes after it.
 *
 * @see https://platform.openai.com/docs/api-reference/chat-streaming
 */
function events (asked: Asked, reply: Reply): readonly StreamEvent[] {
  const { asksUsage, choices } = asked
  const base = common('chat.completion.chunk', asked, reply)
  const usage = usageAtEnd(reply, printUsage)
  const isTold = asksUsage && usage !== undefined
  let output = 0
  const usageSoFar = (isLast: boolean): object => {
    if (isToldEach(reply)) return { usage: isLast ? usage : printUsage({ ...reply.tokens, output }) }
    return isTold ? { usage: null } : {}
  }
  const chunks = (part: StreamEvent['part'], delta: object, tokens = 0, reason: string | null = null): StreamEvent[] =>
    Array.from({ length: choices }, (_, index) => {
      output += tokens
      const isTerminal = reason !== null && index === choices - 1
      const choice = { index, delta, logprobs: null, finish_reason: reason }
      return event(part, { ...base, choices: [choice], ...usageSoFar(isTerminal) }, { tokens, isTerminal })
    })
  return [
    ...chunks('opening', { role: 'assistant', content: '', refusal: null }),
    ...deltasOf(reply).flatMap(([delta, tokens]) => chunks('content', delta, tokens)),
    ...chunks('closing', {}, 0, finishReasons[reply.ends]),
    ...isTold ? [event('after', { ...base, choices: [], usage })] : [],
    event('after', '[DONE]')
  ]
}

/** @see https://platform.openai.com/docs/api-reference/chat/create */
export const chat: Dialect = {
  name: 'chat',
  path: /^\/v1\/chat\/completions$/,
  keyOf: bearerOf,
  tellsCacheWrites: true,
  requestIdHeader: 'x-request-id',
  problemWith: ({ messages }: Body) =>
    objectsIn(messages).length > 0 ? null : "Missing required parameter: 'messages'.",
  read (body) {
    const messages = objectsIn(body.messages)
    const prompt = lastOfUser(messages, 'content')
    const tools = objectsIn(body.tools).map(({ function: its }) => isObject(its)
      ? { name: textIn(its.name), schema: its.parameters }
      : { name: '', schema: null })
    return {
      model: textIn(body.model),
      form: body.stream === true ? 'sse' : 'json',
      prompt,
      inputTokens: inputTokensOf(body),
      tool: wantedTool(tools, prompt, messages.at(-1)?.role === 'tool'),
      maxTokens: countIn(body.max_completion_tokens) ?? countIn(body.max_tokens),
      choices: countIn(body.n) ?? 1,
      asksUsage: isObject(body.stream_options) && body.stream_options.include_usage === true,
      continues: false
    }
  },
  json,
  events,
  error: openAiError,
  errorEvent: (status, message) => event('closing', openAiError(status, message))
}
