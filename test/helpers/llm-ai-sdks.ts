import { createAnthropic } from '@ai-sdk/anthropic'
import { createGoogleGenerativeAI } from '@ai-sdk/google'
import { createOpenAI } from '@ai-sdk/openai'
import { createOpenAICompatible } from '@ai-sdk/openai-compatible'
import { generateText, jsonSchema, type LanguageModel, streamText, type ToolSet } from 'ai'
import {
  anthropic, genai, maxTokens, openAiChat, openAiResponses, readAll, said, type Said, schema, type Sdk, type SdkCall,
  type SdkPlace, weather
} from './llm-sdks.ts'

const tools: ToolSet = { weather: { description: weather.description, inputSchema: jsonSchema(schema) } }

function ai (dialect: Sdk['dialect'], model: LanguageModel, { headers, retries }: SdkPlace): Sdk {
  const request = ({ prompt, hasTool, signal }: SdkCall) => ({
    model,
    prompt,
    maxOutputTokens: maxTokens,
    ...headers && { headers },
    ...retries !== undefined && { maxRetries: retries },
    ...signal && { abortSignal: signal },
    ...hasTool && { tools }
  })
  return {
    dialect,
    async plain (call) {
      const { text, usage, finishReason, toolCalls: [used] } = await generateText(request(call))
      return said({
        text,
        input: usage.inputTokens ?? null,
        output: usage.outputTokens ?? null,
        reason: finishReason,
        tool: used ? [used.toolName, used.input] : null
      })
    },
    async streamed (call) {
      const errors: unknown[] = []
      const result = streamText({ ...request(call), onError: ({ error }) => { errors.push(error) } })
      let isWhole = true
      const text = await readAll(result.textStream, piece => piece, {
        ...call,
        onText: piece => { isWhole = call.onText?.(piece) ?? true; return isWhole }
      })
      // `textStream` ends without a throw, whatever comes; what it was is told apart.
      if (errors.length > 0) throw errors[0]
      if (!isWhole || call.signal?.aborted) return said({ text })
      const [usage, reason, [used]] = await Promise.all([result.usage, result.finishReason, result.toolCalls])
      return said({
        text,
        input: usage.inputTokens ?? null,
        output: usage.outputTokens ?? null,
        reason,
        tool: used ? [used.toolName, used.input] : null
      })
    }
  }
}

/** Each of the official SDKs, by the name it has in tables. */
export const sdks = {
  'openai chat': openAiChat,
  'openai responses': openAiResponses,
  anthropic,
  genai,
  'ai openai chat': place => ai('chat', openAiOf(place).chat('gpt-5.4'), place),
  'ai openai responses': place => ai('responses', openAiOf(place)('gpt-5.4'), place),
  'ai anthropic': place => ai('messages', createAnthropic({
    apiKey: place.key ?? 'none', baseURL: `${place.origin}/v1`
  })('claude-sonnet-4-6'), place),
  'ai google': place => ai('gemini', createGoogleGenerativeAI({
    apiKey: place.key ?? 'none', baseURL: `${place.origin}/v1beta`
  })('gemini-2.5-pro'), place),
  'ai compatible': place => ai('chat', createOpenAICompatible({
    name: 'gateway', baseURL: `${place.origin}/v1`, includeUsage: true, ...place.key !== null && { apiKey: place.key }
  })('gpt-5.4'), place)
} satisfies Record<string, (place: SdkPlace) => Sdk>

export type SdkName = keyof typeof sdks
export const sdkNames = Object.keys(sdks).filter((name): name is SdkName => name in sdks)

function openAiOf ({ origin, key }: SdkPlace) {
  return createOpenAI({ apiKey: key ?? 'none', baseURL: `${origin}/v1` })
}

/** What an SDK makes of an error, in the words of none. */
export interface SdkError {
  /** Of the error that the last try ended with. */
  readonly className: string
  readonly status: number | null
  /** Wherever the SDK has put the words of the answer: its message, its code and its type. */
  readonly told: string
  readonly requestId: string | null
}

/** `ai` throws an error about its tries, of which the last one is what happened. */
export function readError (error: any): SdkError {
  const it = error.lastError ?? error
  return {
    className: it.constructor.name,
    status: it.status ?? it.statusCode ?? null,
    told: [it.code, it.type, it.message, it.responseBody].filter(word => typeof word === 'string').join(' '),
    requestId: it.requestID ?? it.responseHeaders?.['x-request-id'] ?? null
  }
}

/** What a call came to: what was said, or the error. */
export function outcomeOf (call: Promise<Said>): Promise<Said | SdkError> {
  return call.catch(readError)
}
