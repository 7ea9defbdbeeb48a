import type { ServerResponse } from 'node:http'
import { type Dialect, noTokens, type Tokens } from './llm-dialects.ts'

/**
 * running: not yet at its end · complete: its terminal event, or all of its JSON, was handed to the network · cut: the
 * sandbox broke it off · aborted: its reader went away before that · refused: no token was used.
 */
export type LlmOutcome = 'running' | 'complete' | 'cut' | 'aborted' | 'refused'

/** An LLM call as the sandbox remembers it, with the tokens that an upstream would charge for. */
export interface LlmCall {
  readonly dialect: Dialect['name']
  readonly model: string
  readonly key: string
  readonly prompt: string
  readonly outcome: LlmOutcome
  /** So far. Of a JSON answer all, whatever came of it: it was made before its first byte. */
  readonly tokens: Tokens
}

/** How many calls came to which end, and the tokens of all of them. */
export type LlmTotals = Readonly<Record<LlmOutcome, Tokens & { readonly calls: number }>>

/** Writes a call down. */
export interface LlmRecord {
  /** All of it is made. */
  made (tokens: Tokens): void
  /** This much more of it is made. */
  add (tokens: Partial<Tokens>): void
  /** The first end is the one that counts. */
  end (outcome: Exclude<LlmOutcome, 'running'>): void
}

export interface LlmCalls {
  /** In the order of arrival. */
  readonly list: readonly LlmCall[]
  totals (): LlmTotals
  begin (call: Pick<LlmCall, 'dialect' | 'model' | 'key' | 'prompt'>): LlmRecord
}

const outcomes: readonly LlmOutcome[] = ['running', 'complete', 'cut', 'aborted', 'refused']

function sum (one: Tokens, other: Partial<Tokens>): Tokens {
  const { input = 0, cacheRead = 0, cacheWrite = 0, output = 0, reasoning = 0 } = other
  return {
    input: one.input + input,
    cacheRead: one.cacheRead + cacheRead,
    cacheWrite: one.cacheWrite + cacheWrite,
    output: one.output + output,
    reasoning: one.reasoning + reasoning
  }
}

type Kept = { -readonly [Name in keyof LlmCall]: LlmCall[Name] }

/** Keeps `limit` calls and drops the oldest first; the totals know them all. */
export function llmCalls (limit: number): LlmCalls {
  const list: Kept[] = []
  /** Of those that are kept no longer. */
  const dropped = new Map<LlmOutcome, Tokens & { calls: number }>()
  const count = (totals: Map<LlmOutcome, Tokens & { calls: number }>, { outcome, tokens }: LlmCall): void => {
    const before = totals.get(outcome) ?? { ...noTokens, calls: 0 }
    totals.set(outcome, { ...sum(before, tokens), calls: before.calls + 1 })
  }
  return {
    list,
    totals () {
      const totals = new Map(dropped)
      for (const call of list) count(totals, call)
      const rows = outcomes.map(name => [name, totals.get(name) ?? { ...noTokens, calls: 0 }])
      return Object.fromEntries(rows)
    },
    begin (asked) {
      const call: Kept = { ...asked, outcome: 'running', tokens: noTokens }
      list.push(call)
      // One that still runs is dropped as what it is by then.
      if (list.length > limit) count(dropped, list.shift()!)
      return {
        made (tokens) { call.tokens = tokens },
        add (tokens) { call.tokens = sum(call.tokens, tokens) },
        end (outcome) { if (call.outcome === 'running') call.outcome = outcome }
      }
    }
  }
}

/** Ends a record when its answer has ended: all handed over, or its reader gone. */
export function followed (response: ServerResponse, record: LlmRecord): LlmRecord {
  response.once('close', () => record.end(response.writableFinished ? 'complete' : 'aborted'))
  return record
}
