import t, { type Test } from 'tap'
import { resultTickets } from '../../src/features/results/routes.ts'
import { fromOwnPage, swap } from '../helpers/cookies.ts'
import { adminToken, issuerToken, startGateway, taskMs, type TestGateway } from '../helpers/gateway.ts'
import { guestsOf } from '../helpers/guests.ts'
import { identityProvider } from '../helpers/identity-provider.ts'
import { redisServer } from '../helpers/redis-server.ts'

const limit = 10
const config = `plans: { default: {}, guest: {} }\nlimits: { addressFailuresPerMinute: ${limit} }`
const env = {
  GATEWAY_ADMIN_TOKEN: adminToken,
  GATEWAY_PUBLIC_URL: 'https://ai.example',
  GATEWAY_TRUST_PROXY: 'loopback'
}
const here = { 'x-forwarded-for': '203.0.113.1' }
const elsewhere = { 'x-forwarded-for': '203.0.113.2' }

/** Wrong requests until that address is shut out. */
async function shutOut ({ call }: TestGateway, headers: Record<string, string> = here): Promise<void> {
  for (let count = 0; count < 61; count++) await call('/nowhere', { headers })
}
const throttled = { status: 429, error: 'GW_THROTTLED' }

t.test('61 wrong requests shut no session out, in a header or in a cookie, seen before or new', async t => {
  const gateway = await startGateway(t, { config, env: { ...env, GATEWAY_PUBLIC_URL: '' } })
  const [known, fresh, swapped] = [await gateway.mint('alice'), await gateway.mint('bob'), await gateway.mint('carol')]
  t.equal((await gateway.call('/gateway/session', { token: known, headers: here })).status, 200)
  const cookie = await swap(gateway, swapped)
  await shutOut(gateway)
  for (const token of [known, fresh]) {
    t.equal((await gateway.submit(token, 'x', 'nano-banana', { headers: here })).status, 200)
    t.equal((await gateway.call('/gateway/models', { token, headers: here })).status, 200)
  }
  t.equal((await gateway.call('/gateway/session', fromOwnPage(cookie, here))).status, 200)
  t.equal(
    (await gateway.call('/gateway/', { headers: here, token: known })).status,
    200,
    'a page, too, to somebody with a session'
  )
  t.match(await gateway.call('/gateway/', { headers: here }), throttled)
  gateway.time.advance(60_000)
  t.equal((await gateway.call('/gateway/', { headers: here })).status, 200, 'a minute later it is forgotten')
})

t.test('the issuer token goes on, and one that is nearly right does not', async t => {
  const gateway = await startGateway(t, { config, env })
  await shutOut(gateway)
  const mint = (token: string) =>
    gateway.call('/gateway/sessions', { token, body: { subject: 'alice' }, headers: here })
  t.equal((await mint(issuerToken)).status, 201)
  for (const wrong of [`${issuerToken}x`, issuerToken.slice(1), 'x']) t.match(await mint(wrong), throttled)
  t.match(await gateway.call('/gateway/sessions', { body: { subject: 'alice' }, headers: here }), throttled)
  const { token } = (await mint(issuerToken)).json
  t.match(await mint(token), throttled, 'nor is it said that this is a session')
})

t.test('where nobody mints, that is not said to who is shut out', async t => {
  const gateway = await startGateway(t, { config, env: { ...env, GATEWAY_ISSUER_TOKEN: '' } })
  await shutOut(gateway)
  t.match(
    await gateway.call('/gateway/sessions', { token: issuerToken, body: { subject: 'alice' }, headers: here }),
    throttled
  )
})

