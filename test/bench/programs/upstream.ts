import { randomBytes } from 'node:crypto'
import { createServer, type ServerResponse } from 'node:http'

/**
 * A stand-in for the upstream that costs next to nothing: a submit is answered with about 110 bytes and a task id of
 * its own (32 hex digits, as real ones were seen). A task of the model `never-ends` runs for ever, one of `changes` is
 * one step further each time one asks, and all others have already ended, with a file of 50 MB. A chat completion
 * streams. The sandbox, which makes real images, would be measured instead of the gateway.
 */
const port = Number(process.env.PORT)
const file = Buffer.alloc(Number(process.env.FILE_BYTES ?? 50_000_000), 'a')
const prefix = randomBytes(8).toString('hex')
const steps = new Map<string, number>()
let tasks = 0

const server = createServer((request, response) => {
  const url = request.url!
  if (url.endsWith('/chat/completions')) {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => { chunks.push(chunk) })
    request.on('end', () => streamTo(response, Buffer.concat(chunks).toString()))
    return
  }
  request.resume().on('end', () => {
    if (url.endsWith('/file.png')) send(response, 'image/png', file)
    else send(response, 'application/json', Buffer.from(request.method === 'POST' ? submitted() : statusOf(url)))
  })
})

/**
 * Chunks of a chat completion, so many and so many ms apart as the prompt says (`200x40`), each with its number and the
 * time at which it was written; then what ends it.
 */
function streamTo (response: ServerResponse, body: string): void {
  const [, count = '1', stepMs = '0'] = /"(\d+)x(\d+)/.exec(body) ?? []
  response.writeHead(200, { 'content-type': 'text/event-stream' })
  let sent = 0
  const write = (): void => {
    if (response.destroyed) return
    const at = (performance.timeOrigin + performance.now()).toFixed(3)
    response.write(chunk(`{"content":" w${sent++}@${at};"}`, 'null'))
    if (sent < Number(count)) setTimeout(write, Number(stepMs))
    else response.end(`${chunk('{}', '"stop"', usage)}data: [DONE]\n\n`)
  }
  write()
}

const usage = ',"usage":{"prompt_tokens":9,"completion_tokens":9,"total_tokens":18}'

function chunk (delta: string, reason: string, more = ''): string {
  return 'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1704067200,"model":"gpt-5.4","choices":[' +
    `{"index":0,"delta":${delta},"finish_reason":${reason}}]${more}}\n\n`
}

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
