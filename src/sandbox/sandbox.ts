import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Timers } from '../domain/timers.ts'
import { refusal, send } from './answers.ts'
import { balance, bearerKey, status, submit, type ApiCall, type World } from './api.ts'
import { batchStore } from './batch-store.ts'
import { batchStatus, submitBatch } from './batches.ts'
import { callbackSender, type CallbackSender, type RecordedCallback } from './callbacks.ts'
import { sandboxModels } from './models.ts'
import { sendResult } from './results.ts'
import { taskStore, type SandboxTask } from './tasks.ts'

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
  /** By which callbacks are sent. Default: Node's. */
  readonly timers?: Timers
  /** Where the redirect cases lead. Default `http://127.0.0.1:1/`, where nobody listens. */
  readonly redirectTo?: string
  /** Models beyond those of `sandboxModels`. */
  readonly models?: readonly string[]
  /** How many calls, and how many submits, are kept; the oldest are dropped first. Default: all. */
  readonly recordCalls?: number
  /** How many tasks are kept, and as many batches and keys of items; the oldest are forgotten first. Default: all. */
  readonly recordTasks?: number
}

/** A request as it came over the wire. */
export interface RecordedCall {
  readonly method: string
  readonly url: string
  /** Names and values in turn, with the spelling and order they were sent in. */
  readonly rawHeaders: readonly string[]
  /** Empty until the whole body is read. */
  readonly body: Buffer
}

/** A running sandbox. */
export interface Sandbox {
  readonly origin: string
  /** Every request, in the order of arrival. */
  readonly calls: readonly RecordedCall[]
  /** The `POST generateTask` requests among `calls`, batches included. */
  readonly submits: readonly RecordedCall[]
  readonly tasks: ReadonlyMap<string, SandboxTask>
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
  /** Undoes `revoke`. */
  restore (key: string): void
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

const routes = [
  { method: 'POST', path: /^\/api\/v1\/generateTask\/([^/]+)$/, answer: submit },
  { method: 'POST', path: /^\/api\/v1\/generateTask\/([^/]+)\/batches$/, answer: submitBatch },
  { method: 'GET', path: /^\/api\/v1\/generateTask\/([^/]+)\/batches\/([^/]+)$/, answer: batchStatus },
  { method: 'GET', path: /^\/api\/v1\/statusTask\/([^/]+)$/, answer: status },
  { method: 'GET', path: /^\/api\/v1\/apikeys\/(current-balance)$/, answer: balance }
] as const

/** Answers one request whose body has been read. A route or a method that is not APIXO's gets its 404. */
function route (world: World, request: IncomingMessage, call: Omit<ApiCall, 'model' | 'batchId' | 'query'>): void {
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
  send(call.response, refusal(404))
}

/** Collects a body. A request that breaks off is never answered, so its end is not waited for. */
function readBody (request: IncomingMessage, done: (body: Buffer) => void): void {
  const chunks: Buffer[] = []
  request.on('data', (chunk: Buffer) => chunks.push(chunk))
  request.on('end', () => done(Buffer.concat(chunks)))
}

function recorder (limit: number) {
  const calls: RecordedCall[] = []
  const submits: RecordedCall[] = []
  return {
    calls,
    submits,
    record ({ method = '', url = '', rawHeaders }: IncomingMessage): (body: Buffer) => void {
      const call: RecordedCall & { body: Buffer } = { method, url, rawHeaders, body: Buffer.alloc(0) }
      const lists = method === 'POST' && url.startsWith('/api/v1/generateTask/') ? [calls, submits] : [calls]
      for (const list of lists) {
        list.push(call)
        if (list.length > limit) list.shift()
      }
      return (body) => { call.body = body }
    }
  }
}

/** Node's, none of which keeps the program from ending. */
const realTimers: Timers = {
  after (ms, run) {
    const timer = setTimeout(run, ms).unref()
    return () => clearTimeout(timer)
  }
}

/** The callbacks that were sent, and who sends them. */
function postOffice ({ timers = realTimers, now = Date.now, recordCalls = Infinity }: SandboxOptions, resultUrl: (name: string) => string) {
  const sent: RecordedCallback[] = []
  const office = { sent, callbacksTo: undefined as string | undefined }
  const record = (callback: RecordedCallback): void => {
    sent.push(callback)
    if (sent.length > recordCalls) sent.shift()
  }
  return Object.assign(office, { sender: callbackSender({ timers, now, callbacksTo: () => office.callbacksTo, resultUrl, record }) })
}

function newWorld (options: SandboxOptions, resultUrl: (name: string) => string, callbacks: CallbackSender): World {
  return {
    models: new Set([...sandboxModels, ...options.models ?? []]),
    tasks: taskStore(options.recordTasks ?? Infinity),
    batches: batchStore(options.recordTasks ?? Infinity),
    // An empty key would let in whoever sends none.
    keys: new Set(options.keys.filter((key) => key !== '')),
    forbidden: new Map(),
    now: options.now ?? Date.now,
    taskMs: options.taskMs ?? 6000,
    resultUrl,
    callbacks,
    balanceUsd: options.balanceUsd ?? 100
  }
}

/** Where slow answers wait. */
function slowGate () {
  const held: Array<() => void> = []
  return {
    get waiting () { return held.length },
    hold (goOn: () => void): void {
      held.push(goOn)
    },
    release (): void {
      for (const goOn of held.splice(0)) goOn()
    }
  }
}

/**
 * Starts a stand-in for APIXO's task API on a port of its own. Throws what listening throws, such as `EADDRINUSE`.
 *
 * @see https://apixo.ai/docs/api-reference
 */
export async function startSandbox (options: SandboxOptions): Promise<Sandbox> {
  const { port = 0, host = '127.0.0.1', redirectTo = 'http://127.0.0.1:1/', recordCalls = Infinity } = options
  const { calls, submits, record } = recorder(recordCalls)
  const answers: Answerer[] = []
  const gate = slowGate()
  const resultUrl = (name: string): string => `${options.publicOrigin ?? origin}/temp/${name}`
  const office = postOffice(options, resultUrl)
  const world = newWorld(options, resultUrl, office.sender)

  const server = createServer((request, response) => {
    const recordBody = record(request)
    readBody(request, (body) => {
      recordBody(body)
      const byHand = answers.shift()
      if (byHand) return byHand(request, response)
      const idempotencyKey = String(request.headers['idempotency-key'] ?? '')
      route(world, request, { response, key: bearerKey(request), idempotencyKey, redirectTo, hold: gate.hold, body })
    })
  })
  server.listen(port, host)
  await once(server, 'listening')
  const origin = `http://${host}:${(server.address() as AddressInfo).port}`

  return {
    origin,
    calls,
    submits,
    tasks: world.tasks.byId,
    callbacks: office.sent,
    get callbacksTo () { return office.callbacksTo },
    set callbacksTo (origin) { office.callbacksTo = origin },
    get balanceUsd () { return world.balanceUsd },
    set balanceUsd (usd) { world.balanceUsd = usd },
    get waiting () { return gate.waiting },
    revoke (key) { world.keys.delete(key) },
    restore (key) { world.keys.add(key) },
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
