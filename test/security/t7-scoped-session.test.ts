import t from 'tap'
import { fromOwnPage, swap } from '../helpers/cookies.ts'
import { startGateway } from '../helpers/gateway.ts'

const config = `
plans:
  default: { models: ["*"], concurrentTasks: 100 }
  images: { models: ["nano-*", "flux-2"], concurrentTasks: 100 }
  nothing: { models: [] }
`

t.test('a session uses the models of its list and no other, however they are spelled', async t => {
  const { submit, status, mint, sandbox } = await startGateway(t, { config })
  const token = await mint('alice', { models: ['nano-banana', 'wan-*-image'] })
  for (const model of [
    'sora-2',
    'nano-banana-pro',
    'Nano-Banana',
    'NANO-BANANA',
    'nano-bananA',
    'wan-2-5',
    'wan--imag',
    'xwan-2-5-image',
    'wan-2-5-image-x',
    'nano.banana',
    'happyHorse'
  ]) {
    t.match(await submit(token, 'x', model), { status: 403, error: 'GW_MODEL_DENIED' }, model)
    t.match(await status(token, 'x', model), { status: 403, error: 'GW_MODEL_DENIED' }, model)
  }
  t.equal(sandbox.calls.length, 0)
  for (const model of ['nano-banana', 'wan-2-5-image', 'wan-2-7-image']) {
    t.equal((await submit(token, 'x', model)).status, 200, model)
  }
})

t.test('a session gets what its plan and its own list both allow', async t => {
  const { submit, mint, sandbox } = await startGateway(t, { config })
  const wide = await mint('alice', { plan: 'images', models: ['*'] })
  t.equal((await submit(wide, 'x', 'sora-2')).error, 'GW_MODEL_DENIED')
  t.equal((await submit(wide, 'x', 'flux-2')).status, 200)
  const narrow = await mint('alice', { plan: 'images', models: ['sora-2', 'flux-2'] })
  t.equal((await submit(narrow, 'x', 'sora-2')).error, 'GW_MODEL_DENIED')
  t.equal((await submit(narrow, 'x', 'nano-banana')).error, 'GW_MODEL_DENIED')
  t.equal(sandbox.calls.length, 1)
})

t.test('empty means none: of models, in a plan or a session, and of scopes', async t => {
  const { submit, status, mint, sandbox } = await startGateway(t, { config })
  for (const more of [{ plan: 'nothing' }, { models: [] }]) {
    t.equal((await submit(await mint('alice', more))).error, 'GW_MODEL_DENIED', JSON.stringify(more))
  }
  const token = await mint('alice', { scopes: [] })
  t.equal((await submit(token)).error, 'GW_SCOPE_DENIED')
  t.equal((await status(token, 'x')).error, 'GW_SCOPE_DENIED')
  t.equal(sandbox.calls.length, 0)
})

t.test('a scope opens its own operations and no other', async t => {
  const { submit, status, mint, sandbox } = await startGateway(t, { config })
  const [reader, writer, talker] = [
    await mint('alice', { scopes: ['tasks:read'] }),
    await mint('alice', { scopes: ['tasks:write'] }),
    await mint('alice', { scopes: ['llm'] })
  ]
  t.equal((await submit(reader)).error, 'GW_SCOPE_DENIED')
  t.equal((await submit(talker)).error, 'GW_SCOPE_DENIED')
  t.equal(sandbox.calls.length, 0)
  const { taskId } = (await submit(writer)).json.data
  t.equal((await status(writer, taskId)).error, 'GW_SCOPE_DENIED')
  t.equal((await status(talker, taskId)).error, 'GW_SCOPE_DENIED')
  t.equal(sandbox.calls.length, 1)
  t.equal((await status(reader, taskId)).status, 200, 'the subject is the same')
})

t.test('a refused model is told as it is, and not as markup', async t => {
  const { submit, mint } = await startGateway(t, { config })
  const reply = await submit(await mint('alice', { models: ['nano-banana'] }), 'x', 'sora-2')
  t.match(reply.headers.get('content-type'), /^application\/json/)
  t.same(Object.keys(reply.json).sort(), ['code', 'data', 'error', 'message'])
})

