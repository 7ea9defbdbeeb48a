import { exportJWK } from 'jose'
import t, { type Test } from 'tap'
import type { TrustedIssuer } from '../../src/adapters/jwt-sessions/jwt-sessions.ts'
import { clock } from '../helpers/clock.ts'
import { identityProvider, type SignOptions } from '../helpers/identity-provider.ts'
import { closedPort } from '../helpers/raw-server.ts'
import { until } from '../helpers/until.ts'
import { jwtSessions } from '../helpers/verifiers.ts'

const badSession = { code: 'GW_BAD_SESSION' }
const minute = 60_000

interface Setup extends Partial<TrustedIssuer> {
  readonly alg?: string
  readonly discovery?: boolean
}

async function setup (t: Test, { alg = 'ES256', discovery = false, ...more }: Setup = {}) {
  const time = clock()
  const provider = await identityProvider(t, alg)
  const failures: Array<readonly [issuer: string, message: string]> = []
  const start = () =>
    jwtSessions({
      issuers: [
        {
          issuer: provider.origin,
          algorithms: [alg],
          plan: 'default',
          ...(discovery ? {} : { jwksUrl: provider.jwksUrl }),
          ...more
        }
      ],
      secrets: new Map(),
      ...time,
      onKeysFailed: (issuer, error) => failures.push([issuer, (error as Error).message]),
      timeoutMs: 300
    })
  const verifier = start()
  const sign = (more: object = {}, options: SignOptions = {}) =>
    provider.sign({ iss: provider.origin, sub: 'alice', exp: time.now() / 1000 + 86_400, ...more }, options)
  const verify = async (more: object = {}, options: SignOptions = {}) =>
    await verifier.verify(await sign(more, options))
  return { time, provider, failures, start, verifier, sign, verify }
}

t.test('keys are fetched at start, once, whoever asks', async t => {
  const { provider, verify } = await setup(t)
  await until('they are fetched', () => provider.requests.length === 1)
  t.ok((await Promise.all(Array.from({ length: 20 }, () => verify()))).every(session => session !== null))
  t.same(provider.requests, ['/keys'])
})

t.test("an issuer's configuration says where its keys are, and is not asked again while they are there", async t => {
  const { provider, time, verify } = await setup(t, { discovery: true })
  t.ok(await verify())
  t.same(provider.requests, ['/.well-known/openid-configuration', '/keys'])
  time.advance(30 * minute)
  t.ok(await verify())
  t.same(provider.requests.slice(2), ['/keys'])
})

t.test('an issuer may move its keys', async t => {
  const { provider, time, verify } = await setup(t, { discovery: true })
  t.ok(await verify())
  provider.configuration.jwks_uri = `${provider.origin}/moved`
  provider.misbehave('is not there')
  time.advance(30 * minute)
  t.ok(await verify(), 'the old keys serve')
  provider.misbehave(undefined)
  time.advance(minute)
  t.ok(await verify())
  t.same(provider.requests.slice(-2), ['/.well-known/openid-configuration', '/moved'])
})

t.test('an issuer with a slash at its end has its configuration below it, and keeps its slash', async t => {
  const { provider, time } = await setup(t)
  const issuer = `${provider.origin}/tenant/`
  provider.configuration.issuer = issuer
  provider.requests.length = 0
  const verifier = jwtSessions({
    issuers: [{ issuer, algorithms: ['ES256'], plan: 'default' }],
    secrets: new Map(),
    ...time,
    onKeysFailed: () => t.fail('the keys are there')
  })
  t.ok(await verifier.verify(await provider.sign({ iss: issuer, sub: 'alice', exp: time.now() / 1000 + 60 })))
  t.equal(
    provider.requests.find(path => path.includes('.well-known')),
    '/tenant/.well-known/openid-configuration'
  )
  t.equal(
    await verifier.verify(await provider.sign({ iss: issuer.slice(0, -1), sub: 'alice', exp: time.now() / 1000 + 60 })),
    null
  )
})

t.test(
  "a configuration that is not the issuer's own, or that leads to where anybody listens, is not followed",
  async t => {
    const { provider, verify, time, failures } = await setup(t, { discovery: true })
    const good = provider.configuration
    const [http, https] = [
      `http://127.0.0.1:${await closedPort()}/keys`,
      `https://127.0.0.1:${await closedPort()}/keys`
    ]
    const refused = async (title: string, more: object, why: RegExp) => {
      provider.configuration = { ...good, ...more }
      time.advance(minute)
      await t.rejects(verify(), badSession, title)
      t.match(failures.at(-1), [provider.origin, why], title)
    }
    await refused('no issuer', { issuer: undefined }, /of another issuer/)
    await refused('another issuer', { issuer: 'https://id.example' }, /of another issuer/)
    await refused('a slash more', { issuer: `${provider.origin}/` }, /of another issuer/)
    await refused('no keys', { jwks_uri: undefined }, /names no https: URL/)
    await refused('a path', { jwks_uri: '/keys' }, /names no https: URL/)
    await refused('another origin without https:', { jwks_uri: http }, /names no https: URL/)
    await refused('a file', { jwks_uri: 'file:///etc/passwd' }, /names no https: URL/)
    await refused('a list', { jwks_uri: [`${provider.origin}/keys`] }, /names no https: URL/)
    await refused('another origin with https: is asked, and nobody is there', { jwks_uri: https }, /fetch failed/)
  }
)

