import { connect, type Socket } from 'node:net'
import { percentile } from './numbers.ts'

/** One request. */
export interface Shot {
  readonly method: string
  readonly path: string
  readonly headers: Readonly<Record<string, string>>
  readonly body?: string
}

export interface LoadOptions {
  readonly port: number
  /** Sent in turn, over and over. */
  readonly shots: readonly Shot[]
  readonly connections: number
  readonly seconds: number
  /** The only status that counts as an answer; any other ends the run. */
  readonly expect: number
}

export interface LoadResult {
  readonly requests: number
  readonly seconds: number
  readonly p50Ms: number
  readonly p99Ms: number
}

/**
 * Keeps a number of connections busy, one request at a time on each, for so many seconds. Throws at the first answer
 * with another status, at a reset, and when answers stop: a benchmark of failures measures nothing.
 *
 * On bare sockets, and not with an HTTP client: load and upstream share one core, and a loader that takes longer for a
 * request than the program it measures reports its own limit.
 */
export async function load ({ port, shots, connections, seconds, expect }: LoadOptions): Promise<LoadResult> {
  const requests = shots.map(shot => Buffer.from(wire(shot, port)))
  let sent = 0
  const next = () => requests[sent++ % requests.length]!
  const latencies: number[] = []
  const started = performance.now()
  const until = started + seconds * 1000
  await Promise.all(Array.from({ length: connections }, () => runConnection({ port, next, expect, until, latencies })))
  const took = (performance.now() - started) / 1000
  const ascending = Float64Array.from(latencies).sort() // typed arrays sort as numbers
  return {
    requests: ascending.length,
    seconds: took,
    p50Ms: percentile(ascending, 0.5),
    p99Ms: percentile(ascending, 0.99)
  }
}

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

interface Connection {
  readonly port: number
  readonly next: () => Buffer
  readonly expect: number
  readonly until: number
  readonly latencies: number[]
}

function runConnection ({ port, next, expect, until, latencies }: Connection): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host: '127.0.0.1', noDelay: true })
    let sentAt = 0
    let answer = ''
    const send = () => {
      answer = ''
      sentAt = performance.now()
      socket.write(next())
    }
    const fail = (message: string) => { socket.destroy(new Error(message)) }
    socket.setEncoding('latin1')
    socket.setTimeout(10_000, () => fail('no answer for 10 s'))
    socket.on('connect', send)
    socket.on('data', (chunk: string) => {
      answer += chunk
      const complete = readAnswer(answer)
      if (complete === null) return
      if (complete.status !== expect) {
        return fail(`answered ${complete.status} instead of ${expect}: ${complete.body.slice(0, 300)}`)
      }
      const now = performance.now()
      latencies.push(now - sentAt)
      if (now >= until) end(socket, resolve)
      else send()
    })
    socket.on('error', reject)
    socket.on('close', () => reject(new Error('the connection was closed')))
  })
}

function end (socket: Socket, resolve: () => void): void {
  socket.removeAllListeners('close')
  socket.once('close', resolve)
  socket.destroy()
}

/** Null while more is to come. Every peer sends small answers whole; a chunked one would need a parser of its own. */
function readAnswer (text: string): { status: number, body: string } | null {
  const head = text.indexOf('\r\n\r\n')
  if (head === -1) return null
  const length = /\r\ncontent-length: *(\d+)/i.exec(text)
  const status = Number(text.slice(9, 12))
  if (length === null) return { status: NaN, body: `no content-length in: ${text.slice(0, head)}` }
  const bodyAt = head + 4
  return text.length - bodyAt < Number(length[1]) ? null : { status, body: text.slice(bodyAt) }
}
