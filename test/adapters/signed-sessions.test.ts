import { createHmac, generateKeyPairSync, sign } from 'node:crypto'
import t from 'tap'
import { redisStore } from '../../src/adapters/redis/store.ts'
import { Secret } from '../../src/domain/secret.ts'
import { terms } from '../contracts/open-books.ts'
import { sessionVerifierContract } from '../contracts/session-verifier.ts'
import { invitationOf, tokenOf } from '../contracts/token-book.ts'
import { clock } from '../helpers/clock.ts'
import { redisServer } from '../helpers/redis-server.ts'
import { fileOf, lockHolder, open, storeDown, visit } from './sqlite-files.ts'
import { signedSessions } from '../helpers/verifiers.ts'

/** Long enough for any algorithm of the family, so that no other is refused for want of bytes. */
const secret = 'a-session-secret-of-64-bytes-and-more-for-tokens-signed-with-sha512'
const olderSecret = 'an-older-session-secret-of-32-bytes-and-more'
const time = clock()
const request = {
  subject: 'alice',
  plan: 'default',
  models: ['sora-2*'],
  scopes: ['tasks:read'],
  ttlSeconds: 60
} as const
const badSession = { code: 'GW_BAD_SESSION' }

const sessions = (now: () => number, ...secrets: string[]) =>
  signedSessions({ secrets: { current: secrets.map(one => new Secret(one)) }, now })

const encoded = (value: unknown): string =>
  Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url')

/** A token made by hand, so that nothing refuses to make a wrong one. */
function handmade (
  claims: unknown,
  header: object = { alg: 'HS256', typ: 'JWT' },
  key = secret,
  hash = 'sha256'
): string {
  const signed = `${encoded(header)}.${encoded(claims)}`
  return `${signed}.${createHmac(hash, key).update(signed).digest('base64url')}`
}

function claims (more: object = {}): object {
  const seconds = time.now() / 1000
  return {
    iss: 'apixo-gateway',
    jti: 'id-0001',
    sub: 'app:alice',
    plan: 'default',
    models: ['*'],
    scopes: [],
    iat: seconds,
    exp: seconds + 60,
    ...more
  }
}

const without = (name: string): object => Object.fromEntries(Object.entries(claims()).filter(([key]) => key !== name))

/** A limit that is not understood is never none, and neither is one that a later version may know. */
const oddClaims: ReadonlyArray<readonly [name: string, value: unknown]> = [
  ['origins', []],
  ['origins', 'https://app.example'],
  ['origins', [7]],
  ['origins', ['']],
  ['origins', null],
  ['origins', {}],
  ['net', ''],
  ['net', 7],
  ['net', null],
  ['uses', 0],
  ['uses', -1],
  ['uses', 1.5],
  ['uses', '1'],
  ['uses', null],
  ['credits', 0],
  ['credits', '1'],
  ['credits', 2 ** 53],
  ['credits', null],
  ['pool', ''],
  ['pool', 7],
  ['pool', null],
  ['root', ''],
  ['root', 7],
  ['end', '1'],
  ['cidr', '10.0.0.0/8'],
  ['nbf', 0],
  ['aud', 'x'],
  ['constructor', 1],
  ['hasOwnProperty', 'uses']
]

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
        [
          'a token longer than any of ours',
          handmade(claims({ models: Array.from({ length: 1000 }, () => 'sora-2-pro') }))
        ]
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
        ...oddClaims.map(
          ([name, value]) => [`with ${name}: ${JSON.stringify(value)}`, handmade(claims({ [name]: value }))] as const
        ),
        ['an end without a root', handmade(claims({ end: 9e9 }))],
        ['a root without an end', handmade(claims({ root: 'id' }))],
        ['expired', handmade(claims({ exp: time.now() / 1000 }))],
        ['an expiry that is no number', handmade(claims({ exp: '9999999999' }))],
        ...['jti', 'sub', 'plan', 'models', 'scopes', 'iat', 'exp'].map(
          name => [`without ${name}`, handmade(without(name))] as const
        )
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
  await t.rejects(async () => after.verify(old), badSession)
  await t.rejects(async () => before.verify(fresh), badSession)
})

