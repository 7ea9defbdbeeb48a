import { createServer, type IncomingHttpHeaders, type ServerResponse } from 'node:http'
import type { Test } from 'tap'
import { startGateway, type TestGateway, type TestGatewayOptions } from './gateway.ts'
import { httpPort } from './http-server.ts'

/** A call as the upstream of a test got it. */
export interface UpstreamCall {
  readonly path: string
  readonly headers: IncomingHttpHeaders
  readonly text: string
  readonly response: ServerResponse
}

/** Answers one call; whatever it likes of the connection is in `response`. */
export type AnswerCall = (call: UpstreamCall) => void

/** A gateway whose LLM calls go to a server of the test's own. */
export interface LlmGateway extends TestGateway {
  /** All that the upstream got, in order. */
  readonly calls: readonly UpstreamCall[]
  /** Answers the calls from now on. */
  answerWith (answer: AnswerCall): void
  /** What is left of a caller's credits. */
  left (token: string): Promise<number>
}

/** A thousand credits; a credit for a thousand tokens in, and two for a thousand out. */
export const llmConfig = `
plans: { default: { credits: 1000, requestsPerMinute: 1000, concurrentTasks: 100 } }
prices:
  "audio-*": { inputPerMillion: 1000, outputPerMillion: 2000, audioOutputPerMillion: 9000 }
  "plain-*": { inputPerMillion: 1000, outputPerMillion: 2000, cacheReadPerMillion: 100, hidesReasoning: false }
  "google*": { inputPerMillion: 1000, outputPerMillion: 2000 }
  "google/*:*": { inputPerMillion: 1000, outputPerMillion: 2000 }
  "deep-*": { inputPerMillion: 1000, outputPerMillion: 2000 }
  "*": 1
`

export async function startLlmGateway (
  t: Test, answer: AnswerCall, { config = llmConfig, env, ...options }: TestGatewayOptions = {}
): Promise<LlmGateway> {
  const calls: UpstreamCall[] = []
  let answering = answer
  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk)
    const call = { path: request.url!, headers: request.headers, text: Buffer.concat(chunks).toString(), response }
    calls.push(call)
    answering(call)
  })
  const port = await httpPort(t, server)
  const gateway = await startGateway(t, {
    ...options, config, env: { APIXO_LLM_BASE_URL: `http://127.0.0.1:${port}`, ...env }
  })
  return {
    ...gateway,
    calls,
    answerWith (next) { answering = next },
    async left (token) {
      return (await gateway.call('/api/v1/apikeys/current-balance', { token })).json.data
    }
  }
}

/** An answer in JSON. */
export function json (value: unknown, status = 200): AnswerCall {
  return ({ response }) => {
    response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(value))
  }
}

/** Events of a stream: of OpenAI's kind, or with a name. */
export function events (...data: ReadonlyArray<unknown>): string {
  return data.map(one => {
    const name = typeof one === 'object' && one !== null && 'type' in one ? `event: ${String(one.type)}\n` : ''
    return `${name}data: ${typeof one === 'string' ? one : JSON.stringify(one)}\n\n`
  }).join('')
}

/** A stream in these pieces, and its end. */
export function stream (...pieces: readonly string[]): AnswerCall {
  return ({ response }) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    for (const piece of pieces) response.write(piece)
    response.end()
  }
}

/** The same, and then the connection is lost. */
export function cutStream (...pieces: readonly string[]): AnswerCall {
  return ({ response }) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    for (const piece of pieces) response.write(piece)
    setImmediate(() => response.destroy())
  }
}
