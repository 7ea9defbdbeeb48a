import t, { type Test } from 'tap'
import { alarmReceiver, alarmSecret, isSignedWith } from './helpers/alarm-receiver.ts'
import { gatewayEnvironment, runScript } from './helpers/gateway-process.ts'

/** `apixo-gateway alarms …` where alarms go to that URL. */
async function run (t: Test, url: string | null, ...args: readonly string[]) {
  const alarms = url === null ? '' : `\nalarms: { url: "${url}" }`
  const cwd = t.testdir({ 'gateway.yaml': `plans: { default: {} }\nprices: { "*": 1 }${alarms}` })
  const env = { ...gatewayEnvironment('http://127.0.0.1:1'), GATEWAY_ALARM_SECRET: alarmSecret }
  const program = runScript(t, { cwd, script: 'src/cli.ts', args: ['alarms', ...args], env })
  return { code: await program.ended, stdout: program.stdout, stderr: program.stderr }
}

t.test('the operator\'s own server is tried by a message that says so', async t => {
  const receiver = await alarmReceiver(t)
  t.strictSame(await run(t, receiver.url, 'test'), { code: 0, stdout: 'Told: status 204.\n', stderr: '' })
  t.same(receiver.heard, ['alarm.test'])
  t.ok(isSignedWith(alarmSecret, receiver.messages[0]!))
})

t.test('a server that does not take it is told apart from one that is not there', async t => {
  const receiver = await alarmReceiver(t)
  receiver.answers.push(401)
  t.strictSame(await run(t, receiver.url, 'test'), { code: 1, stdout: 'Not told: status 401.\n', stderr: '' })
  await t.test('nobody there', async t => {
    const { code, stdout } = await run(t, 'http://127.0.0.1:1/', 'test')
    t.strictSame({ code, stdout }, { code: 1, stdout: 'Not told: unreachable.\n' })
  })
})

t.test('without such a server, or with other words, there is nothing to try', async t => {
  t.match(await run(t, null, 'test'), { code: 1, stderr: /alarms\.url is not set/ })
  await t.test('other words', async t => t.equal((await run(t, null, 'list')).code, 64))
})
