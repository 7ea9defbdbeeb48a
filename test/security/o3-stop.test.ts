import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import t, { type Test } from 'tap'
import { type Sandbox, startSandbox } from '../../src/sandbox/sandbox.ts'
import { anyItems } from '../helpers/batches.ts'
import { chromium, openPage } from '../helpers/chromium.ts'
import { apiKey } from '../helpers/gateway.ts'
import { gatewayEnvironment, type GatewayProcess, startProcess } from '../helpers/gateway-process.ts'
import { callerOf } from '../helpers/http-caller.ts'
import { rawAnswer, rawSocket } from '../helpers/raw-http.ts'
import { listen } from '../helpers/raw-server.ts'
import { redisServer } from '../helpers/redis-server.ts'
import { until } from '../helpers/until.ts'

/** Nothing that the sandbox holds ends in so short a time. */
const drainMs = 300
const config = `plans: { default: { concurrentTasks: 100, credits: 100 } }\nbatches: { enabled: true }\nupstream: { drainMs: ${drainMs} }`

async function sandboxOf (t: Test): Promise<Sandbox> {
  const sandbox = await startSandbox({ keys: [apiKey] })
  t.teardown(() => sandbox.close())
  return sandbox
}

async function start (
  t: Test,
  sandbox: Sandbox,
  env: Readonly<Record<string, string>> = {},
  yaml = config,
  cwd = t.testdir({ 'gateway.yaml': yaml })
) {
  const gateway = await startProcess(t, { cwd, env: { ...gatewayEnvironment(sandbox.origin), ...env } })
  const caller = callerOf(gateway.origin)
  const stages = (): Record<string, unknown> => {
    const db = new DatabaseSync(join(cwd, 'gateway.db'), { readOnly: true })
    const rows = db.prepare('SELECT stage, count(*) AS count FROM tasks GROUP BY stage').all()
    db.close()
    return Object.fromEntries(rows.map(({ stage, count }) => [stage, count]))
  }
  return { gateway, ...caller, token: await caller.mint('alice'), stages }
}

async function stop ({ child, ended }: GatewayProcess) {
  const start = performance.now()
  child.kill('SIGTERM')
  return { code: await ended, ms: performance.now() - start }
}

function submitText (token: string, length: number, body: string): string {
  return `POST /api/v1/generateTask/nano-banana HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${token}\r\n` +
    `content-type: application/json\r\ncontent-length: ${length}\r\n\r\n${body}`
}

const body = '{"input":{"prompt":"sandbox:slow-headers"}}'

t.test('a submit and a batch that outlast the drain are answered: their outcome is unknown', async t => {
  const sandbox = await sandboxOf(t)
  const { gateway, submit, call, token, stages } = await start(t, sandbox)
  const running = [
    submit(token, 'sandbox:slow-headers'),
    call('/api/v1/generateTask/nano-banana/batches', {
      token,
      body: { items: anyItems(1).map(item => ({ ...item, input: { prompt: 'sandbox:slow-headers' } })) }
    })
  ]
  await until('the upstream has both', () => sandbox.waiting === 2)
  const stopped = stop(gateway)
  for (const answer of await Promise.all(running)) {
    t.match(answer, { status: 502, error: 'GW_OUTCOME_UNKNOWN' })
    t.equal(answer.headers.get('x-should-retry'), 'false')
    t.equal(answer.headers.get('connection'), 'close')
  }
  const { code, ms } = await stopped
  t.equal(code, 0)
  t.ok(ms < drainMs + 2500, `${ms} ms`)
  t.same(stages(), { unknown: 3 }, 'the item has a row of its own')
})

t.test('what has not reached forward when the drain is over is a 503, and is not sent', async t => {
  const sandbox = await sandboxOf(t)
  const { gateway, token, stages } = await start(t, sandbox)
  const socket = await rawSocket(t, gateway.origin)
  let said = ''
  socket.on('data', chunk => { said += chunk })
  socket.write(submitText(token, body.length, body.slice(0, 10)))
  await fetch(`${gateway.origin}/livez`) // it has been read by then
  const stopped = stop(gateway)
  await once(socket, 'end')
  t.match(rawAnswer(said), { status: 503, error: 'GW_OVERLOADED', count: 1 })
  t.match(said, /^connection: close\r$/im)
  t.equal((await stopped).code, 0)
  t.same(stages(), {})
  t.equal(sandbox.calls.length, 0)
})

t.test('a second signal shortens the wait, and takes nobody\'s answer', async t => {
  const sandbox = await sandboxOf(t)
  const { gateway, submit, token, stages } = await start(t, sandbox, {}, config.replace('300', '60000'))
  const running = submit(token, 'sandbox:slow-headers')
  await until('the upstream has it', () => sandbox.waiting === 1)
  const stopped = stop(gateway)
  await until('new connections are refused', () => fetch(`${gateway.origin}/livez`).then(() => false, () => true))
  gateway.child.kill('SIGTERM')
  gateway.child.kill('SIGINT')
  t.match(await running, { status: 502, error: 'GW_OUTCOME_UNKNOWN' })
  t.match(await stopped, { code: 1 })
  t.same(stages(), { unknown: 1 })
})