t.test('a new key is known by its first token', async t => {
  const { provider, verify } = await setup(t)
  t.ok(await verify())
  await provider.addKey('ES256')
  t.ok(await verify())
  t.equal(provider.requests.length, 2)
})

t.test('a key that was taken back ends its sessions, also those that were let in before', async t => {
  const { provider, verifier, sign, verify, time } = await setup(t)
  const old = await sign()
  const first = await verifier.verify(old)
  t.ok(first)
  provider.published.length = 0
  await provider.addKey('ES256')
  time.advance(9 * minute)
  t.equal(await verifier.verify(old), first, 'it is not known yet')
  t.ok(await verify(), 'a token with the new key tells')
  await t.rejects(verifier.verify(old), badSession)
})

t.test('keys in use are renewed in the background, and old ones before they are used', async t => {
  const { provider, verifier, sign, time } = await setup(t)
  const token = await sign()
  const first = await verifier.verify(token)
  provider.published.length = 0
  await provider.addKey('ES256')
  time.advance(10 * minute)
  t.equal(await verifier.verify(token), first, 'nobody waits')
  await until('renewed', () => provider.requests.length === 2)
  await until('taken over', () =>
    verifier.verify(token).then(
      () => false,
      () => true
    )
  )

  const idle = await setup(t)
  const kept = await idle.sign()
  t.ok(await idle.verifier.verify(kept))
  idle.provider.published.length = 0
  await idle.provider.addKey('ES256')
  idle.time.advance(20 * minute)
  await t.rejects(idle.verifier.verify(kept), badSession, 'after an idle time the keys are asked for first')
})

t.test('what was verified stays so while the keys stay the same', async t => {
  const { provider, verifier, sign, time } = await setup(t)
  const token = await sign()
  const first = await verifier.verify(token)
  time.advance(30 * minute)
  t.equal(await verifier.verify(token), first)
  t.equal(provider.requests.length, 2)
})

t.test('keys for something else, secret ones and rubbish are left out and spoil no others', async t => {
  const { provider, start, sign } = await setup(t)
  const good = provider.published[0] as object
  const [encryption, other, open] = [
    await provider.addKey('ES256', { use: 'enc' }),
    await provider.addKey('ES256', { alg: 'ES384' }),
    await provider.addKey('ES256')
  ]
  const secret = { ...(await exportJWK(open.privateKey)), kid: open.kid, alg: 'ES256' }
  const verifying = { ...encryption.jwk, use: undefined, kid: 'made-for-wrapping', key_ops: ['wrapKey'] }
  const shared = { kty: 'oct', kid: 'key-9', k: Buffer.alloc(32).toString('base64url') }
  provider.published.splice(
    0,
    Infinity,
    null,
    7,
    'key',
    [],
    {},
    { kty: 7 },
    secret,
    shared,
    encryption.jwk,
    other.jwk,
    verifying,
    good
  )
  const verifier = start()
  const key = { ...open, kid: 'key-1' }
  await t.rejects(verifier.verify(await sign({}, { key })), badSession)
  for (const key of [encryption, other, open, { ...encryption, kid: 'made-for-wrapping' }]) {
    await t.rejects(verifier.verify(await sign({}, { key })), badSession, key.kid)
  }
  await t.rejects(verifier.verify(await sign({}, { header: { kid: 'key-9' } })), badSession)
})

t.test('the first hundred keys of a set count', async t => {
  const { provider, start, sign } = await setup(t)
  const { jwk } = await provider.addKey('ES256')
  const many = Array.from({ length: 99 }, (_, index) => ({ ...jwk, kid: `many-${index}` }))
  provider.published.splice(0, Infinity, ...many, jwk)
  t.ok(await start().verify(await sign()), 'the hundredth')
  provider.published.unshift({ ...jwk, kid: 'one-more' })
  await t.rejects(start().verify(await sign()), badSession, 'the next')
})

t.test('a token that names no key is held against all that fit, within reason', async t => {
  const { provider, verify, time } = await setup(t)
  const nameless = { header: { kid: undefined } }
  t.ok(await verify({}, nameless), 'one key')
  const keys = [
    await provider.addKey('ES256'),
    await provider.addKey('ES256'),
    await provider.addKey('ES256'),
    await provider.addKey('ES256'),
    await provider.addKey('ES256')
  ]
  time.advance(minute)
  t.ok(await verify({ n: 1 }, { key: keys[3]!, ...nameless }), 'the fifth of six')
  await t.rejects(verify({}, { key: keys[4]!, ...nameless }), badSession, 'the sixth')
  await t.rejects(verify({ exp: time.now() / 1000 - 1 }, { key: keys[0]!, ...nameless }), badSession, 'expired')
  provider.published.length = 3
  time.advance(30 * minute)
  await t.rejects(verify({ n: 2 }, { key: keys[4]!, ...nameless }), badSession, 'none of three')
})

t.test('a new key under an old name is found too', async t => {
  const { provider, verify } = await setup(t)
  t.ok(await verify())
  const key = { ...(await provider.addKey('ES256')), kid: 'key-1' }
  provider.published.splice(0, Infinity, { ...key.jwk, kid: 'key-1' })
  t.ok(await verify({}, { key }))
})
