import { SignJWT } from 'jose'
import { createHash, createHmac, randomUUID } from 'node:crypto'
import t, { type Test } from 'tap'
import type { JwtSessionsOptions, TrustedIssuer } from '../../src/adapters/jwt-sessions/jwt-sessions.ts'
import { Secret } from '../../src/domain/secret.ts'
import type { Session } from '../../src/domain/session.ts'
import { sessionVerifierContract } from '../contracts/session-verifier.ts'
import { type Clock, clock } from '../helpers/clock.ts'
import { type IdentityProvider, identityProvider } from '../helpers/identity-provider.ts'
import { jwtSessions } from '../helpers/verifiers.ts'

const badSession = { code: 'GW_BAD_SESSION' }
const secret = 'a-secret-of-64-bytes-and-more-that-an-issuer-shares-with-this-gateway'
const shop = 'https://shop.example'
const rules = { algorithms: ['ES256'], audience: 'app', plan: 'default' }
const byClaims = { modelsClaim: 'models', scopesClaim: 'scope' }
const foreign = [
  ['no token', 'sk-0123456789'],
  ['a token of somebody else', unsigned({ iss: 'https://other.example', sub: 'alice' })],
  ['a token without an issuer', unsigned({ sub: 'alice' })],
  ['an issuer that is no text', unsigned({ iss: [shop] })],
  ['a token of four parts', `${unsigned({ iss: shop })}.x`],
  ['a payload that is no object', unsigned(null)],
  ['a token longer than a header may be', unsigned({ iss: shop, x: 'x'.repeat(12_288) })]
] as const

function unsigned (payload: unknown): string {
  return ['{"alg":"none"}', JSON.stringify(payload), 'x'].map(part => Buffer.from(part).toString('base64url')).join('.')
}

function options (time: Clock, more: Partial<JwtSessionsOptions> = {}): JwtSessionsOptions {
  return {
    issuers: [],
    secrets: new Map([[shop, { current: [new Secret(secret)] }]]),
    now: time.now,
    elapsed: time.elapsed,
    onKeysFailed: () => {},
    ...more
  }
}

function claims (iss: string, now: number, more: object = {}): object {
  return { iss, sub: 'alice', aud: 'app', iat: now / 1000, exp: now / 1000 + 60, ...more }
}

function signShared (payload: object, alg = 'HS256', key = secret): Promise<string> {
  return new SignJWT({ ...payload }).setProtectedHeader({ alg }).sign(Buffer.from(key))
}

/** One issuer that publishes keys, its verifier, and tokens with a few claims changed. */
async function one (t: Test, more: Partial<TrustedIssuer> = {}, time = clock()) {
  const provider = await identityProvider(t)
  const { origin: issuer, jwksUrl } = provider
  const verifier = jwtSessions(options(time, { issuers: [{ ...rules, issuer, jwksUrl, ...more }] }))
  const print = (more: object = {}): Promise<string> => provider.sign(claims(issuer, time.now(), more))
  return {
    provider,
    issuer,
    time,
    verifier,
    print,
    session: async (more: object = {}) => (await verifier.verify(await print(more)))!
  }
}

async function badOf (provider: IdentityProvider, now: number) {
  const payload = claims(provider.origin, now)
  const stranger = await identityProvider(t)
  return [
    ["a stranger's key", await stranger.sign(payload)],
    ['no signature', unsigned(payload)],
    ['another audience', await provider.sign({ ...payload, aud: 'other' })],
    ['expired', await provider.sign({ ...payload, exp: now / 1000 })]
  ] as const
}

for (const [title, alg, published] of [
  ['at a URL', 'ES256', true],
  ['by discovery', 'RS256', false]
] as const) {
  t.test(`sessions of an issuer whose keys are found ${title} keep the promises of a session verifier`, async t => {
    sessionVerifierContract(t, async time => {
      const provider = await identityProvider(t, alg)
      const { origin: issuer, jwksUrl } = provider
      const issuers = [{ ...rules, ...byClaims, algorithms: [alg], issuer, ...(published ? { jwksUrl } : {}) }]
      return {
        verifier: jwtSessions(options(time, { issuers })),
        print: ttlSeconds =>
          provider.sign(
            claims(issuer, time.now(), {
              jti: randomUUID(),
              models: ['sora-2*'],
              scope: 'openid tasks:read',
              exp: time.now() / 1000 + ttlSeconds
            })
          ),
        subject: `${issuer}:alice`,
        foreign,
        bad: await badOf(provider, time.now())
      }
    })
  })
}

