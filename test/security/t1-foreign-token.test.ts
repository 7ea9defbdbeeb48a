import { CompactSign, type CryptoKey, exportJWK, exportSPKI, generateKeyPair, importJWK } from 'jose'
import { createHmac, generateKeyPairSync, sign } from 'node:crypto'
import t from 'tap'
import { Secret } from '../../src/domain/secret.ts'
import { clock } from '../helpers/clock.ts'
import { identityProvider } from '../helpers/identity-provider.ts'
import { jwtSessions, signedSessions } from '../helpers/verifiers.ts'

const badSession = { code: 'GW_BAD_SESSION' }
const secret = 'a-secret-of-64-bytes-and-more-that-an-issuer-shares-with-this-gateway'
const shop = 'https://shop.example'
const time = clock()
const encode = (value: unknown) =>
  Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url')

function claims (iss: string) {
  return { iss, sub: 'alice', aud: 'app', exp: time.now() / 1000 + 3600 }
}

/** A token by hand, so that no library can refuse to make it. */
function forge (header: object, payload: object, key: string | Buffer, algorithm = 'sha256'): string {
  const text = `${encode(header)}.${encode(payload)}`
  return `${text}.${createHmac(algorithm, key).update(text).digest('base64url')}`
}

t.test('a token of an issuer is refused unless one of its keys signed it, whatever its header says', async t => {
  const provider = await identityProvider(t, 'RS256')
  const attacker = await identityProvider(t, 'RS256')
  const verifier = jwtSessions({
    issuers: [
      { issuer: provider.origin, jwksUrl: provider.jwksUrl, algorithms: ['RS256'], audience: 'app', plan: 'default' }
    ],
    secrets: new Map(),
    ...time,
    onKeysFailed: () => t.fail('the keys are there')
  })
  const [key, elliptic] = [await provider.addKey('RS256'), await provider.addKey('ES256')]
  const payload = claims(provider.origin)
  const good = await provider.sign(payload, { key })
  t.ok(await verifier.verify(good), 'so that the refusals below mean something')

  const published = key.jwk as { n: string }
  const own = await generateKeyPair('RS256', { extractable: true })
  const jwk = await exportJWK(own.publicKey)
  const stolenName = { ...await attacker.addKey('RS256'), kid: key.kid }
  const pss = await importJWK(await exportJWK(key.privateKey), 'PS256') as CryptoKey
  const pem = await exportSPKI(own.publicKey)
  const [header, middle, signature] = good.split('.') as [string, string, string]
  const forged: Readonly<Record<string, string>> = {
    'alg none': `${encode({ alg: 'none' })}.${middle}.`,
    'alg None with a signature': `${encode({ alg: 'None', kid: key.kid })}.${middle}.${signature}`,
    'no alg': `${encode({ kid: key.kid })}.${middle}.${signature}`,
    'alg as a list': `${encode({ alg: ['RS256'], kid: key.kid })}.${middle}.${signature}`,
    'the modulus as HS256 secret': forge(
      { alg: 'HS256', kid: key.kid },
      payload,
      Buffer.from(published.n, 'base64url')
    ),
    'the published key as HS256 secret': forge({ alg: 'HS256', kid: key.kid }, payload, JSON.stringify(published)),
    'the same without a key id': forge({ alg: 'HS256' }, payload, JSON.stringify(published)),
    'a PEM as HS256 secret': forge({ alg: 'HS256' }, payload, pem),
    'an empty secret': forge({ alg: 'HS256' }, payload, ''),
    'a key of the attacker under the issuer\'s name for it': await attacker.sign(payload, { key: stolenName }),
    'an algorithm that is not allowed': await provider.sign(payload, { key: elliptic }),
    'an allowed key in an algorithm that is not': await provider.sign(payload, {
      key: { ...key, alg: 'PS256', privateKey: pss }
    }),
    'jwk in the header': await attacker.sign(payload, { header: { jwk } }),
    'jku in the header': await attacker.sign(payload, { header: { jku: attacker.jwksUrl } }),
    'x5u in the header': await attacker.sign(payload, { header: { x5u: `${attacker.origin}/x5u` } }),
    'x5c in the header': await attacker.sign(payload, { header: { x5c: [encode('x')] } }),
    'a key id that is a URL': await attacker.sign(payload, { header: { kid: attacker.jwksUrl } }),
    'a key id that is a path': await attacker.sign(payload, { header: { kid: '../../dev/null' } }),
    'a key id that is a number': await attacker.sign(payload, { header: { kid: 1 } }),
    'a key id of JavaScript\'s own': await attacker.sign(payload, { header: { kid: '__proto__' } }),
    'no signature': `${header}.${middle}.`,
    'a signature cut': `${header}.${middle}.${signature.slice(0, -4)}`,
    'a signature and more': `${header}.${middle}.${signature}AAAA`,
    'another subject under that signature': `${header}.${encode({ ...payload, sub: 'root' })}.${signature}`,
    'another header on that signature': `${encode({ alg: 'RS256' })}.${middle}.${signature}`,
    'payload and signature for two issuers': `${header}.${encode(`{"iss":"${attacker.origin}","iss":"${provider.origin}","sub":"root"}`)}.${signature}`
  }
  for (const [what, token] of Object.entries(forged)) await t.rejects(verifier.verify(token), badSession, what)
  t.same(attacker.requests, [], 'a token does not say where keys are')
  t.ok(await verifier.verify(good))
})

