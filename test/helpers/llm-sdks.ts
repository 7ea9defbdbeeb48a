import Anthropic from '@anthropic-ai/sdk'
import { type GenerateContentResponse, GoogleGenAI } from '@google/genai'
import OpenAI from 'openai'

/** Where an SDK is pointed to, as its documents say: a base URL and a key. */
export interface SdkPlace {
  readonly origin: string
  /** `null`: the browser brings a cookie, and the SDK is told to send no key. */
  readonly key: string | null
  /** Sent with each request, beside those of the SDK. */
  readonly headers?: Record<string, string>
  /** Tries after the first; the SDK's own number when absent. */
  readonly retries?: number
}

/** What an answer was, in the words of no SDK. */
export interface Said {
  readonly text: string
  /** All tokens of the request, as the SDK reports them, and those of the answer; `null`: it reports none. */
  readonly input: number | null
  readonly output: number | null
  /** Why it ended, in the SDK's words. */
  readonly reason: string | null
  /** Which tool it calls, and with what. */
  readonly tool: readonly [name: string, input: unknown] | null
}

export interface SdkCall {
  readonly prompt: string
  /** Whether a tool `weather` is on offer. */
  readonly hasTool?: boolean
  readonly signal?: AbortSignal
  /** Streams: called with each piece of text; `false` leaves the loop by `break`. */
  readonly onText?: (piece: string) => boolean
}

/** One official SDK, unmodified, called as its documents show first. */
export interface Sdk {
  readonly dialect: 'chat' | 'responses' | 'messages' | 'gemini'
  plain (call: SdkCall): Promise<Said>
  streamed (call: SdkCall): Promise<Said>
}

export const schema = { type: 'object' as const, properties: { city: { type: 'string' as const } }, required: ['city'] }
export const weather = { name: 'weather', description: 'The weather of a city' }
export const maxTokens = 200

export function said (fields: Partial<Said>): Said {
  return { text: '', input: null, output: null, reason: null, tool: null, ...fields }
}

/** Reads a stream to its end, or until its reader has enough. */
export async function readAll<Event> (
  events: AsyncIterable<Event>, textOf: (event: Event) => string | null | undefined, { onText = () => true }: SdkCall
): Promise<string> {
  let text = ''
  for await (const event of events) {
    const piece = textOf(event) ?? ''
    text += piece
    if (piece !== '' && !onText(piece)) break
  }
  return text
}

/** How both SDKs with such headers are told to leave out their own. */
const noKey = { authorization: null }

function openAi ({ origin, key, headers, retries }: SdkPlace): OpenAI {
  return new OpenAI({
    apiKey: key ?? 'none',
    baseURL: `${origin}/v1`,
    dangerouslyAllowBrowser: true,
    defaultHeaders: { ...key === null && noKey, ...headers },
    ...retries !== undefined && { maxRetries: retries }
  })
}

export function openAiChat (place: SdkPlace): Sdk {
  const client = openAi(place)
  const request = ({ prompt, hasTool }: SdkCall) => ({
    model: 'gpt-5.4',
    max_completion_tokens: maxTokens,
    messages: [{ role: 'user' as const, content: prompt }],
    ...hasTool && { tools: [{ type: 'function' as const, function: { ...weather, parameters: schema } }] }
  })
  return {
    dialect: 'chat',
    async plain (call) {
      const { choices: [choice], usage } = await client.chat.completions.create(request(call), { signal: call.signal })
      const { message: { content, tool_calls: [used] = [] }, finish_reason: reason } = choice!
      return said({
        text: content ?? '',
        input: usage?.prompt_tokens ?? null,
        output: usage?.completion_tokens ?? null,
        reason,
        tool: used?.type === 'function' ? [used.function.name, JSON.parse(used.function.arguments)] : null
      })
    },
    async streamed (call) {
      let [reason, name, input, output]: [string | null, string, number | null, number | null] = [null, '', null, null]
      let json = ''
      const stream = await client.chat.completions.create(
        { ...request(call), stream: true, stream_options: { include_usage: true } }, { signal: call.signal })
      const text = await readAll(stream, ({ choices: [choice], usage }) => {
        reason = choice?.finish_reason ?? reason
        const used = choice?.delta.tool_calls?.[0]?.function
        name += used?.name ?? ''
        json += used?.arguments ?? ''
        input = usage?.prompt_tokens ?? input
        output = usage?.completion_tokens ?? output
        return choice?.delta.content
      }, call)
      return said({ text, reason, input, output, tool: name === '' ? null : [name, JSON.parse(json)] })
    }
  }
}

