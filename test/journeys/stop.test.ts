import { once } from 'node:events'
import { connect } from 'node:net'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import t, { type Test } from 'tap'
import { type Sandbox, startSandbox } from '../../src/sandbox/sandbox.ts'
import { apiKey } from '../helpers/gateway.ts'
import { gatewayEnvironment, type GatewayProcess, startProcess } from '../helpers/gateway-process.ts'
import { type CallOptions, callerOf, type Reply } from '../helpers/http-caller.ts'
import { until } from '../helpers/until.ts'

const drainMs = 8000
const plans = 'plans: { default: { concurrentTasks: 100, credits: 100 } }'

interface Journey {
  readonly sandbox: Sandbox
  readonly token: string
  readonly gateway: GatewayProcess
  restart (): Promise<GatewayProcess>
  submit (prompt: string, options?: CallOptions): Promise<Reply>
  /** Tasks in the file, by stage. */
  stages (): Record<string, number>
}

async function journey (t: Test, config = `${plans}\nupstream: { drainMs: ${drainMs} }`): Promise<Journey> {
  const sandbox = await startSandbox({ keys: [apiKey] })
  t.teardown(() => sandbox.close())
  const cwd = t.testdir({ 'gateway.yaml': config })
  const start = () => startProcess(t, { cwd, env: gatewayEnvironment(sandbox.origin) })
  const gateway = await start()
  const { mint, submit } = callerOf(gateway.origin)
  const token = await mint('alice')
  return {
    sandbox,
    token,
    gateway,
    restart: start,
    submit: (prompt, options) => submit(token, prompt, 'nano-banana', options),
    stages () {
      const db = new DatabaseSync(join(cwd, 'gateway.db'), { readOnly: true })
      const rows = db.prepare('SELECT stage, count(*) AS count FROM tasks GROUP BY stage').all()
      db.close()
      return Object.fromEntries(rows.map(({ stage, count }) => [stage, count]))
    }
  }
}

/** Sends the signal, and says how long it took to end and with which code. */
async function stop (gateway: GatewayProcess, signal: NodeJS.Signals = 'SIGTERM') {
  const start = performance.now()
  gateway.child.kill(signal)
  const code = await gateway.ended
  return { code, ms: performance.now() - start }
}

for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  t.test(`an idle gateway stops at once on ${signal}, also with connections that are kept alive`, async t => {
    const { gateway } = await journey(t)
    const silent = connect(Number(new URL(gateway.origin).port), '127.0.0.1').on('error', () => {})
    t.teardown(() => silent.destroy())
    await once(silent, 'connect')
    const { code, ms } = await stop(gateway, signal)
    t.equal(code, 0)
    t.ok(ms < 2000, `${ms} ms`)
    t.match(gateway.stdout, /"msg":"stopping"/, 'the log is written to its end')
    t.equal(gateway.stderr, '')
  })
}

t.test('while it stops, what runs comes to its end and new requests are refused', async t => {
  const { gateway, sandbox, submit, stages, restart, token } = await journey(t)
  const running = Promise.all(['one', 'two', 'three'].map(name => submit(`sandbox:slow-headers ${name}`)))
  await until('the upstream has all three', () => sandbox.waiting === 3)

  const stopped = stop(gateway)
  await until('new connections are refused', () => fetch(`${gateway.origin}/livez`).then(() => false, () => true))
  t.equal(gateway.child.exitCode, null, 'it waits for them')
  sandbox.release()
  const answers = await running
  t.same(answers.map(({ status }) => status), [200, 200, 200])
  const { code, ms } = await stopped
  t.equal(code, 0)
  t.ok(ms < drainMs - 3000, `as soon as they are done, though their connections are kept alive: ${ms} ms`)
  t.same(stages(), { claimed: 3 })

  const again = await restart()
  for (const { json } of answers) t.equal((await callerOf(again.origin).status(token, json.data.taskId)).status, 200)
  t.equal((await stop(again)).code, 0)
})

t.test('a request on a connection from before the stop is told that the gateway is stopping', async t => {
  const { gateway, sandbox, submit, token } = await journey(t)
  const running = submit('sandbox:slow-headers')
  await until('the upstream has it', () => sandbox.waiting === 1)
  const kept = connect(Number(new URL(gateway.origin).port), '127.0.0.1').setEncoding('utf8').on('error', () => {})
  t.teardown(() => kept.destroy())
  let said = ''
  kept.on('data', text => { said += text })
  // Half a request keeps the connection from being idle, or the stop would close it.
  const path = '/api/v1/statusTask/nano-banana?taskId=one'
  kept.write(`GET ${path} HTTP/1.1\r\nhost: x\r\n`)
  await until('the connection is there', () => kept.readyState === 'open')
  await fetch(`${gateway.origin}/livez`) // and its half was read, as this came after it

  const stopped = stop(gateway)
  await until('new connections are refused', () => fetch(`${gateway.origin}/livez`).then(() => false, () => true))
  kept.write(`authorization: Bearer ${token}\r\n\r\n`)
  await once(kept, 'close')
  t.match(said, /^HTTP\/1\.1 503 /)
  t.match(said, /^x-gateway-error: GW_OVERLOADED\r$/im)
  t.match(said, /^retry-after: 1\r$/im)
  sandbox.release()
  t.equal((await running).status, 200)
  t.equal((await stopped).code, 0)
})

t.test('a submit whose caller has hung up is still claimed before the end', async t => {
  const { gateway, sandbox, submit, stages } = await journey(t)
  const caller = new AbortController()
  const running = submit('sandbox:slow-headers', { signal: caller.signal }).catch(() => 'hung up')
  await until('the upstream has it', () => sandbox.waiting === 1)
  caller.abort()
  t.equal(await running, 'hung up')
  const stopped = stop(gateway)
  await until('new connections are refused', () => fetch(`${gateway.origin}/livez`).then(() => false, () => true))
  sandbox.release()
  t.equal((await stopped).code, 0)
  t.same(stages(), { claimed: 1 })
})

t.test('a submit that does not end in time is given up: the exit is clean, its outcome unknown', async t => {
  const { gateway, sandbox, submit, stages, restart } = await journey(t, `${plans}\nupstream: { drainMs: 300 }`)
  const running = submit('sandbox:slow-headers')
  await until('the upstream has it', () => sandbox.waiting === 1)
  const { code, ms } = await stop(gateway)
  t.equal(code, 0)
  t.ok(ms >= 300 && ms < 3000, `${ms} ms`)
  t.match(await running, { status: 502, error: 'GW_OUTCOME_UNKNOWN' })
  t.match(gateway.stdout, /"alarm":"unknown-outcome"/, 'the operator is told')
  t.same(stages(), { unknown: 1 })
  const again = await restart()
  t.same(stages(), { unknown: 1 })
  t.equal((await stop(again)).code, 0)
})

t.test('a second signal ends it before its time', async t => {
  const { gateway, sandbox, submit } = await journey(t)
  const running = submit('sandbox:slow-headers')
  await until('the upstream has it', () => sandbox.waiting === 1)
  const stopped = stop(gateway)
  await until('new connections are refused', () => fetch(`${gateway.origin}/livez`).then(() => false, () => true))
  gateway.child.kill('SIGTERM')
  const { code, ms } = await stopped
  t.equal(code, 1)
  t.ok(ms < drainMs - 3000, `${ms} ms`)
  t.match(await running, { status: 502, error: 'GW_OUTCOME_UNKNOWN' })
})
