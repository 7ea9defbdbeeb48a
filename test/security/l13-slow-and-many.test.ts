import { once } from 'node:events'
import t, { type Test } from 'tap'
import { type TestGateway, startGateway } from '../helpers/gateway.ts'
import { rawHttp, rawSocket, rawRequest } from '../helpers/raw-http.ts'
import { until } from '../helpers/until.ts'

const config =
  'plans: { default: { concurrentTasks: 1000, credits: unlimited, requestsPerMinute: 10000 } }\nlimits: { bodyBytes: 1000, bodyBytesInFlight: 2000, socketsPerAddress: 10 }'
const body = '{"input":{"prompt":"x"}}'

function head (token: string, length: number | 'chunked'): string {
  const framing = length === 'chunked' ? 'transfer-encoding: chunked' : `content-length: ${length}`
  return `POST /api/v1/generateTask/nano-banana HTTP/1.1\r\nhost: gateway.test\r\nconnection: close\r\nauthorization: Bearer ${token}\r\ncontent-type: application/json\r\n${framing}\r\n\r\n`
}

/** Opens a submit that announces a body and does not send it. */
async function stalled (t: Test, { origin, gateway }: TestGateway, token: string, length: number | 'chunked') {
  const socket = await rawSocket(t, origin)
  const arrived = once(gateway.app.server, 'request')
  socket.write(head(token, length))
  await arrived
  return socket
}

t.test('a body or headers that do not come end the connection in time', async t => {
  const it = await startGateway(t, { config })
  const { server } = it.gateway.app
  t.ok(server.headersTimeout > 0 && server.headersTimeout <= 60_000)
  t.ok(server.requestTimeout > 0 && server.requestTimeout <= 300_000)
  // The real limits are too long to wait for; that they are looked at is what is tested.
  server.headersTimeout = 100
  server.requestTimeout = 200
  const slowBody = await rawSocket(t, it.origin)
  const slowHead = await rawSocket(t, it.origin)
  slowBody.write(head(await it.mint('alice'), 900) + body)
  slowHead.write('GET /livez HTTP/1.1\r\nhost: gateway.test\r\nx-a: ')
  const closed = Promise.all([once(slowBody.resume(), 'close'), once(slowHead.resume(), 'close')])
  await Promise.race([closed, until('both connections are ended', () => slowBody.closed && slowHead.closed, 20_000)])
  t.ok(slowBody.closed && slowHead.closed)
  t.equal(it.sandbox.calls.length, 0)
})

t.test('sockets of one address are bounded, and others may come when some have gone', async t => {
  const { origin } = await startGateway(t, { config })
  const sockets = await Promise.all(Array.from({ length: 30 }, async () => (await rawSocket(t, origin)).resume()))
  await until('the surplus is closed', () => sockets.filter(socket => socket.closed).length >= 20)
  t.equal(sockets.filter(socket => !socket.closed).length, 10)
  for (const socket of sockets) socket.destroy()
  await until('there is room again', async () => (await rawHttp(t, origin, rawRequest('GET /livez'))).status === 200)
})

t.test('callers who hang up over an unsent body take no room with them', async t => {
  const it = await startGateway(t, { config })
  for (const length of [1000, 'chunked'] as const) {
    // A token seen for the first time: its signature is verified off the loop, so the hang-up comes in between.
    for (let round = 0; round < 5; round++) (await stalled(t, it, await it.mint(`mallory-${round}`), length)).destroy()
    for (let round = 0; round < 5; round++) {
      const socket = await rawSocket(t, it.origin)
      socket.write(head(await it.mint(`eve-${round}`), length), () => socket.destroy())
      await once(socket, 'close')
    }
  }
  const token = await it.mint('alice')
  const replies = await Promise.all(
    Array.from({ length: 5 }, () => it.submit(token, 'x', 'nano-banana', { signal: AbortSignal.timeout(3000) }))
  )
  t.ok(replies.every(reply => reply.status === 200))
  t.equal(it.sandbox.submits.length, 5)
})

t.test('a body longer than the limit is a 413, announced or not, and it is not read to its end', async t => {
  const { origin, mint, sandbox } = await startGateway(t, { config })
  const token = await mint('alice')
  t.match(await rawHttp(t, origin, head(token, 1001)), { status: 413, error: 'GW_TOO_LARGE' })
  t.match(await rawHttp(t, origin, head(token, 1e15)), { status: 413, error: 'GW_TOO_LARGE' })
  const chunk = `400\r\n${' '.repeat(1024)}\r\n`
  t.match(await rawHttp(t, origin, head(token, 'chunked') + chunk.repeat(3)), { status: 413, error: 'GW_TOO_LARGE' })
  t.equal(sandbox.calls.length, 0)
})

t.test('who has no session sends no body: it is refused before a byte of it', async t => {
  const { origin, sandbox } = await startGateway(t, { config })
  t.match(await rawHttp(t, origin, head('a.b.c', 900)), { status: 401, error: 'GW_BAD_SESSION' })
  t.match(await rawHttp(t, origin, head('', 'chunked').replace(/authorization.*\r\n/, '')), {
    status: 401,
    error: 'GW_NO_SESSION'
  })
  t.equal(sandbox.calls.length, 0)
})

t.test('sockets that say nothing do not hold up a stop', async t => {
  const { origin, gateway, call } = await startGateway(t, { config })
  await call('/livez')
  const silent = await rawSocket(t, origin)
  const half = await rawSocket(t, origin)
  half.write('GET /livez HTTP/1.1\r\nhost: gat')
  const start = performance.now()
  await gateway.close()
  t.ok(performance.now() - start < 5000)
  await until('both are closed', () => silent.closed && half.closed)
})

t.test('a reader who does not read holds up nobody else', async t => {
  const { origin, call, mint, sandbox } = await startGateway(t, { config })
  const token = await mint('alice')
  const socket = await rawSocket(t, origin)
  socket.pause()
  const one = rawRequest('GET /gateway/session', [`authorization: Bearer ${token}`]).replace(
    'connection: close',
    'connection: keep-alive'
  )
  socket.write(one.repeat(200))
  for (let round = 0; round < 5; round++) t.equal((await call('/livez')).status, 200)
  socket.destroy()
  t.equal((await call('/gateway/session', { token })).status, 200)
  t.equal(sandbox.calls.length, 0)
})
