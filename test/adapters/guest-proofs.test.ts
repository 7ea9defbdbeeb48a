import { once } from 'node:events'
import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import t, { type Test } from 'tap'
import { Secret } from '../../src/domain/secret.ts'
import { altchaProofs, turnstileProofs } from '../../src/features/guests/proofs.ts'
import { clock } from '../helpers/clock.ts'
import { decode, encode, solve } from '../helpers/proofs.ts'
import { turnstileSecret, turnstileServer } from '../helpers/turnstile-server.ts'
import { until } from '../helpers/until.ts'

const [one, other] = [
  new Secret('a-session-secret-of-32-bytes-and-more'),
  new Secret('another-session-secret-of-32-bytes')
]
const ip = '192.0.2.1'
const proofsOf = (secrets: readonly Secret[] = [one], time = clock()) => ({
  ...altchaProofs({ secrets: { current: secrets }, now: time.now }),
  time
})

t.test('a solved challenge is a proof, for what it was made for', async t => {
  const { challenge, verify, time } = proofsOf()
  const proof = await solve(await challenge('alice'))
  const good = await verify(proof, 'alice', ip)
  t.match(good, { id: /^[0-9a-f]{64}$/, expiresAt: time.now() + 300_000 })
  for (const purpose of ['bob', 'session', '', 'Alice']) t.equal(await verify(proof, purpose, ip), null, purpose)
  const next = await solve(await challenge('alice'))
  t.not((await verify(next, 'alice', ip))?.id, good?.id, 'each has an id of its own')
})

t.test('a proof is good for five minutes, of our clock', async t => {
  const { challenge, verify, time } = proofsOf()
  const proof = await solve(await challenge('alice'))
  time.advance(299_999)
  t.not(await verify(proof, 'alice', ip), null)
  time.advance(1)
  t.equal(await verify(proof, 'alice', ip), null)
})

t.test('however a proof is written, its id is one', async t => {
  const { challenge, verify } = proofsOf()
  const proof = await solve(await challenge('alice'))
  const good = await verify(proof, 'alice', ip)
  const { challenge: { parameters, signature }, solution } = decode(proof)
  const reversed = Object.fromEntries(Object.entries(parameters).reverse())
  const otherwise = [
    {
      challenge: { parameters, signature },
      solution: { ...solution, counter: solution.counter + 1, time: 1, more: 'x' }
    },
    { solution, challenge: { signature, parameters: reversed }, more: 'x' }
  ]
  for (const payload of otherwise) t.same(await verify(encode(payload), 'alice', ip), good)
  t.same(await verify(`${proof.slice(0, 8)}\n${proof.slice(8)}`, 'alice', ip), good)
  t.same(await verify(Buffer.from(proof, 'base64').toString('base64url'), 'alice', ip), good)
})

t.test('nothing else is a proof', async t => {
  const { challenge, verify } = proofsOf()
  const made = await challenge('alice') as any
  const { solution } = decode(await solve(made))
  const { parameters } = made
  const later = { ...parameters.data, expiresAt: parameters.data.expiresAt + 1 }
  const easy = { ...parameters, cost: 1, keyPrefix: '00' }
  delete easy.keySignature
  const forged: readonly unknown[] = [
    { challenge: made, solution: { ...solution, derivedKey: `${parameters.keyPrefix}${'0'.repeat(32)}` } },
    { challenge: made, solution: { ...solution, derivedKey: parameters.keyPrefix } },
    { challenge: made, solution: { counter: solution.counter } },
    { challenge: made, solution: { ...solution, derivedKey: solution.derivedKey.toUpperCase() } },
    { challenge: { ...made, signature: undefined }, solution },
    { challenge: { ...made, signature: made.signature.toUpperCase() }, solution },
    { challenge: { ...made, signature: [...made.signature] }, solution },
    { challenge: { ...made, signature: { length: 64 } }, solution },
    { challenge: { ...made, parameters: { ...parameters, data: later } }, solution },
    {
      challenge: { ...made, parameters: { ...parameters, data: { ...parameters.data, purpose: 'session' } } },
      solution
    },
    { challenge: { ...made, parameters: { ...parameters, expiresAt: 1 } }, solution },
    { challenge: { ...made, parameters: { ...parameters, expiresAt: 9e9 } }, solution },
    { challenge: { ...made, parameters: easy }, solution },
    { challenge: made },
    { solution },
    {},
    [],
    null,
    1,
    'x',
    { challenge: null, solution: null },
    { challenge: { parameters: null } }
  ]
  for (const payload of forged) {
    t.equal(await verify(encode(payload), 'alice', ip), null, JSON.stringify(payload)?.slice(0, 90))
  }
  for (const text of ['', 'x', '{}', 'a.b.c', encode({ challenge: made, solution }).slice(1), '='.repeat(100)]) {
    t.equal(await verify(text, 'alice', ip), null, text.slice(0, 20))
  }
  t.equal(await verify(encode({ challenge: made, solution, more: 'x'.repeat(4096) }), 'alice', ip), null, 'too long')
  t.not(await verify(encode({ challenge: made, solution }), 'alice', ip), null, 'but the real one is')
})

t.test('a challenge of another gateway is not solved here, one of a secret that is still known is', async t => {
  const proof = await solve(await proofsOf([one]).challenge('alice'))
  t.equal(await proofsOf([other]).verify(proof, 'alice', ip), null)
  t.not(await proofsOf([other, one]).verify(proof, 'alice', ip), null)
})

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
