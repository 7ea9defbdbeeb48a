import { join } from 'node:path'
import t, { type Test } from 'tap'
import { anyItems, submitBatch } from '../helpers/batches.ts'
import { fromOwnPage, swap } from '../helpers/cookies.ts'
import { startGateway, taskMs, type TestGatewayOptions } from '../helpers/gateway.ts'
import { guestsOf } from '../helpers/guests.ts'
import { solve } from '../helpers/proofs.ts'
import { redisServer } from '../helpers/redis-server.ts'
import { startReplicas } from '../helpers/replicas.ts'
import { secretFiles } from '../helpers/secret-files.ts'
import { turnstileSecret, turnstileServer } from '../helpers/turnstile-server.ts'

const plans = 'plans: { default: {}, guest: { credits: 10, models: ["nano-banana"] } }'
const config = `${plans}\nguests: { enabled: true }\nsessions: { defaultTtlSeconds: 600 }`
const proofless = (more = '') => `${plans}\nguests: { enabled: true, proof: none${more} }`
const denied = { status: 403, error: 'GW_SCOPE_DENIED' }
const dayMs = 86_400_000

async function start (t: Test, options: TestGatewayOptions = {}) {
  const gateway = await startGateway(t, { config, ...options })
  return { ...gateway, ...guestsOf(gateway) }
}

t.test('anybody who has solved a challenge gets a small session, and makes a task for each further one', async t => {
  const { call, enter, proofFor, make, status, sandbox, time } = await start(t)
  const entered = await enter(await proofFor())
  t.equal(entered.status, 201)
  const { token, subject, expiresAt } = entered.json
  t.match(subject, /^guest:[\w-]{36}$/)
  t.equal(expiresAt, new Date(time.now() + 600_000).toISOString())
  t.match((await call('/gateway/session', { token })).json, {
    subject, plan: 'guest', scopes: ['tasks:write', 'tasks:read'], credits: { limit: 10, left: 10 }
  })
  const made = await make(token, await proofFor(token))
  t.equal(made.status, 200)
  time.advance(taskMs)
  t.equal((await status(token, made.json.data.taskId)).json.data.state, 'success')
  t.equal((await call('/gateway/session', { token })).json.credits.left, 9)
  t.equal(sandbox.calls.filter(({ url }) => url.includes('generateTask')).length, 1)
  t.equal((await call('/gateway/session', { token, method: 'DELETE' })).status, 204)
  t.match(await make(token, 'x'), { status: 401, error: 'GW_BAD_SESSION' })
})

t.test('without a good proof nobody begins a session, and no guest makes a task', async t => {
  const { enter, challengeFor, make, guest, sandbox } = await start(t)
  t.match(await enter(), { ...denied, json: { message: /^The proof in x-apixo-proof is missing/ } })
  const { parameters, signature } = await challengeFor()
  const unsolved = Buffer.from(
    JSON.stringify({ challenge: { parameters, signature }, solution: { counter: 1, derivedKey: parameters.keyPrefix } })
  ).toString('base64')
  for (const proof of ['x', unsolved]) {
    t.match(await enter(proof), { ...denied, json: { message: /forged, too old, used before/ } })
  }
  const token = await guest()
  for (const proof of [undefined, 'x', unsolved]) t.match(await make(token, proof), denied)
  t.equal(sandbox.calls.length, 0)
})

t.test('a proof is for what it was made for, and for one guest', async t => {
  const { enter, proofFor, make, guest, sandbox } = await start(t)
  const [one, other] = [await guest(), await guest()]
  const [proof, beginning] = [await proofFor(one), await proofFor()]
  t.match(await make(other, proof), denied)
  t.match(await enter(proof), denied)
  t.match(await make(one, beginning), denied)
  t.equal(sandbox.calls.length, 0)
  t.equal((await make(one, proof)).status, 200, 'and nobody else has used it up')
  t.equal((await enter(beginning)).status, 201)
})

t.test('one proof is good for one session, and for one task, however many ask at a time', async t => {
  const { enter, proofFor, make, guest, sandbox } = await start(t)
  const beginning = await proofFor()
  const entered = await Promise.all(Array.from({ length: 50 }, () => enter(beginning)))
  t.equal(entered.filter(({ status }) => status === 201).length, 1)
  t.equal(entered.filter(({ error }) => error === 'GW_SCOPE_DENIED').length, 49)

  const token = await guest()
  const proof = await proofFor(token)
  const made = await Promise.all(Array.from({ length: 50 }, () => make(token, proof)))
  t.equal(made.filter(({ status }) => status === 200).length, 1)
  t.equal(made.filter(({ error }) => error === 'GW_SCOPE_DENIED').length, 49)
  t.equal(sandbox.calls.length, 1)
})

t.test('proofs are good for five minutes, also when they have been kept in stock', async t => {
  const { enter, proofFor, make, guest, time } = await start(t)
  const token = await guest()
  const [proof, beginning] = [await proofFor(token), await proofFor()]
  time.advance(300_000)
  t.match(await make(token, proof), denied)
  t.match(await enter(beginning), denied)
})

t.test('a task that is asked for again under its idempotency key needs no new proof', async t => {
  const { proofFor, make, guest, sandbox } = await start(t)
  const token = await guest()
  const proof = await proofFor(token)
  const key = { 'idempotency-key': 'a-key-of-the-page' }
  t.match(await make(token, undefined, key), denied, 'the first needs one')
  const first = await make(token, proof, key)
  t.equal(first.status, 200)
  for (const again of [proof, undefined]) {
    const second = await make(token, again, key)
    t.match(second, { status: 200, text: first.text })
    t.equal(second.headers.get('idempotency-replayed'), 'true')
  }
  t.equal(sandbox.calls.length, 1)
})