t.test('what is wrong with a session is not said to who is shut out', async t => {
  const gateway = await startGateway(t, { config, env })
  const token = await gateway.mint('alice')
  const ended = await gateway.mint('bob')
  const { taskId } = (await gateway.submit(token)).json.data
  t.equal((await gateway.call('/gateway/session', { method: 'DELETE', token: ended, headers: elsewhere })).status, 204)
  await shutOut(gateway)
  const forged = `${token.slice(0, -4)}AAAA`
  for (const guess of [forged, 'x', 'a.b.c', ended, `apx_${'x'.repeat(61)}`]) {
    t.match(await gateway.call('/gateway/session', { token: guess, headers: here }), throttled)
  }
  t.match(
    await gateway.call('/gateway/session', { token, headers: { ...here, 'x-api-key': 'other' } }),
    throttled,
    'two of them'
  )
  t.match(await gateway.call('/gateway/session', { headers: here }), throttled)
  const mallory = await gateway.mint('mallory')
  const miss = async (id: string) => (await gateway.status(mallory, id, 'nano-banana', { headers: here }))
  t.match(await miss(taskId), throttled, 'a stranger\'s task')
  t.match(await miss('no-such-task'), throttled, 'looks like one that is not there')
  t.equal((await gateway.status(token, taskId, 'nano-banana', { headers: here })).status, 200, "and one's own is there")
})

async function startForeign (t: Test) {
  const provider = await identityProvider(t)
  const gateway = await startGateway(t, {
    config: `${config}\nissuers:\n  - { issuer: "${provider.origin}", audience: app, algorithms: [ES256] }`, env
  })
  const seconds = Math.floor(gateway.time.now() / 1000)
  const print = (sub: string) =>
    provider.sign({ iss: provider.origin, sub, aud: 'app', iat: seconds, exp: seconds + 600 })
  return { ...gateway, print }
}

t.test('of another issuer\'s sessions those go on that are known, and five new ones a second', async t => {
  const gateway = await startForeign(t)
  const known = await gateway.print('alice')
  t.equal((await gateway.call('/gateway/session', { token: known, headers: here })).status, 200)
  await shutOut(gateway)
  const fresh = await Promise.all(Array.from({ length: 20 }, (_, index) => gateway.print(`user-${index}`)))
  const ask = async (tokens: readonly string[]) => {
    const statuses: number[] = []
    for (const token of tokens) statuses.push((await gateway.call('/gateway/session', { token, headers: here })).status)
    return statuses
  }
  t.same(await ask(fresh.slice(0, 8)), [200, 200, 200, 200, 200, 429, 429, 429])
  gateway.time.advance(1000)
  t.same(await ask(fresh.slice(8, 15)), [200, 200, 200, 200, 200, 429, 429])
  for (let round = 0; round < 20; round++) {
    t.equal((await gateway.call('/gateway/session', { token: known, headers: here })).status, 200)
    t.equal(
      (await gateway.call('/gateway/session', { token: fresh[0]!, headers: here })).status,
      200,
      'one that has passed is known'
    )
  }
  t.equal(
    (await gateway.call('/gateway/session', { token: fresh.at(-1)!, headers: elsewhere })).status,
    200,
    'another address is not asked to wait'
  )
})

t.test('a person\'s own token goes on like another issuer\'s', async t => {
  const gateway = await startGateway(t, { config, env })
  const make = async () =>
    (await gateway.call('/gateway/admin/tokens', { token: adminToken, body: { subject: 'alice' } })).json.token
  const [known, fresh] = [await make(), await make()]
  t.equal((await gateway.call('/gateway/session', { token: known, headers: here })).status, 200)
  await shutOut(gateway)
  gateway.time.advance(2000)
  for (let round = 0; round < 10; round++) {
    t.equal((await gateway.call('/gateway/session', { token: known, headers: here })).status, 200)
  }
  t.equal((await gateway.call('/gateway/session', { token: fresh, headers: here })).status, 200)
})

