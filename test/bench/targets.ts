import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { SignJWT } from 'jose'
import { request, type Shot } from './load.ts'
import { nginxConfig } from './peers/nginx.ts'
import { cpus, freePort, type Program, type Running, start } from './process.ts'

/** One program under measurement and the requests it is given, in turn. */
export interface Target extends Running {
  readonly submit: readonly Shot[]
  readonly status: readonly Shot[]
  /** Bad tokens; absent where nothing looks at tokens. */
  readonly refused?: readonly Shot[]
}

/**
 * Callers that take turns. None of their tasks is ever polled to its end while submits are measured: a single caller
 * would have tens of thousands of unfinished ones, where a plan allows a handful.
 */
const callers = Array.from({ length: 1000 }, (_, index) => `bench-${index}`)

const root = join(import.meta.dirname, '../..')
const key = `sk-${randomBytes(24).toString('hex')}`
const generate = '/api/v1/generateTask/nano-banana'
const json = { 'content-type': 'application/json' }

/** 300 bytes, the size of an ordinary prompt. */
const body = (() => {
  const withPrompt = (prompt: string) =>
    JSON.stringify({ request_type: 'async', input: { mode: 'text-to-image', prompt, aspect_ratio: '1:1' } })
  return withPrompt('a lighthouse in fog '.repeat(20).slice(0, 300 - withPrompt('').length))
})()

/** Everything a run starts, in one place: each program is handed to `started` at once, so that none is left behind. */
export interface Stage {
  readonly folder: string
  readonly upstreamPort: number
  started <Program extends Running> (running: Program): Program
}

export async function startUpstream (folder: string): Promise<Running> {
  return start(await program('upstream', folder, { cpu: cpus.others }))
}

/** Load straight to the upstream: what a proxy adds is measured against it. */
export function direct (upstream: Running): Target {
  return { ...upstream, name: 'direct', ...shots([{}], 'any') }
}

export async function raw (stage: Stage): Promise<Target> {
  const running = stage.started(await start(await program('raw', stage.folder, { env: upstreamEnv(stage) })))
  return { ...running, ...shots([{}], 'any') }
}

export async function httpProxy (stage: Stage): Promise<Target> {
  const secret = randomBytes(32).toString('hex')
  const env = { ...upstreamEnv(stage), JWT_SECRET: secret, LOG_FILE: join(stage.folder, 'http-proxy.access.log') }
  const running = stage.started(await start(await program('http-proxy', stage.folder, { env })))
  const tokens = await Promise.all(
    callers.map(
      async caller =>
        await new SignJWT({ sub: caller })
          .setProtectedHeader({ alg: 'HS256' })
          .setExpirationTime('2h')
          .sign(Buffer.from(secret))
    )
  )
  return { ...running, ...shots(tokens.map(bearer), 'any'), refused: [refusedShot(tokens[0]!)] }
}

export function hasNginx (): boolean {
  return spawnSync('nginx', ['-v'], { stdio: 'ignore' }).status === 0
}

export async function nginx (stage: Stage): Promise<Target> {
  const port = await freePort()
  const config = join(stage.folder, 'nginx.conf')
  writeFileSync(config, nginxConfig(port, stage.upstreamPort, key))
  const wanted = await program('nginx', stage.folder, { port, command: ['nginx', '-p', stage.folder, '-c', config] })
  return { ...stage.started(await start(wanted)), ...shots([{}], 'any') }
}

/** What differs from the gateway as it is run in earnest. */
export interface Variant {
  readonly name: string
  readonly script?: string
  readonly store?: string
  /** Before its first start. */
  readonly prepare?: () => Promise<void>
}

