import t from 'tap'
import { startGateway } from '../helpers/gateway.ts'
import { rawHttp } from '../helpers/raw-http.ts'
import { holdPage } from '../helpers/served-page.ts'

t.test('the playground runs what is in it, shows what is ours, and nothing else', async t => {
  const { call } = await startGateway(t)
  const page = await call('/gateway/')
  const { status, headers, text } = page
  t.equal(status, 200)
  holdPage(t, page, ["img-src 'self' data:", "media-src 'self'"])
  t.equal(headers.get('set-cookie'), null)
  t.notMatch(
    text.replace('https://altcha.org', ''),
    /https?:\/\/|\bon\w+="|style="|<(?:iframe|img)|innerHTML|insertAdjacent|document\.write|eval\(|@import/,
    'no third parties, and nothing that its policy would stop'
  )
})

t.test('the page is the same for everybody, whatever they send along', async t => {
  const { call, mint, sandbox } = await startGateway(t)
  const { text } = await call('/gateway/')
  for (const headers of [
    { cookie: '__Host-apixo_session=x' },
    { authorization: 'Basic eDp4' },
    { accept: 'application/json' },
    { 'x-forwarded-host': 'evil.example' }
  ]) {
    t.match(await call('/gateway/', { headers: headers as Record<string, string> }), { status: 200, text })
  }
  t.match(await call('/gateway/?from=mail', { token: await mint('alice') }), { status: 200, text })
  t.equal(sandbox.calls.length, 0)
})

t.test('the ways to it lead there, and take nothing with them', async t => {
  const { call, origin } = await startGateway(t)
  for (const [path, status] of [
    ['/', 302],
    ['/?token=x&next=https://evil.example', 302],
    ['/gateway', 308],
    ['/gateway?access=x', 308]
  ] as const) {
    for (const headers of [{}, { 'x-forwarded-host': 'evil.example', 'x-forwarded-proto': 'https' }]) {
      const reply = await call(path, { headers })
      t.equal(reply.status, status, path)
      t.equal(reply.headers.get('location'), '/gateway/')
      t.equal(reply.headers.get('cache-control'), 'no-store')
      t.equal(reply.text, '')
    }
    const { text } = await rawHttp(t, origin, `GET ${path} HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n`)
    t.match(text, new RegExp(`^HTTP/1\\.1 ${status} .*\r\nlocation: /gateway/\r\n`, 'is'))
    t.notMatch(text, /evil/)
  }
})

t.test('they are looked at, and nothing more', async t => {
  const { call } = await startGateway(t)
  for (const path of ['/', '/gateway', '/gateway/']) {
    for (const method of ['POST', 'PUT', 'DELETE', 'PATCH']) {
      const reply = await call(path, { method })
      t.match(reply, { status: 405, error: 'GW_METHOD_NOT_ALLOWED' }, `${method} ${path}`)
      t.equal(reply.headers.get('allow'), 'GET, HEAD')
    }
  }
  for (const path of [
    '/gateway/index.html',
    '/gateway//',
    '/gateway/x',
    '/index.html',
    '/gateway/style.css',
    '//evil.example'
  ]) {
    t.match(await call(path), { status: 404, error: 'GW_NOT_FOUND' }, path)
  }
})

t.test('with an admin port, there is no playground on that', async t => {
  const { gateway } = await startGateway(t, {
    env: { GATEWAY_ADMIN_TOKEN: 'admin-token-of-the-operator-0001', GATEWAY_ADMIN_PORT: '0' }
  })
  for (const path of ['/', '/gateway', '/gateway/']) {
    t.equal((await fetch(gateway.adminApp!.listeningOrigin + path, { redirect: 'manual' })).status, 404, path)
  }
})
