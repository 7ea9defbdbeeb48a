import Fastify from 'fastify'
import { readdirSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import t, { type Test } from 'tap'
import { systemClock } from '../../src/domain/time.ts'
import { resultRoutes, resultTickets } from '../../src/features/results/routes.ts'
import { requestStarter } from '../../src/http/context.ts'
import { fileServer, megabytes, type ServeFile, taskWith, whole } from '../helpers/file-server.ts'
import { startGateway, taskMs, type TestGateway, type TestGatewayOptions } from '../helpers/gateway.ts'
import { closedPort, rawServer } from '../helpers/raw-server.ts'
import { until } from '../helpers/until.ts'

const plan =
  'plans: { default: { requestsPerMinute: 100000, pollsPerMinute: 100000, concurrentTasks: 1000, credits: unlimited } }'
const config = `${plan}\nresults: { hosts: ["127.0.0.1"] }`
const png = Buffer.from('89504e470d0a1a0a00', 'hex')

/** A gateway, a caller, a task of theirs, and the host of its one result. */
async function scene (t: Test, serve: ServeFile, more: TestGatewayOptions & { readonly path?: string } = {}) {
  const gateway = await startGateway(t, { config, ...more })
  const files = await fileServer(t, serve)
  const token = await gateway.mint('alice')
  const taskId = await taskWith(gateway, token, { resultUrls: [files.origin + (more.path ?? '/temp/a.png')] })
  const url = `/gateway/tasks/${taskId}/results/0`
  return {
    ...gateway,
    files,
    token,
    taskId,
    url,
    get: (headers = {}, query = '') => gateway.call(url + query, { token, headers })
  }
}

/** As the composition makes them, so that a test can have one. */
function ticketsOf ({ settings, time }: TestGateway) {
  const {
    sessionSecrets: secrets,
    file: { results }
  } = settings
  return resultTickets({ ...results, secrets: { current: secrets }, now: time.now, taskOf: async () => null })
}

const bytesOf = async (response: Response) => Buffer.from(await response.arrayBuffer())

t.test('the owner of a task gets the bytes of its results, from the sandbox as it is', async t => {
  const { origin, submit, status, mint, sandbox, time, lines } = await startGateway(t)
  const token = await mint('alice')
  const { taskId } = (await submit(token, 'a red cube', 'midjourney')).json.data
  time.advance(taskMs)
  const { data } = (await status(token, taskId, 'midjourney')).json
  const urls: string[] = JSON.parse(data.resultJson).resultUrls
  t.equal(urls.length, 4)
  for (const [index, url] of urls.entries()) {
    const response = await fetch(`${origin}/gateway/tasks/${taskId}/results/${index}`, {
      headers: { authorization: `Bearer ${token}` }
    })
    t.equal(response.status, 200)
    t.equal(response.headers.get('content-type'), 'image/png')
    t.same(await bytesOf(response), await bytesOf(await fetch(url)), `result ${index}`)
  }
  const passed = sandbox.calls.filter(
    call => call.url.startsWith('/temp/') && call.rawHeaders.some(value => value.startsWith('apixo-gateway/'))
  )
  t.equal(passed.length, 4)
  t.match(
    lines().filter(line => line.operation === 'result'),
    Array.from({ length: 4 }, () => ({
      route: '/gateway/tasks/:taskId/results/:index',
      stage: 'reply',
      granted: true,
      code: 'OK',
      subject: 'app:alice',
      model: 'midjourney',
      taskId,
      status: 200
    }))
  )
})

t.test('whoever has a ticket gets that one result, without a session, until the ticket expires', async t => {
  const gateway = await scene(t, whole(png))
  const { origin, taskId, time, lines, call } = gateway
  const ticket = ticketsOf(gateway).ticketFor({ taskId, subject: 'app:alice' }, 0)
  const response = await fetch(`${origin}/gateway/results/${ticket}`)
  t.equal(response.status, 200)
  t.same(await bytesOf(response), png)
  t.match(lines().at(-1), {
    operation: 'ticketResult',
    route: '/gateway/results/:ticket',
    taskId,
    subject: null,
    code: 'OK'
  })
  time.advance(gateway.settings.file.results.ticketSeconds * 1000)
  const late = await call(`/gateway/results/${ticket}`)
  const never = await call('/gateway/results/nonsense')
  const route = await call('/gateway/nowhere')
  t.match(late, { status: 410, error: 'GW_RESULT_EXPIRED' })
  t.match(
    { status: never.status, error: never.error, message: never.json.message },
    { status: 404, error: 'GW_NOT_FOUND', message: route.json.message }
  )
})

t.test("there is no result of a task that runs, has failed, is a stranger's, or has not that many", async t => {
  const gateway = await scene(t, whole(png))
  const { call, mint, submit, token, taskId, files } = gateway
  const running = (await submit(token)).json.data.taskId
  const failed = await taskWith(gateway, token, { resultUrls: [files.origin] }, 'failed')
  const mallory = await mint('mallory')
  for (const [path, as] of [
    [`${running}/results/0`, token],
    [`${failed}/results/0`, token],
    [`${taskId}/results/1`, token],
    ['nonsense/results/0', token],
    [`${taskId}/results/0`, mallory],
    ...['-1', '00', '1e0', '0x0', '0.0', '%20', 'x', '99999', '%00'].map(
      index => [`${taskId}/results/${index}`, token] as const
    )
  ] as const) { t.match(await call(`/gateway/tasks/${path}`, { token: as }), { status: 404, error: 'GW_TASK_NOT_FOUND' }, path) }
  t.equal(files.requests.length, 0)
})

t.test(
  'the route by session needs one, with the scope to read tasks, and for that model; each call counts as a poll',
  async t => {
    const gateway = await scene(t, whole(png), {
      config: 'plans: { default: { pollsPerMinute: 4 } }\nresults: { hosts: ["127.0.0.1"] }'
    })
    const { call, mint, url, get, files } = gateway
    t.match(await call(url), { status: 401, error: 'GW_NO_SESSION' })
    t.match(await call(url, { token: await mint('alice', { scopes: ['tasks:write'] }) }), {
      status: 403,
      error: 'GW_SCOPE_DENIED'
    })
    t.match(await call(url, { token: await mint('alice', { models: ['suno'] }) }), {
      status: 403,
      error: 'GW_MODEL_DENIED'
    })
    t.equal(files.requests.length, 0)
    const statuses = [await get(), await get(), await get(), await get()].map(({ status }) => status)
    t.same(statuses, [200, 200, 200, 429])
    t.equal((await get()).error, 'GW_RATE_LIMITED')
  }
)

t.test('another method is a 405, and an unknown query is a 400', async t => {
  const gateway = await scene(t, whole(png))
  const { call, url, token, taskId, get } = gateway
  const ticket = `/gateway/results/${ticketsOf(gateway).ticketFor({ taskId, subject: 'app:alice' }, 0)}`
  for (const path of [url, ticket]) {
    for (const method of ['POST', 'DELETE']) {
      const { status, headers } = await call(path, { method, token })
      t.match({ status, allow: headers.get('allow') }, { status: 405, allow: 'GET, HEAD' })
    }
  }
  for (const query of [
    '?x=1',
    '?download=yes',
    '?download',
    '?download=1&download=1',
    '?token=x',
    '?key=x',
    '?url=http://evil.test'
  ]) {
    t.match(await get({}, query), { status: 400, error: 'GW_BAD_REQUEST' }, query)
  }
})

t.test('a range is passed on when it is one, with its condition, and answered with 206, 416 or 304', async t => {
  const { get, call, url, token, files } = await scene(t, ({ headers: { range, 'if-none-match': tag } }, response) => {
    if (tag !== undefined) response.writeHead(304, { etag: '"one"' }).end()
    else if (range === 'bytes=98-') response.writeHead(416).end()
    else if (range === 'bytes=99-') { response.writeHead(416, { 'content-range': 'bytes */9', 'content-type': 'text/html' }).end('<p>no') } else if (range === undefined) whole(png)({} as never, response)
    else {
      response
        .writeHead(206, {
          'content-type': 'image/png',
          'content-range': 'bytes 0-3/9',
          'content-length': 4,
          'accept-ranges': 'bytes',
          etag: '"one"'
        })
        .end(png.subarray(0, 4))
    }
  })
  const part = await get({ range: 'bytes=0-3', 'if-range': '"one"' })
  t.match(part, { status: 206 })
  t.match(Object.fromEntries(part.headers), {
    'content-range': 'bytes 0-3/9',
    'content-length': '4',
    'accept-ranges': 'bytes',
    etag: '"one"'
  })
  t.match(files.requests.at(-1)!.headers, { range: 'bytes=0-3', 'if-range': '"one"' })
  const beyond = await get({ range: 'bytes=99-' })
  t.match(
    { status: beyond.status, text: beyond.text, range: beyond.headers.get('content-range') },
    { status: 416, text: '', range: 'bytes */9' }
  )
  t.equal(beyond.headers.get('content-type'), null)
  t.match(await get({ range: 'bytes=98-' }), { status: 416, text: '' })
  const unchanged = await get({ 'if-none-match': 'W/"one", "two"' })
  t.match(
    { status: unchanged.status, text: unchanged.text, tag: unchanged.headers.get('etag') },
    { status: 304, text: '', tag: '"one"' }
  )
  t.equal(files.requests.at(-1)!.headers['if-none-match'], 'W/"one", "two"')
  const head = await call(url, { token, method: 'HEAD', headers: { 'if-none-match': '"one"' } })
  t.match(
    { status: head.status, text: head.text, tag: head.headers.get('etag') },
    { status: 304, text: '', tag: '"one"' }
  )

  for (const headers of [
    { range: 'bytes=0-1,3-4' },
    { range: 'lines=0-1' },
    { range: 'bytes=-' },
    { range: 'bytes=a-b' },
    { range: 'bytes=0-3', 'if-range': 'x' },
    { 'if-range': '"one"' },
    { 'if-none-match': 'one' },
    { 'if-modified-since': 'Thu, 15 Jan 2026 12:00:00 GMT' }
  ]) {
    const { status } = await get(headers)
    t.equal(status, 200, JSON.stringify(headers))
    t.match(files.requests.at(-1)!.headers, {
      range: undefined,
      'if-range': undefined,
      'if-none-match': undefined,
      'if-modified-since': undefined
    })
  }
})

t.test(
  "what the host of the result gets is a list of our own: no key, no cookie, no credential, nothing of the caller's",
  async t => {
    const { get, files } = await scene(t, whole(png))
    await get({
      cookie: 'a=b',
      referer: 'https://app.example/secret',
      'x-api-key-2': 'x',
      'user-agent': 'me',
      accept: 'text/html',
      'accept-encoding': 'br',
      'x-forwarded-for': '1.2.3.4'
    })
    const { host: _host, connection: _connection, ...rest } = files.requests[0]!.headers
    t.match(rest, { accept: '*/*', 'accept-encoding': 'identity', 'user-agent': /^apixo-gateway\/[\d.]+$/ })
    t.equal(Object.keys(rest).length, 3)
  }
)

t.test("what comes back has no header of the host's but a few", async t => {
  const { get } = await scene(
    t,
    whole(png, 'image/png', {
      'set-cookie': 'a=b',
      'access-control-allow-origin': '*',
      server: 'evil',
      'content-disposition': 'attachment; filename="../x"',
      'cache-control': 'public, max-age=9',
      location: 'https://evil.test',
      link: '<x>',
      refresh: '0',
      'x-amz-meta': 'y',
      'content-security-policy': 'none'
    })
  )
  const { headers } = await get()
  const {
    date: _date,
    'x-request-id': _id,
    connection: _connection,
    'keep-alive': _keep,
    ...rest
  } = Object.fromEntries(headers)
  const name = rest['content-disposition']
  t.match(name, /^inline; filename="nano-banana-[0-9a-f]{8}-0\.png"$/)
  t.same(
    { ...rest, 'content-disposition': undefined },
    {
      'cache-control': 'no-store',
      'content-security-policy': "default-src 'none'; sandbox",
      'x-content-type-options': 'nosniff',
      'cross-origin-resource-policy': 'same-origin',
      'content-type': 'image/png',
      'content-length': '9',
      'accept-ranges': 'bytes',
      etag: '"one"',
      'last-modified': 'Thu, 15 Jan 2026 12:00:00 GMT',
      'content-disposition': undefined,
      vary: 'Origin',
      'ratelimit-limit': rest['ratelimit-limit'],
      'ratelimit-remaining': rest['ratelimit-remaining'],
      'ratelimit-reset': rest['ratelimit-reset']
    }
  )
  t.match((await get({}, '?download=1')).headers.get('content-disposition'), name!.replace('inline', 'attachment'))
})

t.test('an empty result is an empty answer', async t => {
  const { get } = await scene(t, whole(''))
  const { status, text, headers } = await get()
  t.match({ status, text, length: headers.get('content-length') }, { status: 200, text: '', length: '0' })
})

t.test('headers of a form that no one means are left out', async t => {
  const { get } = await scene(
    t,
    whole(png, 'image/png', {
      etag: 'one',
      'last-modified': 'yesterday',
      'accept-ranges': 'none',
      'content-range': 'bytes 0-8/9'
    })
  )
  const { status, headers } = await get()
  t.equal(status, 200)
  for (const name of ['etag', 'last-modified', 'accept-ranges', 'content-range']) t.equal(headers.get(name), null, name)
})

t.test('a script of an allowed origin can read a result, one of another can not', async t => {
  const { get } = await scene(t, whole(png), { env: { GATEWAY_ALLOWED_ORIGINS: 'https://app.example' } })
  t.equal(
    (await get({ origin: 'https://app.example' })).headers.get('access-control-allow-origin'),
    'https://app.example'
  )
  t.equal((await get({ origin: 'https://evil.test' })).headers.get('access-control-allow-origin'), null)
})

t.test("a result that is gone after its day is a 410, and before that the host's fault", async t => {
  let answer = 0
  const { call, get, mint, time, url } = await scene(t, (_request, response) => {
    response.writeHead(answer).end('<p>gone')
  })
  for (answer of [403, 404, 410]) {
    t.match(await get(), { status: 502, error: 'GW_UPSTREAM_INVALID' }, `young: ${answer}`)
  }
  time.advance(24 * 60 * 60 * 1000)
  const token = await mint('alice')
  for (answer of [403, 404, 410]) {
    t.match(await call(url, { token }), { status: 410, error: 'GW_RESULT_EXPIRED' }, `old: ${answer}`)
  }
  answer = 500
  t.match(
    await call(url, { token }),
    { status: 502, error: 'GW_UPSTREAM_INVALID' },
    'a host in trouble may have it yet'
  )
})

t.test('what the host of the result does wrong is a 502, or a 504, with nothing of it passed on', async t => {
  let serve: ServeFile = whole(png)
  const { get, log } = await scene(t, (request, response) => serve(request, response), {
    config: `${plan}\nresults: { hosts: ["127.0.0.1"], maxBytes: 100 }\nupstream: { headersMs: 300, bodyIdleMs: 300 }`
  })
  const cases: ReadonlyArray<
    readonly [what: string, serve: ServeFile, code: string, headers?: Record<string, string>]
  > = [
    ['301', (_, response) => response.writeHead(301, { location: 'http://127.0.0.1:1/' }).end(), 'GW_UPSTREAM_INVALID'],
    ['307', (_, response) => response.writeHead(307, { location: '/temp/a.png' }).end(), 'GW_UPSTREAM_INVALID'],
    ['304 unasked', (_, response) => response.writeHead(304).end(), 'GW_UPSTREAM_INVALID'],
    [
      '206 unasked',
      (_, response) => response.writeHead(206, { 'content-range': 'bytes 0-1/2' }).end('xx'),
      'GW_UPSTREAM_INVALID'
    ],
    ['416 unasked', (_, response) => response.writeHead(416).end(), 'GW_UPSTREAM_INVALID'],
    [
      '206 of nothing',
      (_, response) => response.writeHead(206, { 'content-type': 'multipart/byteranges' }).end('xx'),
      'GW_UPSTREAM_INVALID',
      { range: 'bytes=0-1' }
    ],
    [
      'a part of too much',
      (_, response) => response.writeHead(206, { 'content-range': 'bytes 0-1/101' }).end('xx'),
      'GW_UPSTREAM_INVALID',
      { range: 'bytes=0-1' }
    ],
    ['204', (_, response) => response.writeHead(204).end(), 'GW_UPSTREAM_INVALID'],
    ['401', (_, response) => response.writeHead(401).end(), 'GW_UPSTREAM_INVALID'],
    ['500', (_, response) => response.writeHead(500).end('oops'), 'GW_UPSTREAM_INVALID'],
    ['compressed', whole(png, 'image/png', { 'content-encoding': 'gzip' }), 'GW_UPSTREAM_INVALID'],
    ['too long', whole(Buffer.alloc(101)), 'GW_UPSTREAM_INVALID'],
    ['hung up', (_, response) => response.destroy(), 'GW_UPSTREAM_INVALID'],
    ['silent', () => {}, 'GW_UPSTREAM_TIMEOUT'],
    [
      'headers alone',
      (_, response) => {
        response.writeHead(200, { 'content-length': 9 }).flushHeaders()
      },
      'GW_UPSTREAM_TIMEOUT'
    ],
    [
      'headers, then gone',
      (_, response) => {
        response.writeHead(200, { 'content-length': 9 }).flushHeaders()
        setTimeout(() => response.destroy(), 50)
      },
      'GW_UPSTREAM_INVALID'
    ],
    [
      'too long at once',
      (_, response) => {
        response.writeHead(200).end(Buffer.alloc(101))
      },
      'GW_UPSTREAM_INVALID'
    ]
  ]
  for (const [what, serving, code, headers] of cases) {
    serve = serving
    const reply = await get(headers)
    t.equal(reply.error, code, what)
    t.equal(reply.status, code === 'GW_UPSTREAM_TIMEOUT' ? 504 : 502, what)
    t.match(
      Object.fromEntries(reply.headers),
      {
        location: undefined,
        etag: undefined,
        'content-disposition': undefined,
        'content-range': undefined,
        'content-type': 'application/json; charset=utf-8'
      },
      what
    )
  }
  t.notMatch(JSON.stringify(log), '/temp/a.png', 'and no line has the URL')
})

t.test('a host that can not be reached, or talks no HTTP, is a 502', async t => {
  const gateway = await startGateway(t, { config })
  const { call, mint } = gateway
  const token = await mint('alice')
  const noise = await rawServer(t, socket => socket.end('garbage\r\n\r\n'))
  const urls = [
    `http://127.0.0.1:${await closedPort()}/`,
    noise.origin,
    'https://127.0.0.1:1/',
    'http://evil.test/',
    'no URL'
  ]
  const taskId = await taskWith(gateway, token, { resultUrls: urls })
  const codes = []
  for (const index of urls.keys()) {
    codes.push((await call(`/gateway/tasks/${taskId}/results/${index}`, { token })).error)
  }
  t.same(codes, [
    'GW_UPSTREAM_UNREACHABLE',
    'GW_UPSTREAM_INVALID',
    'GW_UPSTREAM_UNREACHABLE',
    'GW_UPSTREAM_INVALID',
    'GW_UPSTREAM_INVALID'
  ])
})

t.test(
  "a body that breaks off, or grows too long, ends the caller's connection: nobody takes a part for the whole",
  async t => {
    let serve: ServeFile = () => {}
    const { origin, url, token, lines } = await scene(t, (request, response) => serve(request, response), {
      config: `${plan}\nresults: { hosts: ["127.0.0.1"], maxBytes: 1000000 }`
    })
    for (serve of [
      (_, response) => {
        response.writeHead(200, { 'content-length': 100_000 }).write(Buffer.alloc(50_000))
        setTimeout(() => response.destroy(), 100)
      },
      (_, response) => {
        response.writeHead(200).write(Buffer.alloc(50_000))
        setTimeout(() => response.destroy(), 100)
      },
      megabytes(3, false).serve
    ] as ServeFile[]) {
      const response = await fetch(origin + url, { headers: { authorization: `Bearer ${token}` } })
      t.equal(response.status, 200)
      await t.rejects(response.arrayBuffer())
    }
    await until('their lines are written', () => lines().filter(line => line.operation === 'result').length === 3)
    t.match(
      lines()
        .filter(line => line.operation === 'result')
        .map(line => line.status),
      [499, 499, 499]
    )
  }
)

t.test('the call to the host ends with the caller, before the headers and in the body', async t => {
  let serve: ServeFile = () => {}
  const { origin, url, token, files } = await scene(t, (request, response) => serve(request, response))
  for (const [headers, serving] of [
    [false, () => {}],
    [true, megabytes(50).serve]
  ] as ReadonlyArray<readonly [boolean, ServeFile]>) {
    serve = serving
    const caller = new AbortController()
    const answer = fetch(origin + url, { headers: { authorization: `Bearer ${token}` }, signal: caller.signal })
    if (headers) await answer
    else await until('the host has it', () => files.requests.length === 1)
    t.equal(files.sockets.size, 1)
    caller.abort()
    if (!headers) await t.rejects(answer)
    await until('its connection is closed', () => files.sockets.size === 0)
  }
})

t.test('a caller who takes nothing holds up the host, fills no memory, and is let go', async t => {
  const source = megabytes(20)
  const { origin, url, token, files, lines } = await scene(t, source.serve, {
    config: `${plan}\nresults: { hosts: ["127.0.0.1"] }\nupstream: { bodyIdleMs: 1500 }`
  })
  const socket = connect(Number(new URL(origin).port), '127.0.0.1')
  t.teardown(() => socket.destroy())
  socket.on('error', () => {})
  socket.pause()
  socket.write(`GET ${url} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${token}\r\n\r\n`)
  await until('it has begun', () => source.sent() > 0)
  let before = -1
  await until('it has come to a halt', async () => {
    const halted = source.sent() === before
    before = source.sent()
    await new Promise(resolve => setTimeout(resolve, 200))
    return halted
  })
  // What is under way is in the sockets of the system, each of which takes some megabytes, and not in the process.
  t.ok(source.sent() < 16 * 2 ** 20, `${source.sent()} bytes sent`)
  await until('it is let go', () => files.sockets.size === 0)
  await until('its line is written', () => lines().some(line => line.operation === 'result' && line.status === 499))
})

t.test('one subject has no more than fifty results on their way', async t => {
  const held = new PassThrough()
  const { origin, url, token, files, get, mint, call } = await scene(t, (_request, response) => {
    response.writeHead(200, { 'content-type': 'image/png' })
    held.once('data', () => response.end(png))
    response.write(png)
  })
  held.setMaxListeners(0)
  const open = await Promise.all(
    Array.from({ length: 50 }, () => fetch(origin + url, { headers: { authorization: `Bearer ${token}` } }))
  )
  t.match(await get(), { status: 429, error: 'GW_RATE_LIMITED' })
  t.equal(files.requests.length, 50)
  t.equal((await call(url, { token: await mint('bob') })).status, 404, 'another subject is not held up')
  held.write('x')
  for (const response of open) t.equal((await response.arrayBuffer()).byteLength, 2 * png.length)
  const after = get()
  await until('it has been let through', () => files.requests.length === 51)
  held.write('x')
  t.equal((await after).status, 200)
})

t.test('a caller who is gone before the work begins costs the host nothing', async t => {
  const [asked, gone] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  const app = Fastify()
  const endings = [() => gone.resolve()]
  app.addHook('onRequest', async (request, reply) =>
    requestStarter({ allowedOrigins: [], begun () {}, onRequestEnd: endings })(request, reply)
  )
  resultRoutes(
    app as never,
    {
      authenticate: async () => t.fail('it comes with a ticket'),
      rates: {},
      allowedOrigins: [],
      clock: systemClock
    } as never,
    {
      tickets: {
        async open () {
          asked.resolve()
          await gone.promise
          return {
            task: { finalAnswer: Buffer.from('{"data":{"state":"success","resultJson":["https://x.test/"]}}') },
            index: 0
          }
        }
      },
      source: { fetch: async () => t.fail('it is not fetched') }
    } as never
  )
  t.teardown(() => app.close())
  const answered = new Promise<number>(resolve =>
    app.addHook('onError', async (_request, _reply, error) => resolve(error.statusCode ?? 0))
  )
  const socket = connect(Number(new URL(await app.listen({ port: 0, host: '127.0.0.1' })).port), '127.0.0.1')
  socket.write('GET /gateway/results/x HTTP/1.1\r\nhost: x\r\n\r\n')
  await asked.promise
  socket.destroy()
  t.equal(await answered, 400)
})

const longSessions = 'plans: { default: { credits: unlimited } }\nsessions: { defaultTtlSeconds: 7776000 }'
const dayMs = 86_400_000
// Of the file, not of its tests: each gateway makes its test's own folder anew.
const folders = t.testdir({ good: {}, bad: { results: 'a file, where the folder should be' } })

t.test(
  'with results.keep, a result is copied when its task ends, outlives its day at the upstream, and ends with its task',
  async t => {
    const folder = join(folders, 'good')
    const { call, mint, submit, status, time, gateway, sandbox } = await startGateway(t, {
      config: `${longSessions}\nresults: { keep: directory }\ntasks: { retentionDays: 7 }`,
      store: join(folder, 'gateway.db')
    })
    const token = await mint('alice')
    const { taskId } = (await submit(token)).json.data
    time.advance(taskMs)
    t.equal((await status(token, taskId)).json.data.state, 'success')
    const results = join(folder, 'results')
    await until('the copy is made', () =>
      readdirSync(folder, { recursive: true }).some(name => /^results\/2026-01-15\/[0-9a-f]{64}$/.test(String(name)))
    )
    const fetched = sandbox.calls.length

    time.advance(2 * dayMs)
    const { status: code, headers, text } = await call(`/gateway/tasks/${taskId}/results/0`, { token })
    t.equal(code, 200)
    t.match(text, /^.PNG/)
    t.match(Object.fromEntries(headers), {
      'content-type': 'image/png',
      'accept-ranges': 'bytes',
      'cache-control': 'no-store'
    })
    const part = await call(`/gateway/tasks/${taskId}/results/0`, { token, headers: { range: 'bytes=1-3' } })
    t.match(
      { status: part.status, text: part.text, range: part.headers.get('content-range') },
      { status: 206, text: 'PNG', range: `bytes 1-3/${headers.get('content-length')}` }
    )
    t.equal(sandbox.calls.length, fetched, 'its host is not asked')
    t.equal(
      (await call(`/gateway/tasks/${taskId}/results/0`, { token: await mint('mallory') })).error,
      'GW_TASK_NOT_FOUND'
    )

    time.advance(8 * dayMs)
    await gateway.tidy()
    t.same(readdirSync(results), [])
    t.equal((await call(`/gateway/tasks/${taskId}/results/0`, { token })).error, 'GW_TASK_NOT_FOUND')
  })

t.test('a copy that can not be made is a line in the log, and nothing else', async t => {
  const folder = join(folders, 'bad')
  const gateway = await startGateway(t, {
    config: `${longSessions}\nresults: { keep: directory, hosts: ["127.0.0.1"] }`,
    store: join(folder, 'gateway.db')
  })
  const token = await gateway.mint('alice')
  const files = await fileServer(t, whole('bytes'))
  const taskId = await taskWith(gateway, token, { resultUrls: [`${files.origin}/a`] })
  await until('it is told', () =>
    gateway.log.some(line => line.taskId === taskId && line.msg.startsWith('a result could not be kept'))
  )
  t.equal((await gateway.call(`/gateway/tasks/${taskId}/results/0`, { token })).text, 'bytes')
})

t.test(
  'a store without a file of its own has its copies in data/results, where nothing is made before the first',
  async t => {
    const { call } = await startGateway(t, { config: `${longSessions}\nresults: { keep: directory }` })
    t.equal((await call('/readyz')).status, 200)
  }
)
