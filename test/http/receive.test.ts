import { once } from 'node:events'
import { connect } from 'node:net'
import { gzipSync } from 'node:zlib'
import t, { type Test } from 'tap'
import { fromOwnPage, swap } from '../helpers/cookies.ts'
import { adminToken, startGateway, taskMs } from '../helpers/gateway.ts'
import { rawHttp, rawRequest, rawSocket } from '../helpers/raw-http.ts'
import { until } from '../helpers/until.ts'

const path = '/api/v1/generateTask/nano-banana'
const input = { prompt: 'a red cube' }

t.test('a body that can not be taken is refused before the upstream hears of it', async t => {
  const { call, mint, sandbox, origin } = await startGateway(t, {
    config: 'plans: { default: {} }\nlimits: { bodyBytes: 2000 }'
  })
  const token = await mint('alice')
  const submit = (body: unknown, headers: Record<string, string> = {}) =>
    call(path, { token, body, method: 'POST', headers })
  t.match(await submit('{'), { status: 400, error: 'GW_BAD_REQUEST' })
  t.match(await submit(''), { status: 400, error: 'GW_BAD_REQUEST', json: { message: /JSON body/ } })
  t.match(await submit(undefined), { status: 400, error: 'GW_BAD_REQUEST' })
  t.match(await submit({ input: { prompt: 'x'.repeat(2000) } }), {
    status: 413,
    error: 'GW_TOO_LARGE',
    json: { message: /2000/ }
  })
  for (const type of [
    'text/plain',
    'application/x-www-form-urlencoded',
    'multipart/form-data; boundary=x',
    'application/jsonx'
  ]) {
    t.match(
      await submit({ input }, { 'content-type': type }),
      { status: 415, error: 'GW_UNSUPPORTED_MEDIA_TYPE' },
      type
    )
  }
  const gzipped = await fetch(origin + path, {
    method: 'POST',
    body: gzipSync(JSON.stringify({ input })),
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json', 'content-encoding': 'gzip' }
  })
  t.equal(gzipped.status, 415)
  t.match(await submit({ input }, { 'content-encoding': 'gzip, br' }), { status: 415 })
  t.equal(sandbox.calls.length, 0)
  t.equal(
    (await submit({ input }, { 'content-encoding': 'identity', 'content-type': 'Application/JSON; charset=utf-8' }))
      .status,
    200
  )
})

t.test('a GET with a JSON content type and no body is fine, as one client sends it', async t => {
  const { status, submit, mint } = await startGateway(t)
  const token = await mint('alice')
  const { taskId } = (await submit(token)).json.data
  t.equal((await status(token, taskId, 'nano-banana', { headers: { 'content-type': 'application/json' } })).status, 200)
})

t.test('a content type without a body, and without its length, is an empty body and waited for by nobody', async t => {
  const gateway = await startGateway(t, {
    config: 'plans: { default: {} }\ncallbacks: { inbound: true }',
    env: { GATEWAY_PUBLIC_URL: 'https://ai.example' }
  })
  for (const [target, status] of [
    [`POST ${path}`, 400],
    ['POST /gateway/sessions/cookie', 201],
    ['POST /gateway/nowhere', 404],
    ['POST /gateway/callbacks/made-up', 404],
    ['DELETE /gateway/session', 204]
  ] as const) {
    const headers = [`authorization: Bearer ${await gateway.mint('alice')}`, 'content-type: application/json']
    t.match(await rawHttp(t, gateway.origin, rawRequest(target, headers)), { status, count: 1 }, target)
  }
})

t.test('an integer of 64 bits reaches the upstream digit for digit', async t => {
  const { call, mint, sandbox } = await startGateway(t)
  const token = await mint('alice')
  for (const [body, sent] of [
    [
      '{"request_type":"async","input":{"prompt":"x","seed":12345678901234567890}}',
      '{"request_type":"async","input":{"prompt":"x","seed":12345678901234567890}}'
    ],
    [
      '{"provider":"auto","input":{"prompt":"x","seed": 9007199254740993 }}',
      '{"request_type":"async","input":{"prompt":"x","seed": 9007199254740993 }}'
    ]
  ]) {
    t.equal((await call(path, { token, body })).status, 200)
    t.equal(sandbox.submits.at(-1)?.body.toString(), sent)
  }
})

const origin = 'https://app.example'
const limit = 5
const options = {
  config: `plans: { default: {} }\nlimits: { addressFailuresPerMinute: ${limit} }`,
  env: { GATEWAY_ALLOWED_ORIGINS: origin, GATEWAY_PUBLIC_URL: 'https://ai.example' }
}
const long = 'x'.repeat(2049)
const overflow = `x-long: ${'x'.repeat(20_000)}`

