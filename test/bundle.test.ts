import { execFileSync } from 'node:child_process'
import { globSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import t, { type Test } from 'tap'
import { startSandbox } from '../src/sandbox/sandbox.ts'
import { gatewayEnvironment, runScript, startProcess } from './helpers/gateway-process.ts'
import { adminToken, apiKey } from './helpers/gateway.ts'
import { callerOf } from './helpers/http-caller.ts'
import { root } from './helpers/program.ts'
import { redisServer } from './helpers/redis-server.ts'
import { until } from './helpers/until.ts'

// Where no folder above it has node_modules: what the bundle lacks is not to be had.
const folder = mkdtempSync(join(tmpdir(), 'gateway-bundle-'))
t.teardown(() => rmSync(folder, { recursive: true }))
execFileSync(process.execPath, [join(root, 'bin/build.ts'), folder])

const script = (name: string): string => relative(root, join(folder, 'src', `${name}.cjs`))

const config = `
plans: { default: { credits: 100 } }
polling: { image: 1 }
batches: { enabled: true }
guests: { enabled: true, proof: none, plan: default }
results: { hosts: ['127.0.0.1'] }
`

async function startBundle (t: Test, env: Readonly<Record<string, string>> = {}) {
  const sandbox = await startSandbox({ keys: [apiKey], taskMs: 1 })
  t.teardown(() => sandbox.close())
  const cwd = t.testdir({ 'gateway.yaml': config })
  const options = { ...gatewayEnvironment(sandbox.origin), GATEWAY_ADMIN_TOKEN: adminToken, ...env }
  const gateway = await startProcess(t, { script: script('main'), cwd, env: options })
  return { gateway, cwd, env: options, ...callerOf(gateway.origin) }
}

t.test('the bundle needs no packages: every family of routes answers, on SQLite and on Redis', async t => {
  const { url } = await redisServer(t)
  for (const store of ['sqlite:./gateway.db', url]) {
    const { gateway, call, mint, submit, status } = await startBundle(t, { GATEWAY_STORE: store })
    const token = await mint('alice')
    const { json } = await submit(token)
    const { taskId } = json.data
    await until('the task has ended', async () => (await status(token, taskId)).json.data.state === 'success')
    t.equal((await call('/api/v1/generateTask/nano-banana/batches', { token, body: [] })).error, 'GW_BAD_REQUEST')
    t.match(await call(`/gateway/tasks/${taskId}/results`, { token }), { status: 200 })
    t.match(await call(`/gateway/tasks/${taskId}/results/0`, { token }), { status: 200 })
    for (const path of ['/gateway/session', '/gateway/tasks', '/gateway/models']) {
      t.equal((await call(path, { token })).status, 200, path)
    }
    for (const path of ['/readyz', '/gateway/', '/gateway/invitation', '/gateway/client.js']) t.equal((await call(path)).status, 200, path)
    for (const path of ['/metrics', '/gateway/admin/usage', '/gateway/admin/keys']) {
      t.equal((await call(path, { token: adminToken })).status, 200, path)
    }
    t.match((await call(`/gateway/tasks/${taskId}/events`, { token })).text, /"state":"success"/)
    gateway.child.kill('SIGTERM')
    t.equal(await gateway.ended, 0)
    t.equal(gateway.stderr, '')
  }
})

t.test('its commands are those of the source', async t => {
  const { gateway, cwd, env } = await startBundle(t)
  const say = async (script: string, args: readonly string[]) => {
    const program = runScript(t, { script, cwd, args, env: { ...env, PORT: new URL(gateway.origin).port } })
    return { code: await program.ended, stdout: program.stdout.replaceAll(folder, root), stderr: program.stderr }
  }
  for (const args of [['--help'], ['--version'], ['health'], ['usage'], ['token', 'list'], ['nonsense']]) {
    t.same(await say(script('cli'), args), await say('src/cli.ts', args), args.join(' '))
  }
  const { code, stdout } = await say(script('cli'), ['check'])
  t.equal(code, 0)
  t.equal(stdout, (await say('src/cli.ts', ['check'])).stdout)
})

t.test('the demo and the sandbox are in it', async t => {
  const cwd = t.testdir({})
  const demo = runScript(t, { script: script('cli'), cwd, args: ['demo'], env: { PORT: '0' } })
  const [, origin] = await demo.says(/listens on (http:\S+)\./)
  t.equal((await callerOf(origin!).call('/readyz')).status, 200)
  demo.child.kill('SIGTERM')
  t.equal(await demo.ended, 0)
  const sandbox = runScript(t, { script: script('sandbox'), cwd })
  await sandbox.says(/^http:/m)
  sandbox.child.kill('SIGTERM')
  t.equal(await sandbox.ended, 0)
})

t.test('a stack names the line of the source', async t => {
  const provoke = "require('./src/stack-traces.cjs'); require('./src/gateway.cjs').createGateway(null)"
  const said = execFileSync(process.execPath, ['-e', `${provoke}.catch(error => console.log(error.stack))`], {
    cwd: folder, encoding: 'utf8'
  })
  const [, file, line] = /^TypeError: .+\n +at \S*createGateway \((.+):(\d+):\d+\)\n/.exec(said) ?? []
  t.equal(file, join(folder, 'src/gateway.ts'))
  t.match(readFileSync(join(root, 'src/gateway.ts'), 'utf8').split('\n')[Number(line) - 1], /settings\.logLevel/)
  t.match(said, /^ +at \S+ \(node:internal\S+\d\)$/m, 'other lines are as they were')
})

t.test('what is in it may be given away: the licence of each package stands beside it, and nothing else does', async t => {
  const licences = readFileSync(join(folder, 'THIRD-PARTY-LICENSES'), 'utf8')
  const { dependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
  for (const name of Object.keys(dependencies)) t.match(licences, new RegExp(`^${name} \\d+\\.`, 'm'))
  t.match(licences, /^Permission is hereby granted/m)
  t.strictSame(globSync('*', { cwd: folder }).sort(), [
    'LICENSE', 'THIRD-PARTY-LICENSES', 'config', 'dist', 'package.json', 'src'
  ])
})

t.test('without what pages load there is no such address, and the start and check say how to make it', async t => {
  rmSync(join(folder, 'dist'), { recursive: true })
  const { gateway, call, cwd, env } = await startBundle(t)
  const sentence = '/gateway/client.js is not there, as it has not been built: npm run build makes it'
  for (const path of ['/gateway/client.js', '/gateway/client.js.map', '/gateway/client.d.ts']) {
    t.match(await call(path), { status: 404, error: 'GW_NOT_FOUND' }, path)
  }
  t.equal(gateway.stdout.split(sentence).length, 2, 'once')
  const check = runScript(t, { script: script('cli'), cwd, args: ['check'], env })
  t.equal(await check.ended, 0)
  t.equal(check.stderr.split(`warning: ${sentence}\n`).length, 2)
})

t.test('the image fills the cache of compiled code with the options that it starts with', async t => {
  const dockerfile = readFileSync(join(root, 'Dockerfile'), 'utf8')
  const [, command] = /^CMD (.+)$/m.exec(dockerfile)!
  t.equal(/options="(.+)";/.exec(dockerfile)?.[1], JSON.parse(command!).slice(1, -1).join(' '))
})
