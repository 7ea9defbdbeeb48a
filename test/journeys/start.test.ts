import { createServer } from 'node:net'
import t, { type Test } from 'tap'
import { apiKey, sessionSecret } from '../helpers/gateway.ts'
import { gatewayEnvironment, type GatewayProgram, runScript, startProcess } from '../helpers/gateway-process.ts'
import { listen } from '../helpers/raw-server.ts'

const nowhere = 'http://127.0.0.1:1'
const config = 'plans: { default: { credits: 100 } }'

/** A folder as an operator has it, and a way to start in it. */
function folder (t: Test, files: Readonly<Record<string, string>> = {}) {
  const cwd = t.testdir({ 'gateway.yaml': config, ...files })
  const start = (env: Readonly<Record<string, string>>) => runScript(t, { cwd, env })
  return { cwd, start, start78: async (env: Readonly<Record<string, string>>) => refused(t, start(env)) }
}

/** What was said by a gateway that would not start, having never listened. */
async function refused (t: Test, program: GatewayProgram): Promise<string> {
  t.equal(await program.ended, 78)
  t.equal(program.stdout, '', 'it never listened')
  return program.stderr
}

t.test('without any setting it names each one that is missing, where it looked and what it expects', async t => {
  const { start78 } = folder(t)
  const said = await start78({})
  t.match(said, /^apixo-gateway: 3 settings are wrong:\n/)
  t.match(said, /^- APIXO_API_KEY \(.*environment.*\): .*; expected: the key of your APIXO account$/m)
  t.match(said, /^- GATEWAY_SESSION_SECRET \(.*environment.*\): .*; expected: at least 32 random bytes/m)
  t.match(said, /^- GATEWAY_CONFIG \(.*config\/gateway\.yaml\): can not be read .*; expected: the config file/m)
})

t.test('without a key it does not start', async t => {
  const { start78 } = folder(t)
  const said = await start78({ ...gatewayEnvironment(nowhere), APIXO_API_KEY: '' })
  t.match(said, /^apixo-gateway: One setting is wrong:\n- APIXO_API_KEY \(/)
  t.notMatch(said, sessionSecret)
})

t.test('a wrong value is named with its source, and no secret is ever shown', async t => {
  const { start78 } = folder(t, { 'bad.yaml': 'plans:\n  default:\n    credit: 100\n' })
  const said = await start78({
    ...gatewayEnvironment(nowhere),
    PORT: 'eighty',
    GATEWAY_SESSION_SECRET: 'short-0123',
    GATEWAY_CONFIG: 'bad.yaml',
    GATEWAY_ISUER_TOKEN: 'x'
  })
  t.match(said, /^- PORT \(environment\): .*eighty.*; expected: a whole number, 0 to 65535$/m)
  t.match(said, /^- GATEWAY_SESSION_SECRET \(environment\): has 10 bytes, fewer than 32; expected: /m)
  t.match(said, /^- plans\.default\.credit \(.*bad\.yaml:3\): .*credits/m)
  t.match(said, /^- GATEWAY_ISUER_TOKEN \(environment\): .*GATEWAY_ISSUER_TOKEN/m)
  t.notMatch(said, 'short-0123')
  t.notMatch(said, apiKey)
})

t.test('an upstream that would see the key in the clear is refused', async t => {
  const { start78 } = folder(t)
  const said = await start78({ ...gatewayEnvironment('http://api.example'), GATEWAY_STORE: 'sqlite::memory:' })
  t.match(
    said,
    /^- APIXO_BASE_URL \(environment\): .*; expected: https: and a public host, or GATEWAY_INSECURE_UPSTREAM=true$/m
  )
})

t.test('with the operator\'s word it is taken, and warned of at every start', async t => {
  const { cwd } = folder(t)
  const gateway = await startProcess(t, {
    cwd,
    env: { ...gatewayEnvironment('http://api.example'), GATEWAY_INSECURE_UPSTREAM: 'true' }
  })
  gateway.child.kill('SIGTERM')
  t.equal(await gateway.ended, 0)
  t.match(gateway.stdout, /GATEWAY_INSECURE_UPSTREAM=true: the APIXO key is sent although /)
})

t.test('settings are read from .env, and the real environment wins', async t => {
  const environment = { ...gatewayEnvironment(nowhere), PORT: 'eighty', LOG_LEVEL: 'debug' }
  const { cwd } = folder(t, {
    '.env': Object.entries(environment)
      .map(([name, value]) => `${name}=${value}\n`)
      .join('')
  })
  const wrong = runScript(t, { cwd })
  t.match(await refused(t, wrong), /^- PORT \(environment\): "eighty" is not a port/m)
  const gateway = await startProcess(t, { cwd, env: { PORT: '0' } })
  t.equal((await fetch(`${gateway.origin}/readyz`)).status, 200)
  gateway.child.kill('SIGTERM')
  t.equal(await gateway.ended, 0)
})

t.test('a port that is taken is named in one sentence', async t => {
  const { start } = folder(t)
  const other = createServer()
  const port = await listen(other)
  t.teardown(() => { other.close() })
  const gateway = start({ ...gatewayEnvironment(nowhere), PORT: String(port) })
  t.equal(await gateway.ended, 1)
  t.match(
    gateway.stderr,
    new RegExp(`^apixo-gateway: listen EADDRINUSE: address already in use 127\\.0\\.0\\.1:${port}\n$`)
  )
})

t.test('a second gateway on one ledger is told so, and the first one goes on', async t => {
  const { cwd, start } = folder(t)
  const first = await startProcess(t, { cwd, env: gatewayEnvironment(nowhere) })
  const second = start(gatewayEnvironment(nowhere))
  t.equal(await second.ended, 1)
  t.match(
    second.stderr,
    /^apixo-gateway: the ledger .*gateway\.db can not be opened: another gateway is running on it\n$/
  )
  t.equal((await fetch(`${first.origin}/readyz`)).status, 200)
  first.child.kill('SIGTERM')
  t.equal(await first.ended, 0)
  const third = await startProcess(t, { cwd, env: gatewayEnvironment(nowhere) })
  third.child.kill('SIGTERM')
  t.equal(await third.ended, 0)
})

t.test('an error that nobody catches is logged and ends the process with a failure', async t => {
  const { cwd } = folder(t, { 'throw.mjs': "process.on('SIGUSR2', () => { throw new TypeError('a bug') })" })
  const gateway = await startProcess(t, {
    cwd,
    env: { ...gatewayEnvironment(nowhere), NODE_OPTIONS: `${process.env.NODE_OPTIONS ?? ''} --import ./throw.mjs` }
  })
  gateway.child.kill('SIGUSR2')
  t.equal(await gateway.ended, 1)
  t.match(gateway.stdout, /"type":"TypeError".*"msg":"stopping after an error that nobody caught"/)
})

t.test('a Redis that can not be reached is named without its password', async t => {
  const { start } = folder(t)
  const server = createServer()
  const port = await listen(server)
  await new Promise(resolve => { server.close(resolve) })
  const gateway = start({ ...gatewayEnvironment(nowhere), GATEWAY_STORE: `redis://:a-password@127.0.0.1:${port}` })
  t.equal(await gateway.ended, 1)
  t.match(
    gateway.stderr,
    new RegExp(`^apixo-gateway: the store redis://127\\.0\\.0\\.1:${port} can not be used: .*ECONNREFUSED`)
  )
  t.notMatch(gateway.stderr, 'a-password')
})
