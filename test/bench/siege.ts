import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { Agent, request as open } from 'node:http'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { type Attack, attacks } from './attacks.ts'
import { request } from './load.ts'
import { percentile, table } from './numbers.ts'
import { cpus, freePort, pinSelf, type Running, start, tail } from './process.ts'
import { startUpstream } from './targets.ts'
import { startRedis } from './stores.ts'

/**
 * `node test/bench/siege.ts [--seconds N] [--only A1,A3] [--redis] [--tree DIR]`: what strangers do to a gateway, one
 * attack after the other, each against a fresh one, while a health probe and one honest caller go on. It prints how
 * long the worst `/livez` took, what became of the honest caller's submits, and the memory. `--tree`: another
 * checkout's gateway. It fails when one stopped the gateway. The honest caller comes from 127.0.0.1, and so does the
 * attacker of A8 alone.
 */
const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '120' },
    only: { type: 'string', default: attacks.map(({ name }) => name).join() },
    redis: { type: 'boolean', default: false },
    tree: { type: 'string', default: join(import.meta.dirname, '../..') }
  }
})

const json = { 'content-type': 'application/json' }
const bearer = (token: string) => ({ authorization: `Bearer ${token}` })
/** A gateway whose health route takes this long has been stopped, whatever the machine is like. */
const stoppedMs = 5000
const plan = { models: ['*'], concurrentTasks: 100_000, credits: 'unlimited' }
const config = { plans: { default: { ...plan, requestsPerMinute: 60 }, good: { ...plan, requestsPerMinute: 6000 } } }

/** What the honest side saw. A probe or submit without an answer within ten seconds counts as that long. */
interface Seen { readonly livezMs: number[], readonly submitMs: number[], readonly refused: Record<string, number> }

/** In a thread of its own, so that an attacker at work does not lengthen what is measured. */
async function observe ({ port, token }: { port: number, token: string }): Promise<void> {
  const seen: Seen = { livezMs: [], submitMs: [], refused: {} }
  const agent = new Agent({ keepAlive: true, localAddress: '127.0.0.1' })
  const over = new AbortController()
  parentPort!.once('message', () => { over.abort() })
  const ask = (method: string, path: string, headers: Record<string, string>, body = ''): Promise<string> =>
    new Promise(resolve => {
      const outgoing = open({ port, host: '127.0.0.1', agent, method, path, headers, timeout: 10_000 }, response => {
        response
          .resume()
          .once('close', () => resolve(`${response.statusCode} ${response.headers['x-gateway-error'] ?? ''}`.trim()))
      })
      outgoing.once('timeout', () => { outgoing.destroy(new Error('timeout')) })
      outgoing.once('error', error => resolve((error as NodeJS.ErrnoException).code ?? error.message))
      outgoing.end(body)
    })
  const keepOn = async (everyMs: number, times: number[], once: () => Promise<string>): Promise<void> => {
    while (!over.signal.aborted) {
      const began = performance.now()
      const answer = await once()
      times.push(performance.now() - began)
      if (answer !== '200') seen.refused[answer] = (seen.refused[answer] ?? 0) + 1
      await wait(everyMs)
    }
  }
  let count = 0
  await Promise.all([
    keepOn(20, seen.livezMs, () => ask('GET', '/livez', {})),
    keepOn(100, seen.submitMs, () =>
      ask(
        'POST',
        '/api/v1/generateTask/nano-banana',
        { ...json, ...bearer(token) },
        `{"input":{"prompt":"honest ${count++}"}}`
      )
    )
  ])
  parentPort!.postMessage(seen)
}

interface Result {
  readonly attack: Attack
  readonly did: string
  readonly seen: Seen
  readonly rss: readonly [number, number]
  readonly died: boolean
}

