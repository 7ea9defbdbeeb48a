import { Writable } from 'node:stream'
import type { Test } from 'tap'
import type { Model } from '../../src/domain/policy.ts'
import { createGateway, type Gateway, type GatewayOptions } from '../../src/gateway.ts'
import { type Sandbox, type SandboxOptions, startSandbox } from '../../src/sandbox/sandbox.ts'
import { loadSettings, type Settings } from '../../src/settings.ts'
import { type Clock, clock } from './clock.ts'
import { type Caller, callerOf, issuerToken } from './http-caller.ts'
import type { CrankedTimers } from './timers.ts'

export type { CallOptions, Reply } from './http-caller.ts'
export { issuerToken } from './http-caller.ts'

export const apiKey = 'apixo-key-of-the-operator-0001'
export const adminToken = 'admin-token-of-the-operator-0001'
export const sessionSecret = 'a-session-secret-of-32-bytes-and-more'
/** Whole run of a task in the sandbox, ms of the test's clock. */
export const taskMs = 6000

export interface TestGatewayOptions {
  /** config/gateway.yaml; a roomy default plan when absent. */
  readonly config?: string
  /** config/models.json has these; none when absent. */
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
  /** The gateway with something of it replaced. */
  readonly createGateway?: typeof createGateway
}

/** A whole gateway on a real socket, over a sandbox, with a clock cranked by hand. It ends with its test. */
export interface TestGateway extends Caller {
  readonly origin: string
  readonly gateway: Gateway
  readonly settings: Settings
  readonly sandbox: Sandbox
  readonly time: Clock
  /** Every log line so far. */
  readonly log: ReadonlyArray<Record<string, any>>
  /** The access lines among them. */
  lines (): ReadonlyArray<Record<string, any>>
}

const roomy =
  'plans: { default: { requestsPerMinute: 100000, pollsPerMinute: 100000, concurrentTasks: 1000, credits: unlimited } }'

export async function startGateway (t: Test, options: TestGatewayOptions = {}): Promise<TestGateway> {
  const time = options.time ?? clock()
  const keys = options.keys ?? [apiKey]
  const sandbox =
    options.upstream ??
    (await startSandbox({
      keys,
      now: time.now,
      taskMs,
      ...(options.timers && { timers: options.timers }),
      ...options.sandbox
    }))
  if (options.upstream === undefined) t.teardown(() => sandbox.close())
  const settings = settingsFor(t, sandbox.origin, { ...options, keys })
  const log: Array<Record<string, any>> = []
  const gateway = await (options.createGateway ?? createGateway)(settings, {
    now: time.now,
    elapsed: time.elapsed,
    logTo: collector(log),
    timers: options.timers,
    webhooks: options.webhooks,
    siteverifyUrl: options.siteverifyUrl,
    tidyEveryMs: options.tidyEveryMs
  })
  t.teardown(() => gateway.close())
  const origin = await gateway.listen()
  sandbox.callbacksTo = origin

  return {
    origin,
    gateway,
    settings,
    sandbox,
    time,
    log,
    lines: () => log.filter(line => line.msg === 'request'),
    ...callerOf(origin)
  }
}

/** Settings as an operator would make them: a file and an environment. */
export function settingsFor (
  t: Test,
  baseUrl: string,
  { config = roomy, models = [], env = {}, keys = [apiKey], store = ':memory:' }: TestGatewayOptions
): Settings {
  const cwd = t.testdir({ 'gateway.yaml': config, 'models.json': JSON.stringify({ models }) })
  return loadSettings({
    cwd,
    env: {
      APIXO_API_KEY: keys.join(','),
      APIXO_BASE_URL: baseUrl,
      APIXO_LLM_BASE_URL: env.APIXO_BASE_URL ?? baseUrl,
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

function collector (log: Array<Record<string, any>>): Writable {
  return new Writable({
    write (chunk, _encoding, done) {
      for (const line of String(chunk).split('\n')) if (line !== '') log.push(JSON.parse(line))
      done()
    }
  })
}
