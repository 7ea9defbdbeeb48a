import { createServer as createHttpServer } from 'node:http'
import { createServer as createHttpsServer } from 'node:https'
import { createServer, type Server } from 'node:net'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { brotliCompressSync, deflateRawSync, deflateSync, gzipSync, zstdCompressSync } from 'node:zlib'
import t, { type Test } from 'tap'
import { type ClientOptions, maxAnswerBytes, undiciUpstream } from '../../src/adapters/undici/upstream.ts'
import { Secret } from '../../src/domain/secret.ts'
import {
  type Exchange, type FailureReason, type Upstream, type UpstreamAnswer, UpstreamFailure
} from '../../src/domain/upstream.ts'
import { certificate } from '../helpers/certificate.ts'
import { closedPort, listen, ok, rawServer, type RawServer } from '../helpers/raw-server.ts'
import { until } from '../helpers/until.ts'

const apiKey = 'apixo-key-of-the-operator-0001'
const key = { id: 'key-1', secret: new Secret(apiKey) }
const body = Buffer.from('{"request_type":"async","input":{"seed": 12345678901234567890}}')
const good = '{"code":200,"message":"success","data":{"taskId":"one"}}'

const submit = { method: 'POST', path: '/api/v1/generateTask/suno', body, key } as const
const status = { method: 'GET', path: '/api/v1/statusTask/suno?taskId=a%2Fb', key } as const
const both = { submit, status }

function upstream (t: Test, baseUrl: string, more: Partial<ClientOptions> = {}): Upstream {
  const it = undiciUpstream({
    baseUrl,
    connectMs: 2000,
    headersMs: 5000,
    bodyIdleMs: 5000,
    keepAliveMs: 4000,
    userAgent: 'apixo-gateway/test',
    ...more
  })
  t.teardown(() => it.close())
  return it
}

async function failure (exchange: Exchange): Promise<FailureReason | UpstreamAnswer> {
  try {
    return await exchange.answer
  } catch (error) {
    if (!(error instanceof UpstreamFailure)) throw error
    return error.reason
  }
}

/** What an upstream makes of a server that answers in this one way, for a submit and for a status call. */
async function outcomes (t: Test, server: RawServer, more: Partial<ClientOptions> = {}) {
  const it = upstream(t, server.origin, more)
  return await Promise.all([failure(it.send(submit)), failure(it.send(status))])
}

t.test('the upstream gets method, path, body and the headers of a list, and the key once, at the end', async t => {
  const server = await rawServer(t, socket => socket.write(ok(good)))
  const it = upstream(t, server.origin)
  await it.send(submit).answer
  await it.send(status).answer
  const host = `host: ${new URL(server.origin).host}`
  const lines = server.requests.map(request => request.split('\r\n').filter(line => !/^connection:/i.test(line)))
  t.same(lines, [
    [
      'POST /api/v1/generateTask/suno HTTP/1.1',
      host,
      'accept: application/json',
      'accept-encoding: identity',
      'user-agent: apixo-gateway/test',
      'content-type: application/json',
      `authorization: Bearer ${apiKey}`,
      `content-length: ${body.length}`,
      '',
      body.toString()
    ],
    [
      'GET /api/v1/statusTask/suno?taskId=a%2Fb HTTP/1.1',
      host,
      'accept: application/json',
      'accept-encoding: identity',
      'user-agent: apixo-gateway/test',
      `authorization: Bearer ${apiKey}`,
      '',
      ''
    ]
  ])
})

t.test('an idempotency key is the one header that a request can add, and it stays with its request', async t => {
  const server = await rawServer(t, socket => socket.write(ok(good)))
  const it = upstream(t, server.origin)
  const namesOf = (request: string) =>
    [...request.matchAll(/^([\w-]+): /gm)].map(([, name]) => name!.toLowerCase()).filter(name => name !== 'connection')
  await it.send(submit).answer
  const odd = { headers: { 'x-odd': '1' }, idempotency_key: 'x', key }
  await it.send({ ...submit, ...odd, idempotencyKey: 'order-42' }).answer
  await it.send({ ...status, ...odd }).answer
  const [plain, keyed, read] = server.requests
  t.match(keyed, /^idempotency-key: order-42\r$/m)
  t.same(
    namesOf(keyed!).filter(name => name !== 'idempotency-key'),
    namesOf(plain!)
  )
  t.same(namesOf(read!), ['host', 'accept', 'accept-encoding', 'user-agent', 'authorization'])
  for (const bad of ['a\r\nauthorization: Bearer other', 'a\nb', '\0']) {
    t.match(await failure(it.send({ ...submit, idempotencyKey: bad })), 'unreachable', 'nothing was written')
  }
  t.equal(server.requests.length, 3)
})

