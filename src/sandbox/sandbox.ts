import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { systemTimers, type Timers } from '../domain/time.ts'
import {
  type ApiCall, balance, batchStatus, batchStore, bearerKey, type RecordedCall, recorder, type Recorder, status, submit,
  submitBatch, type World
} from './api.ts'
import { callbackRecorder, type RecordedCallback } from './callbacks.ts'
import { answerLlm, llmFound, llmModels, llmTotals, type LlmWorld } from './llm.ts'
import { type LlmCall, llmCalls, type LlmTotals } from './llm-calls.ts'
import { type Exchange, refusal, send, sendResult, slowGate } from './responses.ts'
import { sandboxModels, type SandboxTask, taskStore } from './tasks.ts'

const routes = [
  { method: 'POST', path: /^\/api\/v1\/generateTask\/([^/]+)$/, answer: submit },
  { method: 'POST', path: /^\/api\/v1\/generateTask\/([^/]+)\/batches$/, answer: submitBatch },
  { method: 'GET', path: /^\/api\/v1\/generateTask\/([^/]+)\/batches\/([^/]+)$/, answer: batchStatus },
  { method: 'GET', path: /^\/api\/v1\/statusTask\/([^/]+)$/, answer: status },
  { method: 'GET', path: /^\/api\/v1\/apikeys\/(current-balance)$/, answer: balance }
] as const

/** Answers one request whose body has been read. A route or a method that is not APIXO's gets its 404. */
export function route (
  world: World,
  request: IncomingMessage,
  call: Omit<ApiCall, 'model' | 'batchId' | 'query'>
): void {
  const { method, url = '' } = request
  // Not `new URL`: it throws at some of what a client may send as a target.
  const [path = '', query] = url.split('?', 2)
  for (const { method: wanted, path: pattern, answer } of routes) {
    const [, model, batchId = ''] = pattern.exec(path) ?? []
    if (model && method === wanted) return answer(world, { ...call, model, batchId, query: new URLSearchParams(query) })
  }
  const name = /^\/temp\/([^/]+)$/.exec(path)?.[1]
  if (name && (method === 'GET' || method === 'HEAD')) {
    return sendResult(request, call.response, world.tasks, name, world.now())
  }
  const llm = llmFound(method, path, query)
  if (llm) return answerLlm(world.llm, llm, request, call.body, call)
  if (path === '/sandbox/llm' && method === 'GET') return llmTotals(world.llm, call.response)
  send(call.response, refusal(404))
}

export interface SandboxOptions {
  /** The keys that are let in; there is no other check of them. */
  readonly keys: readonly string[]
  /** 0, the default, takes a free one. */
  readonly port?: number
  /** Default 127.0.0.1. */
  readonly host?: string
  /** Unix milliseconds; the clock by which tasks run and results expire. Default `Date.now`. */
  readonly now?: () => number
  /** Milliseconds from a submit to the end of its task. Default 6000. */
  readonly taskMs?: number
  /** Default 100. A task costs `priceUsd`. */
  readonly balanceUsd?: number
  /** Scheme, host and port in the URLs of results, when callers see the sandbox under another name. */
  readonly publicOrigin?: string
  /** By which callbacks are sent, and pauses in streams kept. Default: Node's. */
  readonly timers?: Timers
  /** Where the redirect cases lead. Default `http://127.0.0.1:1/`, where nobody listens. */
  readonly redirectTo?: string
  /** Models beyond those of `sandboxModels` and `llmModels`; the task API and the LLM gateway know them both. */
  readonly models?: readonly string[]
  /** How many calls, submits and LLM calls each are kept; the oldest are dropped first. Default: all. */
  readonly recordCalls?: number
  /** How many tasks are kept, and as many batches and keys of items; the oldest are forgotten first. Default: all. */
  readonly recordTasks?: number
}

/** A running sandbox. */
export interface Sandbox {
  readonly origin: string
  /** Every request, in the order of arrival. */
  readonly calls: readonly RecordedCall[]
  /** The `POST generateTask` requests among `calls`, batches included. */
  readonly submits: readonly RecordedCall[]
  readonly tasks: ReadonlyMap<string, SandboxTask>
  /** Every LLM call, with what an upstream would charge for, in the order of arrival. */
  readonly llmCalls: readonly LlmCall[]
  /** Scheme, host and port that callbacks are sent to, in place of those in their URLs; those when `undefined`. */
  callbacksTo: string | undefined
  /** Every callback, in the order in which they were answered, or given no answer. */
  readonly callbacks: readonly RecordedCallback[]
  /** What `current-balance` tells, in USD; falls with each task. Submits are refused with 402 when it is too low. */
  balanceUsd: number
  /** How many slow answers wait for `release`. */
  readonly waiting: number
  /** Refuses the key from now on, with 401. */
  revoke (key: string): void
  /** Undoes `revoke`, and `refuse`. */
  restore (key: string): void
  /** Answers LLM calls of this key with this HTTP status from now on, in the shape of the vendor. */
  refuse (key: string, status: number): void
  /** How many LLM calls came to which end, and their tokens; the same is at `GET /sandbox/llm`. */
  llmTotals (): LlmTotals
  /** Refuses submits of this key for this model, with 401. */
  forbid (key: string, model: string): void
  /** Answers one request by hand: the next one whose body is complete, whatever its route. Several calls queue up. */
  next (answer: Answerer): void
  /** Lets the slow answers that wait go on. */
  release (): void
  /** Stops listening and destroys every connection. */
  close (): Promise<void>
}

