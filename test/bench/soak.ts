import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { type IncomingMessage, request as open } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { request } from './load.ts'
import { cpus, freePort, type Running, start } from './process.ts'
import { startRedis } from './stores.ts'

/**
 * `node test/bench/soak.ts [--minutes N --streams N --perSecond N]`: three replicas on one Redis, open streams, and
 * submits all the while; half-way one replica is killed. Memory is printed as it goes; at the end, whether every stream
 * was told every end of its subject's tasks, and none of them twice on one connection.
 */
const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '10' },
    streams: { type: 'string', default: '200' },
    perSecond: { type: 'string', default: '10' }
  }
})
const minutes = Number(values.minutes)
const subjects = 20
const replicas = 3
const taskMs = 2000
const root = join(import.meta.dirname, '../..')
const secrets = {
  key: randomBytes(24).toString('hex'),
  session: randomBytes(32).toString('hex'),
  issuer: randomBytes(32).toString('hex')
}
const json = { 'content-type': 'application/json' }
const bearer = (token: string) => ({ authorization: `Bearer ${token}` })

/** One `/gateway/events`, which comes back when it is cut. */
interface Watcher {
  readonly subject: number
  readonly told: Set<string>
  twice: number
  connections: number
  stop (): void
}

function watch (ports: () => readonly number[], token: string, index: number): Watcher {
  const subject = index % subjects
  const watcher: Watcher = { subject, told: new Set(), twice: 0, connections: 0, stop: () => {} }
  let lastEventId = ''
  const stopping = new AbortController()
  watcher.stop = () => stopping.abort()
  const read = async (): Promise<void> => {
    const here = new Set<string>()
    const port = ports()[(index + watcher.connections++) % ports().length]!
    const outgoing = open({
      signal: stopping.signal,
      port,
      path: '/gateway/events',
      agent: false,
      headers: { ...bearer(token), ...(lastEventId && { 'last-event-id': lastEventId }) }
    }).end()
    const [response] = (await once(outgoing, 'response')) as [IncomingMessage]
    if (response.statusCode !== 200) throw new Error(`a stream answered ${response.statusCode}`)
    let rest = ''
    for await (const chunk of response.setEncoding('utf8')) {
      const blocks = (rest + chunk).split('\n\n')
      rest = blocks.pop()!
      for (const block of blocks) {
        const [, id] = /^id: (.*)$/m.exec(block) ?? []
        if (id === undefined || !/^event: state$/m.test(block)) continue
        lastEventId = id
        const { data } = JSON.parse(/^data: (.*)$/m.exec(block)![1]!) as { data: { taskId: string, state: string } }
        if (data.state !== 'success') continue
        if (here.has(data.taskId)) watcher.twice++
        here.add(data.taskId)
        watcher.told.add(data.taskId)
      }
    }
  }
  const loop = async (): Promise<void> => {
    while (!stopping.signal.aborted) {
      await read().catch(() => {})
      await wait(200)
    }
  }
  loop().catch(console.error)
  return watcher
}

