import { Writable } from 'node:stream'
import type { Test } from 'tap'
import { createGateway, type Gateway, type GatewayOptions } from '../../src/app.ts'
import type { Model } from '../../src/domain/bodies/models.ts'
import { type Sandbox, type SandboxOptions, startSandbox } from '../../src/sandbox/sandbox.ts'
import { loadSettings, type Settings } from '../../src/settings.ts'
import { type Clock, clock } from './clock.ts'
import type { CrankedTimers } from './timers.ts'

export const apiKey = 'apixo-key-of-the-operator-0001'
export const issuerToken = 'issuer-token-of-the-backend-0001'
export const adminToken = 'admin-token-of-the-operator-0001'
export const sessionSecret = 'a-session-secret-of-32-bytes-and-more'
/** Whole run of a task in the sandbox, ms of the test's clock. */
export const taskMs = 6000

export interface TestGatewayOptions {
  /** config/gateway.yaml; a roomy default plan when absent. */
  readonly config?: string
  /** config/models.json has these; there is none when absent. */
  readonly models?: readonly Model[]
  readonly env?: Readonly<Record<string, string>>
  readonly keys?: readonly string[]
  readonly sandbox?: Partial<SandboxOptions>
  /** The sandbox of another gateway: the two are replicas. */
  readonly upstream?: Sandbox
  /** A file for the ledger; in memory when absent. */
  readonly store?: string
  readonly time?: Clock
  readonly tidyEveryMs?: number
  /** In place of Node's: they run when the test says so. */
  readonly timers?: CrankedTimers
  /** Servers of callers that are on this machine. */
  readonly webhooks?: GatewayOptions['webhooks']
  readonly siteverifyUrl?: string
}

export interface CallOptions {
  readonly method?: string
  readonly token?: string
  readonly body?: unknown
  readonly headers?: Readonly<Record<string, string>>
  readonly signal?: AbortSignal
}

export interface Reply {
  readonly status: number
  readonly headers: Headers
  readonly text: string
  /** The parsed body; `undefined` when it is no JSON. */
  readonly json: any
  /** `x-gateway-error`. */
  readonly error: string | null
}

/** A whole gateway on a real socket, over a sandbox, with a clock cranked by hand. It ends with its test. */
export interface TestGateway {
  readonly origin: string
  readonly gateway: Gateway
  readonly settings: Settings
  readonly sandbox: Sandbox
  readonly time: Clock
  /** Every log line so far. */
  readonly log: ReadonlyArray<Record<string, any>>
  /** The access lines among them. */
  lines (): ReadonlyArray<Record<string, any>>
  call (path: string, options?: CallOptions): Promise<Reply>
  mint (subject: string, more?: object): Promise<string>
  submit (token: string, prompt?: string, model?: string, options?: CallOptions): Promise<Reply>
  status (token: string, taskId: string, model?: string, options?: CallOptions): Promise<Reply>
}

const roomy = 'plans: { default: { requestsPerMinute: 100000, pollsPerMinute: 100000, concurrentTasks: 1000, credits: unlimited } }'

export async function startGateway (t: Test, options: TestGatewayOptions = {}): Promise<TestGateway> {
  const time = options.time ?? clock()
  const keys = options.keys ?? [apiKey]
  const sandbox = options.upstream ?? await startSandbox({ keys, now: time.now, taskMs, ...(options.timers && { timers: options.timers }), ...options.sandbox })
  if (options.upstream === undefined) t.teardown(() => sandbox.close())
  const settings = settingsFor(t, sandbox.origin, { ...options, keys })
  const log: Array<Record<string, any>> = []
  const gateway = await createGateway(settings, {
    now: time.now,
    logTo: collector(log),
    ...(options.timers === undefined ? {} : { timers: options.timers }),
    ...(options.webhooks === undefined ? {} : { webhooks: options.webhooks }),
    ...(options.siteverifyUrl === undefined ? {} : { siteverifyUrl: options.siteverifyUrl }),
    ...(options.tidyEveryMs === undefined ? {} : { tidyEveryMs: options.tidyEveryMs })
  })
  t.teardown(() => gateway.close())
  const origin = await gateway.listen()
  sandbox.callbacksTo = origin

  const call: TestGateway['call'] = async (path, { method, token, body, headers = {}, signal } = {}) => {
    const text = body === undefined || typeof body === 'string' ? body : JSON.stringify(body)
    const response = await fetch(origin + path, {
      method: method ?? (body === undefined ? 'GET' : 'POST'),
      headers: {
        ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
        ...(text === undefined ? {} : { 'content-type': 'application/json' }),
        ...headers
      },
      redirect: 'manual',
      ...(text === undefined ? {} : { body: text }),
      ...(signal === undefined ? {} : { signal })
    })
    return replyFrom(response)
  }

  return {
    origin,
    gateway,
    settings,
    sandbox,
    time,
    log,
    lines: () => log.filter(line => line.msg === 'request'),
    call,
    async mint (subject, more = {}) {
      const { status, json, text } = await call('/gateway/sessions', { token: issuerToken, body: { subject, ...more } })
      if (status !== 201) throw new Error(`minting failed: ${text}`)
      return json.token
    },
    submit: (token, prompt = 'a red cube', model = 'nano-banana', more = {}) =>
      call(`/api/v1/generateTask/${model}`, { token, body: { request_type: 'async', input: { mode: 'text-to-image', prompt } }, ...more }),
    status: (token, taskId, model = 'nano-banana', more = {}) =>
      call(`/api/v1/statusTask/${model}?taskId=${encodeURIComponent(taskId)}`, { token, ...more })
  }
}

/** Settings as an operator would make them: a file and an environment. */
export function settingsFor (t: Test, baseUrl: string, { config = roomy, models, env = {}, keys = [apiKey], store = ':memory:' }: TestGatewayOptions): Settings {
  const cwd = t.testdir({ 'gateway.yaml': config, ...(models === undefined ? {} : { 'models.json': JSON.stringify({ models }) }) })
  return loadSettings({
    cwd,
    env: {
      APIXO_API_KEY: keys.join(','),
      APIXO_BASE_URL: baseUrl,
      GATEWAY_SESSION_SECRET: sessionSecret,
      GATEWAY_ISSUER_TOKEN: issuerToken,
      GATEWAY_STORE: `sqlite:${store}`,
      GATEWAY_CONFIG: 'gateway.yaml',
      PORT: '0',
      LOG_LEVEL: 'trace',
      ...env
    }
  })
}

async function replyFrom (response: Response): Promise<Reply> {
  const text = await response.text()
  let json
  try {
    json = JSON.parse(text)
  } catch { /* not JSON: the test looks at the text */ }
  return { status: response.status, headers: response.headers, text, json, error: response.headers.get('x-gateway-error') }
}

function collector (log: Array<Record<string, any>>): Writable {
  return new Writable({
    write (chunk, _encoding, done) {
      for (const line of String(chunk).split('\n')) if (line !== '') log.push(JSON.parse(line))
      done()
    }
  })
}
