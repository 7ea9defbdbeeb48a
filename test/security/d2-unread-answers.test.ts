import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { setTimeout as wait } from 'node:timers/promises'
import { Client } from 'undici'
import t, { type Test } from 'tap'
import { startSandbox } from '../../src/sandbox/sandbox.ts'
import { apiKey, startGateway } from '../helpers/gateway.ts'
import { gatewayEnvironment, startProcess } from '../helpers/gateway-process.ts'
import { rawAnswer, rawRequest, rawSocket } from '../helpers/raw-http.ts'
import { until } from '../helpers/until.ts'

const page = 'GET /gateway/ HTTP/1.1\r\nhost: gateway.test\r\n\r\n'

/** Connections of one address that send this, over and over to a megabyte, and read nothing. */
function besiege (t: Test, port: number, localAddress: string, text: string): Socket[] {
  return Array.from({ length: 40 }, () => {
    const socket = connect({ port, host: '127.0.0.1', localAddress })
    t.teardown(() => socket.destroy())
    socket.on('error', () => {}).pause()
    const pump = (): void => { if (socket.bytesWritten < 1_000_000) socket.write(text) }
    socket.on('connect', pump).on('drain', pump)
    return socket
  })
}

t.test('a small process stands answers that nobody reads, from many addresses at once', async t => {
  const sandbox = await startSandbox({ keys: [apiKey] })
  t.teardown(() => sandbox.close())
  const cwd = t.testdir({ 'gateway.yaml': 'plans: { default: {} }\nupstream: { bodyIdleMs: 2000 }' })
  const { origin, child } = await startProcess(t, {
    cwd,
    env: { ...gatewayEnvironment(sandbox.origin), NODE_OPTIONS: '--max-old-space-size=256' }
  })
  const live = async (): Promise<number> => {
    const start = performance.now()
    const { status } = await fetch(`${origin}/livez`, { signal: AbortSignal.timeout(20_000) })
    t.equal(status, 200)
    return performance.now() - start
  }
  const residentMB = (): number =>
    Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))?.[1]) / 1024
  await live()
  const beforeMB = residentMB()
  let [worstMs, mostMB] = [0, 0]
  // All that may be sent ahead, and far more than that.
  for (const count of [20, 2000, 20, 2000]) {
    const sockets = [1, 2, 3, 4].flatMap(host =>
      besiege(t, Number(new URL(origin).port), `127.0.2.${host}`, page.repeat(count))
    )
    for (let probe = 0; probe < 5; probe++) {
      worstMs = Math.max(worstMs, await live())
      mostMB = Math.max(mostMB, residentMB())
      await wait(100)
    }
    if (count > 1000) for (const socket of sockets) socket.destroy()
  }
  t.comment(`worst /livez ${Math.round(worstMs)} ms, resident ${Math.round(beforeMB)} to ${Math.round(mostMB)} MB`)
  t.ok(mostMB < beforeMB + 300, `${mostMB} MB`)
  t.equal(child.exitCode, null)
})

t.test('one answer is made at a time, also for who sends requests ahead', async t => {
  const { origin, mint, sandbox } = await startGateway(t)
  const token = await mint('alice')
  const socket = await rawSocket(t, origin)
  let text = ''
  socket.on('data', chunk => { text += chunk })
  const body = '{"input":{"prompt":"sandbox:slow-headers"}}'
  const submit = rawRequest('POST /api/v1/generateTask/nano-banana', [`authorization: Bearer ${token}`], body).replace(
    'connection: close\r\n',
    ''
  )
  socket.write(submit + submit)
  await until('the first is made', () => sandbox.waiting === 1)
  socket.write('GET /livez HTTP/1.1\r\nhost: x\r\n\r\n')
  await fetch(`${origin}/livez`)
  t.equal(sandbox.submits.length, 1)
  sandbox.release()
  await until('the second is made', () => sandbox.waiting === 1)
  sandbox.release()
  await until('all are answered', () => rawAnswer(text).count === 3)
  t.match(text, /"taskId".*"taskId".*"status":"ok"/s, 'in their order')
})