type Answerer = (request: IncomingMessage, response: ServerResponse) => void

/** Collects a body. A request that breaks off is never answered, so its end is not waited for. */
function readBody (request: IncomingMessage, done: (body: Buffer) => void): void {
  const chunks: Buffer[] = []
  request.on('data', (chunk: Buffer) => chunks.push(chunk))
  request.on('end', () => done(Buffer.concat(chunks)))
}

interface ListenerOptions extends Pick<Recorder, 'record'>, Pick<Exchange, 'redirectTo' | 'hold'> {
  /** Those by hand, each for one request. */
  readonly answers: Answerer[]
  readonly world: World
}

function listener ({ record, answers, world, redirectTo, hold }: ListenerOptions): Answerer {
  return (request, response) => {
    const recordBody = record(request)
    readBody(request, (body) => {
      recordBody(body)
      const byHand = answers.shift()
      if (byHand) return byHand(request, response)
      const idempotencyKey = String(request.headers['idempotency-key'] ?? '')
      route(world, request, { response, key: bearerKey(request), idempotencyKey, redirectTo, hold, body })
    })
  }
}

function newWorld (options: SandboxOptions, shared: Pick<World, 'now' | 'resultUrl' | 'callbacks'>): World {
  // An empty key would let in callers that send none.
  const keys = new Set(options.keys.filter((key) => key !== ''))
  return {
    ...shared,
    models: new Set([...sandboxModels, ...options.models ?? []]),
    tasks: taskStore(options.recordTasks ?? Infinity),
    batches: batchStore(options.recordTasks ?? Infinity),
    keys,
    llm: newLlmWorld(options, { keys, now: shared.now }),
    forbidden: new Map(),
    taskMs: options.taskMs ?? 6000,
    balanceUsd: options.balanceUsd ?? 100
  }
}

function newLlmWorld (
  { models = [], recordCalls = Infinity, timers = systemTimers }: SandboxOptions,
  { keys, now }: Pick<LlmWorld, 'keys' | 'now'>
): LlmWorld {
  return {
    models: new Set([...llmModels, ...models]), calls: llmCalls(recordCalls), refused: new Map(), keys, timers, now
  }
}

/**
 * Starts a stand-in for APIXO's task API and its LLM gateway, both on a port of its own. Throws what listening throws,
 * such as `EADDRINUSE`.
 *
 * @see https://apixo.ai/docs/api-reference
 */
export async function startSandbox (options: SandboxOptions): Promise<Sandbox> {
  const { port = 0, host = '127.0.0.1', redirectTo = 'http://127.0.0.1:1/', recordCalls = Infinity } = options
  const now = options.now ?? Date.now
  const { calls, submits, record } = recorder(recordCalls)
  const answers: Answerer[] = []
  const gate = slowGate()
  const resultUrl = (name: string): string => `${options.publicOrigin ?? origin}/temp/${name}`
  const office = callbackRecorder({ timers: options.timers, now, resultUrl, recordCalls })
  const world = newWorld(options, { now, resultUrl, callbacks: office.sender })

  const server = createServer(listener({ record, answers, world, redirectTo, hold: gate.hold }))
  server.listen(port, host)
  await once(server, 'listening')
  const origin = `http://${host}:${(server.address() as AddressInfo).port}`

  return {
    origin,
    calls,
    submits,
    tasks: world.tasks.byId,
    llmCalls: world.llm.calls.list,
    callbacks: office.sent,
    get callbacksTo () { return office.callbacksTo },
    set callbacksTo (origin) { office.callbacksTo = origin },
    get balanceUsd () { return world.balanceUsd },
    set balanceUsd (usd) { world.balanceUsd = usd },
    get waiting () { return gate.waiting },
    revoke (key) { world.keys.delete(key) },
    restore (key) {
      world.keys.add(key)
      world.llm.refused.delete(key)
    },
    refuse (key, status) { world.llm.refused.set(key, status) },
    llmTotals: world.llm.calls.totals,
    forbid (key, model) { world.forbidden.set(key, new Set(world.forbidden.get(key)).add(model)) },
    next (answer) { answers.push(answer) },
    release: gate.release,
    close: () => new Promise((resolve) => {
      office.sender.close()
      server.close(() => resolve())
      server.closeAllConnections()
    })
  }
}
