import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { PNG } from 'pngjs'
import t, { type Test } from 'tap'
import { startDemo } from '../../src/demo.ts'
import { root, startProgram } from '../helpers/program.ts'

const run = promisify(execFile)

/** What the demo tells people to paste: all between the first and the last paragraph. */
function pasted (instructions: string): string {
  return instructions.split('\n\n').slice(1, -1).join('\n\n')
}

async function takenPort (t: Test): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  return (server.address() as AddressInfo).port
}

t.test('what the demo prints, pasted at once into a shell, ends with a picture', async t => {
  const cwd = t.testdir()
  const demo = await startDemo({ port: 0, logLevel: 'silent' })
  t.teardown(demo.close)
  const script = pasted(demo.instructions)
  t.equal(script.split('\n').filter(line => line.includes('curl')).length, 4)
  for (const comment of script.split('\n').filter(line => line.startsWith('#'))) {
    t.notMatch(comment, /['"`$()]/, 'safe to paste')
  }

  // The sandbox draws for six seconds of real time: this is the one test that waits as a newcomer does.
  const { stdout, stderr } = await run('bash', ['--norc', '-eu', '-c', script], { cwd, timeout: 60_000 })
  t.equal(stderr, '')
  t.match(stdout, /^eyJ[\w.-]+\n[0-9a-f]{32}\n/, 'the token and the task id')
  for (const state of ['pending', 'processing', 'success']) t.match(stdout, `"state":"${state}"`)
  t.equal(stdout.match(/^\w+: Hello from the sandbox/gm)?.length, 4, 'an answer to each SDK')
  const { width, height } = PNG.sync.read(readFileSync(join(cwd, 'picture.png')))
  t.strictSame([width, height], [512, 512])
})

t.test('what the demo prints for each SDK runs, one line at a time and in any order', async t => {
  const demo = await startDemo({ port: 0, logLevel: 'silent' })
  t.teardown(demo.close)
  const lines = pasted(demo.instructions).split('\n')
  const mint = lines.find(line => line.startsWith('TOKEN=$(curl'))!
  for (const sdk of ['ai', 'genai', 'anthropic', 'openai']) {
    const line = lines.find(line => line.includes(`console.log("${sdk}:"`))!
    const { stdout, stderr } = await run('bash', ['--norc', '-eu', '-c', `${mint}\n${line}`], { cwd: root, timeout: 30_000 })
    t.match(stdout, new RegExp(`^${sdk}: Hello from the sandbox that stands in for APIXO`, 'm'), sdk)
    t.equal(stderr, '')
  }
})

t.test('the demo takes another port when its own is taken', async t => {
  const port = await takenPort(t)
  const demo = await startDemo({ port, logLevel: 'silent' })
  t.teardown(demo.close)
  const origin = /http:\/\/127\.0\.0\.1:(\d+)/.exec(demo.instructions)!
  t.not(Number(origin[1]), port)
  t.equal((await fetch(`${origin[0]}/readyz`)).status, 200)
})

t.test('npm run demo prints what to do, and ends well on SIGTERM', async t => {
  const program = startProgram(t, ['npm', 'run', 'demo'], { cwd: root, env: { PORT: '0' } })
  const [, origin] = await program.says(/The gateway listens on (http:\S+)\. [^]*Ctrl-C/)
  t.equal((await fetch(`${origin}/readyz`)).status, 200)
  program.child.kill('SIGTERM')
  t.equal(await program.ended, 0)
  await t.rejects(fetch(`${origin}/livez`), 'nothing is left behind')
})

t.test('the demo as a command ends well on SIGTERM', async t => {
  const program = startProgram(t, ['node', 'src/cli.ts', 'demo'], { cwd: root, env: { PORT: '0' } })
  await program.says(/Ctrl-C/)
  program.child.kill('SIGTERM')
  t.equal(await program.ended, 0)
})