export function openAiResponses (place: SdkPlace): Sdk {
  const client = openAi(place)
  const request = ({ prompt, hasTool }: SdkCall) => ({
    model: 'gpt-5.4',
    input: prompt,
    max_output_tokens: maxTokens,
    ...hasTool && { tools: [{ type: 'function' as const, strict: false, ...weather, parameters: schema }] }
  })
  const told = ({ output, usage, status }: OpenAI.Responses.Response, text: string): Said => {
    const [used] = output.filter(item => item.type === 'function_call')
    return said({
      text,
      input: usage?.input_tokens ?? null,
      output: usage?.output_tokens ?? null,
      reason: status ?? null,
      tool: used ? [used.name, JSON.parse(used.arguments)] : null
    })
  }
  return {
    dialect: 'responses',
    async plain (call) {
      const response = await client.responses.create(request(call), { signal: call.signal })
      return told(response, response.output_text)
    },
    async streamed (call) {
      const ends: OpenAI.Responses.Response[] = []
      const stream = await client.responses.create({ ...request(call), stream: true }, { signal: call.signal })
      const text = await readAll(stream, event => {
        if (event.type === 'response.completed') ends.push(event.response)
        return event.type === 'response.output_text.delta' ? event.delta : ''
      }, call)
      return ends[0] ? told(ends[0], text) : said({ text })
    }
  }
}

export function anthropic ({ origin, key, headers, retries }: SdkPlace): Sdk {
  const client = new Anthropic({
    apiKey: key ?? 'none',
    baseURL: origin,
    dangerouslyAllowBrowser: true,
    defaultHeaders: { ...key === null && noKey, ...headers },
    ...retries !== undefined && { maxRetries: retries }
  })
  const request = ({ prompt, hasTool }: SdkCall) => ({
    model: 'claude-sonnet-4-6',
    max_tokens: maxTokens,
    messages: [{ role: 'user' as const, content: prompt }],
    ...hasTool && { tools: [{ ...weather, input_schema: schema }] }
  })
  const told = ({ content, stop_reason: reason, usage }: Anthropic.Message): Said => {
    const [used] = content.filter(block => block.type === 'tool_use')
    return said({
      text: content.map(block => block.type === 'text' ? block.text : '').join(''),
      input: usage.input_tokens + (usage.cache_read_input_tokens ?? 0) + (usage.cache_creation_input_tokens ?? 0),
      output: usage.output_tokens,
      reason,
      tool: used ? [used.name, used.input] : null
    })
  }
  return {
    dialect: 'messages',
    plain: async call => told(await client.messages.create(request(call), { signal: call.signal })),
    async streamed (call) {
      // The helper keeps the message together; the loop over it is what is read.
      const stream = client.messages.stream(request(call), { signal: call.signal })
      const text = await readAll(stream, event =>
        event.type === 'content_block_delta' && event.delta.type === 'text_delta' ? event.delta.text : '', call)
      const whole = stream.receivedMessages.at(-1)
      return whole ? told(whole) : said({ text })
    }
  }
}

export function genai ({ origin, key, headers, retries }: SdkPlace): Sdk {
  const client = new GoogleGenAI({
    apiKey: key ?? 'none',
    httpOptions: {
      baseUrl: origin,
      ...headers && { headers },
      ...retries !== undefined && retries > 0 && { retryOptions: { attempts: retries + 1 } }
    }
  })
  const request = ({ prompt, hasTool, signal }: SdkCall) => ({
    model: 'gemini-2.5-pro',
    contents: prompt,
    config: {
      maxOutputTokens: maxTokens,
      ...signal && { abortSignal: signal },
      ...hasTool && { tools: [{ functionDeclarations: [{ ...weather, parametersJsonSchema: schema }] }] }
    }
  })
  // Its own `text` warns at each call of a tool.
  const textOf = ({ candidates: [first] = [] }: GenerateContentResponse): string =>
    first?.content?.parts?.map(({ text = '', thought }) => thought ? '' : text).join('') ?? ''
  const told = (last: GenerateContentResponse | undefined, text: string, called = last?.functionCalls): Said => {
    const used = called?.[0]
    const { promptTokenCount: input, candidatesTokenCount = 0, thoughtsTokenCount = 0 } = last?.usageMetadata ?? {}
    return said({
      text,
      input: input ?? null,
      output: input === undefined ? null : candidatesTokenCount + thoughtsTokenCount,
      reason: last?.candidates?.[0]?.finishReason ?? null,
      tool: used ? [used.name ?? '', used.args] : null
    })
  }
  return {
    dialect: 'gemini',
    async plain (call) {
      const response = await client.models.generateContent(request(call))
      return told(response, textOf(response))
    },
    async streamed (call) {
      const chunks: GenerateContentResponse[] = []
      const text = await readAll(await client.models.generateContentStream(request(call)), chunk => {
        chunks.push(chunk)
        return textOf(chunk)
      }, call)
      return told(chunks.at(-1), text, chunks.flatMap(({ functionCalls = [] }) => functionCalls))
    }
  }
}
