import { connect, type Socket } from 'node:net'
import { setTimeout as wait } from 'node:timers/promises'
import { median } from './numbers.ts'
import type { Figures } from './figures.ts'
import type { Gateway } from './gateways.ts'
import type { Plan } from './plan.ts'
import type { Probe } from './probed.ts'
import type { Running } from './process.ts'
import { bearer, finishedTask, type Headers, madeTask, models } from './shots.ts'

/** A program that passes the upstream's file on, and where. */
export interface FileServer extends Running {
  readonly filePath: string
  readonly headers: Headers
}

/** A gateway whose events are watched, with a look inside. */
export interface EventServer {
  readonly gateway: Gateway
  readonly probe: Probe
}

export interface StreamTargets {
  readonly files: readonly FileServer[]
  readonly events: readonly EventServer[]
}

/** What one round of files gave. */
export interface FilesMeasured {
  readonly cpuMicrosPerMegabyte: number
  readonly megabytesPerSecond: number
  /** The most memory that it ever took, on top of what it took when it was ready. */
  readonly addedBytes: number
}

/** What the watchers of one task cost. */
export interface EventsMeasured {
  readonly watchers: number
  readonly cpuMicrosPerEvent: number
  readonly bytesPerWatcher: number
  /** How long one change held the loop, ms: the median over the changes. */
  readonly holdMs: number
  /** How often the upstream was asked in each interval of a second. */
  readonly askedPerInterval: number
}

const filesAtOnce = 8

/** The first file of a task of its own. */
export async function fileServer (gateway: Gateway): Promise<FileServer> {
  const headers = bearer(await gateway.mint('files'))
  const taskId = await finishedTask(gateway.port, headers)
  return { ...gateway, headers, filePath: `/gateway/tasks/${taskId}/results/0` }
}

/**
 * Files in rounds, the first three for warming where there is time; then events, in two: V8 compiles for longer than
 * the first one takes. What a watcher takes is seen in that, when there is no memory that could be used again.
 */
export async function measureStreams (
  targets: StreamTargets,
  { rounds, watchers, warmUpSeconds, restSeconds }: Pick<Plan, 'rounds' | 'watchers' | 'warmUpSeconds' | 'restSeconds'>
): Promise<Pick<Figures, 'files' | 'events'>> {
  const files = new Map(targets.files.map(({ name }): [string, FilesMeasured[]] => [name, []]))
  const warmUps = warmUpSeconds > 0 ? 3 : 0
  for (let round = 1 - warmUps; round <= Math.min(rounds, 4); round++) {
    for (const server of round % 2 === 0 ? targets.files : targets.files.toReversed()) {
      const measured = await measureFiles(server)
      if (round > 0) files.get(server.name)!.push(measured)
    }
  }
  const events = new Map<string, EventsMeasured>()
  const seconds = Math.max(restSeconds / 2, 1.5)
  for (const waitSeconds of warmUpSeconds > 0 ? [warmUpSeconds, 0] : [0]) {
    for (const { gateway, probe } of targets.events) {
      const measured = await measureEvents(gateway, probe, {
        watchers, warmUpSeconds: Math.max(waitSeconds, 1.5), seconds
      })
      const { bytesPerWatcher } = events.get(gateway.name) ?? measured
      events.set(gateway.name, { ...measured, bytesPerWatcher })
    }
  }
  return { files, events }
}

/** Eight files at once, read as fast as they come. */
export async function measureFiles (server: FileServer): Promise<FilesMeasured> {
  const before = server.cpuMicros()
  const began = performance.now()
  const bytes = await Promise.all(Array.from({ length: filesAtOnce }, () => readFile(server)))
  const megabytes = bytes.reduce((sum, count) => sum + count, 0) / 1e6
  return {
    cpuMicrosPerMegabyte: (server.cpuMicros() - before) / megabytes,
    megabytesPerSecond: megabytes / ((performance.now() - began) / 1000),
    addedBytes: server.peakBytes() - server.idleBytes
  }
}

