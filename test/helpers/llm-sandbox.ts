import type { Test } from 'tap'
import type { Tokens } from '../../src/sandbox/llm-dialects.ts'
import { startSandbox } from '../../src/sandbox/sandbox.ts'
import { apiKey, startGateway, type TestGateway, type TestGatewayOptions } from './gateway.ts'

/** A gateway whose LLM calls go to the sandbox. */
export interface LlmSandbox extends TestGateway {
  /** Microcredits that a caller has been charged so far, or that are set aside for it. */
  spent (token: string): Promise<number>
  /** What the sandbox has counted of a call, at the prices of `llmPrices`: microcredits. */
  costOf (tokens: Tokens): number
}

export const creditsEach = 1_000_000

/** Prices at which no two kinds of tokens can be taken for each other: microcredits for one token. */
export const llmPrices = { input: 101, cacheRead: 11, cacheWrite: 131, output: 503, reasoning: 709 }

export const llmConfig = `
plans:
  default: { credits: ${creditsEach}, requestsPerMinute: 1000000, concurrentTasks: 10000 }
  poor: { credits: 0.000001 }
  slow: { credits: ${creditsEach}, requestsPerMinute: 1 }
  choosy: { credits: ${creditsEach}, models: ["nano-*"] }
limits: { addressRequestsPerMinute: 1000000, addressFailuresPerMinute: 1000000 }
prices:
  "nano-*": 1
  "*": { inputPerMillion: ${llmPrices.input}, cacheReadPerMillion: ${llmPrices.cacheRead}, cacheWritePerMillion: ${llmPrices.cacheWrite}, outputPerMillion: ${llmPrices.output}, reasoningPerMillion: ${llmPrices.reasoning} }
`

export async function startLlmSandbox (
  t: Test, { env, keys = [apiKey], ...options }: TestGatewayOptions = {}
): Promise<LlmSandbox> {
  const sandbox = await startSandbox({ keys, ...options.sandbox })
  t.teardown(() => sandbox.close())
  const gateway = await startGateway(t, {
    config: llmConfig, ...options, keys, upstream: sandbox, env: { APIXO_LLM_BASE_URL: sandbox.origin, ...env }
  })
  return {
    ...gateway,
    async spent (token) {
      const { json } = await gateway.call('/api/v1/apikeys/current-balance', { token })
      return Math.round((creditsEach - json.data) * 1e6)
    },
    costOf: ({ input, cacheRead, cacheWrite, output, reasoning }) =>
      input * llmPrices.input + cacheRead * llmPrices.cacheRead + cacheWrite * llmPrices.cacheWrite +
      (output - reasoning) * llmPrices.output + reasoning * llmPrices.reasoning
  }
}
