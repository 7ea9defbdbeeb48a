import t from 'tap'
import { cookieIn, fromOwnPage, swap } from '../helpers/cookies.ts'
import { startGateway } from '../helpers/gateway.ts'

const config =
  'plans: { default: { credits: unlimited, concurrentTasks: 1000, requestsPerMinute: 10000 } }\nlimits: { addressFailuresPerMinute: 10000 }'
const evil = 'https://evil.test'
const body = { input: { prompt: 'x' } }
type Headers = Readonly<Record<string, string>>

t.test('a cookie changes something for pages of our own origin only, whatever form another site sends', async t => {
  const gateway = await startGateway(t, { config, env: { GATEWAY_ALLOWED_ORIGINS: 'https://app.example' } })
  const { call, mint, sandbox, origin } = gateway
  const cookie = (await swap(gateway, await mint('alice'))).header
  const others: readonly Headers[] = [
    {},
    { origin: evil },
    { origin: 'null' },
    { origin: '' },
    { origin: 'https://app.example' },
    { origin: `${origin}.evil.test` },
    { origin: origin.replace('http:', 'https:') },
    { origin: origin.replace('127.0.0.1', 'localhost') },
    { referer: `${origin}/` },
    { origin: `${origin}, ${evil}` },
    { 'sec-fetch-site': 'cross-site' },
    { 'sec-fetch-site': 'same-site' },
    { 'sec-fetch-site': 'none' },
    { 'sec-fetch-site': '' },
    { 'sec-fetch-mode': 'same-origin' },
    { origin: evil, 'sec-fetch-site': 'same-origin' },
    { origin, 'sec-fetch-site': 'cross-site' },
    { origin, 'sec-fetch-site': 'same-site' },
    { 'x-requested-with': 'XMLHttpRequest' }
  ]
  for (const headers of others) {
    const what = JSON.stringify(headers)
    for (const type of [
      'application/json',
      'text/plain',
      'application/x-www-form-urlencoded',
      'multipart/form-data; boundary=x'
    ]) {
      const forged = await call('/api/v1/generateTask/nano-banana', {
        body,
        headers: { cookie, 'content-type': type, ...headers }
      })
      t.match(forged, { status: 403, error: 'GW_ORIGIN_DENIED' }, `${what} ${type}`)
      t.equal(forged.headers.get('access-control-allow-credentials'), null)
    }
    t.match(
      await call('/gateway/session', { method: 'DELETE', headers: { cookie, ...headers } }),
      { status: 403, error: 'GW_ORIGIN_DENIED' },
      `${what} DELETE`
    )
    t.match(
      await call('/gateway/session?everywhere=true', { method: 'DELETE', headers: { cookie, ...headers } }),
      { status: 403 },
      `${what} everywhere`
    )
  }
  t.equal(sandbox.calls.length, 0)
  for (const headers of [
    { 'sec-fetch-site': 'same-origin' },
    { origin },
    { origin, 'sec-fetch-site': 'same-origin' }
  ] as Headers[]) {
    t.equal(
      (await call('/api/v1/generateTask/nano-banana', { body, headers: { cookie, ...headers } })).status,
      200,
      JSON.stringify(headers)
    )
  }
})

t.test('what a form can send is no submit, even from our own origin', async t => {
  const gateway = await startGateway(t, { config })
  const cookie = await swap(gateway, await gateway.mint('alice'))
  for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data; boundary=x']) {
    const sent = await gateway.call('/api/v1/generateTask/nano-banana', {
      body,
      ...fromOwnPage(cookie, { 'content-type': type })
    })
    t.match(sent, { status: 415, error: 'GW_UNSUPPORTED_MEDIA_TYPE' }, type)
  }
  t.equal(gateway.sandbox.calls.length, 0)
})

t.test(
  'another origin reads nothing with a cookie either: not with a fetch, an image, a frame or a stream',
  async t => {
    const gateway = await startGateway(t, { config, env: { GATEWAY_ALLOWED_ORIGINS: 'https://app.example' } })
    const { call, mint, submit, origin } = gateway
    const token = await mint('alice')
    const { taskId } = (await submit(token)).json.data
    const cookie = (await swap(gateway, token)).header
    const paths = [
      '/gateway/session',
      '/gateway/tasks',
      `/api/v1/statusTask/nano-banana?taskId=${taskId}`,
      `/gateway/tasks/${taskId}/results/0`,
      '/gateway/events',
      '/gateway/models'
    ]
    for (const path of paths) {
      for (const headers of [
        { origin: evil },
        { origin: 'https://app.example' },
        { origin: 'null' },
        { 'sec-fetch-site': 'cross-site' },
        { 'sec-fetch-site': 'same-site' },
        { origin, 'sec-fetch-site': 'same-site' }
      ] as Headers[]) {
        const reply = await call(path, { headers: { cookie, accept: 'text/event-stream', ...headers } })
        t.match(reply, { status: 403, error: 'GW_ORIGIN_DENIED' }, `${path} ${JSON.stringify(headers)}`)
        t.equal(cookieIn(reply), null, "and the cookie stays: it is not the page's to end")
      }
    }
    for (const headers of [
      {},
      { 'sec-fetch-site': 'none' },
      { 'sec-fetch-site': 'same-origin' },
      { origin }
    ] as Headers[]) {
      t.equal((await call('/gateway/tasks', { headers: { cookie, ...headers } })).status, 200, JSON.stringify(headers))
    }
  }
)

t.test('a page of another origin with a token of its own is another matter: no cookie comes along', async t => {
  const gateway = await startGateway(t, { config, env: { GATEWAY_ALLOWED_ORIGINS: 'https://app.example' } })
  const reply = await gateway.submit(await gateway.mint('alice'), 'x', 'nano-banana', {
    headers: { origin: 'https://app.example' }
  })
  t.equal(reply.status, 200)
  t.equal(reply.headers.get('access-control-allow-origin'), 'https://app.example')
  t.equal(reply.headers.get('access-control-allow-credentials'), null)
})
