import { randomUUID } from 'node:crypto'
import { SignJWT } from 'jose'
import t from 'tap'
import { sessionSecret, startGateway } from '../helpers/gateway.ts'

const config = 'limits: { addressFailuresPerMinute: 100000 }\nplans: { default: { credits: 5 } }'
const body = { input: { prompt: 'x' } }

function sign (claims: object, secret = sessionSecret): Promise<string> {
  return new SignJWT(claims as Record<string, unknown>)
    .setProtectedHeader({ alg: 'HS256', typ: 'JWT' })
    .sign(new TextEncoder().encode(secret))
}

function claims (now: number) {
  const iat = Math.floor(now / 1000)
  return {
    iss: 'apixo-gateway',
    jti: randomUUID(),
    sub: 'app:alice',
    plan: 'default',
    models: ['*'],
    scopes: ['tasks:write', 'tasks:read'],
    iat,
    exp: iat + 3600
  }
}

t.test('a token with our signature and wrong claims is a 401', async t => {
  const { call, time, sandbox } = await startGateway(t, { config })
  const good = claims(time.now())
  t.equal((await call('/gateway/session', { token: await sign(good) })).status, 200)
  const without = (name: keyof typeof good) => Object.fromEntries(Object.entries(good).filter(([key]) => key !== name))
  const wrong: Readonly<Record<string, object>> = {
    'another issuer': { ...good, iss: 'https://id.example/' },
    'another issuer\'s case': { ...good, iss: 'Apixo-Gateway' },
    'a list of issuers': { ...good, iss: ['apixo-gateway'] },
    'no issuer': without('iss'),
    'no expiry': without('exp'),
    'no id': without('jti'),
    'no subject': without('sub'),
    'no plan': without('plan'),
    'no models': without('models'),
    'no scopes': without('scopes'),
    'no issue time': without('iat'),
    'expired a second ago': { ...good, exp: good.iat - 1 },
    'expires now': { ...good, exp: good.iat },
    'expiry as text': { ...good, exp: String(good.exp) },
    'expiry null': { ...good, exp: null },
    'expiry that is no number': { ...good, exp: {} },
    'issue time as text': { ...good, iat: 'now' },
    'not yet valid': { ...good, nbf: good.iat + 60 },
    'not yet valid, as text': { ...good, nbf: '0' },
    'a plan that does not exist': { ...good, plan: 'pro' },
    'a plan of JavaScript\'s own': { ...good, plan: 'constructor' },
    'a plan named __proto__': { ...good, plan: '__proto__' },
    'models as text': { ...good, models: '*' },
    'models null': { ...good, models: null },
    'a number as model': { ...good, models: [1] },
    'a number as subject': { ...good, sub: 7 },
    'a list as subject': { ...good, sub: ['app:alice'] },
    'a number as id': { ...good, jti: 7 }
  }
  for (const [what, payload] of Object.entries(wrong)) {
    t.match(
      await call('/api/v1/generateTask/nano-banana', { token: await sign(payload), body }),
      { status: 401, error: 'GW_BAD_SESSION' },
      what
    )
  }
  t.equal(sandbox.calls.length, 0)
})

t.test('a token ends at its second, also when it has been let in before', async t => {
  const { call, mint, time, sandbox } = await startGateway(t, { config })
  const token = await mint('alice', { ttlSeconds: 60 })
  t.equal((await call('/gateway/session', { token })).status, 200)
  time.advance(59_999)
  t.equal((await call('/gateway/session', { token })).status, 200)
  time.advance(1)
  t.equal((await call('/api/v1/generateTask/nano-banana', { token, body })).error, 'GW_BAD_SESSION')
  t.equal(sandbox.calls.length, 0)
})

t.test('a session that was ended stays ended, on every route', async t => {
  const { call, mint, sandbox } = await startGateway(t, { config })
  const [token, other] = [await mint('alice'), await mint('alice')]
  t.equal((await call('/gateway/session', { token, method: 'DELETE' })).status, 204)
  for (let round = 0; round < 2; round++) {
    t.equal((await call('/api/v1/generateTask/nano-banana', { token, body })).error, 'GW_BAD_SESSION')
    t.equal((await call('/api/v1/statusTask/nano-banana?taskId=x', { token })).error, 'GW_BAD_SESSION')
    t.equal((await call('/gateway/session', { token })).error, 'GW_BAD_SESSION')
    t.equal((await call('/gateway/session', { token, method: 'DELETE' })).error, 'GW_BAD_SESSION')
  }
  t.equal((await call('/gateway/session', { token: other })).status, 200, 'the subject\'s other sessions live')
  t.equal(sandbox.calls.length, 0)
})

t.test('a token of another gateway, under another secret, is nobody\'s here', async t => {
  const { call, time, sandbox } = await startGateway(t, { config })
  const token = await sign(claims(time.now()), 'the-secret-of-another-tenant-32-bytes!')
  t.equal((await call('/api/v1/generateTask/nano-banana', { token, body })).error, 'GW_BAD_SESSION')
  t.equal(sandbox.calls.length, 0)
})
