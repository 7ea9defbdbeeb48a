import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { percentile } from './numbers.ts'

/** One request. */
export interface Shot {
  readonly method: string
  readonly path: string
  readonly headers: Readonly<Record<string, string>>
  readonly body?: string
  /** Eight characters of it, in place of which a number is sent that was never sent before. */
  readonly serial?: string
}

export interface LoadOptions {
  /** Sent in turn, over and over. */
  readonly shots: readonly Shot[]
  readonly seconds: number
  /** The only status that counts as an answer; any other ends the run. */
  readonly expect: number
  /** Except so many: a limit lets one through when its minute has passed. */
  readonly others?: number
  /** Requests a second, whatever becomes of them; absent: each connection sends its next when it has its answer. */
  readonly perSecond?: number | null
}

export interface LoadResult {
  readonly requests: number
  readonly seconds: number
  readonly p50Ms: number
  readonly p99Ms: number
}

/**
 * Connections that are open before anything is measured.
 *
 * On bare sockets, and not with an HTTP client: load and upstream share one core, and a loader that takes longer for a
 * request than the program it measures reports its own limit.
 */
export interface Loader {
  /**
   * Throws at the first answer with another status, at a reset, and when answers stop: a benchmark of failures
   * measures nothing.
   */
  run (options: LoadOptions): Promise<LoadResult>
  close (): void
}

/** More at once, and a listener's queue is full: the rest would try again after a second. */
const openAtOnce = 100

export async function openLoader (port: number, connections: number, localAddress?: string): Promise<Loader> {
  const lines: Line[] = []
  while (lines.length < connections) {
    const batch = Array.from({ length: Math.min(openAtOnce, connections - lines.length) }, async () =>
      await openLine(port, localAddress))
    lines.push(...await Promise.all(batch))
  }
  return {
    async run ({ shots, seconds, expect, others = 0, perSecond = null }) {
      const next = ammunition(shots, port)
      let spare = others
      const check = ({ status, body }: Answer) => {
        if (status !== expect && spare-- <= 0) {
          throw new Error(`answered ${status} instead of ${expect}: ${body.slice(0, 300)}`)
        }
      }
      const latencies: number[] = []
      const started = performance.now()
      const until = started + seconds * 1000
      const keepOn = perSecond === null ? keepBusy : keepPace(perSecond)
      await keepOn({ lines, next, check, until, latencies })
      const took = (performance.now() - started) / 1000
      const ascending = Float64Array.from(latencies).sort() // typed arrays sort as numbers
      return {
        requests: ascending.length,
        seconds: took,
        p50Ms: percentile(ascending, 0.5),
        p99Ms: percentile(ascending, 0.99)
      }
    },
    close () { for (const { socket } of lines) socket.destroy() }
  }
}

/** Opens connections, keeps them busy for so many seconds, and closes them. */
export async function load (
  { port, connections, ...options }: LoadOptions & { readonly port: number, readonly connections: number }
): Promise<LoadResult> {
  const loader = await openLoader(port, connections)
  try {
    return await loader.run(options)
  } finally {
    loader.close()
  }
}

interface Volley {
  readonly lines: readonly Line[]
  readonly next: () => Buffer
  readonly check: (answer: Answer) => void
  /** As `performance.now()` tells it. */
  readonly until: number
  readonly latencies: number[]
}

/** One request at a time on each connection. */
async function keepBusy ({ lines, next, check, until, latencies }: Volley): Promise<void> {
  await Promise.all(lines.map(line => new Promise<void>((resolve, reject) => {
    let sentAt = performance.now()
    line.use(answer => {
      check(answer)
      const now = performance.now()
      latencies.push(now - sentAt)
      if (now >= until) return resolve()
      sentAt = now
      line.send(next())
    }, reject)
    line.send(next())
  })))
}

/**
 * So many requests a second. One that finds every connection taken waits, and its wait counts: a slow answer must not
 * hide itself by keeping the next requests from being sent.
 */