const broken: ReadonlyArray<
  readonly [title: string, request: (...headers: string[]) => string, status: number, sentence: RegExp]
> = [
  [
    'a part of the path that is too long',
    (...headers) => rawRequest(`GET /gateway/tasks/${long}/events`, headers),
    400,
    /longer than 2048 characters/
  ],
  ['a broken percent-encoding', (...headers) => rawRequest('GET /gateway/%zz', headers), 400, /percent-encoding/],
  [
    'headers that are too long',
    (...headers) => rawRequest('GET /gateway/session', [...headers, overflow]),
    431,
    /headers.* 16384 bytes/i
  ],
  [
    'a path that is too long',
    (...headers) => rawRequest(`GET /${'x'.repeat(20_000)}`, headers),
    431,
    /headers.* 16384 bytes/i
  ]
]

for (const [title, request, status, sentence] of broken) {
  t.test(
    `what is refused before there is a route says what it is, and a listed page can read it: ${title}`,
    async t => {
      const gateway = await startGateway(t, options)
      const answer = await rawHttp(t, gateway.origin, request(`origin: ${origin}`))
      t.match(answer, { status, error: 'GW_BAD_REQUEST', count: 1 })
      t.match(answer.text, new RegExp(`^access-control-allow-origin: ${origin}\\r$`, 'im'))
      t.match(answer.text, /^access-control-expose-headers: .*x-gateway-error.*\r$/im)
      t.match(answer.text, /^x-request-id: [\w-]+\r$/im)
      t.match(answer.text, /^cache-control: no-store\r$/im)
      const body = JSON.parse(answer.text.slice(answer.text.indexOf('\r\n\r\n')))
      t.match(body, {
        code: status,
        message: sentence,
        data: null,
        error: { code: 'GW_BAD_REQUEST', requestId: /^[\w-]+$/ }
      })
      for (const other of ['https://evil.test', `${origin}.evil.test`]) {
        t.notMatch((await rawHttp(t, gateway.origin, request(`origin: ${other}`))).text, /access-control/i)
      }
      t.notMatch((await rawHttp(t, gateway.origin, request())).text, /access-control/i)
    }
  )

  t.test(`it counts against its address like any other wrong request: ${title}`, async t => {
    const gateway = await startGateway(t, options)
    for (let count = 0; count < limit; count++) {
      t.equal(
        (await rawHttp(t, gateway.origin, request('authorization: Bearer x', 'origin: https://evil.test'))).status,
        status
      )
    }
    t.equal((await gateway.call('/gateway/session')).error, 'GW_THROTTLED')
    if (status === 400) t.equal((await rawHttp(t, gateway.origin, request())).error, 'GW_THROTTLED')
  })

  t.test(`unless a foreign page has made a browser send it: ${title}`, async t => {
    const gateway = await startGateway(t, options)
    for (const header of ['origin: https://evil.test', 'sec-fetch-site: cross-site', 'Sec-Fetch-Site: same-site']) {
      for (let count = 0; count < limit; count++) {
        t.equal((await rawHttp(t, gateway.origin, request(header))).status, status)
      }
    }
    t.equal((await gateway.call('/gateway/session')).status, 401)
  })
}

/** The text that comes back over a connection on which nothing more is sent. */
async function answerTo (t: Test, gatewayOrigin: string, head: string): Promise<string> {
  const socket = await rawSocket(t, gatewayOrigin)
  let text = ''
  socket.on('data', (chunk: Buffer) => { text += chunk.toString() })
  socket.write(head)
  await once(socket, 'close')
  return text
}

t.test('a request that does not arrive in time is told so', async t => {
  const { origin: url, gateway } = await startGateway(t, options)
  // Node looks at its time limits every few seconds; what it does then is what happens here.
  const late = async (head: string) => {
    const connected = once(gateway.app.server, 'connection')
    const answer = answerTo(t, url, head)
    const [socket] = await connected
    await once(socket, 'data')
    gateway.app.server.emit(
      'clientError',
      Object.assign(new Error('Request timeout'), { code: 'ERR_HTTP_REQUEST_TIMEOUT' }),
      socket
    )
    return await answer
  }
  const unfinished = await late('GET / HTTP/1.1\r\nhost: x\r\n')
  t.match(unfinished, /^HTTP\/1\.1 408 Request Timeout\r\n/)
  t.match(unfinished, /"message":"This request did not arrive in time\."/)
  t.match(unfinished, /x-gateway-error: GW_BAD_REQUEST/)
  t.notMatch(unfinished, /access-control/)
  const slow = await late(
    `POST /gateway/sessions/guest HTTP/1.1\r\nhost: x\r\norigin: ${origin}\r\ncontent-length: 9\r\ncontent-type: application/json\r\n\r\n{`
  )
  t.match(slow, /408 Request Timeout/)
  t.match(slow, new RegExp(`access-control-allow-origin: ${origin}`))
})

