import { SignJWT } from 'jose'
import t, { type Test } from 'tap'
import { fromOwnPage, swap } from '../helpers/cookies.ts'
import { adminToken, type CallOptions, issuerToken, startGateway, type TestGatewayOptions } from '../helpers/gateway.ts'
import { secretFiles } from '../helpers/secret-files.ts'
import { holdStore, storeFile } from '../helpers/store-file.ts'
import { until } from '../helpers/until.ts'

const shop = 'https://shop.example/'
const secret = 'q7Zc0vT2mLx9RfWk4JbN8sHd1yUeGaPo-shared-with-the-shop'
const [daySeconds, path] = [86_400, '/gateway/admin/revocations']
const refused = { status: 401, error: 'GW_BAD_SESSION' }
const config = 'plans: { default: {} }\nlimits: { addressFailuresPerMinute: 10000 }'

/** A gateway with an operator who ends sessions. */
async function start (t: Test, options: TestGatewayOptions = {}) {
  const gateway = await startGateway(t, { config, env: { GATEWAY_ADMIN_TOKEN: adminToken }, ...options })
  const { call } = gateway
  const who = (token: string) => call('/gateway/session', { token })
  return {
    ...gateway,
    who,
    statusesOf: (...tokens: readonly string[]) => Promise.all(tokens.map(async token => (await who(token)).status)),
    end: (body: unknown, more: CallOptions = {}) => call(path, { token: adminToken, body, ...more }),
    /** The newest first. */
    async entries (kind: string): Promise<any[]> {
      const { json } = await call('/gateway/admin/audit', { token: adminToken })
      return json.items.filter((entry: any) => entry.kind === kind)
    }
  }
}

t.test('all sessions of a subject end, in headers and in cookies, and no later one and nobody else\'s', async t => {
  const it = await start(t)
  const { end, mint, call, statusesOf, time, entries } = it
  const [one, other, bob] = [await mint('alice'), await mint('alice', { uses: 5 }), await mint('bob')]
  const cookie = await swap(it, await mint('alice'))
  const { status, json } = await end({ subject: 'app:alice' })
  const before = new Date(time.now()).toISOString()
  t.strictSame([status, json], [201, { subject: 'app:alice', before }])
  const sameInstant = await mint('alice')
  t.same(
    await statusesOf(one, other, sameInstant, bob),
    [401, 401, 200, 200],
    'one that is minted after them is good, in the same millisecond too'
  )
  t.match(await call('/gateway/session', fromOwnPage(cookie)), refused)
  time.advance(1)
  t.same(await statusesOf(await mint('alice'), one), [200, 401])
  t.match(await entries('revoke'), [{ at: before, actor: 'admin', subject: 'app:alice', detail: { everywhere: true } }])
})

t.test('one session ends by the id that the audit trail has, with the cookie it was swapped for', async t => {
  const it = await start(t)
  const { end, mint, call, statusesOf, entries, lines } = it
  const [one, other] = [await mint('alice'), await mint('alice')]
  const [, { detail: { session } }] = await entries('mint')
  const reply = await end({ session })
  t.strictSame([reply.status, reply.json], [201, { session }])
  t.same(await statusesOf(one, other), [401, 200])
  t.match(await entries('revoke'), [{ actor: 'admin', subject: null, detail: { session } }])
  const [swapped, kept] = [await swap(it, other), await swap(it, await mint('bob'))]
  const [, , { detail: { insteadOf } }] = await entries('mint')
  t.equal((await end({ session: insteadOf })).status, 201)
  t.match(await call('/gateway/session', fromOwnPage(swapped)), refused)
  t.equal((await call('/gateway/session', fromOwnPage(kept))).status, 200)
  const [{ detail: { session: cookieId } }] = await entries('mint')
  await end({ session: cookieId })
  t.match(await call('/gateway/session', fromOwnPage(kept)), refused, 'or by its own')
  t.match(
    lines().filter(({ operation }) => operation === 'endSessions'),
    Array(3).fill({ route: path, status: 201, subject: null })
  )
})

t.test('tokens of people end by their id, and with all sessions of their subject', async t => {
  const { end, call, statusesOf, time } = await start(t)
  const create = async (subject: string) =>
    (await call('/gateway/admin/tokens', { token: adminToken, body: { subject } })).json
  const [one, other, bob] = [await create('alice'), await create('alice'), await create('bob')]
  const tokens = [one, other, bob].map(({ token }) => token as string)
  t.same(await statusesOf(...tokens), [200, 200, 200])
  t.equal((await end({ session: one.id })).status, 201)
  time.advance(1000)
  t.same(await statusesOf(...tokens), [401, 200, 200])
  t.equal((await end({ subject: 'token:alice' })).status, 201)
  t.same(await statusesOf(...tokens), [401, 401, 200])
  const { json } = await call('/gateway/admin/tokens', { token: adminToken })
  t.same(json.items.map(({ state }: any) => state), ['active', 'revoked', 'revoked'])
})

/** A gateway that takes tokens of a shop, under its own name or another. */
async function startShop (t: Test, prefix: string) {
  const secretFile = secretFiles(t, { shop: secret }).path('shop')
  const gateway = await start(t, {
    config: `${config}\nissuers: [{ issuer: "${shop}", secretFile: "${secretFile}", audience: app, algorithms: [HS256]${prefix === shop ? '' : `, subjectPrefix: ${prefix}`} }]`
  })
  const seconds = () => Math.floor(gateway.time.now() / 1000)
  const print = (more: object = {}, lastsSeconds = 600) =>
    new SignJWT({ iss: shop, sub: 'alice', aud: 'app', iat: seconds(), exp: seconds() + lastsSeconds, ...more })
      .setProtectedHeader({ alg: 'HS256' })
      .sign(Buffer.from(secret))
  return { ...gateway, print, seconds }
}