function keepPace (perSecond: number): (volley: Volley) => Promise<void> {
  return async ({ lines, next, check, until, latencies }) => {
    const free = [...lines]
    const waiting: number[] = []
    const began = performance.now()
    let due = 0
    let open = 0
    let pump: NodeJS.Timeout | undefined
    try {
      await new Promise<void>((resolve, reject) => {
        const sentAt = new Map<Line, number>()
        const send = () => {
          while (waiting.length > 0 && free.length > 0) {
            const line = free.shift()! // in turn, or one that waits for long is taken for dead
            sentAt.set(line, waiting.shift()!)
            line.send(next())
          }
        }
        for (const line of lines) {
          line.use(answer => {
            check(answer)
            latencies.push(performance.now() - sentAt.get(line)!)
            free.push(line)
            open--
            send()
            if (open === 0 && performance.now() >= until) resolve()
          }, reject)
        }
        pump = setInterval(() => {
          const now = performance.now()
          const fallenDue = now < until ? Math.floor((now - began) / 1000 * perSecond) - due : 0
          for (let count = 0; count < fallenDue; count++) waiting.push(now)
          due += fallenDue
          open += fallenDue
          send()
          if (open === 0 && now >= until) resolve()
        }, 1)
      })
    } finally {
      clearInterval(pump)
    }
  }
}

/** Texts of the requests in turn. Numbers are counted over the whole life of this process. */
function ammunition (shots: readonly Shot[], port: number): () => Buffer {
  const requests = shots.map(shot => {
    const bytes = Buffer.from(wire(shot, port))
    return { bytes, serialAt: shot.serial === undefined ? null : bytes.indexOf(shot.serial) }
  })
  let sent = 0
  return () => {
    const { bytes, serialAt } = requests[sent++ % requests.length]!
    if (serialAt === null) return bytes
    const fresh = Buffer.from(bytes)
    fresh.write((++lastSerial).toString(36).padStart(8, '0'), serialAt, 'latin1')
    return fresh
  }
}

let lastSerial = 0

/** One request and its answer, body included; for what has to be set up before a measurement. */
export async function request (
  port: number,
  { method, path, headers, body }: Shot
): Promise<{ status: number, json: any }> {
  const response = await fetch(`http://127.0.0.1:${port}${path}`, {
    method,
    headers,
    ...(body === undefined ? {} : { body }),
    signal: AbortSignal.timeout(10_000)
  })
  return { status: response.status, json: await response.json() }
}

export function wire ({ method, path, headers, body }: Shot, port: number): string {
  const lines = [`${method} ${path} HTTP/1.1`, `host: 127.0.0.1:${port}`]
  for (const [name, value] of Object.entries(headers)) lines.push(`${name}: ${value}`)
  if (body !== undefined) lines.push(`content-length: ${Buffer.byteLength(body)}`)
  return `${lines.join('\r\n')}\r\n\r\n${body ?? ''}`
}

/** A connection that has one request at a time. */
interface Line {
  readonly socket: Socket
  send (request: Buffer): void
  use (answered: (answer: Answer) => void, failed: (error: Error) => void): void
}

interface Answer { readonly status: number, readonly body: string }

async function openLine (port: number, localAddress: string | undefined): Promise<Line> {
  const socket = connect({ port, host: '127.0.0.1', noDelay: true, ...localAddress && { localAddress } })
  let text = ''
  let answered: (answer: Answer) => void = () => {}
  let failed: (error: Error) => void = () => {}
  const fail = (error: unknown) => { socket.destroy(); failed(error as Error) }
  socket.setEncoding('latin1')
  socket.setTimeout(30_000, () => fail(new Error('no answer for 30 s')))
  await once(socket, 'connect')
  socket.on('data', (chunk: string) => {
    text += chunk
    const answer = readAnswer(text)
    if (answer === null) return
    text = ''
    try { answered(answer) } catch (error) { fail(error) }
  })
  socket.on('error', fail)
  socket.on('close', () => fail(new Error('the connection was closed')))
  return {
    socket,
    send: request => { socket.write(request) },
    use: (onAnswer, onFailure) => { [answered, failed] = [onAnswer, onFailure] }
  }
}

/** Null while more is to come. All of these answers are small, so that a chunked one is looked through to its end. */
function readAnswer (text: string): Answer | null {
  const head = text.indexOf('\r\n\r\n')
  if (head === -1) return null
  const status = Number(text.slice(9, 12))
  const bodyAt = head + 4
  const [, length] = /\r\ncontent-length: *(\d+)/i.exec(text) ?? []
  if (length === undefined) {
    if (!/\r\ntransfer-encoding: *chunked/i.test(text)) return { status: NaN, body: `no length in: ${text.slice(0, head)}` }
    return text.endsWith('\r\n0\r\n\r\n') ? { status, body: text.slice(bodyAt) } : null
  }
  return text.length - bodyAt < Number(length) ? null : { status, body: text.slice(bodyAt) }
}
