import { once } from 'node:events'
import { createRequire } from 'node:module'
import t from 'tap'
import { connection } from '../../src/package/connection.ts'
import { createHandler, expressMiddleware, type Handler, honoMiddleware, nextRoutes } from '../../src/package/index.ts'
import { startSandbox } from '../../src/sandbox/sandbox.ts'
import { apiKey } from '../helpers/gateway.ts'
import { handlerOf, settingsOver } from '../helpers/hosts.ts'
import { issuerToken } from '../helpers/http-caller.ts'
import { until } from '../helpers/until.ts'

const require = createRequire(import.meta.url)
const { env, config } = settingsOver({ origin: 'http://127.0.0.1:9' })
const address = '192.0.2.7'
const site = 'https://gateway.example'

/** A session's token. */
async function mint (handler: Handler): Promise<string> {
  const response = await handler(new Request(`${site}/gateway/sessions`, {
    method: 'POST',
    headers: { authorization: `Bearer ${issuerToken}`, 'content-type': 'application/json' },
    body: '{"subject":"alice"}'
  }), { address })
  return (await response.json() as { token: string }).token
}

function submitOf (token: string, body: BodyInit, more: RequestInit & { headers?: Record<string, string> } = {}) {
  return new Request(`${site}/api/v1/generateTask/nano-banana`, {
    ...more,
    method: 'POST',
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json', ...more.headers },
    body,
    duplex: 'half'
  } as RequestInit)
}

t.test('a handler opens nothing before the first request, which says what is wrong with its settings', async t => {
  const handler = handlerOf(t, { env: { ...env, GATEWAY_SESSION_SECRET: 'short' }, config })
  for (let time = 0; time < 2; time++) {
    await t.rejects(handler(new Request(site), { address }), { name: 'SettingsError', message: /SESSION_SECRET/ })
  }
})

t.test('a process has one gateway, whoever makes the handler again, until it is closed', async t => {
  const first = handlerOf(t, { env, config })
  const second = createHandler({ env: { ...env }, config })
  const token = await mint(first)
  const who = new Request(`${site}/gateway/session`, { headers: { authorization: `Bearer ${token}` } })
  t.equal((await second(who, { address })).status, 200)
  t.throws(() => createHandler({ env, config, addresses: false }), { message: /a handler with other settings/ })
  await first.close()
  await t.rejects(second(who, { address }), { message: /closed/ })
  await second.close()
})

t.test('a handler is not made where a process does not live on', async t => {
  for (const [name, value, where] of [
    ['NEXT_RUNTIME', 'edge', /this is the edge runtime/],
    ['AWS_LAMBDA_FUNCTION_NAME', 'resize', /AWS Lambda \(AWS_LAMBDA_FUNCTION_NAME is set\)/],
    ['VERCEL', '1', /Vercel/]
  ] as const) {
    process.env[name] = value
    t.throws(() => createHandler({ env, config }), { message: where })
    Reflect.deleteProperty(process.env, name)
  }
})

t.test('without the caller\'s address nothing is answered, unless the handler was made for that', async t => {
  const handler = handlerOf(t, { env, config })
  await t.rejects(handler(new Request(site)), { name: 'TypeError', message: /call handler\(request, \{ address \}\)/ })
  await t.rejects(handler(new Request(site), { address: '10.0.0.1, 10.0.0.2' }), { message: /is no IP address/ })
  await handler.close()

  const blind = handlerOf(t, { env: { ...env, GATEWAY_INSECURE_UPSTREAM: 'true' }, config, addresses: false })
  t.equal((await blind(new Request(`${site}/livez`))).status, 200)
})

t.test('without addresses there are no guests and no limits by them', async t => {
  for (const [name, more] of [
    ['guests.enabled', { guests: { enabled: true, plan: 'default' } }],
    ['limits.addressRequestsPerMinute', { limits: { addressRequestsPerMinute: 10 } }]
  ] as const) {
    const handler = handlerOf(t, { env, config: { ...config, ...more }, addresses: false })
    await t.rejects(handler(new Request(site)), { name: 'SettingsError', message: new RegExp(`${name} .*by address`) })
    await handler.close()
  }
})

t.test('a credential with a comma is two, and refused', async t => {
  const handler = handlerOf(t, { env, config })
  const token = await mint(handler)
  for (const headers of [{ authorization: `Bearer ${token}, Bearer ${token}` }, { 'x-api-key': `${token},${token}` }]) {
    const response = await handler(new Request(`${site}/gateway/session`, { headers }), { address })
    t.match([response.status, response.headers.get('x-gateway-error')], [400, 'GW_BAD_REQUEST'])
  }
})

t.test('bodies are streams: one without an end is refused in time, and a reader that goes ends what it read', async t => {
  const handler = handlerOf(t, { env, config })
  const token = await mint(handler)
  let pulled = 0
  const endless = new ReadableStream({
    pull (controller) {
      pulled++
      controller.enqueue(new Uint8Array(10_000))
    }
  })
  t.equal((await handler(submitOf(token, endless), { address })).status, 413)
  const far = pulled
  t.ok(far < 200, `${far} pieces were taken`)

  const events = () => handler(new Request(`${site}/gateway/events`, {
    headers: { authorization: `Bearer ${token}` }
  }), { address })
  for (let time = 0; time < 12; time++) { // a subject has ten at a time
    let response!: Response
    await until('there is room', async () => {
      response = await events()
      return response.status === 200
    })
    await response.body!.cancel()
  }
})

