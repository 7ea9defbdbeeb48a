import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'
import { setTimeout as wait } from 'node:timers/promises'
import axios from 'axios'
import axiosRetry from 'axios-retry'
import fetchRetry from 'fetch-retry'
import got from 'got'
import ky from 'ky'
import { ofetch } from 'ofetch'
import t, { type Test } from 'tap'
import { Agent, request, RetryAgent } from 'undici'
import { type Sandbox, startSandbox } from '../../src/sandbox/sandbox.ts'
import { chromium, openPage } from '../helpers/chromium.ts'
import { apiKey, startGateway } from '../helpers/gateway.ts'
import { gatewayEnvironment, type GatewayProcess, startProcess } from '../helpers/gateway-process.ts'
import { callerOf } from '../helpers/http-caller.ts'
import { redisServer } from '../helpers/redis-server.ts'
import { until } from '../helpers/until.ts'

const path = '/api/v1/generateTask/nano-banana'
const config =
  'plans: { default: { requestsPerMinute: 1000, pollsPerMinute: 1000, concurrentTasks: 100, credits: 100 } }'

interface Post { readonly url: string, readonly headers: Record<string, string>, readonly body: string }
interface Patience { readonly retries: number, readonly pauseMs: number }

const codes = [502, 503, 504]
const axiosClient = ({ retries, pauseMs }: Patience) => {
  const client = axios.create({ proxy: false })
  axiosRetry(client, {
    retries,
    retryDelay: () => pauseMs,
    retryCondition: ({ response }) => response === undefined || codes.includes(response.status)
  })
  return client
}

/** HTTP libraries as people configure them who want their POSTs to be sent again; no one sends an Idempotency-Key. */
const libraries: Readonly<Record<string, (post: Post, patience: Patience) => Promise<unknown>>> = {
  ky: ({ url, ...post }, { retries, pauseMs }) => ky.post(url, {
    ...post, timeout: false, retry: { limit: retries, methods: ['post'], statusCodes: codes, delay: () => pauseMs }
  }),
  got: ({ url, ...post }, { retries, pauseMs }) => got.post(url, {
    ...post,
    retry: {
      limit: retries,
      methods: ['POST'],
      statusCodes: codes,
      errorCodes: ['ECONNRESET', 'ECONNREFUSED', 'EPIPE', 'ERR_SOCKET_CLOSED_BEFORE_CONNECTION'],
      calculateDelay: ({ computedValue }) => computedValue === 0 ? 0 : pauseMs
    }
  }),
  'axios-retry': ({ url, headers, body }, patience) => axiosClient(patience).post(url, body, { headers }),
  'fetch-retry': ({ url, ...post }, { retries, pauseMs }) =>
    fetchRetry(fetch, { retries, retryDelay: pauseMs, retryOn: codes })(url, { method: 'POST', ...post }),
  ofetch: ({ url, ...post }, { retries, pauseMs }) =>
    ofetch(url, { method: 'POST', ...post, retry: retries, retryDelay: pauseMs, retryStatusCodes: [500, ...codes] }),
  'undici RetryAgent': ({ url, ...post }, { retries, pauseMs }) => {
    const dispatcher = new RetryAgent(new Agent(), {
      maxRetries: retries,
      minTimeout: pauseMs,
      maxTimeout: pauseMs,
      timeoutFactor: 1,
      methods: ['POST'],
      statusCodes: codes
    })
    return request(url, { method: 'POST', ...post, dispatcher })
  }
}
const names = Object.keys(libraries)

function postOf (origin: string, token: string, prompt: string): Post {
  const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' }
  return { url: origin + path, headers, body: JSON.stringify({ input: { prompt } }) }
}

function spentBy (origin: string, token: string): Promise<number> {
  return callerOf(origin).call('/api/v1/apikeys/current-balance', { token }).then(({ json }) => 100 - json.data)
}

/** How often the upstream was asked for this. */
function made ({ submits }: Sandbox, prompt: string): number {
  return submits.filter(({ body }) => JSON.parse(String(body)).input.prompt === prompt).length
}

for (const name of names) {
  t.test(`${name} sends a lost submit again, without a key: one task, one charge`, async t => {
    const { origin, mint, sandbox, lines } = await startGateway(t, { config })
    for (const lost of ['drop-after', 'cut-body', 'html-502', 'json-502', 'json-504']) {
      const token = await mint(lost)
      const prompt = `sandbox:${lost}`
      const before = lines().length
      await libraries[name]!(postOf(origin, token, prompt), { retries: 3, pauseMs: 20 }).catch(() => {})
      await until('the tries are over', () => lines().filter(line => line.subject === `app:${lost}`).length === 4)
      t.ok(lines().length >= before + 4, `it has tried four times after ${lost}`)
      t.equal(made(sandbox, prompt), 1, lost)
      t.equal(await spentBy(origin, token), 1, lost)
    }
  })
}

t.test(
  'a client that gives up waiting, and sends the same again half a second later, gets the answer of the first',
  async t => {
    const { origin, mint, sandbox, submit } = await startGateway(t, { config })
    const token = await mint('alice')
    const prompt = 'sandbox:slow-headers'
    const caller = new AbortController()
    const lost = submit(token, prompt, 'nano-banana', { signal: caller.signal })
    await until('the upstream has it', () => sandbox.waiting === 1)
    caller.abort()
    await t.rejects(lost)
    await wait(400)
    const again = submit(token, prompt)
    await wait(100)
    sandbox.release()
    t.equal((await again).status, 200)
    t.equal(made(sandbox, prompt), 1)
    t.equal(await spentBy(origin, token), 1)
  }
)

