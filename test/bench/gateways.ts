import { randomBytes } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { request } from './load.ts'
import { start } from './process.ts'
import {
  bearer, finishedTask, json, madeTask, models, refusedShots, type Shots, statusShot, submitShot, submitShots
} from './shots.ts'
import { callers, key, program, type Stage, startMeasured, type Target } from './targets.ts'

/** What differs from the gateway as it is run in earnest. */
export interface Variant {
  readonly name: string
  /** What is run in place of this checkout's `src/main.ts`, options of Node included. */
  readonly command?: readonly string[]
  readonly store?: string
  /** Before its first start. */
  readonly prepare?: () => Promise<void>
  /** Its environment, on top. */
  readonly env?: Readonly<Record<string, string>>
  /** Of models, where any has one per token. */
  readonly prices?: Readonly<Record<string, object | number>>
  /** Of the file, in place of the usual ones. */
  readonly settings?: Readonly<Record<string, object>>
}

/** One that says what is run. */
export type Scripted = Variant & Required<Pick<Variant, 'command'>>

/** A gateway that has been started, and what mints sessions there. */
export interface Gateway extends Target {
  mint (subject: string, plan?: string): Promise<string>
}

export const root = join(import.meta.dirname, '../..')

/** Limits so wide that none is ever met: what is measured is the work of checking them. */
const wide = {
  models: ['*'],
  requestsPerMinute: 1_000_000_000,
  pollsPerMinute: 1_000_000_000,
  concurrentTasks: 1_000_000_000,
  credits: 'unlimited'
}
const config = {
  plans: { default: wide, limited: { ...wide, requestsPerMinute: 1 } },
  limits: {
    addressRequestsPerMinute: 1_000_000_000,
    addressFailuresPerMinute: 1_000_000_000,
    streamsPerSubject: 5000
  },
  polling: { '*': 1000 },
  results: { hosts: ['127.0.0.1'] }
}

const ample = 1_000_000_000
/**
 * A pool and four windows above each subject, as wide as its own limits: all of them are counted in, and looked at. A
 * window is of the pool, of the plan or of the whole gateway.
 */
export const withCeilings: Variant = {
  name: 'with ceilings',
  settings: {
    plans: { ...config.plans, default: { ...wide, pool: 'bench', ceilings: { day: ample } } },
    pools: { bench: { ceilings: { hour: ample, day: ample } } },
    gateway: { ceilings: { month: ample } }
  }
}

/** Ours, as it is run in earnest: a process of its own, SQLite in a file, access log to a file. No session yet. */
export async function startGateway (stage: Stage, variant: Variant): Promise<Gateway> {
  const {
    name,
    command = [join(root, 'src/main.ts')],
    store = `sqlite:${join(stage.folder, `${name}.db`)}`,
    prepare,
    env,
    prices,
    settings
  } = variant
  await prepare?.()
  const configFile = join(stage.folder, `${name}.yaml`)
  writeFileSync(configFile, JSON.stringify({ ...config, prices, ...settings })) // JSON is YAML
  const issuerToken = randomBytes(32).toString('hex')
  const wanted = await program(name, stage.folder, {
    command: [process.execPath, ...command],
    env: {
      APIXO_API_KEY: key,
      APIXO_BASE_URL: `http://127.0.0.1:${stage.upstreamPort}`,
      APIXO_LLM_BASE_URL: `http://127.0.0.1:${stage.upstreamPort}`,
      GATEWAY_SESSION_SECRET: randomBytes(32).toString('hex'),
      GATEWAY_ISSUER_TOKEN: issuerToken,
      GATEWAY_STORE: store,
      GATEWAY_CONFIG: configFile,
      NODE_COMPILE_CACHE: join(stage.folder, 'compile-cache'),
      HOST: '127.0.0.1',
      LOG_LEVEL: 'info',
      ...env
    }
  })
  // Started twice, since the image comes with its code compiled: the first start fills the cache when it ends.
  await stage.started(await start(wanted)).stop()
  const running = await startMeasured(stage, wanted)
  const mint = async (subject: string, plan = 'default'): Promise<string> => {
    const { status, json: session } = await request(running.port, {
      method: 'POST',
      path: '/gateway/sessions',
      headers: { ...json, ...bearer(issuerToken) },
      body: JSON.stringify({ subject, plan, ttlSeconds: 3600 })
    })
    if (status !== 201) throw new Error(`no session: ${status} ${JSON.stringify(session)}`)
    return session.token
  }
  return { ...running, shots: {}, mint }
}

/** The same with its sessions minted, and a task of each kind. `callersUsed`: fewer are faster to set up. */
export async function gateway (
  stage: Stage,
  variant: Variant = { name: 'gateway' },
  callersUsed: number = callers.length
): Promise<Target> {
  const running = await startGateway(stage, variant)
  const tokens = await inBatches(callers.slice(0, callersUsed), async caller => await running.mint(caller))
  return { ...running, shots: await shotsOf(running, tokens) }
}

/** Some at a time: one after the other they take long on a busy machine, and all at once they time out there. */
async function inBatches<Item, Made> (items: readonly Item[], make: (item: Item) => Promise<Made>): Promise<Made[]> {
  const made: Made[] = []
  for (let at = 0; at < items.length; at += 25) made.push(...await Promise.all(items.slice(at, at + 25).map(make)))
  return made
}

/** Everyone submits and asks for a task that runs; the first one asks for its finished task. */
async function shotsOf ({ port, mint }: Gateway, tokens: readonly string[]): Promise<Shots> {
  const credentials = tokens.map(bearer)
  const running = await inBatches(credentials.slice(0, 100), async credential =>
    statusShot(credential, await madeTask(port, credential, models.running), models.running))
  const taskId = await finishedTask(port, credentials[0]!)
  return {
    ...submitShots(credentials),
    ...refusedShots(tokens[0]!),
    running,
    finished: [statusShot(credentials[0]!, taskId)],
    limited: [submitShot(bearer(await mint('bench-limited', 'limited')))]
  }
}
