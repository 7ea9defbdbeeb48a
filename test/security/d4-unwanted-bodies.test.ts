import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { request as httpRequest } from 'node:http'
import { connect } from 'node:net'
import { ReadableStream } from 'node:stream/web'
import { promisify } from 'node:util'
import { Agent, request } from 'undici'
import t, { type Test } from 'tap'
import { startGateway } from '../helpers/gateway.ts'
import { rawAnswer, rawSocket } from '../helpers/raw-http.ts'
import { until } from '../helpers/until.ts'

const config =
  'plans: { default: { credits: unlimited } }\nlimits: { bodyBytes: 1000000, addressFailuresPerMinute: 100000 }'
const submitPath = '/api/v1/generateTask/nano-banana'
const run = promisify(execFile)

interface Refusal { readonly method?: string, readonly path: string, readonly token?: string, readonly status: number }

async function refusals (mint: (subject: string) => Promise<string>): Promise<readonly Refusal[]> {
  const token = await mint('alice')
  return [
    { path: submitPath, status: 401 },
    { path: submitPath, token: 'a.b.c', status: 401 },
    { path: '/nowhere', status: 404 },
    { path: '/%', status: 400 },
    { path: submitPath, method: 'PUT', status: 405 },
    { path: submitPath, token, status: 413 },
    { path: '/gateway/session', method: 'GET', token, status: 200 }
  ]
}

/** A connection that is read from its first byte. */
async function reading (t: Test, origin: string) {
  const socket = await rawSocket(t, origin)
  const start = performance.now()
  const seen = { text: '' }
  socket.on('data', chunk => { seen.text += chunk })
  // Resolves with the time it took, ms.
  const closed = new Promise<number>(resolve => socket.once('close', () => resolve(performance.now() - start)))
  return { socket, seen, closed }
}

/** Sends a body without end, and counts what goes out. */
async function endless (t: Test, origin: string, { method = 'POST', path, token }: Refusal, framing: string) {
  const { socket, seen, closed } = await reading(t, origin)
  let sent = 0
  socket.write(
    `${method} ${path} HTTP/1.1\r\nhost: x\r\n${token === undefined ? '' : `authorization: Bearer ${token}\r\n`}content-type: application/json\r\n${framing}\r\n\r\n`
  )
  const chunk = Buffer.from(framing.startsWith('transfer') ? `10000\r\n${'x'.repeat(65536)}\r\n` : 'x'.repeat(65536))
  const pump = (): void => {
    while (!socket.destroyed && socket.writable) {
      sent += chunk.length
      if (!socket.write(chunk)) return
    }
  }
  socket.on('drain', pump)
  pump()
  const closedMs = await closed
  return { text: seen.text, sent, closedMs }
}

t.test('a refusal of an endless body is seen, and the connection ends soon', async t => {
  const { origin, mint } = await startGateway(t, { config })
  for (const refusal of await refusals(mint)) {
    for (const framing of ['content-length: 1000000000000', 'transfer-encoding: chunked']) {
      const { text, sent, closedMs } = await endless(t, origin, refusal, framing)
      const name = `${refusal.method ?? 'POST'} ${refusal.path} ${framing}`
      t.match(rawAnswer(text), { status: refusal.status, count: 1 }, name)
      t.match(text, /^connection: close\r$/im, name)
      t.ok(closedMs < 8000, `${name}: ${Math.round(closedMs)} ms`)
      // What the systems on both sides hold for a connection comes on top.
      t.ok(sent < 20_000_000, `${name}: ${sent} bytes`)
    }
  }
})

t.test('whoever goes on sending after its refusal is cut off by what it sends, long before its time is up', async t => {
  const { origin } = await startGateway(t, { config })
  // Open to one side: the end of the gateway's own side is not the end of this one.
  const socket = connect({ port: Number(new URL(origin).port), allowHalfOpen: true })
  t.teardown(() => socket.destroy())
  socket.on('error', () => { /* it is cut off */ })
  const isEnded = once(socket.resume(), 'end')
  socket.write(
    `POST ${submitPath} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1000000000\r\n\r\n`
  )
  await isEnded // it has its refusal, and goes on
  const start = performance.now()
  const chunk = Buffer.alloc(65_536)
  const pump = (): void => { while (socket.writable && socket.write(chunk)) { /* as long as it is taken */ } }
  socket.on('drain', pump)
  pump()
  await new Promise(resolve => socket.once('close', resolve))
  t.ok(performance.now() - start < 2000, 'its time would be three seconds')
  // What the systems on both sides hold comes on top of twice the limit of bodies.
  t.ok(socket.bytesWritten < 20_000_000, `${socket.bytesWritten} bytes`)
})

t.test('a body that is announced and does not come keeps a refused connection for a moment', async t => {
  const { origin, mint } = await startGateway(t, { config })
  for (const { method = 'POST', path, token, status } of await refusals(mint)) {
    if (status === 413) continue // it is in the limit
    const { socket, seen, closed } = await reading(t, origin)
    const bearer = token === undefined ? '' : `authorization: Bearer ${token}\r\n`
    socket.write(
      `${method} ${path} HTTP/1.1\r\nhost: x\r\n${bearer}content-type: application/json\r\ncontent-length: 100\r\n\r\n{`
    )
    t.ok((await closed) < 8000)
    t.match(rawAnswer(seen.text), { status, count: 1 })
  }
})

