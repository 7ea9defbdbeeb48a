import { createHmac, generateKeyPairSync, randomUUID } from 'node:crypto'
import { exportJWK, SignJWT } from 'jose'
import t from 'tap'
import { apiKey, issuerToken, sessionSecret, startGateway } from '../helpers/gateway.ts'

const config = 'limits: { addressFailuresPerMinute: 100000 }\nplans: { default: { credits: 5 } }'
const body = { input: { prompt: 'x' } }
const encode = (value: unknown) =>
  Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url')
const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 })
const publicPem = rsa.publicKey.export({ type: 'spki', format: 'pem' }) as string

/** The claims of a session as this gateway mints them. */
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

/** A token by hand, so that no library can refuse to make it. */
function forge (
  header: object | string,
  payload: object | string,
  secret = sessionSecret,
  algorithm = 'sha256'
): string {
  const text = `${encode(header)}.${encode(payload)}`
  return `${text}.${createHmac(algorithm, secret).update(text).digest('base64url')}`
}

t.test('a token by hand with the right secret is let in, so that the refusals below mean something', async t => {
  const { call, time } = await startGateway(t, { config })
  const token = forge({ alg: 'HS256', typ: 'JWT' }, claims(time.now()))
  t.equal((await call('/gateway/session', { token })).status, 200)
})

t.test('a token that is not signed with HS256 and our secret is a 401, whatever its header says', async t => {
  const { call, time, mint, sandbox } = await startGateway(t, { config })
  const payload = claims(time.now())
  const jwk = await exportJWK(rsa.publicKey)
  const unsigned = (alg: unknown) => `${encode({ alg, typ: 'JWT' })}.${encode(payload)}.`
  const [header, middle, signature] = (await mint('alice')).split('.') as [string, string, string]
  const minted = JSON.parse(Buffer.from(middle, 'base64url').toString())
  const forged: Readonly<Record<string, string>> = {
    'alg none': unsigned('none'),
    'alg None': unsigned('None'),
    'alg NONE with a signature': forge({ alg: 'NONE' }, payload),
    'alg as a list': forge({ alg: ['HS256', 'none'] }, payload),
    'alg missing': forge({ typ: 'JWT' }, payload),
    'alg null': forge({ alg: null }, payload),
    'HS384 with our secret': forge({ alg: 'HS384' }, payload, sessionSecret, 'sha384'),
    'HS512 with our secret': forge({ alg: 'HS512' }, payload, sessionSecret, 'sha512'),
    'hs256 in lower case': forge({ alg: 'hs256' }, payload),
    'another secret': forge({ alg: 'HS256' }, payload, 'another-secret-of-32-bytes-and-more!'),
    'an empty secret': forge({ alg: 'HS256' }, payload, ''),
    'the issuer token as secret': forge({ alg: 'HS256' }, payload, issuerToken),
    'the API key as secret': forge({ alg: 'HS256' }, payload, apiKey),
    "RS256 by a key of one's own": await new SignJWT(payload).setProtectedHeader({ alg: 'RS256' }).sign(rsa.privateKey),
    'that public key as HS256 secret': forge({ alg: 'HS256' }, payload, publicPem),
    'jwk in the header': await new SignJWT(payload).setProtectedHeader({ alg: 'RS256', jwk }).sign(rsa.privateKey),
    'jku in the header': forge({ alg: 'HS256', jku: 'http://127.0.0.1:1/jwks', kid: 'x' }, payload, 'x'),
    'x5u in the header': forge({ alg: 'HS256', x5u: 'http://127.0.0.1:1/x' }, payload, 'x'),
    'kid as a path': forge({ alg: 'HS256', kid: '../../dev/null' }, payload, ''),
    'an unknown critical extension': forge({ alg: 'HS256', crit: ['b64'], b64: false }, payload),
    'no signature': `${header}.${middle}.`,
    'two parts': `${header}.${middle}`,
    'four parts': `${header}.${middle}.${signature}.${signature}`,
    'five parts': `${header}..${middle}.${signature}.x`,
    'a signature cut': `${header}.${middle}.${signature.slice(0, -4)}`,
    'a signature and more': `${header}.${middle}.${signature}AAAA`,
    'another subject under that signature': `${header}.${encode({ ...minted, sub: 'app:root' })}.${signature}`,
    'more scopes under that signature': `${header}.${encode({ ...minted, plan: 'pro' })}.${signature}`,
    'another header on that signature': `${encode({ alg: 'HS256' })}.${middle}.${signature}`,
    'another type of token': forge({ alg: 'HS256', typ: 'ticket+jwt' }, payload),
    'a payload that is no object': forge({ alg: 'HS256', typ: 'JWT' }, '"apixo-gateway"'),
    'a payload that is no JSON': forge({ alg: 'HS256', typ: 'JWT' }, '{"iss":"apixo-gateway"'),
    'a token in a token': forge({ alg: 'HS256', cty: 'JWT' }, `${header}.${middle}.${signature}`),
    dots: '..',
    'an empty object': '{}'.replace(/[{}]/g, '~'),
    'very long': `${header}.${'A'.repeat(12_000)}.${signature}`
  }
  for (const [what, token] of Object.entries(forged)) {
    const reply = await call('/api/v1/generateTask/nano-banana', { token, body })
    t.match(reply, { status: 401, error: 'GW_BAD_SESSION' }, what)
    t.match(reply.headers.get('www-authenticate'), /^Bearer/)
    t.notMatch(reply.text, /HS256|signature|JW[ST]|alg/, 'nor is it told why')
  }
  t.equal(sandbox.calls.length, 0)
})

t.test('what was refused once is refused again, and a good token is not remembered by its payload', async t => {
  const { call, mint, sandbox } = await startGateway(t, { config })
  const good = await mint('alice')
  const bad = `${good.slice(0, -6)}AAAAAA`
  t.equal((await call('/gateway/session', { token: bad })).status, 401)
  t.equal((await call('/gateway/session', { token: good })).status, 200)
  t.equal((await call('/gateway/session', { token: bad })).status, 401)
  t.equal((await call('/gateway/session', { token: good.replace(/\.[^.]*$/, '.') })).status, 401)
  t.equal(sandbox.calls.length, 0)
})

t.test('a secret that is rotated out signs nothing any more; the older of two still verifies', async t => {
  const old = 'the-older-session-secret-of-32-bytes'
  const { call, mint, time } = await startGateway(t, {
    config,
    env: { GATEWAY_SESSION_SECRET: `${sessionSecret},${old}` }
  })
  t.equal(
    (await call('/gateway/session', { token: forge({ alg: 'HS256', typ: 'JWT' }, claims(time.now()), old) })).status,
    200
  )
  t.equal(
    (await call('/gateway/session', { token: forge({ alg: 'HS256', typ: 'JWT' }, claims(time.now()), `${old}!`) }))
      .status,
    401
  )
  const [header, payload, signature] = (await mint('bob')).split('.') as [string, string, string]
  t.equal(
    signature,
    createHmac('sha256', sessionSecret).update(`${header}.${payload}`).digest('base64url'),
    'the newest signs'
  )
})
