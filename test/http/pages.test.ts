import {
  mkdirSync, mkdtempSync, readdirSync, readlinkSync, rmSync, symlinkSync, truncateSync, writeFileSync
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import t, { type Test } from 'tap'
import { startGateway, type TestGatewayOptions } from '../helpers/gateway.ts'
import { rawHttp, rawRequest, rawSocket } from '../helpers/raw-http.ts'
import { holdPage } from '../helpers/served-page.ts'
import { until } from '../helpers/until.ts'

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

const asPage = { accept: 'text/html,application/xhtml+xml,*/*;q=0.8' }

/** A gateway with a front end of these files. */
async function open (t: Test, files: Readonly<Record<string, string>>, options: TestGatewayOptions = {}) {
  const above = mkdtempSync(join(tmpdir(), 'apixo-front-end-'))
  t.teardown(() => rmSync(above, { recursive: true }))
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(above, 'dist', path)), { recursive: true })
    writeFileSync(join(above, 'dist', path), text)
  }
  const gateway = await startGateway(t, { env: { GATEWAY_STATIC_DIR: join(above, 'dist') }, ...options })
  return { ...gateway, folder: join(above, 'dist') }
}

/** A folder that is a link to the first of two releases. */
function releases (t: Test) {
  const above = mkdtempSync(join(tmpdir(), 'apixo-releases-'))
  t.teardown(() => rmSync(above, { recursive: true }))
  for (const name of ['one', 'two']) {
    mkdirSync(join(above, name))
    writeFileSync(join(above, name, 'app.js'), name)
  }
  symlinkSync(join(above, 'one'), join(above, 'current'))
  return { folder: join(above, 'current'), two: join(above, 'two') }
}

const frontEnd = { 'index.html': '<title>Front</title>', 'assets/app.js': 'start()' }

t.test('a front end is served at /, as it is, and asked about anew each time', async t => {
  const { call, origin } = await open(t, frontEnd)
  const page = await call('/', { headers: asPage })
  t.match(page, { status: 200, text: '<title>Front</title>', error: null })
  t.match(Object.fromEntries(page.headers), {
    'content-type': 'text/html; charset=utf-8',
    'cache-control': 'no-cache',
    'x-content-type-options': 'nosniff',
    etag: /^W\//
  })
  t.equal(page.headers.get('content-security-policy'), null, 'what may run in it is its own to say')
  const script = await call('/assets/app.js?v=1')
  t.match(script, { status: 200, text: 'start()' })
  t.equal(script.headers.get('content-type'), 'application/javascript; charset=utf-8')
  const again = await rawHttp(
    t,
    origin,
    rawRequest('GET /assets/app.js', [`if-none-match: ${script.headers.get('etag')}`])
  )
  t.match(again, { status: 304, text: /\r\n\r\n$/ })
  t.match(await call('/assets/app.js', { headers: { range: 'bytes=1-3' } }), { status: 206, text: 'tar' })
  const head = await call('/assets/app.js', { method: 'HEAD' })
  t.match(head, { status: 200, text: '' })
  t.equal(head.headers.get('content-length'), '7')
})

t.test('what is opened as a page and is no file is the front end\'s to show; anything else is not there', async t => {
  const { call } = await open(t, { ...frontEnd, 'docs/index.html': '<title>Docs</title>' })
  for (const path of ['/tasks/42', '/no.html', '/assets/none']) {
    t.match(await call(path, { headers: asPage }), { status: 200, text: '<title>Front</title>' }, path)
  }
  t.match(await call('/docs/', { headers: asPage }), { status: 200, text: '<title>Docs</title>' })
  for (const [path, options] of [
    ['/assets/none.js', {}],
    ['/assets/', {}],
    ['/tasks/42', { method: 'POST', headers: asPage }]
  ] as const) {
    t.match(await call(path, options), { status: 404, error: 'GW_NOT_FOUND', json: { code: 404, data: null } }, path)
  }
  t.match(await call('/index.html', { headers: { range: 'bytes=900-' } }), {
    status: 400,
    error: 'GW_BAD_REQUEST',
    json: { message: /range can not be met/ }
  })
  t.match(await call('/index.html', { headers: { 'if-match': '"other"' } }), { status: 400, error: 'GW_BAD_REQUEST' })
})

