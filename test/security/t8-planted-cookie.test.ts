import t from 'tap'
import { cookieIn, cookieNameAt, fromOwnPage, swap } from '../helpers/cookies.ts'
import { adminToken, startGateway } from '../helpers/gateway.ts'
import { redisServer } from '../helpers/redis-server.ts'
import { startReplicas } from '../helpers/replicas.ts'

const config = 'plans: { default: {} }\nlimits: { addressFailuresPerMinute: 1000 }'

t.test('whoever logs in gets a session of an id that nobody knew before, whatever cookie was there', async t => {
  const gateway = await startGateway(t, { config, env: { GATEWAY_ADMIN_TOKEN: adminToken } })
  const { call, mint } = gateway
  const planted = await swap(gateway, await mint('mallory'))
  const token = await mint('alice')
  const own = await swap(gateway, token, {
    cookie: planted.header,
    'sec-fetch-site': 'same-origin',
    origin: gateway.origin
  })
  t.not(own.value, planted.value)
  t.not(own.value, token)
  t.equal((await call('/gateway/session', fromOwnPage(own))).json.subject, 'app:alice')
  t.equal(
    (await call('/gateway/session', fromOwnPage(planted))).json.subject,
    'app:mallory',
    'who planted it sees what is its own'
  )
  const { items } = (await call('/gateway/admin/audit', { token: adminToken })).json
  const ids = items
    .filter(({ kind }: { kind: string }) => kind === 'mint')
    .map(({ detail }: { detail: { session: string } }) => detail.session)
  t.equal(new Set(ids).size, 4, 'each token and each cookie has an id of its own')
})

t.test('no cookie becomes a session that the gateway has not put there', async t => {
  const gateway = await startGateway(t, { config })
  const { call, mint } = gateway
  const chosen = ['attacker-chosen', '00000000-0000-4000-8000-000000000000', await mint('mallory'), 'a.b.c']
  for (const value of chosen) {
    const reply = await call('/gateway/session', {
      headers: { cookie: `${cookieNameAt(gateway.origin)}=${value}`, 'sec-fetch-site': 'same-origin' }
    })
    t.match(reply, { status: 401, error: 'GW_BAD_SESSION' })
    t.match(cookieIn(reply), { value: '', maxAge: 0 }, 'it does not stay')
    const login = await swap(gateway, await mint('alice'), { cookie: `${cookieNameAt(gateway.origin)}=${value}` })
    t.notOk(login.value.includes(value))
  }
})

t.test('a page of somebody else does not log a visitor in as itself', async t => {
  const gateway = await startGateway(t, { config, env: { GATEWAY_ALLOWED_ORIGINS: 'https://app.example' } })
  const { call, mint, origin } = gateway
  const token = await mint('mallory')
  for (const headers of [
    { origin: 'https://evil.test' },
    { origin: 'https://app.example' },
    { origin: 'null' },
    { origin: '' },
    { 'sec-fetch-site': 'cross-site' },
    { 'sec-fetch-site': 'same-site' },
    { 'sec-fetch-site': 'none' },
    { origin: 'https://evil.test', 'sec-fetch-site': 'same-origin' },
    { origin, 'sec-fetch-site': 'cross-site' }
  ] as ReadonlyArray<Readonly<Record<string, string>>>) {
    const reply = await call('/gateway/sessions/cookie', { method: 'POST', token, headers })
    t.match(reply, { status: 403, error: 'GW_ORIGIN_DENIED' }, JSON.stringify(headers))
    t.equal(cookieIn(reply), null)
  }
  t.equal((await call('/gateway/session', { token })).status, 200, 'and the token is not used up by it')
})

for (const where of ['one gateway', 'three replicas'] as const) {
  t.test(`of twenty swaps of a token at the same time one gets a cookie, over ${where}`, async t => {
    const gateways =
      where === 'one gateway'
        ? [await startGateway(t, { config })]
        : await startReplicas(t, 3, (await redisServer(t)).url, { config })
    const token = await gateways[0]!.mint('alice')
    const replies = await Promise.all(Array.from({ length: 20 }, (_, index) =>
      gateways[index % gateways.length]!.call('/gateway/sessions/cookie', { method: 'POST', token })))
    t.equal(replies.filter(reply => reply.status === 201 && cookieIn(reply) !== null).length, 1)
    for (const reply of replies.filter(({ status }) => status !== 201)) {
      t.match(reply, { status: 401, error: 'GW_BAD_SESSION' })
      t.equal(cookieIn(reply), null)
    }
  })
}

t.test('a token is swapped once; whoever comes second with it finds out', async t => {
  const gateway = await startGateway(t, { config })
  const { call, mint } = gateway
  const token = await mint('alice')
  await swap(gateway, token)
  t.match(await call('/gateway/sessions/cookie', { method: 'POST', token }), { status: 401, error: 'GW_BAD_SESSION' })
})
