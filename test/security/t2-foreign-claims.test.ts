import { CompactSign } from 'jose'
import t from 'tap'
import { clock } from '../helpers/clock.ts'
import { identityProvider } from '../helpers/identity-provider.ts'
import { jwtSessions } from '../helpers/verifiers.ts'

const badSession = { code: 'GW_BAD_SESSION' }
const time = clock()
const seconds = time.now() / 1000

t.test('a good signature of an issuer under wrong claims opens nothing', async t => {
  const provider = await identityProvider(t)
  const { origin: issuer } = provider
  const verifier = jwtSessions({
    issuers: [{ issuer, algorithms: ['ES256'], audience: 'app', plan: 'default' }],
    secrets: new Map(),
    ...time,
    onKeysFailed: () => t.fail('the keys are there')
  })
  const good = { iss: issuer, sub: 'alice', aud: 'app', iat: seconds, nbf: seconds, exp: seconds + 60 }
  t.ok(await verifier.verify(await provider.sign(good)), 'so that the refusals below mean something')
  t.ok(await verifier.verify(await provider.sign({ ...good, aud: ['other', 'app'] })), 'one audience of several')
  const without = (name: keyof typeof good) => Object.fromEntries(Object.entries(good).filter(([key]) => key !== name))

  const bad: Readonly<Record<string, object>> = {
    'another audience': { ...good, aud: 'other' },
    'an audience that is longer': { ...good, aud: 'app2' },
    'no audience': without('aud'),
    'an empty list of audiences': { ...good, aud: [] },
    'an audience in a mapping': { ...good, aud: { app: true } },
    'no expiry': without('exp'),
    'no subject': without('sub'),
    'expired a second ago': { ...good, exp: seconds - 1 },
    'expires now': { ...good, exp: seconds },
    'expiry as text': { ...good, exp: String(good.exp) },
    'expiry null': { ...good, exp: null },
    'an expiry beyond all time': { ...good, exp: 1e300 },
    'an expiry that no date has': { ...good, exp: 8.64e12 + 1 },
    'not yet valid': { ...good, nbf: seconds + 31 },
    'not yet valid, as text': { ...good, nbf: '0' },
    'issued in the future': { ...good, iat: seconds + 61 },
    'issued in a year': { ...good, iat: seconds + 3e7, exp: seconds + 4e7 },
    'issued before all time': { ...good, iat: -1e300 },
    'issue time as text': { ...good, iat: 'now' },
    'a number as subject': { ...good, sub: 7 },
    'a list as subject': { ...good, sub: ['alice'] }
  }
  for (const [what, payload] of Object.entries(bad)) {
    await t.rejects(verifier.verify(await provider.sign(payload)), badSession, what)
  }

  const nobodys: Readonly<Record<string, object>> = {
    'another issuer': { ...good, iss: 'https://id.example/' },
    'a slash more': { ...good, iss: `${issuer}/` },
    'another case': { ...good, iss: issuer.toUpperCase() },
    'a list of issuers': { ...good, iss: [issuer] },
    'no issuer': without('iss')
  }
  for (const [what, payload] of Object.entries(nobodys)) {
    t.equal(await verifier.verify(await provider.sign(payload)), null, what)
  }
})

t.test('numbers that JSON can write and a clock can not read end in a refusal', async t => {
  const provider = await identityProvider(t)
  const verifier = jwtSessions({
    issuers: [{ issuer: provider.origin, algorithms: ['ES256'], plan: 'default' }],
    secrets: new Map(),
    ...time,
    onKeysFailed: () => t.fail('the keys are there')
  })
  const { privateKey, kid } = await provider.addKey('ES256')
  const signed = (rest: string) =>
    new CompactSign(new TextEncoder().encode(`{"iss":"${provider.origin}","sub":"alice",${rest}}`))
      .setProtectedHeader({ alg: 'ES256', kid })
      .sign(privateKey)
  t.ok(await verifier.verify(await signed(`"exp":${seconds + 60}`)))
  for (const rest of [
    '"exp":1e999',
    `"exp":${seconds + 60},"iat":-1e999`,
    `"exp":${seconds + 60},"iat":1e999`,
    `"exp":${seconds + 60},"nbf":1e999`,
    '"exp":-1e999'
  ]) {
    await t.rejects(verifier.verify(await signed(rest)), badSession, rest)
  }
})

t.test('one tenant\'s token is no other tenant\'s, though both have the same keys', async t => {
  const provider = await identityProvider(t)
  const [mine, other] = [`${provider.origin}/mine`, `${provider.origin}/other`]
  const issuer = { algorithms: ['ES256'], jwksUrl: provider.jwksUrl, audience: 'app' }
  const verifier = jwtSessions({
    issuers: [{ ...issuer, issuer: mine, plan: 'gold' }, { ...issuer, issuer: other, plan: 'default' }],
    secrets: new Map(),
    ...time,
    onKeysFailed: () => t.fail('the keys are there')
  })
  const print = (iss: string) => provider.sign({ iss, sub: 'alice', aud: 'app', exp: seconds + 60 })
  t.match(await verifier.verify(await print(mine)), { subject: `${mine}:alice`, plan: 'gold' })
  t.match(await verifier.verify(await print(other)), { subject: `${other}:alice`, plan: 'default' })
  t.equal(await verifier.verify(await print(`${provider.origin}/third`)), null)
})