t.test(
  'secrets rotate while it runs: one that is taken off the list ends its sessions at once, seen before or not',
  async t => {
    const live = { current: [new Secret(olderSecret)] }
    const it = signedSessions({ secrets: live, now: time.now })
    const [seen, unseen] = [(await it.mint(request)).token, (await it.mint(request)).token]
    t.ok(await it.verify(seen))
    live.current = [new Secret(secret), new Secret(olderSecret)]
    t.ok(await it.verify(seen))
    const fresh = (await it.mint(request)).token
    t.ok(await sessions(time.now, secret).verify(fresh), 'the newest signs')
    live.current = [new Secret(secret)]
    await t.rejects(async () => it.verify(seen), badSession)
    await t.rejects(async () => it.verify(unseen), badSession)
    t.ok(await it.verify(fresh))
    live.current = [new Secret(secret), new Secret(olderSecret)]
    t.ok(await it.verify(seen), 'a secret that comes back brings them back')
  }
)

t.test('what was being verified when its secret went is remembered by nobody', async t => {
  const live = { current: [new Secret(olderSecret)] }
  const it = signedSessions({ secrets: live, now: time.now })
  const { token } = await it.mint(request)
  const during = it.verify(token)
  live.current = [new Secret(secret)]
  t.ok(await during, 'it came in time')
  await t.rejects(async () => it.verify(token), badSession)
})