t.test('sessions under a shared secret keep the promises of a session verifier', async t => {
  const time = clock()
  const payload = claims(shop, time.now())
  const stranger = await identityProvider(t)
  const bad = [
    ['another secret', await signShared(payload, 'HS256', secret.toUpperCase())],
    ['another algorithm with the same secret', await signShared(payload, 'HS512')],
    ['no signature', unsigned(payload)],
    ['another kind of algorithm', await stranger.sign(payload)]
  ] as const
  sessionVerifierContract(t, async time => ({
    verifier: jwtSessions(
      options(time, {
        issuers: [{ ...rules, ...byClaims, algorithms: ['HS256'], issuer: shop, subjectPrefix: 'shop' }]
      })
    ),
    print: ttlSeconds =>
      signShared(
        claims(shop, time.now(), {
          jti: randomUUID(),
          models: 'sora-2*',
          scope: ['tasks:read'],
          exp: time.now() / 1000 + ttlSeconds
        })
      ),
    subject: 'shop:alice',
    foreign: foreign.filter(([, token]) => !token.includes(shop)),
    bad
  }))
})

t.test('every algorithm that can be set works', async t => {
  const time = clock()
  for (const alg of ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512', 'EdDSA']) {
    const provider = await identityProvider(t, alg)
    const { origin: issuer } = provider
    const verifier = jwtSessions(options(time, { issuers: [{ ...rules, issuer, algorithms: [alg] }] }))
    t.ok(await verifier.verify(await provider.sign(claims(issuer, time.now()))), alg)
  }
  for (const alg of ['HS256', 'HS384', 'HS512']) {
    const verifier = jwtSessions(options(time, { issuers: [{ ...rules, issuer: shop, algorithms: [alg] }] }))
    t.ok(await verifier.verify(await signShared(claims(shop, time.now()), alg)), alg)
  }
})

t.test('a session may do all that its plan may, unless claims say less', async t => {
  const { session } = await one(t)
  t.match(await session({ scope: 'openid', models: ['suno'] }), {
    plan: 'default',
    models: ['*'],
    scopes: ['tasks:write', 'tasks:read', 'llm']
  })
})

t.test('claims that list models and scopes are taken at their word, and absent ones as none', async t => {
  const { session, print, verifier } = await one(t, { modelsClaim: 'app.models', scopesClaim: 'scope' })
  t.match(await session({ app: { models: ['suno', 'sora-*'] }, scope: 'llm  openid' }), {
    models: ['suno', 'sora-*'],
    scopes: ['llm']
  })
  t.match(await session({ app: { models: 'suno' }, scope: ['llm', 'tasks:write'] }), {
    models: ['suno'],
    scopes: ['tasks:write', 'llm']
  })
  const none = await session()
  t.match(none, { models: [], scopes: [] })
  t.equal(none.permits('suno'), false)
  for (const wrong of [
    { scope: 7 },
    { scope: ['llm', 7] },
    { scope: {} },
    { app: { models: ['a/b'] } },
    { app: { models: [''] } },
    { app: { models: Array(101).fill('a') } }
  ]) {
    await t.rejects(verifier.verify(await print(wrong)), badSession, JSON.stringify(wrong).slice(0, 40))
  }
})

t.test('a plan is read from its claim, is the default without it, and is never guessed', async t => {
  const { session, print, verifier } = await one(t, { planClaim: 'app_metadata.plan' })
  t.equal((await session({ app_metadata: { plan: 'gold' } })).plan, 'gold')
  t.equal((await session({ 'app_metadata.plan': 'silver' })).plan, 'silver', 'a name with a dot in it')
  for (const absent of [{}, { app_metadata: {} }, { app_metadata: 'plan' }, { app_metadata: null }]) {
    t.equal((await session(absent)).plan, 'default')
  }
  for (const plan of [null, 7, ['gold'], {}, true]) {
    await t.rejects(verifier.verify(await print({ app_metadata: { plan } })), badSession)
  }
  const inherited = await one(t, { planClaim: 'constructor.name' })
  t.equal((await inherited.session()).plan, 'default', 'what JavaScript adds to every object is no claim')
})

