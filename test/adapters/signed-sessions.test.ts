import { createHmac, generateKeyPairSync, sign } from 'node:crypto'
import t from 'tap'
import { signedSessions } from '../../src/adapters/signed-sessions.ts'
import { Secret } from '../../src/domain/secret.ts'
import { sessionVerifierContract } from '../contracts/session-verifier.ts'
import { clock } from '../helpers/clock.ts'

/** Long enough for any algorithm of the family, so that no other is refused for want of bytes. */
const secret = 'a-session-secret-of-64-bytes-and-more-for-tokens-signed-with-sha512'
const olderSecret = 'an-older-session-secret-of-32-bytes-and-more'
const time = clock()
const request = { subject: 'alice', plan: 'default', models: ['sora-2*'], scopes: ['tasks:read'], ttlSeconds: 60 } as const
const badSession = { code: 'GW_BAD_SESSION' }

const sessions = (now: () => number, ...secrets: string[]) => signedSessions({ secrets: secrets.map(one => new Secret(one)), now })

const encoded = (value: unknown): string => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url')

/** A token made by hand, so that nothing refuses to make a wrong one. */
function handmade (claims: unknown, header: object = { alg: 'HS256', typ: 'JWT' }, key = secret, hash = 'sha256'): string {
  const signed = `${encoded(header)}.${encoded(claims)}`
  return `${signed}.${createHmac(hash, key).update(signed).digest('base64url')}`
}

function claims (more: object = {}): object {
  const seconds = time.now() / 1000
  return { iss: 'apixo-gateway', jti: 'id-0001', sub: 'app:alice', plan: 'default', models: ['*'], scopes: [], iat: seconds, exp: seconds + 60, ...more }
}

const without = (name: string): object => Object.fromEntries(Object.entries(claims()).filter(([key]) => key !== name))

function asymmetric (): string {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const signed = `${encoded({ alg: 'ES256' })}.${encoded(claims())}`
  return `${signed}.${sign('sha256', Buffer.from(signed), { key: privateKey, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`
}

t.test('sessions that the gateway signs keep the promises of a session verifier', async t => {
  sessionVerifierContract(t, async time => {
    const it = sessions(time.now, secret)
    return {
      verifier: it,
      print: async ttlSeconds => (await it.mint({ ...request, ttlSeconds })).token,
      subject: 'app:alice',
      foreign: [
        ['no token', 'sk-0123456789'],
        ['a token of four parts', `${handmade(claims())}.x`],
        ['a token of somebody else', handmade(claims({ iss: 'https://id.example/' }))],
        ['a token without an issuer', handmade(without('iss'))],
        ['an issuer that is no text', handmade(claims({ iss: ['apixo-gateway'] }))],
        ['a payload that is no object', handmade('null')],
        ['a payload that is no JSON', handmade('{')],
        ['a header without an algorithm', handmade(claims(), {})],
        ['a token longer than any of ours', handmade(claims({ models: Array.from({ length: 1000 }, () => 'sora-2-pro') }))]
      ],
      bad: [
        ['another secret', handmade(claims(), undefined, 'quite-another-secret-of-32-bytes-and-more')],
        ['no signature', handmade(claims()).replace(/[^.]+$/, '')],
        ['no algorithm', `${encoded({ alg: 'none' })}.${encoded(claims())}.`],
        ['another algorithm with our secret', handmade(claims(), { alg: 'HS512' }, secret, 'sha512')],
        ['another kind of algorithm', asymmetric()],
        ['a header that asks for more than we know', handmade(claims(), { alg: 'HS256', crit: ['b64'], b64: false })],
        ['another type of token', handmade(claims(), { alg: 'HS256', typ: 'at+jwt' })],
        ['no type', handmade(claims(), { alg: 'HS256' })],
        ['expired', handmade(claims({ exp: time.now() / 1000 }))],
        ['an expiry that is no number', handmade(claims({ exp: '9999999999' }))],
        ...['jti', 'sub', 'plan', 'models', 'scopes', 'iat', 'exp'].map(name => [`without ${name}`, handmade(without(name))] as const)
      ]
    }
  })
})

t.test('what is minted is what is verified', async t => {
  const it = sessions(time.now, secret)
  const { token, session } = await it.mint(request)
  const { permits, ...rest } = session
  const { permits: permitted, ...verified } = (await it.verify(token))!
  t.same(verified, rest)
  t.equal(session.expiresAt - session.issuedAt, 60_000)
  t.same([permits('sora-2'), permitted('sora-2'), permits('suno'), permitted('suno')], [true, true, false, false])
})

t.test('secrets rotate: the newest signs, all verify, and one that is taken away verifies no more', async t => {
  const before = sessions(time.now, olderSecret)
  const during = sessions(time.now, secret, olderSecret)
  const after = sessions(time.now, secret)
  const old = (await before.mint(request)).token
  const fresh = (await during.mint(request)).token
  t.ok(await during.verify(old))
  t.ok(await during.verify(fresh))
  t.ok(await after.verify(fresh))
  await t.rejects(after.verify(old), badSession)
  await t.rejects(before.verify(fresh), badSession)
})

t.test('an expired token is expired under every secret', async t => {
  const clockOfOld = clock()
  const during = sessions(clockOfOld.now, secret, olderSecret)
  const { token } = await sessions(clockOfOld.now, olderSecret).mint(request)
  clockOfOld.advance(60_000)
  await t.rejects(during.verify(token), badSession)
})

t.test('a token that was verified is not verified anew, and more of them than fit take no more room', async t => {
  const it = sessions(time.now, secret)
  const { token } = await it.mint(request)
  const first = await it.verify(token)
  t.equal(await it.verify(token), first)
  for (let count = 0; count < 10_000; count++) await it.verify(handmade(claims({ jti: `id-${count}` })))
  const again = await it.verify(token)
  t.not(again, first, 'the one seen longest ago was forgotten')
  t.equal(again?.id, first?.id)
})

t.test('a subject is the app\'s, whatever it calls itself', async t => {
  const it = sessions(time.now, secret)
  for (const subject of ['alice', 'guest:alice', 'app:alice', '../../alice', '😀']) {
    const { token } = await it.mint({ ...request, subject })
    t.equal((await it.verify(token))?.subject, `app:${subject}`)
  }
})
