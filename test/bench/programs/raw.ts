import { createServer, type ServerResponse } from 'node:http'
import { Pool, type Dispatcher } from 'undici'

/**
 * The floor that Node sets: `node:http` and undici's `dispatch`, bodies collected into one Buffer each way, the key
 * added, and nothing else: no check, no limit, no log, no ledger. Files and streams are piped, with back-pressure.
 */
const pool = new Pool(process.env.UPSTREAM!, { connections: Number(process.env.CONNECTIONS ?? 64) })
const authorization = `Bearer ${process.env.APIXO_API_KEY}`

const server = createServer((request, response) => {
  const chunks: Buffer[] = []
  request.on('data', (chunk: Buffer) => { chunks.push(chunk) })
  request.on('end', () => {
    const body = chunks.length > 0 ? Buffer.concat(chunks) : null
    const headers: Record<string, string> = { authorization }
    if (body !== null) headers['content-type'] = request.headers['content-type'] ?? 'application/json'
    const isPiped = request.url!.endsWith('/file.png') || request.url!.endsWith('/chat/completions')
    const handler = isPiped ? pipeTo(response) : answerTo(response)
    pool.dispatch({ path: request.url!, method: request.method as Dispatcher.HttpMethod, headers, body }, handler)
  })
})

function answerTo (response: ServerResponse): Dispatcher.DispatchHandler {
  const chunks: Buffer[] = []
  let status = 502
  let type = 'application/json'
  return {
    onRequestStart () {},
    onResponseStart (_controller, statusCode, headers) {
      status = statusCode
      type = String(headers['content-type'])
    },
    onResponseData (_controller, chunk) { chunks.push(chunk) },
    onResponseEnd () {
      const body = chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks)
      response.writeHead(status, { 'content-type': type, 'content-length': body.length })
      response.end(body)
    },
    onResponseError (_controller, error) {
      console.error(error)
      if (response.headersSent) response.destroy()
      else response.writeHead(502, { 'content-length': 0 }).end()
    }
  }
}

function pipeTo (response: ServerResponse): Dispatcher.DispatchHandler {
  return {
    onRequestStart (controller) { response.on('drain', () => controller.resume()) },
    onResponseStart (_controller, statusCode, headers) {
      const { 'content-type': type, 'content-length': length } = headers
      response.writeHead(statusCode, { 'content-type': String(type), ...length && { 'content-length': String(length) } })
    },
    onResponseData (controller, chunk) { if (!response.write(chunk)) controller.pause() },
    onResponseEnd () { response.end() },
    onResponseError (_controller, error) {
      console.error(error)
      response.destroy()
    }
  }
}

server.keepAliveTimeout = 60_000
server.listen({ port: Number(process.env.PORT), host: '127.0.0.1', backlog: 4096 })
process.once('SIGTERM', () => process.exit())
