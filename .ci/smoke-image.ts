import { execFile } from 'node:child_process'
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'

/**
 * The image as an operator runs it, locked down, in front of the sandbox: `node .ci/smoke-image.ts [image]`.
 * Asks for what only a real container shows: its user, its health, its memory, how it stops, what it logs, what is
 * left after a restart. Needs Docker and Docker Compose; leaves nothing behind.
 */
const image = process.argv[2] ?? 'apixo-gateway'
const run = promisify(execFile)
const root = join(import.meta.dirname, '..')
const id = `apixo-smoke-${randomBytes(4).toString('hex')}`
const names = { network: id, sandbox: `${id}-sandbox`, gateway: `${id}-gateway` }
const fresh = () => randomBytes(32).toString('hex')
const secrets = { key: `sk-${fresh()}`, session: fresh(), issuer: fresh() }
const lockedDown = ['--read-only', '--cap-drop=ALL', '--security-opt=no-new-privileges', '--pull=never']
const prompt = `smoke test ${id}`

async function docker (args: readonly string[], env: Readonly<Record<string, string>> = {}, command = 'docker'): Promise<string> {
  const { stdout, stderr } = await run(command, args, {
    cwd: root, env: { ...process.env, ...env }, timeout: 60_000, maxBuffer: 64 * 1024 * 1024
  })
  // A container writes to both; Docker's own notices do not matter here.
  return args[0] === 'logs' ? stdout + stderr : stdout.trim()
}

/** Secrets go in as `-e NAME`, with their values in the environment: arguments can be read by every local user. */
function variables (env: Readonly<Record<string, string>>): string[] {
  return Object.keys(env).flatMap(name => ['-e', name])
}

async function freePort (): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

async function eventually<T> (what: string, seconds: number, attempt: () => Promise<T | null>, everyMs = 100): Promise<T> {
  const until = Date.now() + seconds * 1000
  while (Date.now() < until) {
    const value = await attempt()
    if (value !== null) return value
    await sleep(everyMs)
  }
  throw new Error(`not within ${seconds} s: ${what}`)
}

function say (what: string): void {
  console.log(`ok  ${what}`)
}

interface Answer { readonly status: number, readonly json: any }

