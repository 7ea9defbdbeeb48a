import { randomBytes } from 'node:crypto'
import { createServer, type ServerResponse } from 'node:http'

/**
 * A stand-in for the upstream that costs next to nothing: a submit is answered with about 110 bytes and a task id of
 * its own (32 hex digits, as real ones were seen). A task of the model `never-ends` runs for ever, one of `changes` is
 * one step further each time one asks, and all others have already ended, with a file of 50 MB. The sandbox, which
 * makes real images, would be measured instead of the gateway.
 */
const port = Number(process.env.PORT)
const file = Buffer.alloc(Number(process.env.FILE_BYTES ?? 50_000_000), 'a')
const prefix = randomBytes(8).toString('hex')
const steps = new Map<string, number>()
let tasks = 0

const server = createServer((request, response) => {
  const url = request.url!
  request.resume().on('end', () => {
    if (url.endsWith('/file.png')) send(response, 'image/png', file)
    else send(response, 'application/json', Buffer.from(request.method === 'POST' ? submitted() : statusOf(url)))
  })
})

function send (response: ServerResponse, type: string, body: Buffer): void {
  response.writeHead(200, { 'content-type': type, 'content-length': body.length }).end(body)
}

function submitted (): string {
  const taskId = prefix + (++tasks).toString(16).padStart(16, '0')
  return `{"code":200,"message":"success","data":{"taskId":"${taskId}"},"requestId":"${prefix}"}`
}

function statusOf (url: string): string {
  const taskId = url.slice(url.indexOf('taskId=') + 7)
  return `{"code":200,"message":"success","data":{"taskId":"${taskId}",${stateOf(url, taskId)}}}`
}

function stateOf (url: string, taskId: string): string {
  if (url.includes('/never-ends?')) return '"state":"processing","createTime":1704067200000'
  if (url.includes('/changes?')) {
    const step = (steps.get(taskId) ?? 0) + 1
    steps.set(taskId, step)
    return `"state":"step ${step}","createTime":1704067200000`
  }
  return `"state":"success","resultJson":"{\\"resultUrls\\":[\\"http://127.0.0.1:${port}/file.png\\"]}",` +
    '"costTime":12500,"createTime":1704067200000,"completeTime":1704067212500'
}

server.keepAliveTimeout = 60_000
server.listen({ port, host: '127.0.0.1', backlog: 4096 })
process.once('SIGTERM', () => process.exit())