async function portOf (server: Server): Promise<number> {
  await once(server.listen(0, '127.0.0.1'), 'listening')
  return (server.address() as AddressInfo).port
}

/** Between a browser and a gateway; `cut` ends all its connections, as a balancer does that is restarted. */
async function tunnel (t: Test, to: string): Promise<{ readonly origin: string, cut (): void }> {
  const sockets = new Set<Socket>()
  const server = createServer(client => {
    const gateway = connect(Number(new URL(to).port), '127.0.0.1')
    for (const [one, other] of [[client, gateway], [gateway, client]] as const) {
      sockets.add(one)
      one.on('error', () => {}).on('close', () => {
        sockets.delete(one)
        other.destroy()
      })
      one.pipe(other)
    }
  })
  const cut = (): void => { for (const socket of sockets) socket.destroy() }
  t.teardown(() => {
    server.close()
    cut()
  })
  return { origin: `http://127.0.0.1:${await portOf(server)}`, cut }
}

t.test('Chromium sends a POST again by itself, and its page sees one answer of one task', async t => {
  const { origin, mint, sandbox, lines } = await startGateway(t, { config })
  const between = await tunnel(t, origin)
  const token = await mint('alice')
  const { page } = await openPage(t, await chromium(t), `${between.origin}/gateway/`)
  const prompt = 'sandbox:slow-headers'
  const answer = page.evaluate(async ({ url, ...post }) => {
    const response = await fetch(url, { method: 'POST', ...post })
    return { status: response.status, json: await response.json() }
  }, postOf(between.origin, token, prompt))
  await until('the upstream has it', () => sandbox.waiting === 1)
  between.cut()
  const submits = () => lines().filter(line => line.operation === 'generateTask').length
  await wait(500)
  sandbox.release()
  const { status, json } = await answer
  t.equal(status, 200)
  t.equal(json.data.taskId, [...sandbox.tasks.keys()][0])
  await until('both lines are written', () => submits() === 2)
  t.equal(made(sandbox, prompt), 1)
  t.equal(await spentBy(origin, token), 1)
})

async function freePort (): Promise<string> {
  const server = createServer()
  const port = await portOf(server)
  await once(server.close(), 'close')
  return String(port)
}

t.test(
  'a gateway that is killed in mid-call and started again makes none of its submits twice',
  { timeout: 100_000 },
  async t => {
    const sandbox = await startSandbox({ keys: [apiKey] })
    t.teardown(() => sandbox.close())
    const cwd = t.testdir({ 'gateway.yaml': config })
    const env = { ...gatewayEnvironment(sandbox.origin), PORT: await freePort(), LOG_LEVEL: 'info' }
    const start = (): Promise<GatewayProcess> => startProcess(t, { cwd, env })
    const first = await start()
    const { origin } = first
    const callers = await Promise.all(
      names.map(async name => ({
        name,
        token: await callerOf(origin).mint(name),
        prompt: `sandbox:slow-headers ${name}`
      }))
    )
    const tries = callers.map(({ name, token, prompt }) =>
      libraries[name]!(postOf(origin, token, prompt), { retries: 60, pauseMs: 250 }).catch(() => {})
    )
    await until('all are at the upstream', () => sandbox.waiting === names.length, 30_000)
    first.child.kill('SIGKILL')
    await first.ended
    const second = await start()
    await Promise.all(tries)
    for (const { name, token, prompt } of callers) {
      t.equal(made(sandbox, prompt), 1, name)
      t.equal(await spentBy(origin, token), 1, name)
    }
    t.equal(sandbox.tasks.size, names.length)
    second.child.kill('SIGTERM') // it writes its whole log
    await second.ended
    const told = second
      .output()
      .split('\n')
      .filter(line => line.includes('"code":"GW_OUTCOME_UNKNOWN"'))
    // got gives up when nobody listens for a while: then it is told nothing, and pays once all the same.
    for (const name of names.filter(name => name !== 'got')) {
      t.ok(
        told.some(line => line.includes(`"app:${name}"`)),
        `${name} has come back`
      )
    }
  }
)

t.test(
  "a repeat that reaches another replica when its first's was killed makes nothing",
  { timeout: 100_000 },
  async t => {
    const { url } = await redisServer(t)
    const sandbox = await startSandbox({ keys: [apiKey] })
    t.teardown(() => sandbox.close())
    const cwd = t.testdir({ 'gateway.yaml': config })
    const start = () =>
      startProcess(t, { cwd, env: { ...gatewayEnvironment(sandbox.origin), GATEWAY_STORE: url, LOG_LEVEL: 'info' } })
    const [here, there] = await Promise.all([start(), start()])
    const token = await callerOf(here.origin).mint('alice')
    const prompt = 'sandbox:slow-headers'
    const lost = callerOf(here.origin).submit(token, prompt)
    await until('it is at the upstream', () => sandbox.waiting === 1)
    here.child.kill('SIGKILL')
    await t.rejects(lost)
    const again = await callerOf(there.origin).submit(token, prompt)
    t.match(again, { status: 502, error: 'GW_OUTCOME_UNKNOWN' })
    t.equal(sandbox.submits.length, 1)
    t.equal(await spentBy(there.origin, token), 1)
  }
)
