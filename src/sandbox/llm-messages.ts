import {
  type Asked, type Body, countIn, type Dialect, event, inputTokensOf, isToldEach, lastOfUser, objectsIn, type Reply,
  type StreamEvent, textIn, type Tokens, usageAtEnd, wantedTool
} from './llm-dialects.ts'
import { jsonValue } from '../domain/json.ts'

const errorTypes: Readonly<Record<number, string>> = {
  401: 'authentication_error',
  402: 'billing_error',
  403: 'permission_error',
  404: 'not_found_error',
  429: 'rate_limit_error',
  504: 'timeout_error',
  529: 'overloaded_error'
}

/** @see https://docs.claude.com/en/api/errors */
function error (status: number, message: string): object {
  const type = errorTypes[status] ?? (status < 500 ? 'invalid_request_error' : 'api_error')
  return { type: 'error', error: { type, message } }
}

/** `input_tokens` is without those of the cache, unlike in the other dialects. */
function printUsage ({ input, cacheRead, cacheWrite, ...made }: Tokens): object {
  return {
    input_tokens: input,
    cache_creation_input_tokens: cacheWrite,
    cache_read_input_tokens: cacheRead,
    cache_creation: { ephemeral_5m_input_tokens: cacheWrite, ephemeral_1h_input_tokens: 0 },
    ...printOutput(made),
    service_tier: 'standard'
  }
}

function printOutput ({ output, reasoning }: Pick<Tokens, 'output' | 'reasoning'>): object {
  return { output_tokens: output, output_tokens_details: { thinking_tokens: reasoning } }
}

const stopReasons = { stop: 'end_turn', length: 'max_tokens', tool: 'tool_use' } as const

function message ({ model }: Asked, { id }: Reply, content: readonly object[], reason: string | null): object {
  return { id: `msg_${id}`, type: 'message', role: 'assistant', model, content, stop_reason: reason, stop_sequence: null }
}

const signature = 'c2FuZGJveA=='

function json (asked: Asked, reply: Reply): object {
  const { id, thoughts, pieces, tool } = reply
  const content = [
    ...thoughts.length > 0 ? [{ type: 'thinking', thinking: thoughts.join(''), signature }] : [],
    tool === null
      ? { type: 'text', text: pieces.join('') }
      : { type: 'tool_use', id: `toolu_${id}`, name: tool.name, input: jsonValue(tool.pieces.join('')) }
  ]
  return { ...message(asked, reply, content, stopReasons[reply.ends]), usage: usageAtEnd(reply, printUsage) }
}

interface Block {
  readonly start: object
  readonly deltas: readonly object[]
  /** Deltas that are no tokens, after the others. */
  readonly last: readonly object[]
}

function blocksOf ({ id, thoughts, pieces, tool }: Reply): Block[] {
  const thinking: Block = {
    start: { type: 'thinking', thinking: '', signature: '' },
    deltas: thoughts.map(thought => ({ type: 'thinking_delta', thinking: thought })),
    last: [{ type: 'signature_delta', signature }]
  }
  const answer: Block = tool === null
    ? { start: { type: 'text', text: '' }, deltas: pieces.map(text => ({ type: 'text_delta', text })), last: [] }
    : {
        start: { type: 'tool_use', id: `toolu_${id}`, name: tool.name, input: {} },
        deltas: tool.pieces.map(piece => ({ type: 'input_json_delta', partial_json: piece })),
        last: []
      }
  return thoughts.length > 0 ? [thinking, answer] : [answer]
}

/** @see https://docs.claude.com/en/docs/build-with-claude/streaming */
function events (asked: Asked, reply: Reply): readonly StreamEvent[] {
  let output = 0
  const tell = (
    part: StreamEvent['part'], type: string, fields: object = {}, { tokens = 0, isTerminal = false } = {}
  ): StreamEvent => {
    output += tokens
    return event(part, { type, ...fields }, { name: type, tokens, isTerminal })
  }
  const delta = (reason: string | null, usage: unknown) =>
    tell(reason === null ? 'content' : 'closing', 'message_delta', {
      delta: { stop_reason: reason, stop_sequence: null }, usage
    })
  const soFar = (): StreamEvent[] => isToldEach(reply) ? [delta(null, { output_tokens: output })] : []
  const start = { ...message(asked, reply, [], null), usage: usageAtStart(reply) }
  return [
    tell('opening', 'message_start', { message: start }),
    ...blocksOf(reply).flatMap(({ start, deltas, last }, index) => [
      tell('content', 'content_block_start', { index, content_block: start }),
      ...index === 0 ? [tell('content', 'ping')] : [],
      ...deltas.flatMap(delta => [tell('content', 'content_block_delta', { index, delta }, { tokens: 1 }), ...soFar()]),
      ...last.map(delta => tell('content', 'content_block_delta', { index, delta })),
      tell('content', 'content_block_stop', { index })
    ]),
    delta(stopReasons[reply.ends], usageAtEnd(reply, reply.usage === 'zero' ? printUsage : printOutput)),
    tell('closing', 'message_stop', {}, { isTerminal: true })
  ]
}

/** One token of output is said to be there before anything is, as Anthropic does. */
function usageAtStart ({ tokens, usage }: Reply): object | undefined {
  return usage === 'absent' ? undefined : printUsage({ ...tokens, output: 1, reasoning: 0 })
}

/** @see https://docs.claude.com/en/api/messages */
export const messages: Dialect = {
  name: 'messages',
  path: /^\/v1\/messages$/,
  keyOf: ({ 'x-api-key': key }) => textIn(key),
  tellsCacheWrites: true,
  requestIdHeader: 'request-id',
  problemWith ({ messages, max_tokens: maxTokens }: Body, { 'anthropic-version': version }) {
    if (!version) return 'anthropic-version: header is required'
    if (countIn(maxTokens) === null) return 'max_tokens: Field required'
    return objectsIn(messages).length > 0 ? null : 'messages: Field required'
  },
  read (body) {
    const messages = objectsIn(body.messages)
    const prompt = lastOfUser(messages, 'content')
    const hasResult = objectsIn(messages.at(-1)?.content).some(({ type }) => type === 'tool_result')
    const tools = objectsIn(body.tools).map(({ name, input_schema: schema }) => ({ name: textIn(name), schema }))
    return {
      model: textIn(body.model),
      form: body.stream === true ? 'sse' : 'json',
      prompt,
      inputTokens: inputTokensOf(body),
      tool: wantedTool(tools, prompt, hasResult),
      maxTokens: countIn(body.max_tokens),
      choices: 1,
      asksUsage: true,
      continues: false
    }
  },
  json,
  events,
  error,
  errorEvent: (status, message) => event('closing', error(status, message), { name: 'error' })
}