t.test('a short body of a refused request leaves the connection in use', async t => {
  const { origin } = await startGateway(t, { config })
  const { socket, seen, closed } = await reading(t, origin)
  const head = `POST ${submitPath} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n`
  socket.write(head)
  await until('it is refused', () => rawAnswer(seen.text).count === 1)
  socket.write('x'.repeat(1000) + head)
  await until('the next is refused', () => rawAnswer(seen.text).count === 2)
  socket.write(`${'x'.repeat(1000)}GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n`)
  await closed
  t.match(rawAnswer(seen.text), { status: 401, count: 3 })
})

t.test('no caller is asked for a body before its token is good', async t => {
  const { origin, mint, sandbox } = await startGateway(t, { config })
  const body = '{"input":{"prompt":"x"}}'
  const token = await mint('alice')
  for (const [sent, more] of [['a.b.c', ''], [token, 'x-never: mind\r\n']] as const) {
    const { socket, seen, closed } = await reading(t, origin)
    socket.write(
      `POST ${submitPath} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${sent}\r\n${more}content-type: application/json\r\nexpect: 100-continue\r\ncontent-length: ${body.length}\r\n\r\n`
    )
    await until('it says something', () => seen.text.includes('\r\n\r\n'))
    if (sent === token) {
      t.match(seen.text, /^HTTP\/1\.1 100 Continue\r\n\r\n$/)
      socket.write(body)
      await until('an answer', () => rawAnswer(seen.text).count === 1)
      t.equal(rawAnswer(seen.text).status, 200)
      t.equal(seen.text.match(/100 Continue/g)?.length, 1)
    } else {
      await closed
      t.match(rawAnswer(seen.text), { status: 401, count: 1 })
      t.notMatch(seen.text, / 100 /)
    }
  }
  t.equal(sandbox.submits.length, 1)
})

t.test('another expectation is none that can be met', async t => {
  const { origin } = await startGateway(t, { config })
  const seen = await endless(t, origin, { path: submitPath, status: 417 }, 'expect: tea\r\ncontent-length: 1000000000')
  t.match(rawAnswer(seen.text), { status: 417, count: 1 })
  t.ok(seen.closedMs < 8000)
})

t.test('what follows on no HTTP is read for a moment at most', async t => {
  const { origin } = await startGateway(t, { config })
  const { socket, seen, closed } = await reading(t, origin)
  const pump = (): void => {
    while (!socket.destroyed && socket.writable && socket.write('no http at all '.repeat(5000))) {
      /* on */
    }
  }
  socket.on('drain', pump)
  pump()
  t.ok(await closed < 8000)
  t.match(rawAnswer(seen.text), { status: 400, count: 1 })
})

t.test('clients of all kinds see why a body was refused', async t => {
  const { origin, mint } = await startGateway(t, { config })
  const url = origin + submitPath
  const token = await mint('alice')
  for (const [bearer, status] of [[token, 413], ['a.b.c', 401]] as const) {
    const headers = { authorization: `Bearer ${bearer}`, 'content-type': 'application/json' }
    const body = Buffer.alloc(1_900_000, 'x')
    for (let round = 0; round < 3; round++) {
      t.equal((await fetch(url, { method: 'POST', headers, body })).status, status, 'fetch')
      const streamed = function * () {
        for (let at = 0; at < body.length; at += 100_000) yield body.subarray(at, at + 100_000)
      }
      t.equal(
        (
          await fetch(url, {
            method: 'POST',
            headers,
            body: ReadableStream.from(streamed()),
            duplex: 'half'
          } as RequestInit)
        ).status,
        status,
        'a streamed fetch'
      )
      const dispatcher = new Agent()
      t.equal((await request(url, { method: 'POST', headers, body, dispatcher })).statusCode, status, 'undici')
      await dispatcher.destroy()
      t.equal(await byNode(url, headers, body), status, 'node:http')
      const { stdout } = await run('curl', [
        '-s',
        '-o',
        '/dev/null',
        '-w',
        '%{http_code}',
        '-H',
        `authorization: Bearer ${bearer}`,
        '-H',
        'content-type: application/json',
        ...(round === 0 ? ['-H', 'expect:'] : []),
        '--data-binary',
        `@${t.testdir({ body: body.toString() })}/body`,
        url
      ])
      t.equal(stdout, String(status), 'curl')
    }
  }
})

/** As axios and got do it: the answer counts, and an error of the connection only where there is none. */
function byNode (url: string, headers: Record<string, string>, body: Buffer): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    const sent = httpRequest(url, { method: 'POST', headers }, response => {
      response.resume().once('end', () => resolve(response.statusCode))
    })
    sent.once('error', reject).end(body)
  })
}
