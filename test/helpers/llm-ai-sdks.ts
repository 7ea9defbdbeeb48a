import { createAnthropic } from '@ai-sdk/anthropic'
import { createGoogleGenerativeAI } from '@ai-sdk/google'
import { createOpenAI } from '@ai-sdk/openai'
import { createOpenAICompatible } from '@ai-sdk/openai-compatible'
import { generateText, jsonSchema, type LanguageModel, streamText, type ToolSet } from 'ai'
import {
  anthropic, genai, maxTokens, openAiChat, openAiResponses, readAll, said, schema, type Sdk, type SdkCall,
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
    apiKey: place.key, baseURL: `${place.origin}/v1`
  })('claude-sonnet-4-6'), place),
  'ai google': place => ai('gemini', createGoogleGenerativeAI({
    apiKey: place.key, baseURL: `${place.origin}/v1beta`
  })('gemini-2.5-pro'), place),
  'ai compatible': place => ai('chat', createOpenAICompatible({
    name: 'gateway', apiKey: place.key, baseURL: `${place.origin}/v1`, includeUsage: true
  })('gpt-5.4'), place)
} satisfies Record<string, (place: SdkPlace) => Sdk>

export type SdkName = keyof typeof sdks
export const sdkNames = Object.keys(sdks).filter((name): name is SdkName => name in sdks)

function openAiOf ({ origin, key }: SdkPlace) {
  return createOpenAI({ apiKey: key, baseURL: `${origin}/v1` })
}