/** Ours, as it is run in earnest: a process of its own, SQLite in a file, access log to a file, a minted session. */
export async function gateway (stage: Stage, variant: Variant = { name: 'gateway' }): Promise<Target> {
  const {
    name,
    script = join(root, 'src/main.ts'),
    store = `sqlite:${join(stage.folder, `${name}.db`)}`,
    prepare
  } = variant
  await prepare?.()
  const config = join(stage.folder, 'gateway.yaml')
  writeFileSync(config, JSON.stringify(unlimited)) // JSON is YAML
  const issuerToken = randomBytes(32).toString('hex')
  const wanted = await program(name, stage.folder, {
    command: [process.execPath, script],
    env: {
      APIXO_API_KEY: key,
      APIXO_BASE_URL: `http://127.0.0.1:${stage.upstreamPort}`,
      GATEWAY_SESSION_SECRET: randomBytes(32).toString('hex'),
      GATEWAY_ISSUER_TOKEN: issuerToken,
      GATEWAY_STORE: store,
      GATEWAY_CONFIG: config,
      NODE_COMPILE_CACHE: join(stage.folder, 'compile-cache'),
      HOST: '127.0.0.1',
      LOG_LEVEL: 'info'
    }
  })
  // Started twice, since the image comes with its code compiled: the first start fills the cache when it ends.
  await stage.started(await start(wanted)).stop()
  const running = stage.started(await start(wanted))
  const tokens: string[] = []
  for (const caller of callers) tokens.push(await mint(running.port, issuerToken, caller))
  const taskId = await finishedTask(running.port, tokens[0]!)
  return { ...running, ...shots(tokens.map(bearer), taskId), refused: [refusedShot(tokens[0]!)] }
}

/** Limits so wide that none is ever met: what is measured is the work of checking them. */
const unlimited = {
  plans: {
    default: {
      models: ['*'],
      requestsPerMinute: 1_000_000_000,
      pollsPerMinute: 1_000_000_000,
      concurrentTasks: 1_000_000_000,
      credits: 'unlimited'
    }
  },
  limits: { addressRequestsPerMinute: 1_000_000_000, addressFailuresPerMinute: 1_000_000_000 }
}

async function mint (port: number, issuerToken: string, subject: string): Promise<string> {
  const { status, json: session } = await request(port, {
    method: 'POST',
    path: '/gateway/sessions',
    headers: { ...json, ...bearer(issuerToken) },
    body: JSON.stringify({ subject, ttlSeconds: 3600 })
  })
  if (status !== 201) throw new Error(`no session: ${status} ${JSON.stringify(session)}`)
  return session.token
}

/** A task that has ended and whose end the gateway has seen. */
async function finishedTask (port: number, token: string): Promise<string> {
  const submitted = await request(port, submitShot(bearer(token)))
  const taskId = submitted.json?.data?.taskId
  const seen = await request(port, statusShot(bearer(token), taskId))
  if (seen.json?.data?.state !== 'success') throw new Error(`no finished task: ${JSON.stringify([submitted, seen])}`)
  return taskId
}

function bearer (token: string): Record<string, string> {
  return { authorization: `Bearer ${token}` }
}

/** Everyone submits; the first one asks for its finished task. */
function shots (credentials: ReadonlyArray<Record<string, string>>, taskId: string): Pick<Target, 'submit' | 'status'> {
  return { submit: credentials.map(submitShot), status: [statusShot(credentials[0]!, taskId)] }
}

function submitShot (credential: Record<string, string>): Shot {
  return { method: 'POST', path: generate, headers: { ...json, ...credential }, body }
}

function statusShot (credential: Record<string, string>, taskId: string): Shot {
  return { method: 'GET', path: `/api/v1/statusTask/nano-banana?taskId=${taskId}`, headers: credential }
}

/** A token of the right shape whose signature is wrong: the dearest kind to refuse. */
function refusedShot (token: string): Shot {
  const last = token.endsWith('AAAA') ? 'BBBB' : 'AAAA'
  return submitShot(bearer(token.slice(0, -4) + last))
}

function upstreamEnv ({ upstreamPort }: Stage): Record<string, string> {
  return { UPSTREAM: `http://127.0.0.1:${upstreamPort}`, APIXO_API_KEY: key }
}

/** A program of `peers/` unless a command says otherwise. */
async function program (name: string, folder: string, given: Partial<Program>): Promise<Program> {
  const port = given.port ?? await freePort()
  return {
    name,
    command: [process.execPath, join(import.meta.dirname, `peers/${name}.ts`)],
    cpu: cpus.measured,
    readyPath: '/livez',
    cwd: folder,
    logFile: join(folder, `${name}.log`),
    ...given,
    port,
    env: { ...given.env, PORT: String(port) }
  }
}
