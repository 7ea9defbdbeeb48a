import t, { type Test } from 'tap'
import { Secret } from '../src/domain/secret.ts'
import { webhookSecret } from '../src/domain/webhooks.ts'
import { gatewayEnvironment, runScript } from './helpers/gateway-process.ts'
import { sessionSecret } from './helpers/gateway.ts'

async function run (t: Test, ...args: readonly string[]) {
  const cwd = t.testdir({ 'gateway.yaml': 'plans: { default: {} }' })
  const env = {
    ...gatewayEnvironment('http://127.0.0.1:1'),
    GATEWAY_SESSION_SECRET: `${sessionSecret},an-older-session-secret-of-32-bytes`
  }
  const program = runScript(t, { cwd, script: 'src/cli.ts', args: ['webhook-secret', ...args], env })
  return { code: await program.ended, stdout: program.stdout, stderr: program.stderr }
}

t.test('the secret of a host is printed: that of the newest session secret', async t => {
  const expected = webhookSecret(new Secret(sessionSecret), 'app.example').reveal()
  t.strictSame(await run(t, 'app.example'), { code: 0, stdout: `${expected}\n`, stderr: '' })
})

t.test('what is no host is refused before any setting is read', async t => {
  for (const word of [
    'https://app.example',
    'app.example:443',
    'App.example',
    'app.example/',
    'a b',
    '*.app.example',
    'user@app.example'
  ]) {
    const { code, stdout, stderr } = await run(t, word)
    t.equal(code, 64, word)
    t.equal(stdout, '')
    t.match(stderr, 'without scheme, port or path')
  }
  t.equal((await run(t)).code, 64)
})

t.test('without the settings of the server there is no secret', async t => {
  const program = runScript(t, { cwd: t.testdir({}), script: 'src/cli.ts', args: ['webhook-secret', 'app.example'] })
  t.equal(await program.ended, 78)
})