t.test('two hosts are none', async t => {
  const gateway = await startGateway(t, options)
  for (const hosts of [['host: other.test'], ['Host: gateway.test'], ['HOST: a', 'host: b']]) {
    const answer = await rawHttp(t, gateway.origin, rawRequest('GET /gateway/', [...hosts, `origin: ${origin}`]))
    t.match(answer, { status: 400, error: 'GW_BAD_REQUEST' })
    t.match(answer.text, /Send one Host header/)
    t.match(answer.text, /access-control-allow-origin/)
  }
  t.equal((await rawHttp(t, gateway.origin, rawRequest('GET /gateway/', ['x-host: a', 'most: b']))).status, 200)
})

t.test('what is wrong with the target of a request can be read by a listed page, and counts as a request', async t => {
  const gateway = await startGateway(t, {
    ...options,
    config: 'plans: { default: {} }\nlimits: { addressRequestsPerMinute: 6 }'
  })
  const statuses: unknown[] = []
  for (const target of ['/gateway/#x', '*', '/gateway/#y', '*']) {
    const answer = await rawHttp(t, gateway.origin, rawRequest(`GET ${target}`, [`origin: ${origin}`]))
    t.match(answer, { status: 400, error: 'GW_BAD_REQUEST' })
    t.match(answer.text, /access-control-allow-origin/)
  }
  for (let count = 0; count < 4; count++) statuses.push((await gateway.call('/gateway/')).status)
  t.same(statuses, [200, 200, 429, 429])
})

const adminEnv = { GATEWAY_ADMIN_TOKEN: adminToken }

async function scene (t: Test) {
  const gateway = await startGateway(t, { env: adminEnv })
  const token = await gateway.mint('alice')
  const { taskId } = (await gateway.submit(token)).json.data
  gateway.time.advance(taskMs)
  await gateway.status(token, taskId)
  return { ...gateway, token, taskId }
}

t.test('HEAD answers as GET does, without the body', async t => {
  const { call, token, taskId, log } = await scene(t)
  const paths: ReadonlyArray<readonly [string, string | undefined]> = [
    ['/livez', undefined],
    ['/readyz', undefined],
    ['/gateway/', undefined],
    ['/gateway/invitation', undefined],
    ['/gateway/session', token],
    ['/gateway/models', token],
    ['/gateway/tasks', token],
    ['/api/v1/apikeys/current-balance', token],
    [`/api/v1/statusTask/nano-banana?taskId=${taskId}`, token],
    ['/gateway/admin/usage', adminToken],
    ['/metrics', adminToken],
    ['/gateway/session', undefined],
    ['/gateway/tasks/no-such-task/results/0', token]
  ]
  for (const [path, credential] of paths) {
    const options = credential === undefined ? {} : { token: credential }
    const [got, head] = [await call(path, options), await call(path, { ...options, method: 'HEAD' })]
    t.equal(head.status, got.status, path)
    t.equal(head.text, '')
    t.equal(head.error, got.error)
    t.equal(head.headers.get('content-type'), got.headers.get('content-type'))
    if (!path.startsWith('/metrics')) {
      t.ok(
        Math.abs(Number(head.headers.get('content-length')) - Number(got.headers.get('content-length'))) < 10,
        `${path}: ${head.headers.get('content-length')}`
      )
    }
  }
  t.same(log.filter(({ level }) => level >= 50), [])
})

t.test('a 405 names it, and where GET does not work it does not either', async t => {
  const { call, token, sandbox } = await scene(t)
  t.match(Object.fromEntries((await call('/gateway/tasks', { method: 'PUT', token })).headers), { allow: 'GET, HEAD' })
  t.match(Object.fromEntries((await call('/gateway/session', { method: 'PUT', token })).headers), {
    allow: 'GET, HEAD, DELETE'
  })
  const before = sandbox.calls.length
  for (const path of ['/api/v1/generateTask/nano-banana', '/gateway/sessions', '/gateway/sessions/cookie']) {
    const refused = await call(path, { method: 'HEAD', token })
    t.match({ status: refused.status, allow: refused.headers.get('allow') }, { status: 405, allow: 'POST' }, path)
  }
  t.equal((await call('/nowhere', { method: 'HEAD' })).status, 404)
  t.equal(sandbox.calls.length, before)
})