t.test('each request goes with the key it was given', async t => {
  const server = await rawServer(t, socket => socket.write(ok(good)))
  const it = upstream(t, server.origin)
  const keys = ['one', 'two'].map(name => ({ id: name, secret: new Secret(`secret-${name}`) }))
  await Promise.all([...keys, ...keys].map(key => it.send({ ...submit, key }).answer))
  t.same(server.requests.map(request => /^authorization: (.*)\r$/m.exec(request)?.[1]).sort(), [
    'Bearer secret-one',
    'Bearer secret-one',
    'Bearer secret-two',
    'Bearer secret-two'
  ])
})

t.test('a base URL may have a path, with or without a slash at its end', async t => {
  const server = await rawServer(t, socket => socket.write(ok(good)))
  for (const path of ['', '/', '/apixo/eu', '/apixo/eu/']) await upstream(t, server.origin + path).send(status).answer
  t.same(
    server.requests.map(request => request.split(' ')[1]),
    [
      '/api/v1/statusTask/suno?taskId=a%2Fb',
      '/api/v1/statusTask/suno?taskId=a%2Fb',
      '/apixo/eu/api/v1/statusTask/suno?taskId=a%2Fb',
      '/apixo/eu/api/v1/statusTask/suno?taskId=a%2Fb'
    ]
  )
})

t.test('an answer comes back as it is, in pieces or whole, whatever its status', async t => {
  const server = createHttpServer((_request, response) => {
    response.writeHead(429, {
      'content-type': 'application/json; charset=utf-8',
      'retry-after': '7',
      'set-cookie': ['a=1', 'b=2']
    })
    response.write('{"code":')
    setImmediate(() => response.end('429}'))
  })
  t.teardown(() => server.close())
  const answer = await upstream(t, `http://127.0.0.1:${await listen(server)}`).send(submit).answer
  t.same(answer, {
    status: 429,
    contentType: 'application/json; charset=utf-8',
    retryAfter: '7',
    body: Buffer.from('{"code":429}'),
    leaksKey: false
  })
})

t.test('an answer without a body, or without headers, is an answer', async t => {
  const empty = { contentType: '', retryAfter: undefined, body: Buffer.alloc(0), leaksKey: false }
  for (const [text, code] of [
    ['HTTP/1.1 204 No Content\r\n\r\n', 204],
    ['HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n', 200]
  ] as const) {
    const server = await rawServer(t, socket => socket.write(text))
    t.same(await outcomes(t, server), [
      { ...empty, status: code },
      { ...empty, status: code }
    ])
  }
})

t.test('an identity encoding is no encoding', async t => {
  const server = await rawServer(t, socket => socket.write(ok(good, 'content-encoding: identity')))
  t.match(await outcomes(t, server), [{ status: 200 }, { status: 200 }])
})

/** Answers with these bytes in this coding. */
function encoded (coding: string, bytes: Buffer): Parameters<typeof rawServer>[1] {
  return socket => {
    socket.write(
      `HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: ${coding}\r\ncontent-length: ${bytes.length}\r\n\r\n`
    )
    socket.write(bytes)
  }
}

t.test('an answer that is compressed, though asked for plain, is undone: the id in it is paid for', async t => {
  const codings: ReadonlyArray<readonly [string, Buffer]> = [
    ['gzip', gzipSync(good)],
    ['GZIP', gzipSync(good)],
    ['x-gzip', gzipSync(good)],
    ['br', brotliCompressSync(good)],
    ['deflate', deflateSync(good)],
    ['deflate', deflateRawSync(good)]
  ]
  for (const [coding, bytes] of codings) {
    const server = await rawServer(t, encoded(coding, bytes))
    const expected = { status: 200, contentType: 'application/json', body: Buffer.from(good), leaksKey: false }
    t.match(await outcomes(t, server), [expected, expected], coding)
  }
  const empty = await rawServer(t, encoded('gzip', Buffer.alloc(0)))
  t.match(await outcomes(t, empty), [{ status: 200, body: Buffer.alloc(0) }, { status: 200 }], 'nothing is nothing')
  const largest = await rawServer(t, encoded('br', brotliCompressSync(Buffer.alloc(maxAnswerBytes, ' '))))
  for (const outcome of await outcomes(t, largest)) {
    t.equal(typeof outcome === 'object' && outcome.body.length, maxAnswerBytes)
  }
})