t.test('no other secret is compared: the right one is no better than a wrong one, and is not used up', async t => {
  const gateway = await startGateway(t, {
    config: `${config}\nguests: { enabled: true }\ncallbacks: { inbound: true }`,
    env
  })
  const { call, settings, time } = gateway
  const { proofFor } = guestsOf({ ...gateway, origin: 'https://ai.example' })
  const token = await gateway.mint('alice')
  const { taskId } = (await gateway.submit(token)).json.data
  const callback = new URL(JSON.parse(gateway.sandbox.submits[0]!.body.toString()).callback_url).pathname
  time.advance(taskMs)
  t.equal((await gateway.status(token, taskId)).json.data.state, 'success')
  const tickets = resultTickets({
    secrets: { current: settings.sessionSecrets },
    ticketSeconds: 900,
    taskOf: async () => null,
    now: time.now
  })
  const ticket = `/gateway/results/${tickets.ticketFor({ taskId, subject: 'app:alice' }, 0)}`
  const { link } = (await call('/gateway/admin/invitations', { token: adminToken, body: { subject: 'bob' } })).json
  const proof = { 'x-apixo-proof': await proofFor(), origin: 'https://ai.example' }
  const doors: ReadonlyArray<
    readonly [
      path: string,
      status: number,
      options: { token?: string, body?: unknown, method?: string, headers?: object }
    ]
  > = [
    ['/gateway/admin/usage', 200, { token: adminToken }],
    ['/gateway/admin/keys', 200, { token: adminToken }],
    ['/gateway/admin/audit', 200, { token: adminToken }],
    ['/gateway/admin/tokens', 200, { token: adminToken }],
    ['/metrics', 200, { token: adminToken }],
    ['/gateway/invitations/accept', 201, { body: { invitation: link.split('#')[1] } }],
    ['/gateway/sessions/guest', 201, { method: 'POST', headers: proof }],
    [callback, 200, { body: '{}' }],
    [ticket, 200, {}]
  ]
  const ask = ([path, , { headers = {}, ...options }]: (typeof doors)[number], from: object) =>
    call(path, { ...options, headers: { ...headers, ...from } as Record<string, string> })
  await shutOut(gateway)
  for (const door of doors) {
    const cookie = { 'x-api-key': token }
    t.match(await ask(door, here), throttled, door[0])
    if (door[2].token === undefined) {
      t.match(await ask(door, { ...here, ...cookie }), throttled, `${door[0]} with a session beside it`)
    }
  }
  for (const door of doors) t.equal((await ask(door, elsewhere)).status, door[1], `${door[0]} from elsewhere`)
})

t.test('on the admin port nobody goes on', async t => {
  const gateway = await startGateway(t, { config, env: { GATEWAY_ADMIN_TOKEN: adminToken, GATEWAY_ADMIN_PORT: '0' } })
  const { port } = gateway.gateway.adminApp!.server.address() as { port: number }
  const ask = async (path: string, token?: string) =>
    (
      await fetch(`http://127.0.0.1:${port}${path}`, {
        headers: token === undefined ? {} : { authorization: `Bearer ${token}` }
      })
    ).status
  for (let count = 0; count < limit; count++) await ask('/gateway/admin/usage', 'guess')
  t.equal(await ask('/gateway/admin/usage', adminToken), 429)
  t.equal(await ask('/nowhere', await gateway.mint('alice')), 429)
  t.equal(await ask('/livez'), 200)
})

t.test('sockets of one /64 of IPv6 are counted together', async t => {
  const { socketHolder } = await import('../../src/http/sockets.ts')
  t.equal(socketHolder('2001:db8:1:2::3'), socketHolder('2001:db8:1:2:ffff:ffff:ffff:ffff'))
  t.not(socketHolder('2001:db8:1:2::3'), socketHolder('2001:db8:1:3::3'))
  t.equal(socketHolder('::ffff:203.0.113.7'), '203.0.113.7')
  t.not(socketHolder('203.0.113.7'), socketHolder('203.0.113.8'))
  t.equal(socketHolder(undefined), '', 'one that has gone has no address')
})

t.test('that the store is down is said, and is no refusal', async t => {
  const server = await redisServer(t)
  const gateway = await startGateway(t, { config, env: { ...env, GATEWAY_STORE: server.url } })
  const token = (await gateway.call('/gateway/admin/tokens', { token: adminToken, body: { subject: 'alice' } })).json
    .token
  await shutOut(gateway)
  await server.kill()
  t.match(await gateway.call('/gateway/session', { token, headers: here }), { status: 503, error: 'GW_STORE_DOWN' })
  t.match(await gateway.call('/gateway/session', { token: 'x.y.z', headers: here }), throttled)
})
