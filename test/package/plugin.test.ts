import Fastify from 'fastify'
import t, { type Test } from 'tap'
import { gateway, SettingsError } from '../../src/package/index.ts'
import { startSandbox } from '../../src/sandbox/sandbox.ts'
import { apiKey } from '../helpers/gateway.ts'
import { settingsOver } from '../helpers/hosts.ts'
import { callerOf } from '../helpers/http-caller.ts'

const settings = settingsOver({ origin: 'http://127.0.0.1:9' })
const { env, config } = settings

function hostOf (t: Test, options: object = {}) {
  const app = Fastify(options)
  t.teardown(() => app.close())
  return app
}

t.test('settings that can not be are an error that says what to change, and end no process', async t => {
  const register = async (given: object) => {
    await hostOf(t).register(gateway, given)
  }
  for (const [given, message] of [
    [{ config, env: { ...env, GATEWAY_SESSION_SECRET: 'short' } }, /GATEWAY_SESSION_SECRET .*32/],
    [{ env, config: { planz: {} } }, /planz/],
    [{ env: { ...env, GATEWAY_ADMIN_PORT: '9999' }, config }, /GATEWAY_ADMIN_PORT .*server of its own/],
    [{ ...settings, APIXO_API_KEY: apiKey }, /APIXO_API_KEY .*env: \{ APIXO_API_KEY: … \}/],
    [{ ...settings, plans: {} }, /plans .*env and config/]
  ] as const) {
    await t.rejects(register(given), { name: 'SettingsError', message })
  }
  t.ok(new SettingsError([]) instanceof Error)
})

t.test('a gateway in a program is set by the environment and the files, as the command start is', async t => {
  const before = process.cwd()
  process.chdir(t.testdir({ '.env': 'APIXO_API_KEY=k\nGATEWAY_SESSION_SECRET=short\n' }))
  t.teardown(() => process.chdir(before))
  await t.rejects(async () => { await hostOf(t).register(gateway) }, { message: /GATEWAY_SESSION_SECRET/ })
})

t.test('a gateway in a Fastify has no prefix, and speaks HTTP/1.1', async t => {
  await t.rejects(async () => { await hostOf(t).register(gateway, { ...settings, prefix: '/ai' }) }, {
    message: /the prefix \/ai can not be/
  })
  await t.rejects(async () => { await hostOf(t, { http2: true }).register(gateway, settings) }, { message: /http2/ })
})

t.test('what its host answers already stays the host\'s, and nothing of the gateway\'s reaches the rest', async t => {
  const lines: string[] = []
  const app = hostOf(t, { logger: { level: 'info', stream: { write: (line: string) => { lines.push(line) } } } })
  app.get('/livez', async () => 'the host lives')
  app.all('/readyz', async () => 'ready')
  await app.register(gateway, settings)
  app.get('/late', async request => ({ id: request.id, call: 'call' in request }))
  const { call } = callerOf(await app.listen({ port: 0, host: '127.0.0.1' }))
  t.match(await call('/livez'), { status: 200, text: 'the host lives' })
  t.match(await call('/readyz'), { status: 200, text: 'ready' })
  t.same((await call('/late')).json, { id: 'req-3', call: false })
  const codeAt = async (path: string) => (await call(path, { method: 'POST' })).headers.get('x-gateway-error')
  t.same([await codeAt('/v1'), await codeAt('/v1x')], ['GW_NOT_FOUND', null], 'an address, and not what begins like it')
  t.match(await call('/elsewhere'), { status: 404, json: { message: 'Route GET:/elsewhere not found' } })
  await call('/gateway/results/a-ticket-that-nobody-may-read')
  t.notMatch(lines.join(''), /a-ticket/)
})

t.test('a gateway in a Fastify ends with it: streams of events end, and what was asked is answered', async t => {
  const sandbox = await startSandbox({ keys: [apiKey], taskMs: 1 })
  t.teardown(() => sandbox.close())
  const app = hostOf(t)
  await app.register(gateway, settingsOver(sandbox))
  const origin = await app.listen({ port: 0, host: '127.0.0.1' })
  const token = await callerOf(origin).mint('alice')
  const events = await fetch(`${origin}/gateway/events`, { headers: { authorization: `Bearer ${token}` } })
  const [text] = await Promise.all([events.text(), app.close()])
  t.match(text, /^retry: \d+/)
})