t.test('a pool is read from its claim, is that of the plan without it, and is never guessed', async t => {
  const { session, print, verifier } = await one(t, { poolClaim: 'team' })
  t.equal((await session({ team: 'design' })).pool, 'design')
  t.equal((await session()).pool, null)
  for (const team of [null, 7, ['design'], {}]) await t.rejects(verifier.verify(await print({ team })), badSession)
  t.equal((await (await one(t, {})).session({ team: 'design' })).pool, null, 'unless the operator has named the claim')
})

t.test('a token carries the claims that it must, each with one of its values', async t => {
  const { session, print, verifier } = await one(t, {
    claims: { azp: ['web', 'ios'], 'realm.roles': ['image'], email_verified: [true] }
  })
  const good = { azp: 'ios', realm: { roles: ['chat', 'image'] }, email_verified: true }
  t.ok(await session(good))
  for (const wrong of [
    { azp: 'other' },
    { azp: undefined },
    { azp: 'iosx' },
    { realm: { roles: [] } },
    { realm: { roles: 'images' } },
    { email_verified: 'true' },
    { email_verified: false }
  ]) {
    await t.rejects(verifier.verify(await print({ ...good, ...wrong })), badSession, JSON.stringify(wrong))
  }
})

t.test("a subject is its issuer's name and its own", async t => {
  const { session, issuer } = await one(t)
  for (const sub of ['alice', 'auth0|abc', 'app:alice', 'ä 😀', '../..', "'; drop table --"]) {
    t.equal((await session({ sub })).subject, `${issuer}:${sub}`)
  }
  const renamed = await one(t, { subjectPrefix: 'customers', subjectClaim: 'user.id' })
  t.equal((await renamed.session({ sub: undefined, user: { id: '7' } })).subject, 'customers:7')
})

t.test('a subject that is no plain text, or too long to be stored, is refused', async t => {
  const { session, print, verifier, issuer } = await one(t)
  const room = 160 - issuer.length - 1
  t.equal((await session({ sub: 'x'.repeat(room) })).subject.length, 160)
  for (const sub of [
    'x'.repeat(room + 1),
    '',
    'a\0b',
    'a\nb',
    '\ud800',
    'a\u009f',
    7,
    null,
    ['alice'],
    { id: 1 },
    true,
    undefined
  ]) {
    await t.rejects(verifier.verify(await print({ sub })), badSession, JSON.stringify(sub))
  }
})

t.test("a session id is the token's, under its issuer's name", async t => {
  const { session, issuer } = await one(t, {})
  t.equal((await session({ jti: 'id-1' })).id, `${issuer}:id-1`)
  const renamed = await one(t, { subjectPrefix: 'customers' })
  t.equal((await renamed.session({ jti: 'id-1' })).id, 'customers:id-1')
})

t.test('a token without a usable id of its own is known by what was signed, not by the signature', async t => {
  const { provider, print, verifier, issuer, time } = await one(t)
  const token = await print()
  const [header, payload, signature] = token.split('.') as [string, string, string]
  const { id } = (await verifier.verify(token))!
  t.equal(id, `${issuer}:${createHash('sha256').update(`${header}.${payload}`).digest('base64url')}`)

  // (r, s) and (r, n - s) are both good signatures of ECDSA, and anybody can make one of the other.
  const order = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n
  const bytes = Buffer.from(signature, 'base64url')
  const other = (order - BigInt(`0x${bytes.subarray(32).toString('hex')}`)).toString(16).padStart(64, '0')
  const twin = `${header}.${payload}.${Buffer.concat([bytes.subarray(0, 32), Buffer.from(other, 'hex')]).toString('base64url')}`
  t.not(twin, token)
  t.equal((await verifier.verify(twin))?.id, id, 'a revoked session does not come back under another signature')

  for (const jti of [7, '', 'a\nb', 'x'.repeat(129), null]) {
    const odd = await provider.sign(claims(issuer, time.now(), { jti }))
    t.match((await verifier.verify(odd))?.id.slice(issuer.length), /^:[\w-]{43}$/, JSON.stringify(jti))
  }
})