t.test('a compressed answer is unpacked up to the bound and no further', async t => {
  const bomb = Buffer.alloc(30 * maxAnswerBytes, ' ')
  for (const [coding, bytes] of [
    ['gzip', gzipSync(bomb)],
    ['br', brotliCompressSync(bomb)],
    ['deflate', deflateSync(bomb)],
    ['gzip', gzipSync(Buffer.alloc(maxAnswerBytes + 1))]
  ] as const) {
    const server = await rawServer(t, encoded(coding, bytes))
    t.same(await outcomes(t, server), ['too-long', 'too-long'], coding)
  }
})

t.test('a compressed answer that is cut, is none, or repeats its key is treated as a plain one', async t => {
  for (const coding of ['gzip', 'br', 'deflate']) {
    t.same(
      await outcomes(t, await rawServer(t, encoded(coding, Buffer.from('{"code":200}')))),
      ['broken', 'broken'],
      `${coding}: none`
    )
  }
  for (const [coding, bytes] of [
    ['gzip', gzipSync(good)],
    ['br', brotliCompressSync(good)],
    ['deflate', deflateSync(good)]
  ] as const) {
    t.same(
      await outcomes(t, await rawServer(t, encoded(coding, bytes.subarray(0, -9)))),
      ['broken', 'broken'],
      `${coding}: cut`
    )
  }
  const leak = await rawServer(t, encoded('gzip', gzipSync(`{"message":"${apiKey}"}`)))
  t.match(await outcomes(t, leak), [{ leaksKey: true }, { leaksKey: true }])
})

t.test('no redirect is followed', async t => {
  const elsewhere = await rawServer(t, socket => socket.write(ok(good)))
  for (const code of [301, 302, 303, 307, 308]) {
    const server = await rawServer(t, socket =>
      socket.write(`HTTP/1.1 ${code} Moved\r\nlocation: ${elsewhere.origin}/\r\ncontent-length: 0\r\n\r\n`)
    )
    t.match(await outcomes(t, server), [{ status: code }, { status: code }])
    t.equal(server.requests.length, 2)
  }
  t.equal(elsewhere.sockets.length, 0)
})

t.test('interim answers are skipped', async t => {
  const server = await rawServer(t, socket => {
    socket.write(
      'HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\ncontent-type: text/html\r\nretry-after: 9\r\n\r\n'
    )
    setImmediate(() => socket.write(ok(good)))
  })
  const expected = {
    status: 200,
    contentType: 'application/json',
    retryAfter: undefined,
    body: Buffer.from(good),
    leaksKey: false
  }
  t.same(await outcomes(t, server), [expected, expected])
})

t.test('an answer that repeats its key is marked, wherever in the body it stands', async t => {
  const half = apiKey.length / 2
  const pieces = {
    whole: [`{"code":401,"message":"bad key ${apiKey}"}`],
    'cut in two': [`{"message":"${apiKey.slice(0, half)}`, `${apiKey.slice(half)}"}`],
    bare: [apiKey]
  }
  for (const [title, [first, second = '']] of Object.entries(pieces)) {
    const server = await rawServer(t, async socket => {
      const text = ok(first + second)
      const end = text.length - second.length
      socket.write(text.slice(0, end))
      for (let turn = 0; turn < 10; turn++) await nextTurn() // the reader is in this process, and has read by then
      socket.write(text.slice(end))
    })
    t.match(await outcomes(t, server), [{ leaksKey: true }, { leaksKey: true }], title)
  }
  const server = await rawServer(t, socket => socket.write(ok(`{"message":"${apiKey.slice(1)}"}`)))
  t.match(await outcomes(t, server), [{ leaksKey: false }, { leaksKey: false }], 'nearly')
})