async function main (folder: string, running: Running[]): Promise<void> {
  const started = <Program extends Running>(program: Program): Program => { running.push(program); return program }
  const redis = started(await startRedis({ folder }))
  const sandboxPort = await freePort()
  started(
    await start({
      name: 'sandbox',
      command: [
        process.execPath,
        join(root, 'src/sandbox/main.ts'),
        '--port',
        String(sandboxPort),
        '--keys',
        secrets.key,
        '--task-ms',
        String(taskMs)
      ],
      cpu: cpus.others,
      port: sandboxPort,
      readyPath: null,
      env: {},
      cwd: folder,
      logFile: join(folder, 'sandbox.log')
    })
  )
  writeFileSync(
    join(folder, 'gateway.yaml'),
    JSON.stringify({
      plans: {
        default: { requestsPerMinute: 1e6, pollsPerMinute: 1e6, concurrentTasks: 10_000, credits: 'unlimited' }
      },
      polling: { '*': 1000, image: 1000 }
    })
  )
  const gateways = await Promise.all(
    Array.from({ length: replicas }, async (_, index) =>
      started(await startGateway(folder, index, redis.port, sandboxPort))
    )
  )
  const tokens = await Promise.all(
    Array.from({ length: subjects }, async (_, subject) => await mint(gateways[0]!.port, `soak-${subject}`))
  )

  let ports = gateways.map(({ port }) => port)
  const watchers = Array.from({ length: Number(values.streams) }, (_, index) =>
    watch(() => ports, tokens[index % subjects]!, index)
  )
  await wait(1000)
  const made: Array<{ readonly subject: number, readonly taskId: string }> = []
  const submits: Array<Promise<void>> = []
  const until = performance.now() + minutes * 60_000
  const halfWay = performance.now() + minutes * 30_000
  let nextReport = performance.now()
  let index = 0
  for (; performance.now() < until; index++) {
    const subject = index % subjects
    submits.push(
      submit(ports[index % ports.length]!, tokens[subject]!).then(taskId => {
        if (taskId !== null) made.push({ subject, taskId })
      })
    )
    if (ports.length === replicas && performance.now() > halfWay) {
      ports = ports.slice(0, -1)
      await gateways.pop()!.stop('SIGKILL')
      console.log('one replica was killed')
    }
    if (performance.now() > nextReport) {
      nextReport += minutes * 60_000 / 10
      console.log(`${(index / Number(values.perSecond) / 60).toFixed(1)} min, ${made.length} tasks: ` +
        `${gateways.map(gateway => `${(gateway.residentBytes() / 1e6).toFixed(0)} MB`).join(', ')}`)
    }
    await wait(1000 / Number(values.perSecond))
  }
  await Promise.all(submits)
  await wait(20_000) // the last ends, and the next look of streams that came back
  const missed = watchers.reduce(
    (sum, { subject, told }) => sum + made.filter(task => task.subject === subject && !told.has(task.taskId)).length,
    0
  )
  const sum = (of: (watcher: Watcher) => number) => watchers.reduce((total, watcher) => total + of(watcher), 0)
  console.log(
    `${made.length} tasks, ${watchers.length} streams over ${sum(({ connections }) => connections)} connections: ` +
      `${sum(({ told }) => told.size)} ends told, ${missed} missed, ${sum(({ twice }) => twice)} told twice on one connection`
  )
  for (const watcher of watchers) watcher.stop()
  if (missed > 0 || sum(({ twice }) => twice) > 0) process.exitCode = 1
}

async function startGateway (folder: string, index: number, redisPort: number, sandboxPort: number): Promise<Running> {
  const port = await freePort()
  return await start({
    name: `gateway-${index}`,
    command: [process.execPath, join(root, 'src/main.ts')],
    cpu: cpus.measured,
    port,
    readyPath: '/readyz',
    env: {
      APIXO_API_KEY: secrets.key,
      APIXO_BASE_URL: `http://127.0.0.1:${sandboxPort}`,
      GATEWAY_SESSION_SECRET: secrets.session,
      GATEWAY_ISSUER_TOKEN: secrets.issuer,
      GATEWAY_STORE: `redis://127.0.0.1:${redisPort}`,
      GATEWAY_CONFIG: join(folder, 'gateway.yaml'),
      PORT: String(port),
      LOG_LEVEL: 'warn'
    },
    cwd: folder,
    logFile: join(folder, `gateway-${index}.log`)
  })
}

async function mint (port: number, subject: string): Promise<string> {
  const { json: session } = await request(port, {
    method: 'POST',
    path: '/gateway/sessions',
    headers: { ...json, ...bearer(secrets.issuer) },
    body: JSON.stringify({ subject, ttlSeconds: 7200 })
  })
  return session.token
}

async function submit (port: number, token: string): Promise<string | null> {
  const { json: answer } = await request(port, {
    method: 'POST',
    path: '/api/v1/generateTask/nano-banana',
    headers: { ...json, ...bearer(token) },
    body: JSON.stringify({ input: { mode: 'text-to-image', prompt: 'a lighthouse' } })
  }).catch(() => ({ json: null }))
  return answer?.data?.taskId ?? null
}

const folder = mkdtempSync(join(tmpdir(), 'apixo-gateway-soak-'))
const running: Running[] = []
try {
  await main(folder, running)
} finally {
  await Promise.all(running.map(program => program.stop()))
  rmSync(folder, { recursive: true, force: true })
}
process.exit()