t.test('a client that pipelines a few requests gets its answers', async t => {
  const { origin } = await startGateway(t)
  const client = new Client(origin, { pipelining: 10 })
  t.teardown(() => client.destroy())
  const answers = await Promise.all(
    Array.from({ length: 50 }, () => client.request({ method: 'GET', path: '/gateway/' }))
  )
  for (const { statusCode, body } of answers) {
    t.equal(statusCode, 200)
    await body.dump()
  }
})

t.test('more than may wait ends the connection, after the submit that is being made', async t => {
  const { origin, mint, sandbox } = await startGateway(t)
  const token = await mint('alice')
  const crowd = page.repeat(200)
  const socket = await rawSocket(t, origin)
  socket.write(crowd)
  await once(socket.resume(), 'close')

  const submitting = await rawSocket(t, origin)
  let text = ''
  submitting.on('data', chunk => {
    text += chunk
  })
  const submit = rawRequest(
    'POST /api/v1/generateTask/nano-banana',
    [`authorization: Bearer ${token}`],
    '{"input":{"prompt":"sandbox:slow-headers"}}'
  )
  submitting.write(submit.replace('connection: close\r\n', '') + crowd)
  await until('it is made', () => sandbox.waiting === 1)
  submitting.write(crowd)
  sandbox.release()
  await once(submitting, 'close')
  t.match(rawAnswer(text), { status: 200, count: 1 })
  t.match(text, /^connection: close\r$/im)
})

t.test('who takes nothing of an answer is let go, and who waits for one is not', async t => {
  const { origin, mint, sandbox, submit } = await startGateway(t, {
    config:
      'plans: { default: { credits: unlimited } }\nupstream: { bodyIdleMs: 400, headersMs: 20000 }\nlimits: { addressRequestsPerMinute: 100000 }'
  })
  const token = await mint('alice')
  const running = submit(token, 'sandbox:slow-headers')
  await until('it is made', () => sandbox.waiting === 1)
  const socket = await rawSocket(t, origin)
  let isClosed = false
  socket.on('close', () => { isClosed = true }).pause()
  const answers = setInterval(() => socket.write(page.repeat(10)), 5)
  t.teardown(() => clearInterval(answers))
  await until('it is let go', () => isClosed || socket.errored, 20_000)
  sandbox.release()
  t.equal((await running).status, 200)
})

t.test('sockets above the limit are told so', async t => {
  const { origin } = await startGateway(t, { config: 'plans: { default: {} }\nlimits: { socketsPerAddress: 1 }' })
  await rawSocket(t, origin)
  const surplus = await rawSocket(t, origin)
  let text = ''
  surplus.on('data', chunk => { text += chunk }).write(page)
  await once(surplus, 'end')
  t.match(rawAnswer(text), { status: 503, error: 'GW_OVERLOADED', count: 1 })
  t.match(text, /^retry-after: 1\r$/im)
})

t.test('a submit is answered before what breaks its connection', async t => {
  const { origin, mint, sandbox } = await startGateway(t)
  const token = await mint('alice')
  const submit = rawRequest(
    'POST /api/v1/generateTask/nano-banana',
    [`authorization: Bearer ${token}`],
    '{"input":{"prompt":"sandbox:slow-headers"}}'
  ).replace('connection: close\r\n', '')
  for (const [broken, status] of [
    ['no http\r\n\r\n', 400],
    ['CONNECT a:443 HTTP/1.1\r\nhost: a\r\n\r\n', 405]
  ] as const) {
    const socket = await rawSocket(t, origin)
    let text = ''
    socket.on('data', chunk => { text += chunk })
    socket.write(submit + broken)
    await until('it is made', () => sandbox.waiting === 1)
    socket.write(broken)
    sandbox.release()
    await once(socket, 'end')
    t.match(rawAnswer(text), { status: 200, count: 2 })
    t.match(text, new RegExp(`HTTP/1.1 ${status} `))
  }
})
