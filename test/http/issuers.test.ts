import { SignJWT } from 'jose'
import t, { type Test } from 'tap'
import { clock } from '../helpers/clock.ts'
import { openEvents } from '../helpers/event-source.ts'
import { startGateway } from '../helpers/gateway.ts'
import { identityProvider, type Misbehaviour } from '../helpers/identity-provider.ts'
import { secretFiles } from '../helpers/secret-files.ts'
import { until } from '../helpers/until.ts'

const shop = 'https://shop.example'
const secret = 'q7Zc0vT2mLx9RfWk4JbN8sHd1yUeGaPo-shared-with-the-shop'
const path = '/api/v1/generateTask/nano-banana'
const body = { input: { prompt: 'a red cube' } }

/** A gateway with two issuers: one that publishes keys, one that shares a secret. */
async function start (t: Test, how?: Misbehaviour) {
  const time = clock()
  const provider = await identityProvider(t)
  provider.misbehave(how)
  const secretFile = secretFiles(t, { shop: secret }).path('shop')
  const gateway = await startGateway(t, {
    time,
    config: `
plans:
  default: { models: ["nano-*"], credits: unlimited }
  gold: { credits: unlimited }
issuers:
  - { issuer: "${provider.origin}", audience: app, algorithms: [ES256], planClaim: app_metadata.plan }
  - { issuer: "${shop}", secretFile: "${secretFile}", audience: app, algorithms: [HS256], subjectPrefix: shop, scopesClaim: scope }
`
  })
  const claims = (iss: string, more: object) => ({
    iss,
    sub: 'alice',
    aud: 'app',
    iat: time.now() / 1000,
    exp: time.now() / 1000 + 600,
    ...more
  })
  return {
    ...gateway,
    provider,
    print: (more: object = {}) => provider.sign(claims(provider.origin, more)),
    printShop: (more: object = {}) =>
      new SignJWT(claims(shop, more)).setProtectedHeader({ alg: 'HS256' }).sign(Buffer.from(secret))
  }
}

t.test('who has a token of a known issuer makes pictures with it, and sees what it is', async t => {
  const { call, print, submit, status, provider, sandbox, time, lines } = await start(t)
  const token = await print()
  const { status: code, json } = await call('/gateway/session', { token })
  t.equal(code, 200)
  t.match(json, {
    subject: `${provider.origin}:alice`,
    plan: 'default',
    models: ['*'],
    scopes: ['tasks:write', 'tasks:read', 'llm'],
    issuedAt: new Date(time.now()).toISOString(),
    expiresAt: new Date(time.now() + 600_000).toISOString()
  })
  const submitted = await submit(token)
  t.equal(submitted.status, 200)
  t.equal((await status(token, submitted.json.data.taskId)).status, 200)
  t.equal(lines().at(-1)?.subject, `${provider.origin}:alice`)
  t.equal(sandbox.calls.some(call => JSON.stringify(call).includes(token)), false, 'the token stays here')
  t.equal((await call('/api/v1/generateTask/suno', { token, body })).error, 'GW_MODEL_DENIED', 'the plan still holds')
})

t.test('subjects of the same name are different ones at each issuer, and their tasks are their own', async t => {
  const { print, printShop, mint, submit, status, call } = await start(t)
  const tokens = [await print(), await printShop({ scope: 'tasks:write tasks:read' }), await mint('alice')]
  const { json } = await submit(tokens[0]!)
  const subjects = await Promise.all(
    tokens.map(async token => (await call('/gateway/session', { token })).json.subject)
  )
  t.equal(new Set(subjects).size, 3)
  for (const token of tokens.slice(1)) t.equal((await status(token, json.data.taskId)).error, 'GW_TASK_NOT_FOUND')
  t.equal(
    (await status(await print({ jti: 'another session' }), json.data.taskId)).status,
    200,
    'the subject is what owns it'
  )
})

t.test('a token says which plan it has, and a plan that does not exist is no other plan', async t => {
  const { print, submit, call, sandbox } = await start(t)
  const gold = await print({ app_metadata: { plan: 'gold' } })
  t.equal((await call('/gateway/session', { token: gold })).json.plan, 'gold')
  t.equal((await submit(gold, 'x', 'nano-banana')).status, 200)
  const made = sandbox.calls.length
  for (const plan of ['silver', '', 'constructor', '__proto__', null, ['gold']]) {
    t.match(
      await call(path, { token: await print({ app_metadata: { plan } }), body }),
      { status: 401, error: 'GW_BAD_SESSION' },
      JSON.stringify(plan)
    )
  }
  t.equal(sandbox.calls.length, made)
})

