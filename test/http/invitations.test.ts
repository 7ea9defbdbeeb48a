import t, { type Test } from 'tap'
import { adminToken, startGateway, type TestGatewayOptions } from '../helpers/gateway.ts'
import { holdPage } from '../helpers/served-page.ts'

const env = { GATEWAY_ADMIN_TOKEN: adminToken, GATEWAY_PUBLIC_URL: 'https://ai.example' }
const config = 'plans: { default: {}, team: { credits: 5 } }'
const day = 86_400_000

async function start (t: Test, options: TestGatewayOptions = {}) {
  const gateway = await startGateway(t, { env, config, ...options })
  const admin = (path: string, more: Parameters<typeof gateway.call>[1] = {}) =>
    gateway.call(`/gateway/admin${path}`, { token: adminToken, ...more })
  const invite = async (more: object = {}) =>
    (await admin('/invitations', { body: { subject: 'bob', plan: 'team', ...more } })).json
  const accept = (link: string) =>
    gateway.call('/gateway/invitations/accept', { body: { invitation: link.split('#')[1] ?? link } })
  return { ...gateway, admin, invite, accept }
}

t.test('an invitation is a link whose secret no server is sent, and becomes a token once', async t => {
  const { invite, accept, call, time, admin } = await start(t)
  const { id, link, ...more } = await invite({ ttlSeconds: 3600, models: ['suno'], scopes: ['llm'] })
  t.match(link, new RegExp(`^https://ai\\.example/gateway/invitation#apxi_${id}_[0-9A-Za-z]{49}$`))
  t.strictSame(more, { subject: 'token:bob', plan: 'team', expiresAt: new Date(time.now() + 7 * day).toISOString() })
  t.match(await call('/gateway/session', { token: link.split('#')[1] }), { status: 401 }, 'it is no token')
  time.advance(day)
  const accepted = await accept(link)
  const { token } = accepted.json
  t.equal(accepted.status, 201)
  t.equal(accepted.headers.get('cache-control'), 'no-store')
  t.strictSame(
    accepted.json,
    { id, token, subject: 'token:bob', plan: 'team', expiresAt: new Date(time.now() + 3_600_000).toISOString() },
    'its time begins now'
  )
  t.match((await call('/gateway/session', { token })).json, {
    subject: 'token:bob',
    plan: 'team',
    models: ['suno'],
    scopes: ['llm']
  })
  t.match(await accept(link), { status: 404, error: 'GW_NOT_FOUND' })
  t.match((await admin('/tokens')).json.items, [{ id, state: 'active' }])
})

t.test('of parallel accepts one wins', async t => {
  const { invite, accept, call } = await start(t)
  const { link } = await invite()
  const all = await Promise.all(Array.from({ length: 30 }, () => accept(link)))
  const [winner, ...more] = all.filter(({ status }) => status === 201)
  t.same(more, [])
  t.equal(all.filter(({ error }) => error === 'GW_NOT_FOUND').length, 29)
  t.equal((await call('/gateway/session', { token: winner!.json.token })).status, 200)
})

t.test('programs that preview the link take nothing', async t => {
  const { invite, accept, call } = await start(t)
  const { link } = await invite()
  for (let count = 0; count < 5; count++) t.equal((await call(`/gateway/invitation?from=mail&n=${count}`)).status, 200)
  t.equal((await call('/gateway/invitation', { method: 'HEAD' })).status, 200)
  t.match(await call('/gateway/invitations/accept'), { status: 405, error: 'GW_METHOD_NOT_ALLOWED' })
  t.equal((await accept(link)).status, 201)
})

t.test('wrong, expired, revoked and used invitations get one answer, like any address that is not there', async t => {
  const { invite, accept, call, time, admin } = await start(t)
  const [late, revoked, used] = [await invite({ validSeconds: 60 }), await invite(), await invite()]
  const token = (await accept(used.link)).json.token
  await admin(`/tokens/${revoked.id}`, { method: 'DELETE' })
  time.advance(60_000)
  const secret = used.link.split('#')[1]
  const { json: { error: { requestId, ...error }, ...body } } = await call('/nowhere')
  t.ok(requestId)
  for (const [title, link] of Object.entries({
    late: late.link,
    revoked: revoked.link,
    used: used.link,
    'a token': token,
    cut: secret.slice(0, -1),
    'of nobody': `apxi_${'0'.repeat(11)}_${'0'.repeat(49)}`,
    empty: '',
    odd: "'; DROP TABLE tokens; --"
  })) {
    const { status, json } = await accept(link)
    t.equal(status, 404, title)
    t.strictSame({ ...json, error: { code: json.error.code } }, { ...body, error }, title)
  }
})

t.test('guessing is throttled, also for who guesses right after that', async t => {
  const { invite, accept } = await start(t, { config: `${config}\nlimits: { addressFailuresPerMinute: 5 }` })
  const { link } = await invite()
  for (let count = 0; count < 5; count++) t.equal((await accept('apxi_guess')).status, 404)
  t.match(await accept(link), { status: 429, error: 'GW_THROTTLED' })
})

t.test('a body that is no invitation is refused without a look', async t => {
  const { call } = await start(t)
  for (const body of [
    '{',
    {},
    { invitation: 1 },
    { invitation: 'x'.repeat(257) },
    { invitation: 'x', more: 1 },
    [],
    '"x"'
  ]) {
    const { status, text } = await call('/gateway/invitations/accept', {
      body: typeof body === 'string' ? body : JSON.stringify(body)
    })
    t.equal(status, 400, JSON.stringify(body).slice(0, 40))
    t.notMatch(text, 'xxx')
  }
  t.equal(
    (
      await call('/gateway/invitations/accept', {
        method: 'POST',
        body: 'x',
        headers: { 'content-type': 'text/plain' }
      })
    ).status,
    415
  )
})

t.test('the page runs what is in it, and nothing else', async t => {
  const { call } = await start(t)
  const page = await call('/gateway/invitation')
  holdPage(t, page)
  t.notMatch(
    page.text,
    /https?:\/\/|\bon\w+=|style="|<(?:img|link|iframe|form)|innerHTML|eval/,
    'no third parties, and nothing that its policy would stop'
  )
})

t.test('an invitation is not in the log, nor is the token', async t => {
  const { invite, accept, log } = await start(t)
  const { link } = await invite()
  const { json: { token } } = await accept(link)
  await accept(link)
  const lines = JSON.stringify(log)
  for (const secret of [link, token]) t.notOk(lines.includes(secret.slice(-49)))
  t.match(
    log.filter(({ operation }) => operation === 'acceptInvitation'),
    [
      { status: 201, route: '/gateway/invitations/accept' },
      { status: 404, code: 'GW_NOT_FOUND', stage: 'authenticate' }
    ]
  )
})

t.test('with an admin port, invitations are made there and accepted on the main one', async t => {
  const { gateway, accept, call } = await start(t, { env: { ...env, GATEWAY_ADMIN_PORT: '0' } })
  t.match(await call('/gateway/admin/tokens', { token: adminToken }), { status: 404 })
  const admin = (path: string, body?: object) => fetch(`${gateway.adminApp!.listeningOrigin}${path}`, {
    headers: { authorization: `Bearer ${adminToken}`, 'content-type': 'application/json' },
    ...body === undefined ? {} : { method: 'POST', body: JSON.stringify(body) }
  })
  const { link } = await (await admin('/gateway/admin/invitations', { subject: 'bob' })).json() as { link: string }
  t.equal((await accept(link)).status, 201)
  t.equal((await admin('/gateway/invitation')).status, 404)
})