t.test('HEAD on a result tells its length, and fetches none of it', async t => {
  const { call, token, taskId, log } = await scene(t)
  const path = `/gateway/tasks/${taskId}/results/0`
  const got = await call(path, { token })
  const head = await call(path, { token, method: 'HEAD' })
  t.equal(head.status, 200)
  for (const name of ['content-length', 'content-type', 'content-disposition', 'etag', 'accept-ranges']) {
    t.equal(head.headers.get(name), got.headers.get(name), name)
  }
  t.equal(head.text, '')
  t.same(log.filter(({ level }) => level >= 50), [])
})

t.test('HEAD on a stream of events is over at once', async t => {
  const { origin, token, gateway } = await scene(t)
  const answer = await rawHttp(t, origin, rawRequest('HEAD /gateway/events', [`authorization: Bearer ${token}`]))
  t.equal(answer.status, 200)
  t.match(answer.text, /^content-type: text\/event-stream\r$/im)
  t.equal(answer.text.split('\r\n\r\n')[1], '')
  const { hostname, port } = new URL(origin)
  const socket = connect(Number(port), hostname)
  t.teardown(() => socket.destroy())
  let text = ''
  socket.on('data', (chunk: Buffer) => { text += chunk.toString() })
  await once(socket, 'connect')
  const head = (path: string) => `HEAD ${path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${token}\r\n\r\n`
  socket.write(head('/gateway/events') + head('/gateway/session'))
  await until('both are answered', () => text.split('HTTP/1.1 200').length === 3)
  t.ok(gateway)
})

t.test('a cookie reads with HEAD as it does with GET', async t => {
  const gateway = await startGateway(t)
  const cookie = await swap(gateway, await gateway.mint('alice'))
  const [head, get] = await Promise.all(
    ['HEAD', 'GET'].map(method =>
      gateway.call('/gateway/session', { method, headers: { cookie: cookie.header, 'sec-fetch-site': 'none' } })
    )
  )
  t.equal(get!.status, 200)
  t.equal(head!.status, 200)
  t.equal(
    (
      await gateway.call('/gateway/session', {
        method: 'HEAD',
        headers: fromOwnPage(cookie, { 'sec-fetch-site': 'cross-site' }).headers
      })
    ).status,
    403
  )
})

const corsEnv = { GATEWAY_ALLOWED_ORIGINS: `${origin},http://localhost:5173` }

t.test('a page on a listed origin may call, and read what it needs to know', async t => {
  const { call } = await startGateway(t, { env: corsEnv })
  const preflight = await call('/api/v1/generateTask/nano-banana', {
    method: 'OPTIONS',
    headers: {
      origin,
      'access-control-request-method': 'POST',
      'access-control-request-headers': 'authorization, content-type'
    }
  })
  t.equal(preflight.status, 204)
  t.match(Object.fromEntries(preflight.headers), {
    'access-control-allow-origin': origin,
    'access-control-allow-methods': 'GET, POST, DELETE',
    'access-control-allow-headers': 'authorization, content-type',
    'access-control-max-age': '600'
  })
  t.equal(preflight.headers.get('access-control-allow-credentials'), null)

  const refused = await call('/gateway/session', { headers: { origin: 'http://localhost:5173' } })
  t.equal(refused.status, 401)
  t.equal(refused.headers.get('access-control-allow-origin'), 'http://localhost:5173', 'errors can be read, too')
  t.match(refused.headers.get('vary'), /Origin/)
  for (const name of [
    'x-gateway-error',
    'x-request-id',
    'ratelimit-remaining',
    'retry-after',
    'idempotency-replayed',
    'content-range'
  ]) {
    t.match(refused.headers.get('access-control-expose-headers'), name)
  }
})

t.test('any other origin gets no CORS headers at all', async t => {
  const { call, mint } = await startGateway(t, { env: corsEnv })
  const token = await mint('alice')
  for (const other of [
    'https://app.example.evil',
    'https://APP.example',
    'http://app.example',
    'null',
    'https://app.example:8443'
  ]) {
    for (const options of [{ token }, { method: 'OPTIONS' }]) {
      const { headers } = await call('/gateway/session', {
        ...options,
        headers: { origin: other, 'access-control-request-method': 'GET' }
      })
      t.same(
        [...headers.keys()].filter(name => name.startsWith('access-control-')),
        [],
        other
      )
    }
  }
})

t.test('OPTIONS that is no preflight is an answer like any other', async t => {
  const { call } = await startGateway(t, { env: corsEnv })
  t.match(await call('/gateway/session', { method: 'OPTIONS' }), { status: 404, error: 'GW_NOT_FOUND' })
})