t.test('more bytes than were announced are no second request', async t => {
  const sandbox = await startSandbox({ keys: [apiKey], taskMs: 1 })
  t.teardown(() => sandbox.close())
  const handler = handlerOf(t, settingsOver(sandbox))
  const token = await mint(handler)
  const body = '{"input":{"prompt":"a red cube"}}'
  const smuggled = `${body}POST /api/v1/generateTask/nano-banana HTTP/1.1\r\nhost: a\r\n\r\n`
  const sent = (text: string, length: string) =>
    handler(submitOf(token, text, { headers: { 'content-length': length } }), { address })
  await t.rejects(sent(smuggled, String(body.length)), { message: /another length/ })
  await t.rejects(sent(body, '1000'), { message: /another length/ })
  t.equal(sandbox.calls.length, 0)
  t.equal((await sent(body, String(body.length))).status, 200)
})

t.test('a body without a length is framed, whatever the method', async t => {
  const handler = handlerOf(t, { env, config })
  const token = await mint(handler)
  const ended = (body: BodyInit) => handler(new Request(`${site}/gateway/session`, {
    method: 'DELETE', headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' }, body
  }), { address })
  t.equal((await ended('no JSON')).headers.get('x-gateway-error'), 'GW_BAD_REQUEST', 'it is read as a body')
  t.equal((await ended('{}')).status, 204)
})

t.test('a signal ends a read, and the wait for a submit but never the submit', async t => {
  const sandbox = await startSandbox({ keys: [apiKey], taskMs: 1 })
  t.teardown(() => sandbox.close())
  const handler = handlerOf(t, settingsOver(sandbox))
  const token = await mint(handler)
  const headers = { authorization: `Bearer ${token}` }
  const gone = new AbortController()
  const ended = handler(submitOf(token, '{"input":{"prompt":"a"}}', { signal: gone.signal }), { address })
    .then(() => 'answered before', error => error.name)
  await until('the upstream has it', () => sandbox.calls.length === 1)
  gone.abort()
  t.match(await ended, /^(?:AbortError|answered before)$/)
  await until('it is known', async () => {
    const response = await handler(new Request(`${site}/gateway/tasks`, { headers }), { address })
    return (await response.json() as { tasks: unknown[] }).tasks.length === 1
  })

  const left = new AbortController()
  const events = await handler(new Request(`${site}/gateway/events`, { headers, signal: left.signal }), { address })
  left.abort()
  await t.rejects(events.text())
})

t.test('Next.js and Hono get the gateway\'s answers, and Hono the rest from its own routes', async t => {
  const handler = handlerOf(t, { env, config })
  const { GET, HEAD } = nextRoutes(handler, () => address)
  t.equal((await GET(new Request(`${site}/livez`))).status, 200)
  t.match([(await HEAD(new Request(`${site}/livez`, { method: 'HEAD' }))).body], [null])

  const middleware = honoMiddleware(handler, () => address)
  const ask = async (path: string) => {
    let isPassedOn = false
    const raw = new Request(site + path)
    const answer = await middleware({ req: { raw, path } }, async () => { isPassedOn = true })
    return { isPassedOn, status: answer?.status }
  }
  t.same(await ask('/livez'), { isPassedOn: false, status: 200 })
  t.same(await ask('/hello'), { isPassedOn: true, status: undefined })
})

t.test('an Express that would read bodies first, or mounts it below a path, is told so', async t => {
  const handler = handlerOf(t, { env: { ...env, GATEWAY_SESSION_SECRET: 'short' }, config })
  const express = require('express')
  for (const [path, prepare, message] of [
    ['/v1/messages', (app: any) => app.use(express.json(), expressMiddleware(handler)), /before express\.json/],
    ['/ai/v1/messages', (app: any) => app.use('/ai', expressMiddleware(handler)), /without a path/],
    ['/v1/messages', (app: any) => app.use(expressMiddleware(handler)), /SESSION_SECRET/]
  ] as const) {
    const app = express()
    prepare(app)
    app.use((error: Error, _request: unknown, response: any, _next: unknown) => response.send(error.message))
    const server = app.listen(0, '127.0.0.1')
    t.teardown(() => server.close())
    await once(server, 'listening')
    const response = await fetch(`http://127.0.0.1:${server.address().port}${path}`, {
      method: 'POST', headers: { 'content-type': 'application/json', connection: 'close' }, body: '{}'
    })
    t.match(await response.text(), message)
  }
})

t.test('a connection whose other end takes nothing of what waits runs out of time, and no other does', async t => {
  const { near, far } = connection({ remoteAddress: address, encrypted: false })
  const socket = far as typeof far & { setTimeout (ms: number): void }
  const alive = setInterval(() => {}, 1000) // for the connection's own timer keeps no process alive
  t.teardown(() => clearInterval(alive))
  let late = 0
  far.on('timeout', () => { late++ })
  socket.setTimeout(5)
  await new Promise(resolve => setTimeout(resolve, 30))
  t.equal(late, 0)
  far.write(Buffer.alloc(1_000_000))
  far.write('more')
  await once(far, 'timeout')
  socket.setTimeout(0)
  near.destroy()
  await once(far, 'close')
})

t.test('what was written counts as taken when the other end reads on', async t => {
  const { near, far } = connection({ remoteAddress: address, encrypted: false })
  let isTaken = false
  far.write(Buffer.alloc(1_000_000), () => { isTaken = true })
  for (let turn = 0; turn < 3; turn++) await new Promise(resolve => setImmediate(resolve))
  t.equal(isTaken, false)
  near.resume()
  await until('it is taken', () => isTaken)
  near.destroy()
  await once(far, 'close')
})
