import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { Test } from 'tap'
import type { TestGateway } from './gateway.ts'
import { httpPort } from './http-server.ts'

/** A host of results that behaves as it is told. */
export interface FileServer {
  readonly origin: string
  readonly requests: readonly IncomingMessage[]
  /** Open connections. */
  readonly sockets: ReadonlySet<Socket>
}

export type ServeFile = (request: IncomingMessage, response: ServerResponse) => void

/** It ends with its test. */
export async function fileServer (t: Test, serve: ServeFile): Promise<FileServer> {
  const requests: IncomingMessage[] = []
  const sockets = new Set<Socket>()
  const server = createServer((request, response) => {
    requests.push(request)
    serve(request, response)
  })
  server.on('connection', socket => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
  })
  return { origin: `http://127.0.0.1:${await httpPort(t, server)}`, requests, sockets }
}

/** A whole file with all the headers an honest host has. */
export function whole (
  bytes: Buffer | string,
  contentType = 'image/png',
  headers: Readonly<Record<string, string>> = {}
): ServeFile {
  return (_request, response) => {
    response
      .writeHead(200, {
        'content-type': contentType,
        'content-length': Buffer.byteLength(bytes),
        'accept-ranges': 'bytes',
        etag: '"one"',
        'last-modified': 'Thu, 15 Jan 2026 12:00:00 GMT',
        ...headers
      })
      .end(bytes)
  }
}

/** Megabytes of zeros, as fast as they are taken. `sent` counts what the system has taken off our hands. */
export function megabytes (
  count: number, announced = true
): { readonly serve: ServeFile, readonly sent: () => number } {
  const chunk = Buffer.alloc(64 * 1024)
  let sent = 0
  return {
    sent: () => sent,
    serve (_request, response) {
      response.writeHead(200, {
        'content-type': 'video/mp4',
        ...(announced ? { 'content-length': count * 2 ** 20 } : {})
      })
      let left = count * 16
      const next = (): void => {
        if (left-- === 0) response.end()
        else response.write(chunk, error => { if (!error) { sent += chunk.length; next() } })
      }
      next()
    }
  }
}

/** A task that has ended with these results, as far as the upstream's word goes. Resolves to its id. */
export async function taskWith (
  { submit, status, sandbox, time }: TestGateway, token: string, resultJson: unknown, state = 'success'
): Promise<string> {
  const { taskId } = (await submit(token)).json.data
  sandbox.next((_request, response) => {
    const data = {
      taskId,
      state,
      resultJson: typeof resultJson === 'string' ? resultJson : JSON.stringify(resultJson),
      createTime: time.now(),
      completeTime: time.now()
    }
    response
      .writeHead(200, { 'content-type': 'application/json' })
      .end(JSON.stringify({ code: 200, message: 'success', data }))
  })
  const ended = await status(token, taskId)
  if (ended.json?.data?.state !== state) throw new Error(`the task did not end: ${ended.text}`)
  return taskId
}
