import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { clientOf } from './client.ts'

const main = fileURLToPath(new URL('../../src/sandbox/main.ts', import.meta.url))

async function spawned (t: Test, env: Record<string, string>, args: readonly string[] = []) {
  const child = spawn(process.execPath, [main, ...args], {
    env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'inherit']
  })
  t.teardown(() => child.kill('SIGKILL'))
  const lines: string[] = []
  const reader = createInterface(child.stdout)
  reader.on('line', (line) => lines.push(line))
  await once(reader, 'line')
  return { child, lines, origin: lines[0]! }
}

t.test('the sandbox runs as a process set up by variables, and ends on SIGTERM', async (t) => {
  const { child, lines, origin } = await spawned(t, {
    SANDBOX_PORT: '0',
    SANDBOX_HOST: 'localhost',
    SANDBOX_KEYS: 'one, two',
    SANDBOX_TASK_MS: '0',
    SANDBOX_PUBLIC_ORIGIN: 'http://file.example'
  })
  t.match(origin, /^http:\/\/localhost:\d+$/)
  for (const key of ['one', 'two']) {
    const { taskId, data } = clientOf({ origin }, key)
    t.match(await data(await taskId('hello')), { state: 'success', resultJson: 'http://file.example/temp/' })
  }
  child.kill('SIGTERM')
  t.strictSame(await once(child, 'exit'), [0, null])
  t.strictSame(lines, [origin], 'it prints its origin and nothing else')
})

t.test('without variables it takes a free port of this host, six seconds and a key of no worth', async (t) => {
  const { child, origin } = await spawned(t, {})
  t.match(origin, /^http:\/\/127\.0\.0\.1:\d+$/)
  const { taskId, data, balance } = clientOf({ origin }, 'sandbox-key')
  t.equal((await data(await taskId('hello'))).state, 'pending')
  t.equal(await balance(), 999_999.97)
  child.kill('SIGINT')
  t.strictSame(await once(child, 'exit'), [0, null])
})

t.test('arguments beat variables', async (t) => {
  const variables = { SANDBOX_KEYS: 'one', SANDBOX_TASK_MS: '600000' }
  const { origin } = await spawned(t, variables, ['--keys', 'two', '--task-ms', '0'])
  t.equal(await clientOf({ origin }, 'one').balance(), undefined)
  const { taskId, data } = clientOf({ origin }, 'two')
  t.equal((await data(await taskId('hello'))).state, 'success')
})
