import { once } from 'node:events'
import type { Socket } from 'node:net'
import t, { type Test } from 'tap'
import { startGateway } from '../helpers/gateway.ts'
import { rawSocket } from '../helpers/raw-http.ts'

/** The same bytes at each run: a failure can be had again. */
function dice (seed: number) {
  let state = seed
  const next = (below: number): number => {
    state = (state * 1664525 + 1013904223) >>> 0
    return state % below
  }
  return {
    next,
    pick: <T>(list: readonly T[]): T => list[next(list.length)]!,
    bytes: (length: number) => Buffer.from(Array.from({ length }, () => next(256)))
  }
}

const methods = [
  'GET',
  'POST',
  'DELETE',
  'PUT',
  'OPTIONS',
  'HEAD',
  'TRACE',
  'CONNECT',
  'PRI',
  'get',
  '',
  '\0',
  'GET '.repeat(3)
]
const targets = [
  '/',
  '/livez',
  '/readyz',
  '/gateway/session',
  '/gateway/sessions',
  '/api/v1/generateTask/nano-banana',
  '/api/v1/statusTask/nano-banana?taskId=x',
  '*',
  '',
  '//',
  '/%',
  '/%00',
  '/%ff%fe',
  '?',
  '#',
  'http://x/',
  '/..',
  `/${'a/'.repeat(500)}`,
  `/${'%2e'.repeat(500)}`,
  `/api/v1/statusTask/x?${'a&'.repeat(2000)}`,
  '/api/v1/statusTask/x?__proto__=1&constructor=2',
  '/\xe9',
  '/api/v1/generateTask/:model'
]
const versions = ['HTTP/1.1', 'HTTP/1.0', 'HTTP/0.9', 'HTTP/2.0', 'http/1.1', 'HTTP/1.1 ', 'HTTP/9.9', '', 'RTSP/1.0']
const headers = [
  'host: a',
  'host:',
  'host: a\r\nhost: b',
  'content-length: 5',
  'content-length: 0',
  'content-length: 99999999999',
  'content-length: x',
  'transfer-encoding: chunked',
  'transfer-encoding: x',
  'expect: 100-continue',
  'expect: x',
  'connection: close',
  'connection: upgrade\r\nupgrade: websocket',
  'connection: upgrade\r\nupgrade: h2c',
  'content-type: application/json',
  'content-type:',
  'content-type: \xff',
  'content-encoding: gzip',
  'authorization: Bearer a.b.c',
  'authorization:',
  'authorization: Bearer eyJhbGciOiJub25lIn0.eyJpc3MiOiJhcGl4by1nYXRld2F5In0.',
  'x-api-key: \xff',
  'origin: null',
  'origin: \x01',
  'cookie: a',
  'a:',
  ':',
  ' a: b',
  'a b: c',
  'a\0: b',
  'access-control-request-method: GET',
  'x-forwarded-for: ,,,',
  'x-forwarded-for: ::ffff:999.1.1.1',
  'range: bytes=0-',
  'te: trailers',
  'trailer: authorization',
  `x: ${'y'.repeat(2000)}`,
  '\r',
  '\n'
]
const bodies = [
  '',
  '{}',
  '{"input":{}}',
  '{',
  '5\r\nhello\r\n0\r\n\r\n',
  '0\r\n\r\n',
  'zz\r\n',
  '-1\r\n',
  'ffffffffffff\r\n',
  '0\r\nauthorization: x\r\n\r\n',
  '\0\0\0\0\0',
  '"\\ud800"',
  '[[[[[[[['
]

/** A request that is broken in some place, or in all. */
function broken ({ next, pick, bytes }: ReturnType<typeof dice>, token: string): Buffer {
  if (next(20) === 0) return bytes(next(400))
  const lines = Array.from({ length: next(6) }, () => pick(headers))
  if (next(3) === 0) lines.push(`authorization: Bearer ${token}`)
  const end = pick(['\r\n', '\r\n', '\r\n', '\n', '\r'])
  const text = Buffer.from(
    [`${pick(methods)} ${pick(targets)} ${pick(versions)}`, ...lines, '', pick(bodies)].join(end),
    'latin1'
  )
  if (next(4) === 0) bytes(1 + next(6)).copy(text, next(text.length))
  return next(8) === 0 ? text.subarray(0, next(text.length)) : text
}

/** Sends some requests down one socket and lets it go in one of several ways. */
async function harass (socket: Socket, { next, ...random }: ReturnType<typeof dice>, token: string): Promise<void> {
  socket.resume()
  for (let count = 1 + next(4); count > 0 && !socket.closed; count--) socket.write(broken({ next, ...random }, token))
  const manner = next(3)
  if (manner === 0) socket.resetAndDestroy()
  else if (manner === 1) socket.end()
  // The rest is left to the gateway: it ends what is broken; what waits for more is ended by us.
  if (!socket.closed) {
    const closed = once(socket, 'close')
    setTimeout(() => socket.destroy(), 20)
    await closed
  }
}

async function fuzz (t: Test, seed: number, rounds: number) {
  const faults: unknown[] = []
  const note = (error: unknown) => { faults.push(error) }
  process.on('unhandledRejection', note).on('uncaughtExceptionMonitor', note)
  t.teardown(() => process.off('unhandledRejection', note).off('uncaughtExceptionMonitor', note))
  const config =
    'plans: { default: { concurrentTasks: 100000, requestsPerMinute: 100000, pollsPerMinute: 100000, credits: unlimited } }\nlimits: { addressRequestsPerMinute: 1000000, addressFailuresPerMinute: 1000000 }'
  const { origin, gateway, call, mint, submit, status, log, sandbox } = await startGateway(t, { config })
  const token = await mint('mallory')
  const random = dice(seed)
  for (let round = 0; round < rounds; round++) {
    await Promise.all(Array.from({ length: 50 }, async () => harass(await rawSocket(t, origin), random, token)))
  }
  t.match(await call('/livez'), { status: 200, json: { status: 'ok' } }, 'the process answers')
  const { taskId } = (await submit(token)).json.data
  t.equal((await status(token, taskId)).status, 200, 'and serves')
  t.same(faults, [])
  t.same(log.filter(line => line.level >= 50 || line.code === 'GW_INTERNAL'), [], 'no request was a bug to it')
  const start = performance.now()
  await gateway.close()
  t.ok(performance.now() - start < 5000, 'no request is still at work: the stop waits for nobody')
  t.ok(sandbox.submits.every(({ url }) => url === '/api/v1/generateTask/nano-banana'))
}

t.test('thousands of broken requests, some with a session, neither end the process nor find a bug', async t => {
  for (const seed of [1, 20260115]) await t.test(`seed ${seed}`, async t => fuzz(t, seed, 20))
})

t.test('bodies of broken JSON are 400s, each of them', async t => {
  const { call, mint, sandbox } = await startGateway(t, {
    config: 'limits: { addressFailuresPerMinute: 100000 }\nplans: { default: {} }'
  })
  const token = await mint('mallory')
  const random = dice(7)
  const good =
    '{"request_type":"async","input":{"prompt":"a \\"cube\\"","list":[1,2.5e3,{"x":null}],"deep":{"y":{"z":true}}}}'
  for (let round = 0; round < 1000; round++) {
    const bytes = Buffer.from(good)
    for (let count = 1 + random.next(3); count > 0; count--) bytes[random.next(bytes.length)] = random.next(256)
    const reply = await call('/api/v1/generateTask/..x', { token, body: bytes.toString('latin1') })
    t.ok(reply.status === 400, JSON.stringify(bytes.toString('latin1')))
  }
  t.equal(sandbox.calls.length, 0)
})
