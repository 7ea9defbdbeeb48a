import { randomBytes } from 'node:crypto'
import { createServer } from 'node:http'

/**
 * A stand-in for the upstream that costs next to nothing: a submit is answered with about 110 bytes and a task id of
 * its own (32 hex digits, as real ones were seen), and every task has already ended. The sandbox, which makes real
 * images, would be measured instead of the gateway.
 */
const prefix = randomBytes(8).toString('hex')
let tasks = 0

const server = createServer((request, response) => {
  request.resume().on('end', () => {
    const body = request.method === 'POST' ? submitted() : finished(request.url ?? '')
    response.writeHead(200, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) })
    response.end(body)
  })
})

function submitted (): string {
  const taskId = prefix + (++tasks).toString(16).padStart(16, '0')
  return `{"code":200,"message":"success","data":{"taskId":"${taskId}"},"requestId":"${prefix}"}`
}

function finished (url: string): string {
  const taskId = url.slice(url.indexOf('taskId=') + 7)
  return `{"code":200,"message":"success","data":{"taskId":"${taskId}","state":"success","resultJson":` +
    '"{\\"resultUrls\\":[\\"https://file.apixo.ai/temp/out.png\\"]}","costTime":12500,"createTime":1704067200000,"completeTime":1704067212500}}'
}

server.keepAliveTimeout = 60_000
server.listen(Number(process.env.PORT), '127.0.0.1')
process.once('SIGTERM', () => process.exit())
