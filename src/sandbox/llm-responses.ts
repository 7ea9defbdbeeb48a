import {
  type Asked, bearerOf, type Body, countIn, type Dialect, event, inputTokensOf, isToldEach, lastOfUser, objectsIn,
  type Reply, type StreamEvent, textIn, type Tokens, usageAtEnd, wantedTool
} from './llm-dialects.ts'
import { openAiError } from './llm-chat.ts'

function printUsage ({ input, cacheRead, cacheWrite, output, reasoning }: Tokens): object {
  const all = input + cacheRead + cacheWrite
  return {
    input_tokens: all,
    input_tokens_details: { cached_tokens: cacheRead, cache_write_tokens: cacheWrite },
    output_tokens: output,
    output_tokens_details: { reasoning_tokens: reasoning },
    total_tokens: all + output
  }
}

type Status = 'in_progress' | 'completed' | 'incomplete' | 'failed'

function response (
  { model, maxTokens }: Asked, { id, created }: Reply, status: Status, output: readonly object[], usage: unknown
): object {
  return {
    id: `resp_${id}`,
    object: 'response',
    created_at: created,
    status,
    error: status === 'failed' ? { code: 'server_error', message: 'The prompt asked for this failure' } : null,
    incomplete_details: status === 'incomplete' ? { reason: 'max_output_tokens' } : null,
    instructions: null,
    max_output_tokens: maxTokens,
    metadata: {},
    model,
    output,
    parallel_tool_calls: true,
    previous_response_id: null,
    service_tier: 'default',
    store: false,
    temperature: 1,
    tool_choice: 'auto',
    tools: [],
    top_p: 1,
    usage
  }
}

/** What it has thought, which nobody sees. */
function reasoningItem ({ id }: Reply): object {
  return { id: `rs_${id}`, type: 'reasoning', summary: [] }
}

function textPart ({ pieces }: Reply): object {
  return { type: 'output_text', text: pieces.join(''), annotations: [], logprobs: [] }
}

/** The item that a reader is told of: a message, or the call of a tool. */
function itemOf (reply: Reply, status: Status): object {
  const { id, tool } = reply
  const isDone = status !== 'in_progress'
  if (tool === null) {
    return { id: `msg_${id}`, type: 'message', status, role: 'assistant', content: isDone ? [textPart(reply)] : [] }
  }
  const call = { name: tool.name, arguments: isDone ? tool.pieces.join('') : '' }
  return { id: `fc_${id}`, type: 'function_call', status, call_id: `call_${id}`, ...call }
}

function endOf ({ ends }: Reply): Status {
  return ends === 'length' ? 'incomplete' : 'completed'
}

function outputOf (reply: Reply): object[] {
  return [...reply.thoughts.length > 0 ? [reasoningItem(reply)] : [], itemOf(reply, endOf(reply))]
}

type Told = readonly [type: string, fields: object, tokens?: number]

/** Between `response.in_progress` and the end. */
function itemEvents (reply: Reply): Told[] {
  const { id, thoughts, pieces, tool } = reply
  const at = thoughts.length > 0 ? 1 : 0
  const made = (index: number): number => index === 0 ? 1 + thoughts.length : 1
  const item = reasoningItem(reply)
  const thinking: Told[] = [
    ['response.output_item.added', { output_index: 0, item }],
    ['response.output_item.done', { output_index: 0, item }]
  ]
  const added: Told = ['response.output_item.added', { output_index: at, item: itemOf(reply, 'in_progress') }]
  const done: Told = ['response.output_item.done', { output_index: at, item: itemOf(reply, endOf(reply)) }]
  const place = { item_id: `${tool === null ? 'msg' : 'fc'}_${id}`, output_index: at }
  const inPart = { ...place, content_index: 0 }
  const told: Told[] = tool === null
    ? [
        ['response.content_part.added', { ...inPart, part: { type: 'output_text', text: '', annotations: [] } }],
        ...pieces.map((delta, index): Told =>
          ['response.output_text.delta', { ...inPart, delta, logprobs: [] }, made(index)]),
        ['response.output_text.done', { ...inPart, text: pieces.join(''), logprobs: [] }],
        ['response.content_part.done', { ...inPart, part: textPart(reply) }]
      ]
    : [
        ...tool.pieces.map((delta, index): Told =>
          ['response.function_call_arguments.delta', { ...place, delta }, made(index)]),
        ['response.function_call_arguments.done', { ...place, name: tool.name, arguments: tool.pieces.join('') }]
      ]
  return [...at > 0 ? thinking : [], added, ...told, done]
}

/** @see https://platform.openai.com/docs/api-reference/responses-streaming */
function events (asked: Asked, reply: Reply): readonly StreamEvent[] {
  const status = reply.hasFailed ? 'failed' : endOf(reply)
  let output = 0
  let number = 0
  const tell = (part: StreamEvent['part'], [type, fields, tokens = 0]: Told, isTerminal = false): StreamEvent => {
    output += tokens
    return event(part, { type, sequence_number: number++, ...fields }, { name: type, tokens, isTerminal })
  }
  const state = (type: string, usage: unknown): Told =>
    [type, { response: response(asked, reply, 'in_progress', [], usage) }]
  const soFar = (): object => printUsage({ ...reply.tokens, output })
  const end = response(asked, reply, status, outputOf(reply), usageAtEnd(reply, printUsage))
  return [
    tell('opening', state('response.created', null)),
    tell('opening', state('response.in_progress', null)),
    ...itemEvents(reply).flatMap(told => [
      tell('content', told),
      ...isToldEach(reply) ? [tell('content', state('response.in_progress', soFar()))] : []
    ]),
    tell('closing', [`response.${status}`, { response: end }], true)
  ]
}

/** @see https://platform.openai.com/docs/api-reference/responses/create */
export const responses: Dialect = {
  name: 'responses',
  path: /^\/v1\/responses$/,
  keyOf: bearerOf,
  tellsCacheWrites: true,
  requestIdHeader: 'x-request-id',
  problemWith: ({ input }: Body) => input === undefined ? "Missing required parameter: 'input'." : null,
  read (body) {
    const items = objectsIn(body.input)
    const prompt = textIn(body.input) || lastOfUser(items, 'content')
    const tools = objectsIn(body.tools).map(({ name, parameters }) => ({ name: textIn(name), schema: parameters }))
    return {
      model: textIn(body.model),
      form: body.stream === true ? 'sse' : 'json',
      prompt,
      inputTokens: inputTokensOf(body),
      tool: wantedTool(tools, prompt, items.at(-1)?.type === 'function_call_output'),
      maxTokens: countIn(body.max_output_tokens),
      choices: 1,
      asksUsage: true,
      continues: false
    }
  },
  json: (asked, reply) => {
    const status = reply.hasFailed ? 'failed' : endOf(reply)
    return response(asked, reply, status, outputOf(reply), usageAtEnd(reply, printUsage))
  },
  events,
  error: openAiError,
  errorEvent (status, message) {
    const { error: { type, code } } = openAiError(status, message)
    const data = { type: 'error', code: code ?? type, message, param: null, sequence_number: 0 }
    return event('closing', data, { name: 'error' })
  }
}
