import { execFile } from 'node:child_process'
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { chmod, cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
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

async function docker (args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<string> {
  const { stdout, stderr } = await run('docker', args, {
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

async function eventually<T> (
  what: string,
  seconds: number,
  attempt: () => Promise<T | null>,
  everyMs = 100
): Promise<T> {
  const until = Date.now() + seconds * 1000
  while (Date.now() < until) {
    const value = await attempt()
    if (value !== null) return value
    await sleep(everyMs)
  }
  throw new Error(`not within ${seconds} s: ${what}`)
}

function say (what: string): void {
  console.log(`ok  ${what} (${Math.round(performance.now() / 1000)} s)`)
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
    '--no-healthcheck', '--tmpfs=/tmp', ...lockedDown, ...variables(env), image, 'node', 'src/sandbox.cjs'], env)
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
  await assert.rejects(docker(['exec', names.gateway, 'touch', '/app/src/main.cjs']), 'its own code can not be written')
  await assert.rejects(
    docker(['exec', names.gateway, 'test', '-e', 'node_modules']),
    'it holds no packages but in its bundle'
  )
  say(`first process is node, user ${field('Uid')}, no capabilities, code read-only`)
  const residentMb = Math.round(Number(field('VmRSS')) / 1000)
  // 97 to 103 where nothing else runs; up to 112 where the collector gets no processor at the start. The source: 140.
  assert.ok(residentMb < 120, `it runs the bundle, compiled: ${residentMb} MB resident`)
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

/** What a browser loads is in the image. */
async function checkPages (port: number): Promise<void> {
  const pages = ['', 'invitation', 'client.js', 'client.js.map', 'client.d.ts'].map(name => `/gateway/${name}`)
  for (const path of pages) assert.equal((await call(port, 'GET', path)).status, 200, path)
  say(`pages are served: ${pages.join(' ')}`)
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

/** Whoever the container is told to run as: the command is there, and the ledger can be. */
async function checkAnyUser (): Promise<void> {
  const { version } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as { version: string }
  const env = { APIXO_API_KEY: secrets.key, GATEWAY_SESSION_SECRET: secrets.session }
  const as = (...command: string[]) =>
    docker(['run', '--rm', '--user=12345', ...lockedDown, ...variables(env), image, ...command], env)
  assert.equal(await as('apixo-gateway', '--version'), version)
  assert.match(await as('apixo-gateway', 'check'), /^GATEWAY_STORE +sqlite:\/app\/data\/gateway\.db/m)
  await as('touch', '/app/data/gateway.db')
  say('another user finds the command, and a place for the ledger')
  assert.match(await as('timeout', '--preserve-status', '5', 'apixo-gateway', 'demo'), /^TOKEN=/m)
  say('the demo runs')
}

/** What compose needs of the checkout, in a folder of its own: the shipped files, and an operator's own beside them. */
async function composeFolder (env: Readonly<Record<string, string>>): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'apixo-smoke-'))
  await chmod(folder, 0o755) // the container's user reads what is mounted
  await cp(join(root, 'docker-compose.yml'), join(folder, 'docker-compose.yml'))
  await cp(join(root, 'config'), join(folder, 'config'), { recursive: true })
  await writeFile(join(folder, '.env'), Object.entries(env).map(([name, value]) => `${name}=${value}\n`).join(''))
  return folder
}

/** The commands of the documents in their form for Docker, as they stand there. */
async function documentedCommands (): Promise<readonly string[]> {
  const text = await readFile(join(root, 'config/examples/README.md'), 'utf8')
  return Array.from(text.matchAll(/^```bash\n(.*?)^```$/gms), ([, code]) => code!)
}

/**
 * The compose file as it is shipped, with the shipped configuration and what the documents say to type; nothing is sent
 * to its upstream.
 */
async function checkCompose (): Promise<void> {
  const [port, project] = [await freePort(), { COMPOSE_PROJECT_NAME: id }]
  const folder = await composeFolder({
    APIXO_API_KEY: secrets.key,
    APIXO_BASE_URL: 'http://127.0.0.1:9',
    GATEWAY_SESSION_SECRET: secrets.session,
    GATEWAY_PUBLIC_URL: 'https://gateway.example',
    PORT: String(port)
  })
  const shell = async (script: string): Promise<string> =>
    (
      await run('bash', ['--norc', '-euo', 'pipefail', '-c', script], {
        cwd: folder,
        env: { ...process.env, ...project },
        timeout: 120_000
      })
    ).stdout
  try {
    await shell('docker compose config -q')
    await shell('docker compose up -d --no-build')
    await eventually('the composed gateway is ready', 30, () => isReady(port))
    for (const script of await documentedCommands()) await shell(script)
    assert.match(await shell('docker compose exec -T gateway apixo-gateway token list'), /^\S+ +token:ci +active/m)
    assert.match(await shell('docker compose run --rm gateway apixo-gateway check'), /^GATEWAY_PUBLIC_URL +https:/m)
    say('what the documents say to type in Docker works')
    await checkSecretFiles(folder, port, shell)
    const container = (await shell('docker compose ps -q gateway')).trim()
    await shell('docker compose stop')
    assert.equal(
      await docker(['inspect', '-f', '{{.State.ExitCode}}', container]),
      '0',
      'exit code of the composed gateway'
    )
    say('docker-compose.yml is valid, starts, becomes ready and stops')
    await checkReplicas(shell)
  } catch (error) {
    console.error(await shell('docker compose --profile redis logs --no-color').catch(() => ''))
    throw error
  } finally {
    await shell('docker compose --profile redis down -v -t 15')
    await rm(folder, { recursive: true })
  }
}

type Shell = (script: string) => Promise<string>

/**
 * The example with secrets in files, by its own lines; then another key, by what the documents say of a changed .env.
 */
async function checkSecretFiles (folder: string, port: number, shell: Shell): Promise<void> {
  const example = await readFile(join(folder, 'config/examples/docker-compose.secrets.yml'), 'utf8')
  const lines = Array.from(example.matchAll(/^# {3}(.+)$/gm), ([, line]) =>
    line!.replace('your-apixo-key', secrets.key).replace('--build --wait', '--no-build')
  )
  await writeFile(join(folder, '.env'), `PORT=${port}\nLOG_LEVEL=warn\n`)
  await shell(lines.join('\n'))
  await eventually('the gateway with secrets in files is ready', 30, () => isReady(port))
  const issuerToken = (await readFile(join(folder, 'secrets/issuer_token'), 'utf8')).trim()
  const { status } = await call(port, 'POST', '/gateway/sessions', issuerToken, { subject: 'smoke' })
  assert.equal(status, 201, 'its issuer token came from a file')
  say('secrets come from files, and what .env has now is what counts')
}

/** Three replicas behind nginx, one of which dies. */
async function checkReplicas (shell: Shell): Promise<void> {
  const hasNginx = await docker(['image', 'inspect', 'nginx:1']).then(
    () => true,
    () =>
      docker(['pull', '-q', 'nginx:1']).then(
        () => true,
        () => false
      )
  )
  if (!hasNginx) {
    say('left out, as nginx:1 can not be had here: the replicas behind it')
    return
  }
  await writeFile(
    join((await shell('pwd')).trim(), '.env'),
    `APIXO_API_KEY=${secrets.key}\nGATEWAY_SESSION_SECRET=${secrets.session}\n`
  )
  await shell('docker compose --profile redis up -d --no-build proxy')
  const proxyPort = 8088
  await eventually('nginx leads to a replica', 30, () => isReady(proxyPort))
  const [first] = (await shell('docker compose --profile redis ps -q replica')).trim().split('\n')
  await docker(['kill', first!])
  for (let count = 0; count < 20; count++) assert.equal(await isReady(proxyPort), true, 'with one replica dead')
  say('of three replicas behind nginx one may die')
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
  await checkPages(port)
  await stopGateway()
  await checkRestart(port, token, taskId)
  await checkLogs(token)
  await checkAnyUser()
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