t.test('a session began when its token says, or is as old as can be', async t => {
  const { session, time } = await one(t)
  const seconds = time.now() / 1000
  t.equal((await session({ iat: seconds - 5.5 })).issuedAt, time.now() - 5500)
  t.equal((await session({ iat: undefined, nbf: seconds - 9 })).issuedAt, time.now() - 9000)
  t.equal((await session({ iat: undefined })).issuedAt, 0)
})

t.test(
  "an issuer's clock may be half a minute ahead of ours, a token dated a minute ahead, and its end has no grace",
  async t => {
    const { session, print, verifier, time } = await one(t)
    const seconds = time.now() / 1000
    t.ok(await session({ iat: seconds + 60, nbf: seconds + 30 }))
    await t.rejects(verifier.verify(await print({ iat: seconds + 61 })), badSession)
    await t.rejects(verifier.verify(await print({ nbf: seconds + 31 })), badSession)
    const brief = await print({ exp: seconds + 0.5 })
    t.equal((await verifier.verify(brief))?.expiresAt, time.now() + 500)
    time.advance(500)
    await t.rejects(verifier.verify(brief), badSession)
  }
)

t.test('of several issuers only the one that a token names has anything to do', async t => {
  const time = clock()
  const providers = [await identityProvider(t), await identityProvider(t)] as const
  const issuers = [
    ...providers.map(({ origin: issuer, jwksUrl }) => ({ ...rules, issuer, jwksUrl })),
    { ...rules, issuer: shop, algorithms: ['HS256'] }
  ]
  const verifier = jwtSessions(options(time, { issuers }))
  for (const provider of providers) {
    t.equal(
      (await verifier.verify(await provider.sign(claims(provider.origin, time.now()))))?.subject,
      `${provider.origin}:alice`
    )
  }
  t.equal((await verifier.verify(await signShared(claims(shop, time.now()))))?.subject, `${shop}:alice`)
  const asked = () => providers.map(({ requests }) => requests.length)
  t.same(asked(), [1, 1])

  await t.rejects(
    verifier.verify(await providers[0].sign(claims(providers[1].origin, time.now()))),
    badSession,
    "one issuer does not vouch for another's subjects"
  )
  await t.rejects(verifier.verify(await providers[0].sign(claims(shop, time.now()))), badSession)
  t.same(asked(), [1, 2], 'only the named issuer was asked whether that key is a new one of its own')
  for (const [title, token] of foreign.filter(([, token]) => !token.includes(shop))) {
    t.equal(await verifier.verify(token), null, title)
  }
  t.same(asked(), [1, 2])
})

t.test('subjects of two issuers are two, unless one prefix merges them', async t => {
  const time = clock()
  const [here, there] = [await identityProvider(t), await identityProvider(t)]
  const subjects = async (more: object) => {
    const verifier = jwtSessions(
      options(time, {
        issuers: [here, there].map(({ origin: issuer, jwksUrl }) => ({ ...rules, issuer, jwksUrl, ...more }))
      })
    )
    const sessions = [here, there].map(
      async provider => await verifier.verify(await provider.sign(claims(provider.origin, time.now())))
    )
    return (await Promise.all(sessions)).map(session => session?.subject)
  }
  t.same(await subjects({}), [`${here.origin}:alice`, `${there.origin}:alice`])
  t.same(await subjects({ subjectPrefix: 'us' }), ['us:alice', 'us:alice'])
})

t.test('a token that was verified is not verified anew, and more of them than fit take no more room', async t => {
  const time = clock()
  const verifier = jwtSessions(options(time, { issuers: [{ ...rules, algorithms: ['HS256'], issuer: shop }] }))
  const token = await signShared(claims(shop, time.now()))
  const first = await verifier.verify(token)
  t.equal(await verifier.verify(token), first)
  const header = token.split('.')[0]!
  for (let count = 0; count < 10_000; count++) {
    const signed = `${header}.${Buffer.from(JSON.stringify(claims(shop, time.now(), { count }))).toString('base64url')}`
    await verifier.verify(`${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`)
  }
  const again = await verifier.verify(token)
  t.not(again, first, 'the one seen longest ago was forgotten')
  t.equal(again?.id, first?.id)
})