t.test('what the header asks for and we do not know is refused, also under the right key', async t => {
  const provider = await identityProvider(t)
  const key = await provider.addKey('ES256')
  const verifier = jwtSessions({
    issuers: [{ issuer: provider.origin, algorithms: ['ES256'], plan: 'default' }],
    secrets: new Map(),
    ...time,
    onKeysFailed: () => t.fail('the keys are there')
  })
  const withHeader = (header: Readonly<Record<string, unknown>>) => provider.sign(claims(provider.origin), { header })
  const parts = (await withHeader({})).split('.')
  const foreign = {
    jku: `${provider.origin}/other`,
    x5u: 'http://127.0.0.1:1/',
    x5c: ['x'],
    jwk: { kty: 'EC' },
    cty: 'JWT'
  }
  t.ok(await verifier.verify(await withHeader(foreign)), 'names that are not looked at do no harm either')
  t.notOk(provider.requests.includes('/other'))
  for (const typ of ['JWT', 'jwt', 'at+jwt', 'application/at+jwt', undefined]) {
    t.ok(await verifier.verify(await withHeader({ typ })), `type ${typ}`)
  }
  for (const typ of [
    'logout+jwt',
    'secevent+jwt',
    'dpop+jwt',
    'ticket+jwt',
    'application/logout+jwt',
    '',
    7,
    ['JWT'],
    {},
    null
  ]) {
    await t.rejects(verifier.verify(await withHeader({ typ })), badSession, `type ${JSON.stringify(typ)}`)
  }
  for (const crit of [['exp'], ['made-up'], [], 'exp', ['b64', 'b64']]) {
    const header = encode({ alg: 'ES256', kid: key.kid, crit, exp: 1, 'made-up': 1, b64: true })
    await t.rejects(verifier.verify(`${header}.${parts[1]}.${parts[2]}`), badSession, `crit ${JSON.stringify(crit)}`)
  }
  const plain = new TextEncoder().encode(JSON.stringify(claims(provider.origin)))
  const signed = (header: object) =>
    new CompactSign(plain)
      .setProtectedHeader({ alg: 'ES256', kid: key.kid, ...header })
      .sign(key.privateKey, { crit: { 'made-up': true } })
  t.ok(await verifier.verify(await signed({})))
  await t.rejects(
    verifier.verify(await signed({ crit: ['made-up'], 'made-up': 1 })),
    badSession,
    'signed, and critical'
  )
})

t.test('a key that is too weak verifies nothing', async t => {
  const provider = await identityProvider(t, 'RS256')
  const weak = generateKeyPairSync('rsa', { modulusLength: 1024 })
  provider.published.push({ ...weak.publicKey.export({ format: 'jwk' }), kid: 'weak', alg: 'RS256' })
  const verifier = jwtSessions({
    issuers: [{ issuer: provider.origin, algorithms: ['RS256'], plan: 'default' }],
    secrets: new Map(),
    ...time,
    onKeysFailed: () => t.fail('the keys are there')
  })
  const text = `${encode({ alg: 'RS256', kid: 'weak' })}.${encode(claims(provider.origin))}`
  await t.rejects(
    verifier.verify(`${text}.${sign('sha256', Buffer.from(text), weak.privateKey).toString('base64url')}`),
    badSession
  )
})

t.test('a shared secret verifies nothing but HMAC, and no token of another issuer', async t => {
  const provider = await identityProvider(t)
  const verifier = jwtSessions({
    issuers: [
      { issuer: shop, algorithms: ['HS256'], audience: 'app', plan: 'default' },
      { issuer: provider.origin, algorithms: ['ES256'], audience: 'app', plan: 'default' }
    ],
    secrets: new Map([[shop, { current: [new Secret(secret)] }]]),
    ...time,
    onKeysFailed: () => t.fail('the keys are there')
  })
  t.ok(await verifier.verify(forge({ alg: 'HS256' }, claims(shop), secret)))
  const forged: Readonly<Record<string, string>> = {
    'HS512, which is not allowed': forge({ alg: 'HS512' }, claims(shop), secret, 'sha512'),
    'alg none': `${encode({ alg: 'none' })}.${encode(claims(shop))}.`,
    'another secret': forge({ alg: 'HS256' }, claims(shop), `${secret}!`),
    'an empty secret': forge({ alg: 'HS256' }, claims(shop), ''),
    'a key of another issuer': await provider.sign(claims(shop)),
    'the secret for another issuer': forge({ alg: 'HS256' }, claims(provider.origin), secret),
    'the secret for another issuer and its key': forge({ alg: 'HS256', kid: 'key-1' }, claims(provider.origin), secret)
  }
  for (const [what, token] of Object.entries(forged)) await t.rejects(verifier.verify(token), badSession, what)
})

t.test('a token of this gateway is none of an issuer, and one of an issuer is none of this gateway', async t => {
  const own = signedSessions({
    secrets: { current: [new Secret('a-session-secret-of-32-bytes-and-more')] },
    now: time.now
  })
  const issued = jwtSessions({
    issuers: [{ issuer: shop, algorithms: ['HS256'], plan: 'default' }],
    secrets: new Map([[shop, { current: [new Secret(secret)] }]]),
    ...time,
    onKeysFailed: () => {}
  })
  const { token } = await own.mint({ subject: 'alice', plan: 'default', models: ['*'], scopes: [], ttlSeconds: 60 })
  t.equal(await issued.verify(token), null)
  t.equal(await own.verify(forge({ alg: 'HS256', typ: 'JWT' }, claims(shop), secret)), null)
})