t.test('an answer that repeats its key in escaped JSON is marked', async t => {
  const key = { id: 'key-2', secret: new Secret('sk-a+b/c_0001') }
  const unit = (sign: string) => `\\u${sign.charCodeAt(0).toString(16).padStart(4, '0')}`
  const escaped = [...key.secret.reveal()].map(unit).join('')
  const bodies: Readonly<Record<string, string>> = {
    'a slash': '{"message":"bad key sk-a+b\\/c_0001"}',
    'a unit': '{"message":"bad key sk-a\\u002Bb/c_0001"}',
    'a unit in small letters': '{"message":"bad key sk-a\\u002bb/c_0001"}',
    'each sign': `{"message":"${escaped}"}`,
    'a name': `{"data":[{"${escaped}":1}]}`,
    'the first of two names': `{"message":"${escaped}","message":"fine"}`,
    'JSON in JSON': JSON.stringify({ message: `{"error":{"key":"${escaped}"}}` }),
    'JSON in JSON in JSON': JSON.stringify({ message: JSON.stringify({ error: '{"key":"sk-a+b\\/c_0001"}' }) }),
    'what is no JSON': '{"message":"sk-a+b\\/c_0001'
  }
  for (const [what, text] of Object.entries(bodies)) {
    const server = await rawServer(t, socket => socket.write(ok(text)))
    t.match(
      await upstream(t, server.origin).send({ ...submit, key }).answer,
      { leaksKey: true, body: Buffer.from(text) },
      what
    )
  }
  const harmless = [
    '{"message":"sk-a\\u002Cb/c_0001"}',
    '{"message":"\\"sk-a\\\\u+b\\n/c"}',
    '{"prompt":"\\u00e9\\/\\\\\\\\"}',
    '"\\'
  ]
  for (const text of harmless) {
    const server = await rawServer(t, socket => socket.write(ok(text)))
    t.match(
      await upstream(t, server.origin).send({ ...submit, key }).answer,
      { leaksKey: false, body: Buffer.from(text) },
      text
    )
  }
})

t.test('where nobody listens and where no name leads, nothing was sent', async t => {
  for (const baseUrl of [
    `http://127.0.0.1:${await closedPort()}`,
    `https://127.0.0.1:${await closedPort()}`,
    'http://nowhere.invalid'
  ]) {
    const it = upstream(t, baseUrl)
    for (const request of Object.values(both)) t.equal(await failure(it.send(request)), 'unreachable', baseUrl)
  }
})

t.test('a failure keeps its cause for the log, and its own text says nothing of it', async t => {
  const it = upstream(t, `http://127.0.0.1:${await closedPort()}`)
  await t.rejects(it.send(submit).answer, { message: 'upstream: unreachable', cause: { code: 'ECONNREFUSED' } })
})

t.test('a server that takes the connection and does not speak TLS got nothing', async t => {
  const silent: Server = createServer(socket => socket.on('error', () => {}))
  const port = await listen(silent)
  t.teardown(() => silent.close())
  t.equal(
    await failure(upstream(t, `https://127.0.0.1:${port}`, { connectMs: 50 }).send(submit)),
    'unreachable',
    'silent'
  )
  const plain = await rawServer(t, socket => socket.write(ok(good)))
  const https = plain.origin.replace('http:', 'https:')
  const talker = createServer(socket => socket.on('error', () => {}).end('HTTP/1.1 400 Bad Request\r\n\r\n'))
  const talkerPort = await listen(talker)
  t.teardown(() => talker.close())
  t.equal(await failure(upstream(t, `https://127.0.0.1:${talkerPort}`).send(submit)), 'unreachable', 'plain HTTP')
  t.equal(await failure(upstream(t, https, { connectMs: 50 }).send(submit)), 'unreachable')
  t.same(plain.requests, [])
})

t.test(
  'a certificate that nobody vouches for is refused before anything is sent, and taken when the operator vouches',
  async t => {
    const { cert, key: certKey } = certificate(t, 'localhost')
    const bodies: string[] = []
    const server = createHttpsServer({ cert, key: certKey }, (request, response) => {
      request.on('data', chunk => bodies.push(String(chunk)))
      request.on('end', () => response.setHeader('content-type', 'application/json').end(good))
    })
    server.on('tlsClientError', () => {})
    const baseUrl = `https://localhost:${await listen(server)}`
    t.teardown(() => {
      server.close()
    })
    t.equal(await failure(upstream(t, baseUrl).send(submit)), 'unreachable')
    t.same(bodies, [])
    t.match(await upstream(t, baseUrl, { ca: cert }).send(submit).answer, { status: 200, body: Buffer.from(good) })
    t.same(bodies, [body.toString()])
    const other = baseUrl.replace('localhost', '127.0.0.1')
    t.equal(await failure(upstream(t, other, { ca: cert }).send(submit)), 'unreachable', 'but not under another name')
  }
)

