import { once } from 'node:events'
import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import t, { type Test } from 'tap'
import { turnstileProofs } from '../../src/adapters/guest-proofs.ts'
import { Secret } from '../../src/domain/secret.ts'
import { clock } from '../helpers/clock.ts'
import { turnstileSecret, turnstileServer } from '../helpers/turnstile-server.ts'
import { until } from '../helpers/until.ts'

const ip = '192.0.2.1'
const overloaded = { code: 'GW_OVERLOADED', detail: { retryAfterSeconds: 5 } }

async function start (t: Test, { secret = turnstileSecret, hostnames = ['app.example'] } = {}) {
  const server = await turnstileServer(t)
  const time = clock()
  const it = turnstileProofs({
    secret: { current: new Secret(secret) },
    hostnames: new Set(hostnames),
    now: time.now,
    url: server.url
  })
  return { ...it, server, time }
}

t.test('a token is a proof when Cloudflare says so, for what its page was told to ask for', async t => {
  const { verify, server, time } = await start(t)
  const token = server.token('alice')
  t.match(await verify(token, 'alice', ip), { id: /^[\w-]{43}$/, expiresAt: time.now() + 310_000 })
  t.same(server.asked, [{ secret: turnstileSecret, response: token, remoteip: ip }])
  t.equal(await verify(token, 'alice', ip), null, 'and once')
  t.equal(await verify(server.token('alice'), 'bob', ip), null)
  t.equal(await verify(server.token(''), 'session', ip), null)
  t.equal(await verify('made-up', 'alice', ip), null)
  const other = server.token('alice')
  t.not(await verify(other, 'alice', ''), null, 'also of a caller whose address is not known')
  t.same(server.asked.at(-1), { secret: turnstileSecret, response: other })
})

t.test('a token of a page somewhere else is no proof, where it is known which pages are ours', async t => {
  const { verify, server } = await start(t)
  t.equal(await verify(server.token('alice', 'evil.test'), 'alice', ip), null)
  const { verify: anywhere, server: other } = await start(t, { hostnames: [] })
  t.not(await anywhere(other.token('alice', 'any.example'), 'alice', ip), null)
})

t.test('what can not be a token is not asked about', async t => {
  const { verify, server } = await start(t)
  t.equal(await verify('x'.repeat(2049), 'alice', ip), null)
  t.equal(server.asked.length, 0)
})

t.test('nobody is let in while it is not known whether a token is good', async t => {
  const { verify, server } = await start(t)
  const text = (status: number, body: string) => (response: ServerResponse) => { response.writeHead(status).end(body) }
  const answers: ReadonlyArray<(response: ServerResponse) => void> = [
    text(500, 'x'),
    text(200, ''),
    text(200, 'null'),
    text(200, '{}'),
    text(200, '{"success":"true"}'),
    text(200, '[]'),
    text(200, '{"success":false,"error-codes":["internal-error"]}'),
    text(200, '{"success":false}'),
    text(200, '{"success":false,"error-codes":"x"}'),
    text(200, `{"success":true,"x":"${'x'.repeat(70_000)}"}`),
    text(200, '{"success":false,"error-codes":["timeout-or-duplicate","internal-error"]}'),
    response => { response.writeHead(302, { location: '/elsewhere' }).end() },
    response => { response.destroy() }
  ]
  for (const answer of answers) {
    server.answerWith(answer)
    await t.rejects(verify(server.token('alice'), 'alice', ip), overloaded)
  }
  server.answerWith(null)
  t.not(await verify(server.token('alice'), 'alice', ip), null, 'it recovers by itself')
  const { verify: forged, server: other } = await start(t, { secret: 'another-secret-of-no-widget' })
  await t.rejects(forged(other.token('alice'), 'alice', ip), {
    ...overloaded,
    cause: { message: /invalid-input-secret$/ }
  })
})

t.test('the secret is the one in use at the moment of the question', async t => {
  const server = await turnstileServer(t)
  const secret = { current: new Secret('the-one-before') }
  const { verify } = turnstileProofs({ secret, hostnames: new Set(), now: Date.now, url: server.url })
  const token = server.token('alice')
  await t.rejects(verify(token, 'alice', ip), overloaded)
  secret.current = new Secret(turnstileSecret)
  t.not(await verify(token, 'alice', ip), null, 'what could not be asked about is not used up')
  t.same(server.asked.map(({ secret }) => secret), ['the-one-before', turnstileSecret])
})

t.test('a service that is not there, and one that says nothing, let nobody in', async t => {
  const silent = createServer(() => {})
  silent.listen(0, '127.0.0.1')
  await once(silent, 'listening')
  const { port } = silent.address() as AddressInfo
  const proofs = (more = {}) =>
    turnstileProofs({
      secret: { current: new Secret(turnstileSecret) },
      hostnames: new Set(),
      now: Date.now,
      url: `http://127.0.0.1:${port}`,
      ...more
    })
  await t.rejects(proofs({ timeoutMs: 50 }).verify('token', 'alice', ip), overloaded)
  silent.close()
  silent.closeAllConnections()
  await t.rejects(proofs().verify('token', 'alice', ip), overloaded)
})

t.test('a flood of tokens becomes no flood of questions', async t => {
  const { verify, server } = await start(t)
  const open: ServerResponse[] = []
  server.answerWith(response => { open.push(response) })
  const asked = Array.from({ length: 101 }, () => verify('token-1', 'alice', ip))
  await t.rejects(asked[100]!, overloaded)
  await until('all questions have been asked', () => open.length === 100)
  for (const response of open) response.end('{"success":false,"error-codes":["timeout-or-duplicate"]}')
  t.same(await Promise.all(asked.slice(0, 100)), Array.from({ length: 100 }, () => null))
  server.answerWith(null)
  t.not(await verify(server.token('alice'), 'alice', ip), null, 'and then there is room again')
})
