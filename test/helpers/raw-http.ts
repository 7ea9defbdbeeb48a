import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import type { Test } from 'tap'

/** What came back over one bare connection. */
export interface RawAnswer {
  /** Everything, as latin1: status line, headers, body, and what followed. */
  readonly text: string
  /** Of the first answer, interim ones apart; `undefined` when nothing came that looks like HTTP. */
  readonly status: number | undefined
  /** `x-gateway-error` of that answer. */
  readonly error: string | undefined
  /** How many answers there were. */
  readonly count: number
}

/** A bare connection to a gateway, closed with its test. */
export async function rawSocket (t: Test, origin: string): Promise<Socket> {
  const { hostname, port } = new URL(origin)
  const socket = connect(Number(port), hostname)
  socket.on('error', () => { /* a refused connection is what some tests are about; 'close' follows */ })
  t.teardown(() => socket.destroy())
  await once(socket, 'connect')
  return socket
}

/**
 * Sends bytes as they are and reads until the gateway ends the connection. For what no client library would send:
 * broken framing, paths that a URL parser would mend, one header twice. Ask for `connection: close`, or break the HTTP.
 */
export async function rawHttp (t: Test, origin: string, bytes: string | Buffer): Promise<RawAnswer> {
  const socket = await rawSocket(t, origin)
  const chunks: Buffer[] = []
  socket.on('data', chunk => chunks.push(chunk))
  socket.write(typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : bytes)
  await new Promise(resolve => socket.once('close', resolve))
  return rawAnswer(Buffer.concat(chunks).toString('latin1'))
}

/** A request's text: lines that end in CRLF, `host` and `connection: close` added. */
export function rawRequest (line: string, headers: readonly string[] = [], body = ''): string {
  const length = body === '' ? [] : ['content-type: application/json', `content-length: ${Buffer.byteLength(body)}`]
  return [`${line} HTTP/1.1`, 'host: gateway.test', 'connection: close', ...headers, ...length, '', body].join('\r\n')
}

export function rawAnswer (text: string): RawAnswer {
  const answers = [...text.matchAll(/HTTP\/1\.1 ([2-5]\d\d) /g)]
  return {
    text,
    status: answers[0] === undefined ? undefined : Number(answers[0][1]),
    error: /^x-gateway-error: (\w+)/im.exec(text)?.[1],
    count: answers.length
  }
}