t.test('an expired token is expired under every secret', async t => {
  const clockOfOld = clock()
  const during = sessions(clockOfOld.now, secret, olderSecret)
  const { token } = await sessions(clockOfOld.now, olderSecret).mint(request)
  clockOfOld.advance(60_000)
  await t.rejects(async () => during.verify(token), badSession)
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

const limits = {
  origins: ['https://app.example'],
  addressRange: '203.0.113.0/24',
  uses: 3,
  credits: 2_500_000,
  pool: 'design'
} as const

t.test('limits are in the token, and a token without them has none', async t => {
  const it = sessions(time.now, secret)
  const { token, session } = await it.mint({ ...request, ...limits })
  t.match(session, limits)
  t.match(await it.verify(token), { ...limits, isCookie: false, rootId: session.id, endsAt: session.expiresAt })
  const none = { origins: null, addressRange: null, uses: null, credits: null, pool: null, isCookie: false }
  t.match((await it.mint(request)).session, none)
  t.match(await it.verify(handmade(claims())), none)
})

t.test('a cookie stands in for a session: as narrow, counted as that, under an id of its own', async t => {
  const it = sessions(time.now, secret)
  const minted = (await it.mint({ ...request, ...limits, ttlSeconds: 1000 })).session
  const { token, session } = await it.printCookie(minted, time.now() + 600_000)
  t.not(session.id, minted.id)
  const { subject, plan, models, scopes, issuedAt } = minted
  t.match(await it.verify(token), {
    ...limits,
    subject,
    plan,
    models,
    scopes,
    issuedAt,
    isCookie: true,
    rootId: minted.id,
    expiresAt: time.now() + 600_000,
    endsAt: minted.expiresAt
  })
  const plain = (await it.printCookie((await it.mint(request)).session, time.now() + 1000)).session
  t.match(plain, { origins: null, addressRange: null, uses: null, credits: null, isCookie: true })
})

t.test('a cookie is printed anew as the same session, and never beyond the end of what it stands in for', async t => {
  const it = sessions(time.now, secret)
  const minted = (await it.mint({ ...request, ttlSeconds: 1000 })).session
  const first = (await it.printCookie(minted, time.now() + 600_000)).session
  const second = (await it.printCookie(first, time.now() + 900_000)).session
  t.match(second, {
    id: first.id,
    rootId: minted.id,
    issuedAt: minted.issuedAt,
    expiresAt: time.now() + 900_000,
    endsAt: minted.expiresAt
  })
  const last = (await it.printCookie(second, time.now() + 9e9)).session
  t.match(last, { id: first.id, expiresAt: minted.expiresAt, endsAt: minted.expiresAt })
})

t.test('a session says to the millisecond when it began, and ends to the second', async t => {
  const it = sessions(() => 1_768_478_400_123, secret)
  const { token, session } = await it.mint(request)
  t.match(session, { issuedAt: 1_768_478_400_123, expiresAt: 1_768_478_460_000 })
  t.match(await it.verify(token), { issuedAt: 1_768_478_400_123, expiresAt: 1_768_478_460_000 })
  t.equal((await it.verify((await it.printCookie(session, 9e15)).token))?.issuedAt, 1_768_478_400_123)
})

const dayMs = 86_400_000
const all = { cursor: null, limit: 10 }
const start = tokenOf().createdAt

t.test('in SQLite, what another process has written counts at once, and the other way round', async t => {
  const path = fileOf(t)
  const server = open(t, path)
  const operator = open(t, path, { role: 'operator' })
  await operator.tokens.create(tokenOf())
  t.match(await server.tokens.find('abcdefghijk'), { subject: 'token:alice' })
  await server.tokens.used('abcdefghijk', start)
  t.match((await operator.tokens.list(all)).items, [{ usedAt: start }])
  await operator.tokens.revoke('abcdefghijk', start)
  t.match(await server.tokens.find('abcdefghijk'), { revokedAt: start })
})

t.test('in SQLite, a use that was written down lately writes nothing', async t => {
  const path = fileOf(t)
  const { tokens } = open(t, path)
  await tokens.create(tokenOf())
  await tokens.used('abcdefghijk', start)
  const db = visit(t, path)
  const version = () => db.prepare('PRAGMA data_version').get()
  const before = version()
  for (let count = 0; count < 10; count++) await tokens.used('abcdefghijk', start + count)
  t.same(version(), before)
})

t.test('in SQLite, what ended long ago is forgotten when there is a new one', async t => {
  const { tokens } = open(t, ':memory:')
  await tokens.create(tokenOf({ id: 'old', expiresAt: start + dayMs }))
  await tokens.create(tokenOf({ id: 'new', createdAt: start + 401 * dayMs - 1, expiresAt: start + 500 * dayMs }))
  t.equal((await tokens.list(all)).items.length, 2)
  await tokens.create(tokenOf({ id: 'newer', createdAt: start + 401 * dayMs, expiresAt: start + 500 * dayMs }))
  t.same((await tokens.list(all)).items.map(({ id }) => id), ['newer', 'new'])
})

t.test('in SQLite, a file that is locked is a store that is down', async t => {
  const path = fileOf(t)
  const { tokens } = open(t, path)
  await tokens.create(invitationOf())
  const letGo = await lockHolder(t, path)
  await t.rejects(tokens.create(tokenOf({ id: 'other' })), storeDown)
  await t.rejects(tokens.accept('abcdefghijk', 'hash-1', { hash: 'hash-2', issuedAt: start }), storeDown)
  await t.rejects(tokens.used('abcdefghijk', start), storeDown)
  t.ok(await tokens.find('abcdefghijk'), 'it is still read')
  await letGo()
  t.ok(await tokens.accept('abcdefghijk', 'hash-1', { hash: 'hash-2', issuedAt: start }))
})

t.test('in Redis, tokens stand in one slot, end by themselves, and are off the list then', async t => {
  const server = await redisServer(t)
  const store = await redisStore({ url: new Secret(server.url), terms, now: clock().now, onLost: () => {} })
  t.teardown(() => store.close())
  const { tokens } = store
  for (let number = 0; number < 7; number++) await tokens.create(invitationOf({ id: `t${number}` }))
  t.strictSame((await server.admin.keys('gw:{*')).sort(), [
    'gw:{tokens}:count', 'gw:{tokens}:list', ...[0, 1, 2, 3, 4, 5, 6].map(number => `gw:{tokens}:t:t${number}`)
  ])
  const lasts = async (id: string) => Math.round(await server.admin.pttl(`gw:{tokens}:t:${id}`) / dayMs)
  t.equal(await lasts('t0'), 407)
  await tokens.accept('t0', 'hash-1', { hash: 'hash-2', issuedAt: start })
  t.equal(await lasts('t0'), 490)
  await server.admin.del('gw:{tokens}:t:t5', 'gw:{tokens}:t:t4', 'gw:{tokens}:t:t1')
  const page = await tokens.list({ cursor: null, limit: 2 })
  t.same(page.items.map(({ id }) => id), ['t6', 't3'])
  t.match(await tokens.list({ cursor: page.next, limit: 10 }), { items: [{ id: 't2' }, { id: 't0' }], next: null })
  t.same(await server.admin.zrange('gw:{tokens}:list', '0', '-1'), ['t0', 't2', 't3', 't6'])
})

t.test('a token of an issuer whose name begins with ours is left to that issuer', async t => {
  const { verify } = sessions(time.now, secret)
  for (const iss of ['apixo-gateway-staging', 'apixo-gateway.example', 'apixo-gateway"', 'apixo-gateway\u00e9']) {
    t.equal(await verify(handmade(claims({ iss }), undefined, 'a-key-of-that-issuer-of-32-bytes-and-more')), null, iss)
  }
})