/** One attack on one fresh gateway. */
async function besiege (attack: Attack, seconds: number): Promise<Result> {
  const folder = mkdtempSync(join(tmpdir(), 'apixo-gateway-siege-'))
  const running: Running[] = []
  const started = <Program extends Running>(program: Program): Program => { running.push(program); return program }
  try {
    const upstream = started(await startUpstream(folder))
    const store = values.redis
      ? `redis://127.0.0.1:${started(await startRedis({ folder })).port}`
      : `sqlite:${join(folder, 'gateway.db')}`
    const [issuerToken, adminToken] = [randomBytes(32).toString('hex'), randomBytes(32).toString('hex')]
    writeFileSync(join(folder, 'gateway.yaml'), JSON.stringify(config)) // JSON is YAML
    const port = await freePort()
    const logFile = join(folder, 'gateway.log')
    const gateway = started(await start({
      name: 'gateway',
      command: [process.execPath, join(resolve(values.tree), 'src/main.ts')],
      cpu: cpus.measured,
      readyPath: '/livez',
      cwd: folder,
      logFile,
      port,
      env: {
        APIXO_API_KEY: randomBytes(24).toString('hex'),
        APIXO_BASE_URL: `http://127.0.0.1:${upstream.port}`,
        GATEWAY_SESSION_SECRET: randomBytes(32).toString('hex'),
        GATEWAY_ISSUER_TOKEN: issuerToken,
        GATEWAY_ADMIN_TOKEN: adminToken,
        GATEWAY_STORE: store,
        GATEWAY_CONFIG: join(folder, 'gateway.yaml'),
        GATEWAY_PUBLIC_URL: `http://127.0.0.1:${port}`,
        PORT: String(port)
      }
    }))
    const token = async (subject: string): Promise<string> => (await request(port, {
      method: 'POST',
      path: '/gateway/sessions',
      headers: { ...json, ...bearer(issuerToken) },
      body: JSON.stringify({ subject, plan: subject === 'good' ? 'good' : 'default' })
    })).json.token
    return { attack, ...await fight(attack, seconds, { port, adminToken, token, gateway, logFile }) }
  } finally {
    await Promise.all(running.map(program => program.stop('SIGKILL')))
    rmSync(folder, { recursive: true, force: true })
  }
}

interface Field {
  readonly port: number
  readonly adminToken: string
  readonly token: (subject: string) => Promise<string>
  readonly gateway: Running
  readonly logFile: string
}

async function fight (attack: Attack, seconds: number, { port, adminToken, token, gateway, logFile }: Field) {
  const observer = new Worker(import.meta.filename, { workerData: { port, token: await token('good') } })
  const done = new Promise<Seen>((resolve, reject) => observer.once('message', resolve).once('error', reject))
  await wait(1000)
  const idle = gateway.residentBytes()
  let most = idle
  let died = false
  const watch = setInterval(() => {
    try {
      most = Math.max(most, gateway.residentBytes())
    } catch {
      died = true
    }
  }, 100)
  const signal = AbortSignal.timeout(seconds * 1000)
  const did = await attack.run({ port, adminToken, signal, token })
  clearInterval(watch)
  observer.postMessage('over')
  const seen = await done
  if (died || Number.isNaN(most)) console.error(`${attack.name}: the gateway ended: ${tail(logFile)}`)
  return { did, seen, rss: [idle, most] as const, died }
}

function report (results: readonly Result[]): string {
  const ms = (times: readonly number[], share: number) =>
    Math.round(percentile(Float64Array.from(times).sort(), share)).toString()
  const megabytes = (bytes: number) => Math.round(bytes / 1e6).toString()
  return table(
    [
      'attack',
      'worst /livez ms',
      'p99',
      'submit p50 ms',
      'worst',
      'submits',
      'not 200',
      'RSS MB before',
      'most',
      'alive',
      'attackers did'
    ],
    results.map(({ attack, did, seen, rss, died }) => [
      attack.name,
      ms(seen.livezMs, 1),
      ms(seen.livezMs, 0.99),
      ms(seen.submitMs, 0.5),
      ms(seen.submitMs, 1),
      String(seen.submitMs.length),
      Object.entries(seen.refused)
        .map(([answer, count]) => `${count} × ${answer}`)
        .join(', ') || '0',
      megabytes(rss[0]),
      megabytes(rss[1]),
      died ? 'NO' : 'yes',
      did
    ])
  )
}

if (isMainThread) {
  pinSelf()
  const wanted = new Set(values.only.split(','))
  const results: Result[] = []
  for (const attack of attacks.filter(({ name }) => wanted.has(name))) {
    console.log(`${attack.name}: ${attack.what}`)
    results.push(await besiege(attack, Number(values.seconds)))
  }
  console.log(`\n${report(results)}`)
  for (const { attack, seen, died } of results) {
    if (!died && Math.max(...seen.livezMs) < stoppedMs) continue
    console.error(`${attack.name}: the gateway was stopped`)
    process.exitCode = 1
  }
} else {
  await observe(workerData)
}