const [app, other] = ['https://app.example', 'https://other.example']
type Headers = Readonly<Record<string, string>>

t.test('a session of an origin is used by a page of that origin: whatever changes something names it', async t => {
  const { call, mint, sandbox, lines } = await startGateway(t, { config })
  const token = await mint('alice', { origins: [app, 'http://localhost:5173'] })
  const submit = (headers: Headers) =>
    call('/api/v1/generateTask/nano-banana', { token, headers, body: { input: { prompt: 'x' } } })
  const foreign: readonly Headers[] = [
    {},
    { origin: other },
    { origin: 'null' },
    { origin: '' },
    { origin: `${app}/` },
    { origin: `${app}:443` },
    { origin: `${app}.evil.test` },
    { origin: 'http://app.example' },
    { origin: 'HTTPS://APP.EXAMPLE' },
    { origin: `${app} ${other}` },
    { origin: `${app}, ${app}` },
    { origin: 'http://localhost:5174' },
    { 'sec-fetch-site': 'same-origin' },
    { 'sec-fetch-site': 'same-origin', origin: other },
    { referer: `${app}/page` },
    { 'x-forwarded-origin': app },
    { host: 'app.example' }
  ]
  for (const headers of foreign) {
    t.match(await submit(headers), { status: 403, error: 'GW_ORIGIN_DENIED' }, JSON.stringify(headers))
    t.match(
      await call('/gateway/session', { method: 'DELETE', token, headers }),
      { status: 403, error: 'GW_ORIGIN_DENIED' },
      JSON.stringify(headers)
    )
  }
  t.equal(sandbox.calls.length, 0)
  t.match(
    lines().find(({ code }) => code === 'GW_ORIGIN_DENIED'),
    { stage: 'authenticate', subject: 'app:alice', granted: false }
  )
  t.equal((await submit({ origin: app })).status, 200)
  t.equal((await submit({ origin: 'http://localhost:5173' })).status, 200)
})

t.test(
  'a page reads with its origin, or from our own when that is listed, for browsers send no Origin then',
  async t => {
    const gateway = await startGateway(t, { config })
    const { call, mint } = gateway
    const [foreign, own] = [
      await mint('alice', { origins: [app] }),
      await mint('alice', { origins: [app, gateway.origin] })
    ]
    const read = async (token: string, headers: Headers) => (await call('/gateway/session', { token, headers })).status
    for (const headers of [
      {},
      { origin: other },
      { 'sec-fetch-site': 'same-site' },
      { 'sec-fetch-site': 'cross-site' },
      { 'sec-fetch-site': 'none' },
      { 'sec-fetch-mode': 'same-origin' },
      { 'sec-fetch-dest': 'document' },
      { 'sec-fetch-site': 'Same-Origin' },
      { 'sec-fetch-site': 'same-origin', origin: other }
    ] as Headers[]) {
      t.equal(await read(foreign, headers), 403, JSON.stringify(headers))
      t.equal(await read(own, headers), 403, JSON.stringify(headers))
    }
    t.equal(await read(foreign, { 'sec-fetch-site': 'same-origin' }), 403, 'our own origin is not listed')
    t.equal(await read(own, { 'sec-fetch-site': 'same-origin' }), 200)
    t.equal(await read(foreign, { origin: app }), 200)
    t.equal(await read(foreign, { origin: app, 'sec-fetch-site': 'cross-site' }), 200)
  }
)