/** Resolves with the length of the body once it is whole; throws at anything else. */
function readFile ({ port, filePath, headers }: FileServer): Promise<number> {
  return new Promise((resolve, reject) => {
    const socket = get(port, filePath, { ...headers, connection: 'close' })
    let wanted: number | null = null
    let got = 0
    socket.on('data', chunk => {
      if (wanted === null) {
        const head = chunk.toString('latin1')
        const [, length] = /\r\ncontent-length: *(\d+)/i.exec(head) ?? []
        if (!head.startsWith('HTTP/1.1 200') || length === undefined) {
          socket.destroy(new Error(`no file: ${head.slice(0, 400)}`))
          return
        }
        wanted = Number(length) + head.indexOf('\r\n\r\n') + 4
      }
      got += chunk.length
      if (got >= wanted) socket.destroy() // not everybody closes it when asked to
    })
    socket.on('error', reject)
    socket.on('close', () => {
      if (got === wanted) resolve(got)
      else reject(new Error(`${got} bytes of a file of ${wanted}`))
    })
  })
}

export interface EventsPlan {
  readonly watchers: number
  readonly warmUpSeconds: number
  readonly seconds: number
}

/** So many watchers of one task, which has another state each second. */
export async function measureEvents (
  gateway: Gateway,
  probe: Probe,
  { watchers, warmUpSeconds, seconds }: EventsPlan
): Promise<EventsMeasured> {
  const headers = bearer(await gateway.mint('events'))
  const path = `/gateway/tasks/${await madeTask(gateway.port, headers, models.changing)}/events`
  const before = gateway.residentBytes()
  const audience = await openAudience(gateway.port, path, headers, watchers)
  try {
    await wait(warmUpSeconds * 1000)
    const bytesPerWatcher = (gateway.residentBytes() - before) / watchers
    await audience.allTold()
    const [events, cpu] = [audience.events(), gateway.cpuMicros()]
    await wait(seconds * 1000)
    await audience.allTold()
    const told = audience.events() - events
    if (told < watchers) throw new Error(`${told} events for ${watchers} watchers in ${seconds} s`)
    return {
      watchers,
      cpuMicrosPerEvent: (gateway.cpuMicros() - cpu) / told,
      bytesPerWatcher,
      holdMs: median(await probe.holds(seconds)),
      askedPerInterval: audience.stepsPerSecond()
    }
  } finally {
    audience.close()
  }
}

interface Audience {
  /** How many have been told, to all of them together. */
  events (): number
  /** Waits for a moment at which nobody is behind the others. */
  allTold (): Promise<void>
  /** So far; the upstream makes one each time it is asked. */
  stepsPerSecond (): number
  close (): void
}

async function openAudience (port: number, path: string, headers: Headers, watchers: number): Promise<Audience> {
  const sockets: Socket[] = []
  let events = 0
  const steps: Array<{ readonly number: number, readonly at: number }> = []
  let failure: Error | null = null
  for (let index = 0; index < watchers; index++) {
    const socket = get(port, path, headers).setEncoding('latin1')
    let isFirst = true
    socket.on('data', chunk => {
      const text = String(chunk)
      if (isFirst && !text.startsWith('HTTP/1.1 200')) failure = new Error(`no stream: ${text.slice(0, 300)}`)
      isFirst = false
      for (const [, number] of text.matchAll(/^event: state$[^]*?"step (\d+)"/gm)) {
        events++
        if (Number(number) > (steps.at(-1)?.number ?? 0)) steps.push({ number: Number(number), at: performance.now() })
      }
    })
    socket.on('error', error => { failure = error })
    sockets.push(socket)
    if (index % 50 === 49) await wait(30)
  }
  const told = () => {
    if (failure !== null) throw failure
    return events
  }
  return {
    events: told,
    async allTold () {
      for (let [before, since] = [told(), performance.now()]; performance.now() - since < 200; await wait(20)) {
        if (told() !== before) [before, since] = [told(), performance.now()]
      }
    },
    stepsPerSecond () {
      const [first, last] = [steps[0]!, steps.at(-1)!]
      const perSecond = (last.number - first.number) / ((last.at - first.at) / 1000)
      return Math.round(perSecond * 100) / 100 // a timer is no better
    },
    close: () => { for (const socket of sockets) socket.destroy() }
  }
}

function get (port: number, path: string, headers: Headers): Socket {
  const lines = Object.entries({ host: `127.0.0.1:${port}`, ...headers }).map(([name, value]) => `${name}: ${value}\r\n`)
  const socket = connect({ port, host: '127.0.0.1' })
  socket.write(`GET ${path} HTTP/1.1\r\n${lines.join('')}\r\n`)
  return socket
}