t.test(
  'while a shared secret rotates tokens under the old and the new one are good, whatever the algorithm',
  async t => {
    const time = clock()
    const next = `another-${secret}`
    for (const algorithms of [['HS256'], ['HS512', 'HS384', 'HS256']]) {
      const secrets = new Map([[shop, { current: [next, secret].map(value => new Secret(value)) }]])
      const verifier = jwtSessions(options(time, { secrets, issuers: [{ ...rules, algorithms, issuer: shop }] }))
      for (const [alg, key] of algorithms.flatMap(
        alg =>
          [
            [alg, next],
            [alg, secret]
          ] as const
      )) {
        t.match(await verifier.verify(await signShared(claims(shop, time.now()), alg, key)), {
          subject: `${shop}:alice`
        })
      }
      await t.rejects(
        verifier.verify(await signShared(claims(shop, time.now()), 'HS256', `other-${secret}`)),
        badSession
      )
      await t.rejects(
        verifier.verify(await signShared(claims(shop, time.now(), { exp: time.now() / 1000 }), 'HS256', secret)),
        badSession,
        'an end is an end'
      )
    }
  }
)

t.test('a token under the oldest of five shared secrets is good', async t => {
  const time = clock()
  const secrets = new Map([[shop, { current: ['4', '3', '2', '1', ''].map(digit => new Secret(`${secret}${digit}`)) }]])
  const verifier = jwtSessions(options(time, { secrets, issuers: [{ ...rules, algorithms: ['HS256'], issuer: shop }] }))
  t.match(await verifier.verify(await signShared(claims(shop, time.now()))), { subject: `${shop}:alice` })
})

t.test('a token under a shared secret that is gone is refused, though it was verified before', async t => {
  const time = clock()
  const next = `another-${secret}`
  const live = { current: [new Secret(secret)] }
  const verifier = jwtSessions(
    options(time, { secrets: new Map([[shop, live]]), issuers: [{ ...rules, algorithms: ['HS256'], issuer: shop }] })
  )
  const [old, fresh] = [
    await signShared(claims(shop, time.now())),
    await signShared(claims(shop, time.now()), 'HS256', next)
  ]
  const first = await verifier.verify(old)
  t.ok(first)
  await t.rejects(verifier.verify(fresh), badSession)
  live.current = [new Secret(next), new Secret(secret)]
  t.equal((await verifier.verify(old))?.id, first?.id)
  t.ok(await verifier.verify(fresh), 'one that was refused is good now')
  const overlapping = verifier.verify(await signShared(claims(shop, time.now(), { n: 1 })))
  live.current = [new Secret(next)]
  await overlapping.catch(() => {})
  await t.rejects(verifier.verify(old), badSession)
  await t.rejects(
    verifier.verify(await signShared(claims(shop, time.now(), { n: 1 }))),
    badSession,
    'also one that was on its way when it went'
  )
  const again = await verifier.verify(fresh)
  t.ok(again)
  t.equal(await verifier.verify(fresh), again, 'and what is good is remembered')
})

const time = clock()
const now = time.now() / 1000
const projectSecret = 'the-jwt-secret-of-a-project-as-its-dashboard-shows-it'

interface Provider {
  /** As under `issuers` in config/gateway.yaml; the address of the keys stands in each test. */
  readonly settings: Omit<TrustedIssuer, 'jwksUrl' | 'plan'>
  readonly header: object
  readonly claims: object
  readonly session: Partial<Session>
  /** Tokens of the same provider, with the same keys, that are no session here. */
  readonly refused: Readonly<Record<string, object>>
}