t.test('our own origin is the public one, and without that how callers see us', async t => {
  const named = await startGateway(t, { config, env: { GATEWAY_PUBLIC_URL: app } })
  const token = await named.mint('alice', { origins: [app] })
  t.equal((await named.call('/gateway/session', { token, headers: { 'sec-fetch-site': 'same-origin' } })).status, 200)
  const proxied = await startGateway(t, { config, env: { GATEWAY_TRUST_PROXY: 'loopback' } })
  const read = async (proto: string, host: string) =>
    (
      await proxied.call('/gateway/session', {
        token: await proxied.mint('alice', { origins: [app] }),
        headers: { 'sec-fetch-site': 'same-origin', 'x-forwarded-proto': proto, 'x-forwarded-host': host }
      })
    ).status
  t.equal(await read('https', 'app.example'), 200)
  t.equal(await read('https', 'app.example:443'), 200)
  t.equal(await read('http', 'app.example'), 403)
  t.equal(await read('https', 'other.example'), 403)
  const direct = await startGateway(t, { config })
  const forged = { 'sec-fetch-site': 'same-origin', 'x-forwarded-proto': 'https', 'x-forwarded-host': 'app.example' }
  t.equal(
    (await direct.call('/gateway/session', { token: await direct.mint('alice', { origins: [app] }), headers: forged }))
      .status,
    403
  )
})

t.test('a session of a network is used from there, whatever a caller says of its address', async t => {
  const here = await startGateway(t, { config })
  const read = async (addressPrefix: string, headers: Headers = {}) =>
    (await here.call('/gateway/session', { token: await here.mint('alice', { addressPrefix }), headers })).error
  for (const range of ['127.0.0.0/8', '127.0.0.1/32', '0.0.0.0/0', '::ffff:127.0.0.0/104']) {
    t.equal(await read(range), null, range)
  }
  for (const range of ['203.0.113.0/24', '::1/128', '::/0', '128.0.0.0/8']) {
    t.equal(await read(range), 'GW_ORIGIN_DENIED', range)
  }
  t.equal(
    await read('203.0.113.0/24', {
      'x-forwarded-for': '203.0.113.9',
      'x-real-ip': '203.0.113.9',
      forwarded: 'for=203.0.113.9'
    }),
    'GW_ORIGIN_DENIED'
  )

  const proxied = await startGateway(t, { config, env: { GATEWAY_TRUST_PROXY: 'loopback' } })
  const token = await proxied.mint('alice', { addressPrefix: '203.0.113.7/24' })
  const from = async (address: string) =>
    (await proxied.call('/gateway/session', { token, headers: { 'x-forwarded-for': address } })).error
  for (const address of ['203.0.113.9', '::ffff:203.0.113.9', '198.51.100.1, 203.0.113.9']) {
    t.equal(await from(address), null, address)
  }
  for (const address of ['203.0.114.9', '203.0.113.9, 198.51.100.1', '2001:db8::1', 'x']) {
    t.equal(await from(address), 'GW_ORIGIN_DENIED', address)
  }
  t.match((await proxied.call('/gateway/session', { token, headers: { 'x-forwarded-for': '203.0.113.9' } })).json, {
    addressPrefix: '203.0.113.0/24'
  })
})

t.test("a session that is revoked, or is nobody's, is told that and not where it may be used", async t => {
  const { call, mint } = await startGateway(t, { config })
  const token = await mint('alice', { origins: [app], addressPrefix: '127.0.0.0/8' })
  t.equal((await call('/gateway/session', { method: 'DELETE', token, headers: { origin: app } })).status, 204)
  t.match(await call('/gateway/session', { token, headers: { origin: other } }), {
    status: 401,
    error: 'GW_BAD_SESSION'
  })
})

t.test('the cookie of a session of an origin is as narrow', async t => {
  const gateway = await startGateway(t, { config })
  const { call, mint } = gateway
  const own = await mint('alice', { origins: [gateway.origin], addressPrefix: '127.0.0.0/8' })
  t.match(await call('/gateway/sessions/cookie', { method: 'POST', token: own }), {
    status: 403,
    error: 'GW_ORIGIN_DENIED'
  })
  const cookie = await swap(gateway, own, { origin: gateway.origin })
  t.match((await call('/gateway/session', fromOwnPage(cookie))).json, {
    origins: [gateway.origin],
    addressPrefix: '127.0.0.0/8'
  })
  const elsewhere = await mint('alice', { origins: [app] })
  t.match(await call('/gateway/sessions/cookie', { method: 'POST', token: elsewhere, headers: { origin: app } }), {
    status: 403,
    error: 'GW_ORIGIN_DENIED'
  })
})