t.test('errors that nobody catches, one after another, take nobody\'s answer', async t => {
  const sandbox = await sandboxOf(t)
  const script =
    "process.on('SIGWINCH', () => { setTimeout(() => { throw new Error('thrown') }); Promise.reject(new Error('rejected')) })"
  const { gateway, submit, token } = await start(t, sandbox, {
    NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(script)}`
  })
  const running = submit(token, 'sandbox:slow-headers')
  await until('the upstream has it', () => sandbox.waiting === 1)
  gateway.child.kill('SIGWINCH')
  t.match(await running, { status: 502, error: 'GW_OUTCOME_UNKNOWN' })
  t.equal(await gateway.ended, 1)
  t.match(gateway.stdout, /"message":"thrown"/)
  t.match(gateway.stdout, /"message":"rejected"/)
})

t.test('a store that holds still does not hold up the answer', async t => {
  const [sandbox, redis] = [await sandboxOf(t), await redisServer(t)]
  const { gateway, submit, token } = await start(t, sandbox, { GATEWAY_STORE: redis.url })
  const running = submit(token, 'sandbox:slow-headers')
  await until('the upstream has it', () => sandbox.waiting === 1)
  redis.freeze()
  const stopped = stop(gateway)
  t.match(await running, { status: 502, error: 'GW_OUTCOME_UNKNOWN' })
  t.type((await stopped).code, 'number')
  t.match(gateway.stdout, /"alarm":"unknown-outcome"/)
})

t.test('the task of a submit that waits for the store is in the log when the drain is over', async t => {
  const [sandbox, redis] = [await sandboxOf(t), await redisServer(t)]
  const { gateway, submit, token } = await start(t, sandbox, { GATEWAY_STORE: redis.url })
  const running = submit(token, 'sandbox:slow-headers')
  await until('the upstream has it', () => sandbox.waiting === 1)
  await redis.kill()
  sandbox.release()
  const stopped = stop(gateway)
  t.match(await running, { status: 502, error: 'GW_OUTCOME_UNKNOWN' })
  await stopped
  const [taskId] = [...sandbox.tasks.keys()]
  t.match(gateway.stdout, new RegExp(`"alarm":"store-down".*"taskId":"${taskId}"`))
})

/** In front of two gateways: each new connection goes to the first that takes it. */
async function balancer (t: Test, origins: readonly string[]): Promise<string> {
  const sockets = new Set<Socket>()
  const join = (caller: Socket, index: number): void => {
    if (origins[index] === undefined) {
      caller.destroy()
      return
    }
    const server = connect(Number(new URL(origins[index]).port), '127.0.0.1')
    let isOpen = false
    sockets.add(caller).add(server)
    server.once('connect', () => {
      isOpen = true
      caller.pipe(server).pipe(caller)
    })
    server.on('error', () => { if (!isOpen) join(caller, index + 1) })
    server.once('close', () => { if (isOpen) caller.destroy() })
    caller.on('error', () => server.destroy())
  }
  const server = createServer(caller => join(caller, 0))
  const port = await listen(server)
  t.teardown(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return `http://127.0.0.1:${port}`
}

t.test('a browser makes a submit once though its gateway is stopped under it', async t => {
  const sandbox = await sandboxOf(t)
  const folder = t.testdir({ first: { 'gateway.yaml': config }, second: { 'gateway.yaml': config } })
  const [first, second] = [
    await start(t, sandbox, {}, config, join(folder, 'first')),
    await start(t, sandbox, {}, config, join(folder, 'second'))
  ]
  const origin = await balancer(t, [first.gateway.origin, second.gateway.origin])
  const { page } = await openPage(t, await chromium(t), `${origin}/gateway/`)
  const running = page.evaluate(async ({ token, body }) => {
    // The connection has been used before: on a fresh one the browser does not repeat.
    for (let count = 0; count < 3; count++) await (await fetch('/livez')).text()
    const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' }
    const answer = await fetch('/api/v1/generateTask/nano-banana', { method: 'POST', headers, body })
    return { status: answer.status, error: answer.headers.get('x-gateway-error') }
  }, { token: first.token, body })
  await until('the upstream has it', () => sandbox.waiting === 1)
  const stopped = stop(first.gateway)
  t.match(await running, { status: 502, error: 'GW_OUTCOME_UNKNOWN' })
  t.equal(sandbox.submits.length, 1)
  t.equal((await stopped).code, 0)
})