t.test('a session that is swapped for a cookie has the same proofs, and still needs one for each task', async t => {
  const { call, proofFor, make, guest, sandbox } = await start(t)
  const token = await guest()
  const [spent, proof] = [await proofFor(token), await proofFor(token)]
  t.equal((await make(token, spent)).status, 200)
  const { headers } = fromOwnPage(await swap({ call }, token))
  const body = { input: { mode: 'text-to-image', prompt: 'x' } }
  const submit = (proof?: string) =>
    call('/api/v1/generateTask/nano-banana', {
      body,
      headers: { ...headers, ...(proof === undefined ? {} : { 'x-apixo-proof': proof }) }
    })
  for (const bad of [undefined, spent]) t.match(await submit(bad), denied)
  t.equal((await submit(proof)).status, 200)
  t.equal((await submit(await solve((await call('/gateway/session/challenge', { headers })).json))).status, 200)
  t.equal(sandbox.calls.length, 3)
})

t.test('who is no guest proves nothing', async t => {
  const { call, mint, make } = await start(t)
  const token = await mint('guest:alice')
  t.equal((await make(token)).status, 200)
  t.match(await call('/gateway/session/challenge', { token }), { status: 400, error: 'GW_BAD_REQUEST' })
  t.match(await call('/gateway/session/challenge'), { status: 401, error: 'GW_NO_SESSION' })
})

t.test('asking for challenges counts as asking for tasks', async t => {
  const { call, guest } = await start(t, { config: config.replace('credits: 10', 'credits: 10, pollsPerMinute: 2') })
  const token = await guest()
  for (const status of [200, 200, 429]) t.equal((await call('/gateway/session/challenge', { token })).status, status)
})

t.test('guests submit no batches', async t => {
  const { call, guest, proofFor, sandbox } = await start(t, { config: `${config}\nbatches: { enabled: true }` })
  const token = await guest()
  const headers = { 'x-apixo-proof': await proofFor(token) }
  t.match(await submitBatch({ call }, token, anyItems(2), { headers }), denied)
  t.equal(sandbox.calls.length, 0)
})

t.test('an address begins so many sessions a day, and a day later as many again', async t => {
  const { enter, time } = await start(t, { config: proofless(', sessionsPerAddressPerDay: 2') })
  t.equal((await enter()).status, 201)
  time.advance(dayMs / 2)
  t.equal((await enter()).status, 201)
  const refused = await enter()
  t.match(refused, { status: 429, error: 'GW_THROTTLED' })
  t.equal(refused.json.error.retryAfterSeconds, dayMs / 2000)
  time.advance(dayMs / 2)
  t.equal((await enter()).status, 201)
})

t.test('where nothing is proved there are no challenges, and a task needs none', async t => {
  const { call, make, enter } = await start(t, { config: proofless() })
  const { token } = (await enter()).json
  t.equal((await make(token)).status, 200)
  t.match(await call('/gateway/sessions/guest/challenge'), { status: 404, error: 'GW_NOT_FOUND' })
})

t.test('without guests there are no routes for them, and guests of yesterday make no tasks', async t => {
  const { enter, time } = await start(t, { config: proofless() })
  const { token } = (await enter()).json
  const off = await start(t, { config: `${plans}\nguests: { enabled: false }`, time })
  t.match(await off.enter(), { status: 404, error: 'GW_NOT_FOUND' })
  t.match(await off.call('/gateway/sessions/guest/challenge'), { status: 404, error: 'GW_NOT_FOUND' })
  t.match(await off.call('/gateway/session/challenge', { token }), { status: 404, error: 'GW_NOT_FOUND' })
  t.match(await off.make(token), { ...denied, json: { message: 'Guests make no tasks here any more.' } })
  t.equal((await off.call('/gateway/session', { token })).status, 200)
})

t.test('what a guest has used is used after a restart', async t => {
  const store = join(t.testdir({}), 'gateway.db')
  const first = await startGateway(t, { config, store })
  const { guest, proofFor, make } = guestsOf(first)
  const token = await guest()
  const proof = await proofFor(token)
  t.equal((await make(token, proof)).status, 200)
  await first.gateway.close()
  await t.test('in the next process', async t => {
    const after = await start(t, { store, time: first.time })
    t.match(await after.make(token, proof), denied)
    t.equal((await after.make(token, await after.proofFor(token))).status, 200)
  })
})

t.test('replicas share what guests have used', async t => {
  const { url } = await redisServer(t)
  const replicas = await startReplicas(t, 2, url, {
    config: config.replace('enabled: true', 'enabled: true, sessionsPerAddressPerDay: 1')
  })
  const [one, other] = [guestsOf(replicas[0]!), guestsOf(replicas[1]!)]
  const token = await one.guest()
  t.match(await other.enter(await other.proofFor()), { status: 429, error: 'GW_THROTTLED' })
  const proof = await one.proofFor(token)
  const made = await Promise.all(
    Array.from({ length: 50 }, (_, index) => (index % 2 === 0 ? one : other).make(token, proof))
  )
  t.equal(made.filter(({ status }) => status === 200).length, 1)
  t.equal(replicas[0]!.sandbox.calls.length, 1)
})

async function startWithTurnstile (t: Test, env: Readonly<Record<string, string>>) {
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
  const { call, enter, make, server, sandbox } = await startWithTurnstile(t, { GATEWAY_ALLOWED_ORIGINS: 'https://app.example' })
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
  const { enter, server } = await startWithTurnstile(t, { GATEWAY_PUBLIC_URL: 'https://app.example' })
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
    const { enter, make, server, sandbox, log } = await startWithTurnstile(t, {})
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