t.test('a folder without an index.html has no pages', async t => {
  const { call } = await open(t, { 'a.txt': 'a' })
  t.match(await call('/a.txt'), { status: 200, text: 'a' })
  for (const path of ['/', '/tasks']) {
    t.match(await call(path, { headers: asPage }), { status: 404, error: 'GW_NOT_FOUND' }, path)
  }
})

t.test('no file takes the place of a route, one that may come included', async t => {
  const names = [
    'api/v1/new',
    'v1/messages',
    'v1beta/models',
    'gateway/page.html',
    'gateway/new',
    'readyz/x',
    'metrics'
  ]
  const { call, origin, sandbox } = await open(t, {
    ...frontEnd,
    ...Object.fromEntries(names.map(name => [name, 'a file']))
  })
  const odd = [
    '/gateway//new',
    '/GATEWAY/new',
    '/x/../gateway/new',
    '/%67ateway/new',
    '/gateway/%2e/new',
    '//gateway/new',
    '/./v1/messages'
  ]
  for (const path of [...names.map(name => `/${name}`), ...odd]) {
    const { status, text } = await rawHttp(t, origin, rawRequest(`GET ${path}`, ['accept: text/html']))
    t.notMatch(text, /a file|Front/, path)
    t.ok(status! >= 301 && status! <= 404, `${path}: ${status}`)
  }
  t.match(await call('/readyz'), { status: 200, json: {} })
  t.equal(sandbox.calls.length, 0)
})

t.test('nothing outside of the folder is served, and nothing whose name begins with a dot', async t => {
  const { origin } = await open(t, {
    ...frontEnd,
    '.env': 'SECRET=1',
    '.git/config': 'secret',
    '../secret.txt': 'secret',
    '../dist-old/secret.txt': 'secret'
  })
  const ups = [
    '/../secret.txt',
    '/..%2fsecret.txt',
    '/%2e%2e/secret.txt',
    '/%2e%2e%2fsecret.txt',
    '/assets/../../secret.txt',
    '/..%5csecret.txt',
    '/%252e%252e/secret.txt',
    '/../dist-old/secret.txt',
    '//../secret.txt',
    '/.env',
    '/%2eenv',
    '/.git/config',
    '/assets/../.env',
    '/secret.txt%00.html',
    '/%'
  ]
  for (const path of ups) {
    const { text, status } = await rawHttp(t, origin, rawRequest(`GET ${path}`))
    t.notMatch(text.replace(path, ''), /secret/i, path)
    t.ok([400, 404].includes(status!), `${path}: ${status}`)
  }
})

t.test('a link that leads out of the folder leads nowhere, and one within it does', async t => {
  const { call, folder } = await open(t, { ...frontEnd, '../run/shop': 'secret', '../dist-old/app.js': 'secret' })
  for (const [name, target] of [
    ['shop', '../run/shop'],
    ['out', '../run'],
    ['old.js', '../dist-old/app.js'],
    ['gone.js', '../run/none'],
    ['main.js', 'assets/app.js']
  ] as const) {
    symlinkSync(target, join(folder, name))
  }
  for (const path of ['/shop', '/out/shop', '/old.js', '/gone.js']) {
    for (const options of [{}, { method: 'HEAD' }, { headers: { range: 'bytes=0-1' } }]) {
      t.match(await call(path, options), { status: 404, error: 'GW_NOT_FOUND' }, path)
    }
  }
  t.match(await call('/main.js'), { status: 200, text: 'start()' })
})

