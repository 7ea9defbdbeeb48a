import { once } from 'node:events'
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net'
import type { Test } from 'tap'

export interface RawServer {
  readonly origin: string
  /** Connections so far. */
  readonly sockets: readonly Socket[]
  /** Complete requests so far, as they came over the wire. */
  readonly requests: readonly string[]
}

/** Answers one request. `count` is its number, from 1. */
type Answer = (socket: Socket, request: string, count: number) => unknown

/** Says exactly what it is told, byte for byte, as no HTTP library would. It ends with its test. */
export async function rawServer (t: Test, answer: Answer): Promise<RawServer> {
  const sockets: Socket[] = []
  const requests: string[] = []
  const server = createServer(socket => {
    sockets.push(socket)
    let text = ''
    socket.on('error', () => {})
    socket.on('data', chunk => {
      text += chunk.toString('latin1')
      for (let end = endOfRequest(text); end > 0; end = endOfRequest(text)) {
        requests.push(text.slice(0, end))
        text = text.slice(end)
        answer(socket, requests.at(-1)!, requests.length)
      }
    })
  })
  const port = await listen(server)
  t.teardown(async () => {
    for (const socket of sockets) socket.destroy()
    server.close()
    await once(server, 'close')
  })
  return { origin: `http://127.0.0.1:${port}`, sockets, requests }
}

/** A port where nobody listens. */
export async function closedPort (): Promise<number> {
  const server = createServer()
  const port = await listen(server)
  server.close()
  await once(server, 'close')
  return port
}

/** Listens on a free port of the loopback. */
export async function listen (server: Server): Promise<number> {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return (server.address() as AddressInfo).port
}

/** A 200 with a body of JSON, as text. */
export function ok (body: string, ...headers: readonly string[]): string {
  return [
    'HTTP/1.1 200 OK',
    'content-type: application/json',
    `content-length: ${Buffer.byteLength(body)}`,
    ...headers,
    '',
    body
  ].join('\r\n')
}

/** Where the first request of a stream ends, or 0 when it is not all there. */
function endOfRequest (text: string): number {
  const head = text.indexOf('\r\n\r\n')
  if (head === -1) return 0
  const length = Number(/^content-length: *(\d+)\r$/im.exec(text.slice(0, head + 1))?.[1] ?? 0)
  return text.length >= head + 4 + length ? head + 4 + length : 0
}