/** One way each in which an answer does not come. */
const broken: ReadonlyArray<readonly [title: string, reason: FailureReason, answer: Parameters<typeof rawServer>[1]]> =
  [
    ['no headers in time', 'timeout', () => {}],
    ['half of the headers in time', 'timeout', socket => socket.write('HTTP/1.1 200 OK\r\ncontent-')],
    ['no more body in time', 'timeout', socket => socket.write(ok(good).slice(0, -5))],
    ['the connection closed before a byte', 'broken', socket => socket.end()],
    ['the connection reset before a byte', 'broken', socket => socket.resetAndDestroy()],
    ['the connection closed in the headers', 'broken', socket => socket.end('HTTP/1.1 200 OK\r\ncontent-')],
    [
      'the connection reset in the body',
      'broken',
      socket => socket.write(ok(good).slice(0, -5), () => setImmediate(() => socket.resetAndDestroy()))
    ],
    ['fewer bytes than content-length says', 'broken', socket => socket.end(ok(good).slice(0, -5))],
    [
      'chunks without their end',
      'broken',
      socket => socket.end('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{"a":\r\n')
    ],
    [
      'chunks that are none',
      'broken',
      socket => socket.end('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzzz\r\n')
    ],
    ['a length that is none', 'broken', socket => socket.end('HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n{}')],
    [
      'a length and chunks, each its own',
      'broken',
      socket =>
        socket.end('HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n')
    ],
    [
      'two lengths',
      'broken',
      socket => socket.end('HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 4\r\n\r\n{}{}')
    ],
    ['another protocol', 'broken', socket => socket.end('SSH-2.0-OpenSSH_9.2\r\n')],
    [
      'leave to go on that nobody asked for',
      'broken',
      socket => socket.write(`HTTP/1.1 100 Continue\r\n\r\n${ok(good)}`)
    ],
    [
      'another protocol that nobody asked for',
      'broken',
      socket => socket.end('HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n')
    ],
    ['headers without an end', 'broken', socket => socket.write(`HTTP/1.1 200 OK\r\n${'a: b\r\n'.repeat(100_000)}`)],
    ['a body in a coding that is not undone', 'encoded', encoded('zstd', zstdCompressSync(good))],
    ['a body compressed twice', 'encoded', encoded('gzip, gzip', gzipSync(gzipSync(good)))],
    ['a body one byte too long', 'too-long', socket => socket.write(ok(' '.repeat(maxAnswerBytes + 1)))],
    [
      'a body without end',
      'too-long',
      socket => {
        socket.write('HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n')
        const more = () => {
          while (socket.writable && socket.write(' '.repeat(65_536)));
        }
        socket.on('drain', more)
        more()
      }
    ]
  ]

for (const [title, reason, answer] of broken) {
  t.test(`${title}: ${reason}, asked for once and never again`, async t => {
    const server = await rawServer(t, answer)
    const times = reason === 'timeout' ? { headersMs: 40, bodyIdleMs: 40 } : {}
    t.same(await outcomes(t, server, times), [reason, reason])
    t.equal(server.requests.length, 2)
    await until('the connections are given up', () =>
      server.sockets.every(socket => socket.destroyed || socket.readableEnded || !socket.writable)
    )
  })
}

t.test('the longest body that is let in is let in', async t => {
  const server = await rawServer(t, socket => socket.write(ok(' '.repeat(maxAnswerBytes))))
  for (const outcome of await outcomes(t, server)) {
    t.equal(typeof outcome === 'object' && outcome.body.length, maxAnswerBytes)
  }
})

t.test(
  'a request that is cancelled at once, before the answer or in its middle is cancelled, and its connection ends',
  async t => {
    const server = await rawServer(t, (socket, request) => {
      if (request.includes('half')) socket.write(ok(good).slice(0, -5))
    })
    const it = upstream(t, server.origin)
    const early = it.send(status)
    early.cancel()
    t.equal(await failure(early), 'cancelled')
    t.equal(server.requests.length, 0)

    const waiting = it.send(status)
    await until('it is asked', () => server.requests.length === 1)
    waiting.cancel()
    t.equal(await failure(waiting), 'cancelled')

    const half = it.send({ ...status, path: '/half' })
    await until('it is asked', () => server.requests.length === 2)
    half.cancel()
    half.cancel()
    t.equal(await failure(half), 'cancelled')
    await until('the connections end', () => server.sockets.every(socket => socket.readableEnded || socket.destroyed))
  }
)