t.test('the folder itself may be a link, and lead elsewhere from one moment to the next', async t => {
  const { folder, ...paths } = releases(t)
  const { call } = await startGateway(t, { env: { GATEWAY_STATIC_DIR: folder } })
  t.match(await call('/app.js'), { status: 200, text: 'one' })
  rmSync(folder)
  symlinkSync(paths.two, folder)
  t.match(await call('/app.js'), { status: 200, text: 'two' })
})

t.test('the playground is where it was', async t => {
  const { call } = await open(t, { ...frontEnd, 'gateway/index.html': 'a file' })
  t.match(await call('/gateway/', { headers: asPage }), { status: 200, text: /<title>Playground/ })
  t.match(await call('/gateway', { headers: asPage }), { status: 308 })
})

t.test('a target that names the host is read as the router reads it', async t => {
  const { origin } = await open(t, { ...frontEnd, 'gateway/page.html': 'a file' })
  const get = (target: string) => rawHttp(t, origin, rawRequest(`GET ${target}`, ['accept: text/html']))
  t.match(await get('http://gateway.test/assets/app.js'), { status: 200, text: /start\(\)/ })
  for (const target of ['http://gateway.test/gateway/page.html', 'http://x/%2e%2e/../gateway/page.html', 'foo://x/y']) {
    const { status, text } = await get(target)
    t.ok(status === 400 || status === 404, `${target}: ${status}`)
    t.notMatch(text, /a file/)
  }
})

t.test('what is missing of a front end counts against nobody', async t => {
  const { call, mint } = await open(t, frontEnd, {
    config: 'plans: { default: {} }\nlimits: { addressFailuresPerMinute: 3 }'
  })
  const token = await mint('alice')
  for (let round = 0; round < 10; round++) {
    t.equal((await call('/favicon.ico', { headers: { accept: 'image/*' } })).status, 404)
  }
  t.equal((await call('/gateway/session', { token })).status, 200)
})

const big = { ...frontEnd, 'big.bin': 'x'.repeat(20_000_000) }
const openFiles = (folder: string) => readdirSync('/proc/self/fd').filter(fd => {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`).startsWith(folder)
  } catch {
    return false // it was the one that has read the list
  }
})

t.test('whoever asks for many files in one go, and takes none, has one of them open, and not for long', async t => {
  const { origin, folder, lines } = await open(t, big, {
    config: 'plans: { default: {} }\nupstream: { bodyIdleMs: 500 }'
  })
  const socket = await rawSocket(t, origin)
  socket.pause()
  socket.write('GET /big.bin HTTP/1.1\r\nhost: gateway.test\r\n\r\n'.repeat(20))
  await until('the first one is open', () => openFiles(folder).length > 0)
  t.equal(openFiles(folder).length, 1)
  await until('none is', () => openFiles(folder).length === 0)
  t.equal(lines().filter(({ operation }) => operation === 'showFile').length, 1, 'the others were never begun')
})

t.test(
  'a file that gets shorter on its way ends the connection, and the next answer is not taken for the rest of it',
  async t => {
    const { origin, folder } = await open(t, big)
    const socket = await rawSocket(t, origin)
    let [length, heads] = [0, '']
    socket
      .on('data', (chunk: Buffer) => {
        length += chunk.length
        heads += chunk.toString('latin1').replaceAll('x', '') // which is all that the file has
      })
      .pause()
    const closed = new Promise(resolve => socket.once('close', resolve))
    socket.write(['/big.bin', '/readyz'].map(path => `GET ${path} HTTP/1.1\r\nhost: gateway.test\r\n\r\n`).join(''))
    await until('it is on its way', () => openFiles(folder).length > 0)
    truncateSync(join(folder, 'big.bin'), 100)
    socket.resume()
    await closed
    t.ok(length < 20_000_000)
    t.same(heads.match(/^HTTP\/1\.1 .+/gm), ['HTTP/1.1 200 OK'], 'one answer')
  }
)

t.test('without the setting there is no such route', async t => {
  const { call } = await startGateway(t)
  t.match(await call('/index.html', { headers: asPage }), { status: 404, error: 'GW_NOT_FOUND' })
})