for (const prefix of [shop, 'shop']) {
  t.test(`sessions of another issuer, under ${prefix}, end by subject and by id`, async t => {
    const { end, print, statusesOf, time, seconds } = await startShop(t, prefix)
    const [one, two, unnamed, undated, bob] = await Promise.all([
      print({ jti: 'one' }),
      print({ jti: 'two' }),
      print(),
      print({ iat: undefined }),
      print({ sub: 'bob' })
    ])
    const all = [one, two, unnamed, undated, bob] as const
    t.same(await statusesOf(...all), [200, 200, 200, 200, 200])
    t.equal((await end({ session: `${prefix}:one` })).status, 201)
    t.same(await statusesOf(...all), [401, 200, 200, 200, 200])
    t.equal((await end({ subject: `${prefix}:alice` })).status, 201)
    t.same(await statusesOf(...all), [401, 401, 401, 401, 200], 'also what does not say when it was issued')
    time.advance(1000)
    t.same(
      await statusesOf(
        await print(),
        await print({ iat: undefined, exp: seconds() + 700 }),
        await print({ iat: undefined, nbf: seconds() })
      ),
      [200, 401, 200]
    )
  })
}

t.test('a token of another issuer that lasts for years does not come back', async t => {
  const { end, print, statusesOf, time, call, who } = await startShop(t, 'shop')
  const [long, other, bob] = [
    await print({}, 3650 * daySeconds),
    await print({ sub: 'bob' }, 300 * daySeconds),
    await print({ sub: 'bob' })
  ]
  t.same(await statusesOf(long, other, bob), [200, 200, 200])
  await end({ subject: 'shop:alice' })
  t.equal((await call('/gateway/session?everywhere=true', { method: 'DELETE', token: bob })).status, 204)
  time.advance(299 * daySeconds * 1000)
  await end({ session: 'another' }) // what has ended by itself is forgotten with the next one
  t.same(await statusesOf(long, other), [401, 401], 'nor one of somebody who has logged out everywhere')
  time.advance(3000 * daySeconds * 1000)
  await end({ session: 'another' })
  t.match(await who(long), refused)
})

t.test('a request that does not say exactly what it ends is a 400, and ends nothing', async t => {
  const { end, mint, statusesOf, entries, call } = await start(t)
  const token = await mint('alice')
  const [{ detail: { session } }] = await entries('mint')
  const one = /^Send one of the two: subject, or session/
  for (const [body, message] of [
    [{}, one],
    [{ subject: 'app:alice', session }, one],
    [{ subject: 'alice' }, /subject .*: app:alice\.$/],
    [{ subject: '' }, /subject/],
    [{ subject: null }, /subject/],
    [{ subject: ['app:alice'] }, /subject/],
    [{ session: '' }, /session/],
    [{ session: 7 }, /session/],
    [{ session: 'a\nb' }, /printable/],
    [{ session: 'x'.repeat(257) }, /256/],
    [{ session: token }, /never its token/],
    [{ session: 'app:alice' }, /as subject/],
    [{ session, everywhere: true }, /"everywhere"/],
    ['{"subject":"app:alice","subject":"app:bob"}', /subject/],
    [[], /body/]
  ] as const) {
    t.match(
      await end(body),
      { status: 400, error: 'GW_BAD_REQUEST', json: { message } },
      JSON.stringify(body).slice(0, 60)
    )
  }
  t.match(await end({ session }, { headers: { 'content-type': 'text/plain' } }), { status: 415 })
  t.match(await call(`${path}?subject=app:alice`, { token: adminToken, body: { session } }), {
    status: 400,
    json: { message: /"subject"/ }
  })
  t.match(await call(path, { token: adminToken, method: 'POST' }), { status: 400 })
  t.same(await statusesOf(token), [200])
  t.same(await entries('revoke'), [])
})

t.test('nobody but the operator ends sessions of others', async t => {
  const { end, mint, call, statusesOf } = await start(t)
  const token = await mint('alice')
  for (const stranger of [token, issuerToken]) {
    t.match(await end({ subject: 'app:alice' }, { token: stranger }), refused)
  }
  t.match(await call(path, { body: { subject: 'app:alice' } }), { status: 401, error: 'GW_NO_SESSION' })
  t.equal((await call(path, { token: adminToken })).headers.get('allow'), 'POST')
  t.same(await statusesOf(token), [200])
  const closed = await start(t, { env: {} })
  t.match(await closed.end({ subject: 'app:alice' }), { status: 404, error: 'GW_NOT_FOUND' })
})

t.test('what can not be written down ends nothing, and the operator hears so', async t => {
  const store = storeFile(t)
  const { end, mint, statusesOf, call } = await start(t, { store })
  const token = await mint('alice')
  const letGo = holdStore(t, store)
  t.match(await end({ subject: 'app:alice' }), { status: 503, error: 'GW_STORE_DOWN' })
  t.match(await end({ session: 'one' }), { status: 503, error: 'GW_STORE_DOWN' })
  letGo()
  await until('the store is back', async () => (await call('/readyz')).status === 200)
  t.same(await statusesOf(token), [200])
  t.equal((await end({ subject: 'app:alice' })).status, 201)
  t.same(await statusesOf(token), [401])
})
