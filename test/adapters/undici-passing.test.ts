import { createServer, type RequestListener } from 'node:http'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import t from 'tap'
import { undiciPassing } from '../../src/adapters/undici/passing.ts'
import { Secret } from '../../src/domain/secret.ts'
import type { AnswerHead, AnswerReceiver, PassingRequest } from '../../src/domain/upstream.ts'
import { httpPort } from '../helpers/http-server.ts'
import { until } from '../helpers/until.ts'

const secret = new Secret('apixo-key-0123456789')
const request: PassingRequest = {
  path: '/v1/x', headers: ['accept', 'text/event-stream'], body: Buffer.from('{}'), key: { id: 'k', secret }, credential: 'x-api-key'
}

async function open (t: Parameters<typeof httpPort>[0], serve: RequestListener) {
  const port = await httpPort(t, createServer(serve))
  const upstream = undiciPassing({
    baseUrl: `http://127.0.0.1:${port}/prefix`, connectMs: 1000, headersMs: 5000, bodyIdleMs: 5000, keepAliveMs: 1000, userAgent: 'test'
  })
  t.teardown(() => upstream.close())
  return upstream
}

/** What a receiver is told, and how it ended. */
function hearing () {
  const ended = Promise.withResolvers<string>()
  const pieces: string[] = []
  const heads: AnswerHead[] = []
  const receiver: AnswerReceiver = {
    begin: head => { heads.push(head) },
    take: bytes => { pieces.push(bytes.toString()) },
    end: () => ended.resolve('end'),
    fail: ({ reason }) => ended.resolve(reason)
  }
  return { receiver, pieces, heads, ended: ended.promise }
}

t.test('a call has the key in the header that is asked for, and no other header than ours', async t => {
  let seen: object = {}
  const upstream = await open(t, ({ url, method, headers }, response) => {
    seen = { url, method, ...headers, host: undefined, connection: undefined, 'content-length': undefined }
    response.writeHead(201, { 'content-type': 'text/x', 'retry-after': '3' }).end('hello')
  })
  const { receiver, pieces, heads, ended } = hearing()
  upstream.send(request, receiver)
  t.equal(await ended, 'end')
  t.strictSame(heads, [{ status: 201, contentType: 'text/x', retryAfter: '3' }])
  t.strictSame(pieces, ['hello'])
  t.same(seen, {
    url: '/prefix/v1/x',
    method: 'POST',
    'accept-encoding': 'identity',
    'content-type': 'application/json',
    'user-agent': 'test',
    accept: 'text/event-stream',
    'x-api-key': 'apixo-key-0123456789'
  })
})

t.test('what may be the beginning of the key waits for what follows, and the key never comes', async t => {
  const answers = [['an apixo-', 'like thing'], ['an apixo-key', '-01234', '56789!'], ['ends in apixo-k']]
  const upstream = await open(t, async (_request, response) => {
    response.writeHead(200)
    for (const piece of answers.shift()!) {
      await new Promise<void>(resolve => response.write(piece, () => setTimeout(resolve, 20)))
    }
    response.end()
  })
  const heard = async () => {
    const { receiver, pieces, ended } = hearing()
    upstream.send(request, receiver)
    return [await ended, pieces.join('')]
  }
  t.strictSame(await heard(), ['end', 'an apixo-like thing'])
  t.strictSame(await heard(), ['leaks-key', 'an '])
  t.strictSame(await heard(), ['end', 'ends in apixo-k'])
})

t.test('a call that is given up is over at once; before anything was sent, nothing is', async t => {
  let calls = 0
  const upstream = await open(t, (_request, response) => {
    calls++
    response.writeHead(200).write('a')
  })
  const before = hearing()
  upstream.send(request, before.receiver).cancel()
  t.equal(await before.ended, 'unreachable')
  t.equal(calls, 0)
  const after = hearing()
  const call = upstream.send(request, after.receiver)
  call.pause()
  while (after.heads.length === 0) await new Promise(resolve => setTimeout(resolve, 5))
  call.resume()
  call.cancel()
  t.equal(await after.ended, 'cancelled')
})

t.test('what is compressed is not passed on, and what is cut is broken', async t => {
  const upstream = await open(t, (_request, response) => {
    response.writeHead(200, { 'content-encoding': 'gzip' }).end('x')
  })
  const { receiver, ended } = hearing()
  upstream.send(request, receiver)
  t.equal(await ended, 'encoded')
  const cutting = await open(t, (_request, response) => { response.destroy() })
  const cut = hearing()
  cutting.send(request, cut.receiver)
  t.equal(await cut.ended, 'broken')
})

t.test('a large body comes whole, with its length, and is let go of before its answer ends', async t => {
  const seen: Array<{ readonly length: string | undefined, readonly bytes: number }> = []
  let finish = (): void => {}
  const upstream = await open(t, async (request, response) => {
    let bytes = 0
    for await (const chunk of request) bytes += chunk.length
    seen.push({ length: request.headers['content-length'], bytes })
    response.writeHead(200).write('begun')
    finish = () => response.end()
  })
  setFlagsFromString('--expose-gc')
  const collect: () => void = runInNewContext('gc')
  const { receiver, pieces, ended } = hearing()
  const send = (): WeakRef<Buffer> => {
    const body = Buffer.alloc(3_000_000, 'x')
    upstream.send({ ...request, body }, receiver)
    return new WeakRef(body)
  }
  const body = send()
  await until('it has begun', () => pieces.length === 1)
  await until('nobody holds it', () => {
    collect()
    return body.deref() === undefined
  })
  t.strictSame(seen, [{ length: '3000000', bytes: 3_000_000 }])
  finish()
  t.equal(await ended, 'end')
})

t.test('a large body that is given up or finds nobody is a failure like any other', async t => {
  const upstream = await open(t, request => { request.socket.destroy() })
  const body = Buffer.alloc(3_000_000, 'x')
  const broken = hearing()
  upstream.send({ ...request, body }, broken.receiver)
  t.equal(await broken.ended, 'broken')
  const silent = await open(t, () => {})
  const cancelled = hearing()
  const call = silent.send({ ...request, body }, cancelled.receiver)
  setTimeout(() => call.cancel(), 50)
  t.equal(await cancelled.ended, 'cancelled')
})
