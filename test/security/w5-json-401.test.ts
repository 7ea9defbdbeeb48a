import t from 'tap'
import { cookieIn, cookieNameAt, swap } from '../helpers/cookies.ts'
import { startGateway } from '../helpers/gateway.ts'

const routes = [
  ['POST', '/api/v1/generateTask/nano-banana'],
  ['GET', '/api/v1/statusTask/nano-banana?taskId=x'],
  ['GET', '/gateway/session'],
  ['DELETE', '/gateway/session'],
  ['POST', '/gateway/sessions']
] as const

t.test('who has no session gets a 401 in JSON that says what to send, and never a page or a redirect', async t => {
  const { call, sandbox } = await startGateway(t, {
    config: 'plans: { default: {} }\nlimits: { addressFailuresPerMinute: 1000 }'
  })
  const visitors: ReadonlyArray<Readonly<Record<string, string>>> = [
    {},
    { accept: 'text/html' },
    { accept: 'text/html', 'user-agent': 'Mozilla/5.0', 'upgrade-insecure-requests': '1' },
    { accept: 'text/event-stream' },
    { authorization: 'Basic eDp4' },
    { authorization: 'Bearer expired.or.forged' },
    { 'x-requested-with': 'XMLHttpRequest' },
    { cookie: 'session=x' }
  ]
  for (const [method, path] of routes) {
    for (const headers of visitors) {
      const reply = await call(path, { method, headers, ...(method === 'POST' ? { body: {} } : {}) })
      const what = `${method} ${path} ${JSON.stringify(headers)}`
      t.match(
        reply,
        { status: 401, error: /^GW_(NO|BAD)_SESSION$/, json: { code: 401, data: null, error: { code: reply.error } } },
        what
      )
      t.match(reply.headers.get('content-type'), /^application\/json/)
      t.match(reply.headers.get('www-authenticate'), /^Bearer realm="/, 'a scheme for which no browser opens a window')
      t.equal(reply.headers.get('location'), null)
      t.equal(reply.headers.get('set-cookie'), null)
    }
  }
  t.equal(sandbox.calls.length, 0)
})

t.test('a cookie that is no good is a 401 in JSON as well, whatever the browser wants to see, and goes', async t => {
  const gateway = await startGateway(t, {
    config: 'plans: { default: {} }\nlimits: { addressFailuresPerMinute: 1000 }'
  })
  const { call, mint, time, sandbox } = gateway
  const cookie = await swap(gateway, await mint('alice', { ttlSeconds: 60 }))
  time.advance(60_000)
  for (const header of [
    cookie.header,
    `${cookieNameAt(gateway.origin)}=x`,
    `${cookieNameAt(gateway.origin)}=a.b.c`,
    `${cookieNameAt(gateway.origin)}=%`,
    `${cookieNameAt(gateway.origin)}=${'x'.repeat(8000)}`
  ]) {
    for (const accept of ['application/json', 'text/html', 'text/event-stream']) {
      const reply = await call('/gateway/session', {
        headers: { cookie: header, accept, 'sec-fetch-site': 'same-origin' }
      })
      t.match(
        reply,
        { status: 401, error: 'GW_BAD_SESSION', json: { code: 401, data: null, error: { code: 'GW_BAD_SESSION' } } },
        header.slice(0, 40)
      )
      t.match(reply.headers.get('content-type'), /^application\/json/)
      t.match(reply.headers.get('www-authenticate'), /^Bearer realm="/)
      t.equal(reply.headers.get('location'), null)
      t.match(cookieIn(reply), { value: '', maxAge: 0 })
    }
  }
  t.equal(sandbox.calls.length, 0)
})