const supabase = 'https://abcdefghijkl.supabase.co/auth/v1'
const supabaseUser = {
  iss: supabase,
  sub: '5f0c7d1e-3c1b-4d53-9d0b-6f3c5c4f8a11',
  aud: 'authenticated',
  exp: now + 3600,
  iat: now,
  email: 'alice@example.com',
  phone: '',
  app_metadata: { provider: 'email', providers: ['email'], plan: 'pro' },
  user_metadata: { plan: 'free of charge' },
  role: 'authenticated',
  aal: 'aal1',
  amr: [{ method: 'password', timestamp: now }],
  session_id: '0d5b0f6e-5f5e-4a58-8a1b-0b1c6a0a3f51',
  is_anonymous: false
}
const supabaseSession = { subject: `${supabase}:${supabaseUser.sub}`, plan: 'pro', models: ['*'] }
const supabaseRefused = {
  'somebody who has not signed up': { is_anonymous: true },
  'the service role, which is no user': { aud: undefined, sub: undefined, role: 'service_role' }
}
const firebaseProvider = { identities: { email: ['alice@example.com'] }, sign_in_provider: 'password' }

const providers: Readonly<Record<string, Provider>> = {
  Auth0: {
    settings: {
      issuer: 'https://tenant.eu.auth0.com/',
      audience: 'https://api.example',
      algorithms: ['RS256'],
      planClaim: 'https://app.example/plan'
    },
    header: { kid: 'NjVBRjY5MDlCMUIwNzU4RTA2QzZFMDQ4QzQ2MDAyQjVDNjk1RTM2Qg' },
    claims: {
      iss: 'https://tenant.eu.auth0.com/',
      sub: 'auth0|5f7c8ec7c33c6c004bbafe82',
      aud: ['https://api.example', 'https://tenant.eu.auth0.com/userinfo'],
      iat: now,
      exp: now + 86_400,
      azp: 'my_client_id',
      scope: 'openid profile email',
      'https://app.example/plan': 'gold'
    },
    session: { subject: 'https://tenant.eu.auth0.com/:auth0|5f7c8ec7c33c6c004bbafe82', plan: 'gold', models: ['*'] },
    refused: {
      'a token for its own API': { aud: 'https://tenant.eu.auth0.com/userinfo' },
      'an ID token': { aud: 'my_client_id' }
    }
  },
  // Its tokens have no audience: the page that asked for one (`azp`) is what tells one app from another.
  Clerk: {
    settings: {
      issuer: 'https://clerk.app.example',
      claims: { azp: ['https://app.example'] },
      algorithms: ['RS256'],
      subjectPrefix: 'clerk'
    },
    header: { kid: 'ins_2abcDEF', cat: 'cl_B7d4PD111AAA' },
    claims: {
      azp: 'https://app.example',
      exp: now + 60,
      fva: [0, -1],
      iat: now,
      iss: 'https://clerk.app.example',
      jti: 'a1b2c3d4e5f6a7b8c9d0',
      nbf: now - 10,
      pla: 'u:free',
      sid: 'sess_2abc',
      sts: 'active',
      sub: 'user_2abcDEFghi',
      v: 2
    },
    session: { id: 'clerk:a1b2c3d4e5f6a7b8c9d0', subject: 'clerk:user_2abcDEFghi' },
    refused: {
      'a token for another page': { azp: 'https://evil.example' },
      'one that was not asked for by a page': { azp: undefined }
    }
  },
  Supabase: {
    settings: {
      issuer: supabase,
      audience: 'authenticated',
      algorithms: ['ES256'],
      planClaim: 'app_metadata.plan',
      claims: { is_anonymous: [false] }
    },
    header: { kid: 'b0a4f0c8-5f5b-4f0e-9d3c-1a2b3c4d5e6f' },
    claims: supabaseUser,
    session: supabaseSession,
    refused: supabaseRefused
  },
  'Supabase, with its older shared secret': {
    settings: {
      issuer: supabase,
      audience: 'authenticated',
      algorithms: ['HS256'],
      planClaim: 'app_metadata.plan',
      claims: { is_anonymous: [false] }
    },
    header: { kid: 'Qk1v7c' },
    claims: supabaseUser,
    session: supabaseSession,
    refused: supabaseRefused
  },
  // Its keys are those of all its projects: the audience is what makes a token one of ours.
  Firebase: {
    settings: {
      issuer: 'https://securetoken.google.com/my-project',
      audience: 'my-project',
      algorithms: ['RS256'],
      claims: { 'firebase.sign_in_provider': ['password', 'google.com'] }
    },
    header: { kid: '6b8a1f0c2d' },
    claims: {
      iss: 'https://securetoken.google.com/my-project',
      aud: 'my-project',
      auth_time: now - 100,
      user_id: 'mZ0cG4pY3XfT',
      sub: 'mZ0cG4pY3XfT',
      iat: now,
      exp: now + 3600,
      email: 'alice@example.com',
      email_verified: true,
      firebase: firebaseProvider
    },
    session: { subject: 'https://securetoken.google.com/my-project:mZ0cG4pY3XfT' },
    refused: {
      'somebody who has not signed up': { firebase: { ...firebaseProvider, sign_in_provider: 'anonymous' } },
      'another project under this one\'s name': { aud: 'their-project' }
    }
  },
  // `account` is in the tokens of all clients of a realm; `azp` tells them apart.
  Keycloak: {
    settings: {
      issuer: 'https://id.example/realms/app',
      audience: 'account',
      algorithms: ['RS256'],
      subjectClaim: 'preferred_username',
      claims: { azp: ['my-app'], 'realm_access.roles': ['images'], typ: ['Bearer'] }
    },
    header: { kid: 'FJ86GcF3jTbNLOco4NvZkUCIUmfYCqoqtOQeMfbhNlE' },
    claims: {
      exp: now + 300,
      iat: now,
      jti: '8d5d1f2a-6c1b-4a53-9d0b-6f3c5c4f8a11',
      iss: 'https://id.example/realms/app',
      aud: 'account',
      sub: 'f1b5c0de-1111-2222-3333-444455556666',
      typ: 'Bearer',
      azp: 'my-app',
      sid: '1b2c3d',
      acr: '1',
      realm_access: { roles: ['offline_access', 'images'] },
      resource_access: { account: { roles: ['view-profile'] } },
      scope: 'openid email profile',
      preferred_username: 'alice'
    },
    session: {
      id: 'https://id.example/realms/app:8d5d1f2a-6c1b-4a53-9d0b-6f3c5c4f8a11',
      subject: 'https://id.example/realms/app:alice'
    },
    refused: {
      'another client of the realm': { azp: 'their-app' },
      'a user without the role': { realm_access: { roles: ['offline_access'] } },
      'an ID token': { typ: 'ID' }
    }
  }
}

