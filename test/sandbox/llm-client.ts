import type { Sandbox } from '../../src/sandbox/sandbox.ts'
import { key } from './client.ts'

export const dialects = ['chat', 'responses', 'messages', 'gemini'] as const
export type DialectName = typeof dialects[number]

const models = { chat: 'gpt-5.4', responses: 'gpt-5.4', messages: 'claude-sonnet-4-6', gemini: 'gemini-2.5-pro' }
const paths = { chat: '/v1/chat/completions', responses: '/v1/responses', messages: '/v1/messages' }

export interface Ask {
  readonly dialect: DialectName
  readonly prompt?: string
  /** array: Gemini's stream without `alt=sse`. */
  readonly form?: 'json' | 'sse' | 'array'
  /** On top of the usual body, or in place of it when it is text. */
  readonly body?: Readonly<Record<string, unknown>> | string
  readonly headers?: Readonly<Record<string, string>>
  /** Without the vendor's credential: that is among `headers`. */
  readonly isBare?: boolean
  readonly model?: string
  readonly signal?: AbortSignal
}

/** The header with which each vendor's SDK brings its key, as APIXO documents it. */
export function keyHeader (dialect: DialectName, value = key): Record<string, string> {
  if (dialect === 'messages') return { 'x-api-key': value, 'anthropic-version': '2023-06-01' }
  return dialect === 'gemini' ? { 'x-goog-api-key': value } : { authorization: `Bearer ${value}` }
}

function bodyOf ({ dialect, prompt = 'hi there', form = 'json', model = models[dialect] }: Ask): object {
  const stream = form === 'json' ? {} : { stream: true }
  const messages = [{ role: 'user', content: prompt }]
  switch (dialect) {
    case 'chat': return { model, messages, ...stream }
    case 'responses': return { model, input: prompt, ...stream }
    case 'messages': return { model, messages, max_tokens: 100, ...stream }
    case 'gemini': return { contents: [{ role: 'user', parts: [{ text: prompt }] }] }
  }
}

function pathOf ({ dialect, form = 'json', model = models[dialect] }: Ask): string {
  if (dialect !== 'gemini') return paths[dialect]
  const streamed = `streamGenerateContent${form === 'sse' ? '?alt=sse' : ''}`
  return `/v1beta/models/${model}:${form === 'json' ? 'generateContent' : streamed}`
}

/** One call of the LLM gateway, as plain as it can be. */
export function ask ({ origin }: Pick<Sandbox, 'origin'>, request: Ask): Promise<Response> {
  const { dialect, body = {}, headers, isBare = false, signal } = request
  return fetch(origin + pathOf(request), {
    method: 'POST',
    redirect: 'manual',
    headers: { 'content-type': 'application/json', ...isBare ? {} : keyHeader(dialect), ...headers },
    body: typeof body === 'string' ? body : JSON.stringify({ ...bodyOf(request), ...body }),
    ...signal && { signal }
  })
}

export interface Block {
  readonly event: string | null
  readonly data: any
}

/** The blocks of an event stream that has ended. */
export function blocksIn (text: string): Block[] {
  return text.split(/\r?\n\r?\n/).slice(0, -1).map(block => {
    const lines = block.split(/\r?\n/)
    const of = (name: string) =>
      lines.filter(line => line.startsWith(`${name}: `)).map(line => line.slice(name.length + 2))
    const data = of('data').join('\n')
    return { event: of('event')[0] ?? null, data: data === '[DONE]' ? data : JSON.parse(data) }
  })
}

/** What was read of a body, and whether it broke off. */
export async function readAll (response: Response): Promise<{ readonly text: string, readonly isCut: boolean }> {
  let text = ''
  const decoder = new TextDecoder()
  try {
    for await (const chunk of response.body!) text += decoder.decode(chunk, { stream: true })
    return { text, isCut: false }
  } catch {
    return { text, isCut: true }
  }
}

/** The text of an answer, streamed or not. */
export function saidIn (dialect: DialectName, data: any): string {
  switch (dialect) {
    case 'chat': return data.choices?.[0]?.delta?.content ?? data.choices?.[0]?.message?.content ?? ''
    case 'responses': return (data.type === 'response.output_text.delta' ? data.delta : null) ??
      data.output?.map(({ content = [] }) => content.map(({ text }: { text: string }) => text).join('')).join('') ?? ''
    case 'messages': return data.delta?.text ?? data.content?.map(({ text = '' }) => text).join('') ?? ''
    case 'gemini': return data.candidates?.[0].content.parts.map((part: any) => part.thought ? '' : part.text).join('') ?? ''
  }
}