t.test('a token with fewer scopes does less', async t => {
  const { printShop, call } = await start(t)
  t.match(await call(path, { token: await printShop({ scope: 'openid tasks:read' }), body }), {
    status: 403,
    error: 'GW_SCOPE_DENIED'
  })
  t.match(await call(path, { token: await printShop(), body }), { status: 403, error: 'GW_SCOPE_DENIED' })
  t.equal((await call(path, { token: await printShop({ scope: 'tasks:write' }), body })).status, 200)
})

t.test('a session of an issuer ends for good, with or without an id in its token', async t => {
  const { print, call, sandbox } = await start(t)
  for (const [token, other] of [
    [await print({ jti: 'one' }), await print({ jti: 'two' })],
    [await print(), await print({ sub: 'bob' })]
  ] as const) {
    t.equal((await call('/gateway/session', { token, method: 'DELETE' })).status, 204)
    t.equal((await call(path, { token, body })).error, 'GW_BAD_SESSION')
    t.equal((await call('/gateway/session', { token: other })).status, 200)
  }
  t.equal(sandbox.calls.length, 0)
})

t.test('a token that is not good, or is nobody\'s, is a 401 that does not say why', async t => {
  const { print, provider, call, sandbox, time } = await start(t)
  const stranger = await identityProvider(t)
  const claims = { iss: provider.origin, sub: 'alice', aud: 'app', exp: time.now() / 1000 + 60 }
  const bad = {
    expired: await print({ exp: time.now() / 1000 }),
    'for another app': await print({ aud: 'other' }),
    'of an unknown key': await stranger.sign(claims),
    'of an unknown issuer': await stranger.sign({ ...claims, iss: stranger.origin })
  }
  for (const [what, token] of Object.entries(bad)) {
    const reply = await call(path, { token, body })
    t.match(reply, { status: 401, error: 'GW_BAD_SESSION' }, what)
    t.notMatch(reply.text, /JW|alg|aud|exp"|claim|127\.0\.0\.1/, what)
  }
  t.same(stranger.requests, [])
  t.equal(sandbox.calls.length, 0)
})

t.test(
  'a key that its issuer takes back closes the streams of sessions under it, and the next one is refused',
  async t => {
    const { call, origin, print, provider, time } = await start(t)
    const token = await print({ exp: time.now() / 1000 + 86_400 })
    const open = () => openEvents(t, `${origin}/gateway/events`, { token })
    const stream = await open()
    t.equal(stream.status, 200)
    await provider.addKey('ES256')
    provider.published.shift()
    time.advance(20 * 60_000)
    t.match(await call('/gateway/session', { token }), { status: 401, error: 'GW_BAD_SESSION' })
    await stream.over()
    t.notOk(stream.isCut)
    t.equal((await open()).status, 401)
    const fresh = await openEvents(t, `${origin}/gateway/events`, {
      token: await print({ exp: time.now() / 1000 + 86_400 })
    })
    time.advance(20 * 60_000)
    await call('/gateway/session', { token })
    t.notOk(fresh.isOver, 'keys that are the same close nothing')
  }
)

t.test('a session of an issuer mints no others', async t => {
  const { print, call } = await start(t)
  t.equal((await call('/gateway/sessions', { token: await print(), body: { subject: 'bob' } })).status, 403)
})

t.test('an issuer that is down at start stops nobody, is told of once, and is asked again', async t => {
  const { print, printShop, provider, call, log, mint, time } = await start(t, 'is down')
  await until('the operator is told', () => log.some(line => line.alarm === 'issuer-keys'))
  t.match(log.filter(line => line.alarm === 'issuer-keys'), [{ level: 40, issuer: provider.origin }])
  t.equal((await call('/gateway/session', { token: await mint('alice') })).status, 200)
  t.equal((await call('/gateway/session', { token: await printShop() })).status, 200)
  t.equal((await call('/gateway/session', { token: await print() })).error, 'GW_BAD_SESSION')
  provider.misbehave(undefined)
  time.advance(5000)
  t.equal((await call('/gateway/session', { token: await print() })).status, 200)
})

t.test('the same keys in another order, or one more of them, close no stream', async t => {
  const { call, origin, mint, print, provider, time } = await start(t)
  await provider.addKey('ES256')
  const stream = await openEvents(t, `${origin}/gateway/events`, { token: await mint('alice') })
  const readAgain = async (): Promise<void> => {
    const asked = provider.requests.length
    time.advance(20 * 60_000)
    t.equal((await call('/gateway/session', { token: await print() })).status, 200)
    t.ok(provider.requests.length > asked)
  }
  await readAgain()
  provider.published.reverse()
  await readAgain()
  await provider.addKey('ES256')
  await readAgain()
  t.notOk(stream.isOver)
})
