import type { Test } from 'tap'
import { type RawAnswer, rawAnswer, rawSocket } from './raw-http.ts'
import { until } from './until.ts'

/**
 * Sends a POST up to its body, which the gateway has asked for then: its caller was let in. What this resolves to sends
 * the body, and resolves to the answer.
 */
export async function slowBody (
  t: Test,
  url: string,
  token: string,
  body: unknown = {}
): Promise<() => Promise<RawAnswer>> {
  const { origin, host, pathname } = new URL(url)
  const text = JSON.stringify(body)
  const socket = await rawSocket(t, origin)
  let received = ''
  socket.on('data', (chunk: Buffer) => {
    received += chunk.toString('latin1')
  })
  const headers = [
    `host: ${host}`,
    `authorization: Bearer ${token}`,
    'content-type: application/json',
    'expect: 100-continue'
  ]
  socket.write([`POST ${pathname} HTTP/1.1`, ...headers, `content-length: ${text.length}`, '', ''].join('\r\n'))
  await until('the body is asked for', () => received.startsWith('HTTP/1.1 100'))
  return async () => {
    socket.write(text)
    await until('an answer', () => /HTTP\/1\.1 [2-5].*\r\n\r\n/s.test(received))
    return rawAnswer(received)
  }
}