t.test('a request that is cancelled after its answer has its answer', async t => {
  const server = await rawServer(t, socket => socket.write(ok(good)))
  const it = upstream(t, server.origin)
  const exchange = it.send(status)
  t.match(await exchange.answer, { status: 200 })
  exchange.cancel()
  t.match(await exchange.answer, { status: 200 })
  t.match(await it.send(status).answer, { status: 200 }, 'and the next one is none the worse')
})

t.test('one connection serves requests in turn, and parallel ones get more', async t => {
  const server = await rawServer(t, socket => setImmediate(() => socket.write(ok(good))))
  const it = upstream(t, server.origin)
  for (let count = 0; count < 5; count++) {
    await it.send(submit).answer
    await nextTurn()
  }
  t.equal(server.sockets.length, 1)
  await Promise.all(Array.from({ length: 5 }, () => it.send(submit).answer))
  t.equal(server.sockets.length, 5)
})

t.test("a connection is used again as long as the server's own hint lets it, with half a second to spare", async t => {
  const served = async (hint: string): Promise<number> => {
    const server = await rawServer(t, socket =>
      setImmediate(() => socket.write(ok(good, `keep-alive: timeout=${hint}`)))
    )
    const it = upstream(t, server.origin)
    for (let count = 0; count < 20; count++) {
      await it.send(submit).answer
      await nextTurn()
    }
    return server.sockets.length
  }
  for (const hint of ['1', '2', '5']) t.equal(await served(hint), 1, hint)
  t.equal(await served('0'), 20, 'a server that keeps none')
})

t.test('a submit is never sent twice when a kept connection dies under it', async t => {
  const deaths: ReadonlyArray<Parameters<typeof rawServer>[1]> = [
    socket => socket.destroy(),
    socket => socket.resetAndDestroy(),
    socket => socket.end(),
    socket => socket.write('HTTP/1.1 200 OK\r\n', () => socket.resetAndDestroy())
  ]
  for (const die of deaths) {
    const server = await rawServer(t, (socket, request, count) =>
      count === 1 ? socket.write(ok(good)) : die(socket, request, count)
    )
    const it = upstream(t, server.origin)
    await it.send(submit).answer
    await nextTurn()
    t.equal(await failure(it.send(submit)), 'broken')
    t.equal(server.requests.length, 2)
    t.equal(server.sockets.length, 1)
  }
})

t.test(
  'a server that closes kept connections at any moment sees each submit at most once, and each answer belongs to its submit',
  async t => {
    const server = await rawServer(t, (socket, request, count) => {
      const task = request.slice(request.indexOf('\r\n\r\n') + 4)
      socket.write(ok(task))
      // Some at once, some when the next one is just being written, some never.
      if (count % 3 === 0) setImmediate(() => socket.destroy())
      else if (count % 3 === 1) socket.end()
    })
    const it = upstream(t, server.origin)
    for (let count = 0; count < 300; count++) {
      const body = Buffer.from(`{"submit":${count}}`)
      const outcome = await failure(it.send({ ...submit, body }))
      if (count % 2 === 0) await nextTurn()
      if (typeof outcome === 'object') t.ok(outcome.body.equals(body))
      else t.equal(outcome, 'broken')
    }
    const numbers = server.requests.map(request => /"submit":(\d+)/.exec(request)?.[1])
    t.equal(new Set(numbers).size, numbers.length)
  }
)

t.test('closing waits for nobody: what runs ends as broken, and nothing more is sent', async t => {
  const server = await rawServer(t, () => {})
  const it = undiciUpstream({
    baseUrl: server.origin,
    connectMs: 2000,
    headersMs: 60_000,
    bodyIdleMs: 60_000,
    keepAliveMs: 4000,
    userAgent: 'apixo-gateway/test'
  })
  const running = it.send(submit)
  await until('it is asked', () => server.requests.length === 1)
  const outcome = failure(running)
  await it.close()
  t.equal(await outcome, 'broken')
  t.equal(await failure(it.send(submit)), 'unreachable')
  await it.close()
  t.equal(server.requests.length, 1)
})