async function call (port: number, method: string, path: string, token?: string, body?: unknown): Promise<Answer> {
  const response = await fetch(`http://127.0.0.1:${port}${path}`, {
    method,
    headers: {
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
      ...(body === undefined ? {} : { 'content-type': 'application/json' })
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    signal: AbortSignal.timeout(10_000)
  })
  const text = await response.text()
  return { status: response.status, json: text.startsWith('{') ? JSON.parse(text) : text }
}

function isReady (port: number): Promise<true | null> {
  return call(port, 'GET', '/readyz').then(({ status }) => status === 200 ? true : null, () => null)
}

async function startSandbox (): Promise<void> {
  await docker(['network', 'create', names.network])
  const env = { SANDBOX_HOST: '0.0.0.0', SANDBOX_PORT: '9000', SANDBOX_KEYS: secrets.key }
  await docker(['run', '-d', '--name', names.sandbox, '--network', names.network, '--network-alias', 'sandbox',
    '--no-healthcheck', '--tmpfs=/tmp', ...lockedDown, ...variables(env), image, 'node', 'src/sandbox/main.ts'], env)
}

async function startGateway (port: number): Promise<void> {
  const env = {
    APIXO_API_KEY: secrets.key,
    APIXO_BASE_URL: 'http://sandbox:9000',
    GATEWAY_INSECURE_UPSTREAM: 'true',
    GATEWAY_SESSION_SECRET: secrets.session,
    GATEWAY_ISSUER_TOKEN: secrets.issuer
  }
  await docker(['run', '-d', '--name', names.gateway, '--network', names.network, '-p', `127.0.0.1:${port}:8080`,
    '--health-interval=1s', '--tmpfs=/tmp', ...lockedDown, ...variables(env), image], env)
  await eventually('/readyz answers 200', 15, () => isReady(port), 10)
  const readyAt = Date.now()
  const startedAt = Date.parse(await docker(['inspect', '-f', '{{.State.StartedAt}}', names.gateway]))
  say(`ready ${((readyAt - startedAt) / 1000).toFixed(2)} s after its start`)
}

async function checkProcess (): Promise<void> {
  await eventually('the container is healthy', 30, async () =>
    await docker(['inspect', '-f', '{{.State.Health.Status}}', names.gateway]) === 'healthy' || null)
  say('its health check says healthy')

  const commandLine = await docker(['exec', names.gateway, 'cat', '/proc/1/cmdline'])
  assert.equal(commandLine.split('\0')[0], 'node', 'the first process is node, which so gets SIGTERM')
  const status = await docker(['exec', names.gateway, 'cat', '/proc/1/status'])
  const field = (name: string) => new RegExp(`^${name}:\\s+(\\S+)`, 'm').exec(status)?.[1]
  assert.notEqual(field('Uid'), '0', 'it is not root')
  assert.equal(Number(`0x${field('CapEff')}`), 0, 'it has no capabilities')
  assert.equal(field('NoNewPrivs'), '1')
  await assert.rejects(docker(['exec', names.gateway, 'touch', '/app/src/main.ts']), 'its own code can not be written')
  await assert.rejects(docker(['exec', names.gateway, 'test', '-e', 'node_modules/tap']), 'it holds no development packages')
  say(`first process is node, user ${field('Uid')}, no capabilities, code read-only`)
  const residentMb = Math.round(Number(field('VmRSS')) / 1000)
  // Types that are stripped at the start, for want of a compile cache, take 25 MB more.
  assert.ok(residentMb < 160, `its code comes compiled: ${residentMb} MB resident`)
  say(`${residentMb} MB resident, idle`)
}

/** The way of a browser's request: session, submit, poll. */
async function makeImage (port: number): Promise<{ token: string, taskId: string }> {
  const session = await call(port, 'POST', '/gateway/sessions', secrets.issuer, { subject: 'smoke' })
  assert.equal(session.status, 201, JSON.stringify(session))
  const { token } = session.json
  const body = { request_type: 'async', input: { mode: 'text-to-image', prompt } }
  const submitted = await call(port, 'POST', '/api/v1/generateTask/nano-banana', token, body)
  assert.equal(submitted.status, 200, JSON.stringify(submitted))
  const { taskId } = submitted.json.data
  await eventually('the task has ended well', 60, async () => await succeeded(port, token, taskId), 500)
  say('a session was minted, a task submitted, and polled to success')

  const stranger = await call(port, 'POST', '/api/v1/generateTask/nano-banana', `${token}x`, body)
  assert.equal(stranger.status, 401, JSON.stringify(stranger))
  say('a forged token is refused')
  return { token, taskId }
}

async function succeeded (port: number, token: string, taskId: string): Promise<true | null> {
  const { status, json } = await call(port, 'GET', `/api/v1/statusTask/nano-banana?taskId=${taskId}`, token)
  assert.equal(status, 200, JSON.stringify(json))
  assert.notEqual(json.data.state, 'failed', JSON.stringify(json))
  return json.data.state === 'success' || null
}

async function stopGateway (): Promise<void> {
  const began = performance.now()
  await docker(['stop', '-t', '15', names.gateway])
  const seconds = (performance.now() - began) / 1000
  assert.equal(await docker(['inspect', '-f', '{{.State.ExitCode}}', names.gateway]), '0', 'exit code after SIGTERM')
  assert.ok(seconds < 2, `stopping took ${seconds.toFixed(2)} s`)
  say(`stopped by SIGTERM in ${seconds.toFixed(2)} s, exit code 0`)
}

async function checkRestart (port: number, token: string, taskId: string): Promise<void> {
  await docker(['rm', '-f', '-v', names.sandbox])
  await docker(['start', names.gateway])
  await eventually('/readyz answers 200 again', 15, () => isReady(port))
  assert.equal(await succeeded(port, token, taskId), true)
  say('after a restart, with the upstream gone, the finished task is answered from the ledger')
}

async function checkLogs (token: string): Promise<void> {
  const logs = await docker(['logs', names.gateway])
  assert.ok(logs.includes('generateTask') || logs.includes('submit'), `an access line was expected in:\n${logs}`)
  for (const [what, secret] of Object.entries({ ...secrets, token, prompt })) {
    assert.ok(!logs.includes(secret), `the ${what} is in the log`)
  }
  say('no key, secret, token or prompt in its log')
}

async function composeCommand (): Promise<readonly [string, ...string[]]> {
  return docker(['compose', 'version']).then(() => ['docker', 'compose'] as const, () => ['docker-compose'] as const)
}

/** The compose file as it is shipped, with the shipped configuration; nothing is sent to its upstream. */
async function checkCompose (): Promise<void> {
  const [command, ...first] = await composeCommand()
  const port = await freePort()
  const env = {
    APIXO_API_KEY: secrets.key,
    APIXO_BASE_URL: 'http://127.0.0.1:9',
    GATEWAY_SESSION_SECRET: secrets.session,
    PORT: String(port),
    COMPOSE_PROJECT_NAME: id
  }
  const compose = (...args: string[]) => docker([...first, ...args], env, command)
  await compose('config', '-q')
  await assert.rejects(docker([...first, 'config', '-q'], { ...env, APIXO_API_KEY: '' }, command),
    /APIXO_API_KEY/, 'a missing key is named')
  try {
    await compose('up', '-d', '--no-build')
    const container = await compose('ps', '-q', 'gateway')
    await eventually('the composed gateway is ready', 30, () => isReady(port))
    await compose('stop')
    assert.equal(await docker(['inspect', '-f', '{{.State.ExitCode}}', container]), '0', 'exit code of the composed gateway')
    say('docker-compose.yml is valid, starts, becomes ready and stops')
  } catch (error) {
    console.error(await compose('logs', '--no-color').catch(() => ''))
    throw error
  } finally {
    await compose('down', '-v', '-t', '15')
  }
}

async function cleanUp (): Promise<void> {
  // One after the other, and each whatever became of the one before.
  await docker(['rm', '-f', '-v', names.gateway, names.sandbox]).catch(() => {})
  await docker(['network', 'rm', names.network]).catch(() => {})
}

async function main (): Promise<void> {
  const bytes = Number(await docker(['image', 'inspect', '-f', '{{.Size}}', image]))
  say(`image of ${(bytes / 1e6).toFixed(0)} MB`)
  const port = await freePort()
  await startSandbox()
  await startGateway(port)
  await checkProcess()
  const { token, taskId } = await makeImage(port)
  await stopGateway()
  await checkRestart(port, token, taskId)
  await checkLogs(token)
  await checkCompose()
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => { cleanUp().finally(() => process.exit(1)) })
}
try {
  await main()
} catch (error) {
  console.error(error)
  for (const name of [names.sandbox, names.gateway]) {
    console.error(`-- log of ${name}\n${await docker(['logs', '--tail', '50', name]).catch(() => 'no such container')}`)
  }
  process.exitCode = 1
} finally {
  await cleanUp()
}