for (const [name, { settings, header, claims, session, refused }] of Object.entries(providers)) {
  t.test(`a token as ${name} issues it is a session`, async t => {
    const [alg] = settings.algorithms as [string]
    const isShared = alg.startsWith('HS')
    const provider = await identityProvider(t, isShared ? 'ES256' : alg)
    Object.assign(provider.published[0] as object, { kid: (header as { kid: string }).kid })
    const verifier = jwtSessions({
      issuers: [{ plan: 'default', ...settings, ...(isShared ? {} : { jwksUrl: provider.jwksUrl }) }],
      secrets: new Map(isShared ? [[settings.issuer, { current: [new Secret(projectSecret)] }]] : []),
      ...time,
      onKeysFailed: () => t.fail('the keys are there')
    })
    const print = (payload: object): Promise<string> => isShared
      ? new SignJWT({ ...payload }).setProtectedHeader({ alg, typ: 'JWT', ...header }).sign(Buffer.from(projectSecret))
      : provider.sign(payload, { header: { ...header } })
    t.match(await verifier.verify(await print(claims)), { plan: 'default', issuedAt: time.now(), ...session })
    for (const [title, more] of Object.entries(refused)) {
      await t.rejects(verifier.verify(await print({ ...claims, ...more })), { code: 'GW_BAD_SESSION' }, title)
    }
  })
}

t.test('the public key of a Supabase project is no session: it names another issuer, and no user', async t => {
  const verifier = jwtSessions({
    issuers: [{ plan: 'default', ...providers['Supabase, with its older shared secret']!.settings }],
    secrets: new Map([[supabase, { current: [new Secret(projectSecret)] }]]),
    ...time,
    onKeysFailed: () => t.fail('nothing is fetched')
  })
  const anon = { iss: 'supabase', ref: 'abcdefghijkl', role: 'anon', iat: now, exp: now + 315_360_000 }
  t.equal(
    await verifier.verify(
      await new SignJWT(anon).setProtectedHeader({ alg: 'HS256', typ: 'JWT' }).sign(Buffer.from(projectSecret))
    ),
    null
  )
})
