import t, { type Test } from 'tap'
import { startGateway } from '../helpers/gateway.ts'
import { guestsOf } from '../helpers/guests.ts'
import { secretFiles } from '../helpers/secret-files.ts'
import { turnstileSecret, turnstileServer } from '../helpers/turnstile-server.ts'

const denied = { status: 403, error: 'GW_SCOPE_DENIED' }

async function start (t: Test, env: Readonly<Record<string, string>>) {
  const server = await turnstileServer(t)
  const file = secretFiles(t, { turnstile: turnstileSecret }).path('turnstile')
  const guests = `{ enabled: true, proof: turnstile, turnstileSecretFile: "${file}", sessionsPerAddressPerDay: 50 }`
  const gateway = await startGateway(t, {
    config: `plans: { default: {}, guest: {} }\nguests: ${guests}`,
    env,
    siteverifyUrl: server.url
  })
  return { ...gateway, ...guestsOf(gateway), server }
}

t.test('a widget that was told what its token is for lets a guest in, and lets it make a task', async t => {
  const { call, enter, make, server, sandbox } = await start(t, { GATEWAY_ALLOWED_ORIGINS: 'https://app.example' })
  const beginning = server.token('session')
  const {
    status,
    json: { token, subject }
  } = await enter(beginning)
  t.equal(status, 201)
  t.match(server.asked, [{ response: beginning, remoteip: '127.0.0.1' }])
  t.match(await enter(beginning), denied)
  const guest = subject.slice('guest:'.length)
  for (const wrong of ['session', 'somebody-else', subject]) {
    t.match(await make(token, server.token(wrong)), denied, wrong)
  }
  t.match(await make(token, server.token(guest, 'evil.test')), denied)
  t.match(await make(token), denied)
  t.equal(sandbox.calls.length, 0)
  const proof = server.token(guest)
  const made = await Promise.all(Array.from({ length: 10 }, () => make(token, proof)))
  t.equal(made.filter(({ status }) => status === 200).length, 1)
  t.equal(sandbox.calls.length, 1)
  t.match(await call('/gateway/sessions/guest/challenge'), { status: 404 }, "the challenges are Cloudflare's")
})

t.test('one token is good for one thing even when Cloudflare says yes twice', async t => {
  const { enter, server } = await start(t, { GATEWAY_PUBLIC_URL: 'https://app.example' })
  const origin = 'https://app.example'
  server.answerWith(response => {
    response.end('{"success":true,"hostname":"app.example","cdata":"session"}')
  })
  const entered = await Promise.all(Array.from({ length: 10 }, () => enter('token', { origin })))
  t.equal(entered.filter(({ status }) => status === 201).length, 1)
  t.equal(entered.filter(({ error }) => error === 'GW_SCOPE_DENIED').length, 9)
})

t.test(
  'while Cloudflare does not answer nobody gets in, nothing is made, and the secret is told to nobody',
  async t => {
    const { enter, make, server, sandbox, log } = await start(t, {})
    const { token, subject } = (await enter(server.token('session', 'any.example'))).json
    const guest = subject.slice('guest:'.length)
    server.answerWith(response => {
      response.destroy()
    })
    for (const reply of [await enter(server.token('session')), await make(token, server.token(guest))]) {
      t.match(reply, { status: 503, error: 'GW_OVERLOADED' })
      t.equal(reply.headers.get('retry-after'), '5')
      t.notMatch(reply.text, turnstileSecret)
    }
    t.equal(sandbox.calls.length, 0)
    t.notMatch(JSON.stringify(log), turnstileSecret)
    const kept = server.token(guest)
    t.match(await make(token, kept), { status: 503 })
    server.answerWith(null)
    t.equal((await make(token, kept)).status, 200, 'a token that could not be asked about is not used up')
  }
)
