import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { haproxyConfig, nginxConfig } from './peers/configs.ts'
import { cpus, freePort, type Program, type Running, start } from './process.ts'
import {
  bearer, forwardedStatusShots, jwts, limitedAddress, refusedShots, type Shots, submitShot, submitShots
} from './shots.ts'

/** One program under measurement and the requests it is given, in turn. */
export interface Target extends Running {
  readonly shots: Shots
}

/**
 * Callers that take turns. None of their tasks is ever polled to its end while submits are measured: a single caller
 * would have tens of thousands of unfinished ones, where a plan allows a handful.
 */
export const callers = Array.from({ length: 1000 }, (_, index) => `bench-${index}`)

/** What all programs hold in place of an APIXO key. */
export const key = `sk-${randomBytes(24).toString('hex')}`

/** Everything a run starts, in one place: each program is handed to `started` at once, so that none is left behind. */
export interface Stage {
  readonly folder: string
  readonly upstreamPort: number
  /** How long a program is left alone before its idle memory is read. */
  readonly settleSeconds: number
  started <Program extends Running> (running: Program): Program
}

export async function startUpstream (folder: string, env: Record<string, string> = {}): Promise<Running> {
  return await start(await program('upstream', folder, { cpu: cpus.others, env }))
}

/** Starts a program that is to be measured, and looks at its memory once it has come to rest. */
export async function startMeasured (stage: Stage, wanted: Program): Promise<Running> {
  const running = stage.started(await start(wanted))
  await wait(stage.settleSeconds * 1000)
  return { ...running, idleBytes: running.residentBytes() }
}

/** Load straight to the upstream: what a proxy adds is measured against it. */
export function direct (upstream: Running): Target {
  return { ...upstream, name: 'direct', shots: { submit: [submitShot({})] } }
}

/** The floor that Node sets. `connections`: as many calls as may be under way at the upstream. */
export async function raw (stage: Stage, connections = 64): Promise<Target> {
  const env = { ...upstreamEnv(stage), CONNECTIONS: String(connections) }
  const running = await startMeasured(stage, await program('raw', stage.folder, { env }))
  return { ...running, shots: { ...submitShots([{}]), ...forwardedStatusShots({}) } }
}

export type PeerName = 'http-proxy' | 'express' | 'portkey' | 'nginx' | 'haproxy'

/** In the order in which they are told. */
export const peerNames: readonly PeerName[] = ['http-proxy', 'express', 'portkey', 'nginx', 'haproxy']

const peers = join(import.meta.dirname, 'peers')
const installed = (name: string): boolean => existsSync(join(peers, 'node_modules', name))
const answers = (command: string): boolean => spawnSync(command, ['-v'], { stdio: 'ignore' }).status === 0

/** Why a peer can not take part here; `null`: it can. */
export function absence (name: PeerName): string | null {
  if (name === 'nginx' || name === 'haproxy') return answers(name) ? null : `${name} is not installed`
  const [from, ...rest] = {
    'http-proxy': ['@fastify/http-proxy', '@fastify/jwt'],
    express: ['express', 'http-proxy-middleware', 'express-rate-limit', 'jsonwebtoken'],
    portkey: ['@portkey-ai/gateway']
  }[name] as [string, ...string[]]
  return [from, ...rest].every(installed) ? null : `${name}: run \`npm run bench -- --install\` once`
}

export async function peer (name: PeerName, stage: Stage): Promise<Target> {
  return await { 'http-proxy': assembled, express: assembled, portkey, nginx, haproxy }[name](stage, name)
}

/** What a user would put together from parts: a token check, a limit by address, and a proxy. */
async function assembled (stage: Stage, name: PeerName): Promise<Target> {
  const secret = randomBytes(32).toString('hex')
  const logFile = join(stage.folder, `${name}.access.log`)
  const running = await startMeasured(stage, await program(name, stage.folder, {
    command: [process.execPath, join(peers, `${name}.js`)],
    env: { ...upstreamEnv(stage), JWT_SECRET: secret, LOG_FILE: logFile, LIMITED_ADDRESS: limitedAddress }
  }))
  return { ...running, shots: await checkedShots(secret) }
}

/** It keeps no key: each caller sends its own, with where to send it. Its own route is chat; others it answers 500. */
async function portkey (stage: Stage): Promise<Target> {
  const port = await freePort()
  const script = join(peers, 'node_modules/@portkey-ai/gateway/build/start-server.js')
  const running = await startMeasured(stage, await program('portkey', stage.folder, {
    port,
    command: [process.execPath, script, `--port=${port}`, '--headless'],
    readyPath: '/',
    env: { NODE_ENV: 'production' }
  }))
  const headers = {
    ...bearer(key),
    'x-portkey-provider': 'openai',
    'x-portkey-custom-host': `http://127.0.0.1:${stage.upstreamPort}`
  }
  return { ...running, shots: { submit: [{ ...submitShot(headers), path: '/v1/chat/completions' }] } }
}

/** A bare `proxy_pass` without a log: the limit that C sets. */
async function nginx (stage: Stage): Promise<Target> {
  const port = await freePort()
  const config = join(stage.folder, 'nginx.conf')
  writeFileSync(config, nginxConfig(port, stage.upstreamPort, key))
  const command = ['nginx', '-p', stage.folder, '-c', config] as const
  const running = await startMeasured(stage, await program('nginx', stage.folder, { port, command }))
  return { ...running, shots: submitShots([{}]) }
}

/** With a token check, a limit and a log: the same features in C. */
async function haproxy (stage: Stage): Promise<Target> {
  const port = await freePort()
  const secret = randomBytes(32).toString('hex')
  const config = join(stage.folder, 'haproxy.cfg')
  writeFileSync(config, haproxyConfig({ port, upstreamPort: stage.upstreamPort, key, secret, limitedAddress }))
  const command = ['haproxy', '-db', '-f', config] as const
  const running = await startMeasured(stage, await program('haproxy', stage.folder, { port, command }))
  return { ...running, shots: await checkedShots(secret) }
}

/** Requests for a peer that checks tokens and limits addresses. */
async function checkedShots (secret: string): Promise<Shots> {
  const [first, ...others] = await jwts(secret, callers) as [string, ...string[]]
  return {
    ...submitShots([first, ...others].map(bearer)),
    ...refusedShots(first),
    limited: [submitShot(bearer(first))]
  }
}

function upstreamEnv ({ upstreamPort }: Stage): Record<string, string> {
  return { UPSTREAM: `http://127.0.0.1:${upstreamPort}`, APIXO_API_KEY: key }
}

/** A program of `programs/` unless a command says otherwise. */
export async function program (name: string, folder: string, given: Partial<Program>): Promise<Program> {
  const port = given.port ?? await freePort()
  return {
    name,
    command: [process.execPath, join(import.meta.dirname, `programs/${name}.ts`)],
    cpu: cpus.measured,
    readyPath: '/livez',
    cwd: folder,
    logFile: join(folder, `${name}.log`),
    ...given,
    port,
    env: { ...given.env, PORT: String(port) }
  }
}
