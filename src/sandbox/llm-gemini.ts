import { isObject, jsonValue } from '../domain/json.ts'
import {
  type Asked, type Body, countIn, type Dialect, event, inputTokensOf, lastOfUser, objectsIn, type Reply,
  type StreamEvent, textIn, type Tokens, usageAtEnd, wantedTool
} from './llm-dialects.ts'

const statuses: Readonly<Record<number, string>> = {
  401: 'UNAUTHENTICATED',
  402: 'FAILED_PRECONDITION',
  403: 'PERMISSION_DENIED',
  404: 'NOT_FOUND',
  429: 'RESOURCE_EXHAUSTED',
  503: 'UNAVAILABLE',
  504: 'DEADLINE_EXCEEDED'
}

/** @see https://ai.google.dev/gemini-api/docs/troubleshooting */
function error (code: number, message: string): object {
  return { error: { code, message, status: statuses[code] ?? (code < 500 ? 'INVALID_ARGUMENT' : 'INTERNAL') } }
}

/** Thoughts stand beside the candidates' tokens, not among them. */
function printUsage ({ input, cacheRead, cacheWrite, output, reasoning }: Tokens): object {
  const prompt = input + cacheRead + cacheWrite
  return {
    promptTokenCount: prompt,
    candidatesTokenCount: output - reasoning,
    totalTokenCount: prompt + output,
    ...cacheRead > 0 ? { cachedContentTokenCount: cacheRead } : {},
    ...reasoning > 0 ? { thoughtsTokenCount: reasoning } : {}
  }
}

type Part = Readonly<Record<string, unknown>>

function partsOf ({ thoughts, pieces, tool }: Reply): Array<readonly [part: Part, tokens: number]> {
  return [
    ...thoughts.map(text => [{ text, thought: true }, 1] as const),
    ...tool === null
      ? pieces.map(text => [{ text }, 1] as const)
      : [[{ functionCall: { name: tool.name, args: jsonValue(tool.pieces.join('')) } }, tool.pieces.length] as const]
  ]
}

function chunk (
  { model, choices }: Asked, reply: Reply, parts: readonly Part[], reason: string | null, usageMetadata: unknown
): object {
  const candidate = {
    content: { role: 'model', parts },
    ...reason === null ? {} : { finishReason: reason },
    ...reason !== null && reply.isContinued ? { continuationToken: `more-${reply.id}` } : {}
  }
  return {
    candidates: Array.from({ length: choices }, (_, index) => ({ ...candidate, index })),
    usageMetadata,
    modelVersion: model,
    responseId: reply.id
  }
}

function reasonOf ({ ends, isContinued }: Reply): string {
  if (isContinued) return 'CONTINUATION'
  return ends === 'length' ? 'MAX_TOKENS' : 'STOP'
}

/** Each chunk is an answer of its own, and tells the usage so far. */
function events (asked: Asked, reply: Reply): readonly StreamEvent[] {
  let [output, reasoning] = [0, 0]
  const contents = partsOf(reply).map(([part, each]) => {
    const tokens = each * asked.choices
    output += tokens
    if (part.thought === true) reasoning += tokens
    const usage = reply.usage === 'absent' ? undefined : printUsage({ ...reply.tokens, output, reasoning })
    return event('content', chunk(asked, reply, [part], null, usage), { tokens })
  })
  const last = chunk(asked, reply, [{ text: '' }], reasonOf(reply), usageAtEnd(reply, printUsage))
  return [...contents, event('closing', last, { isTerminal: true })]
}

function hasPart (message: Body | undefined, name: string): boolean {
  return objectsIn(message?.parts).some(part => part[name] !== undefined)
}

/** @see https://ai.google.dev/api/generate-content */
export const gemini: Dialect = {
  name: 'gemini',
  // The model may hold slashes: `google/m`, `tunedModels/m`.
  path: /^\/v1(?:beta)?\/models\/(?<model>[^:]+):(?<operation>generateContent|streamGenerateContent)$/,
  keyOf: ({ 'x-goog-api-key': key }) => textIn(key),
  tellsCacheWrites: false,
  requestIdHeader: 'x-request-id',
  problemWith: ({ contents }: Body) => objectsIn(contents).length > 0 ? null : 'contents is not specified',
  read (body, { model = '', operation }, query) {
    const contents = objectsIn(body.contents)
    const prompt = lastOfUser(contents, 'parts')
    const config = isObject(body.generationConfig) ? body.generationConfig : {}
    const tools = objectsIn(body.tools).flatMap(({ functionDeclarations }) => objectsIn(functionDeclarations))
      .map(({ name, parameters, parametersJsonSchema }) =>
        ({ name: textIn(name), schema: parametersJsonSchema ?? parameters }))
    const streamed = query.get('alt') === 'sse' ? 'sse' : 'array'
    return {
      model,
      form: operation === 'streamGenerateContent' ? streamed : 'json',
      prompt,
      inputTokens: inputTokensOf(body),
      tool: wantedTool(tools, prompt, hasPart(contents.at(-1), 'functionResponse')),
      maxTokens: countIn(config.maxOutputTokens),
      choices: countIn(config.candidateCount) ?? 1,
      asksUsage: true,
      continues: body.continuationToken !== undefined
    }
  },
  json (asked, reply) {
    const parts = reply.tool === null
      ? [...thought(reply), { text: reply.pieces.join('') }]
      : [...thought(reply), ...partsOf({ ...reply, thoughts: [] }).map(([part]) => part)]
    return chunk(asked, reply, parts, reasonOf(reply), usageAtEnd(reply, printUsage))
  },
  events,
  error,
  errorEvent: (status, message) => event('closing', error(status, message))
}

function thought ({ thoughts }: Reply): Part[] {
  return thoughts.length > 0 ? [{ text: thoughts.join(''), thought: true }] : []
}
