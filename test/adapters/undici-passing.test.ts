import { createServer, type RequestListener } from 'node:http'
import t from 'tap'
import { undiciPassing } from '../../src/adapters/undici/passing.ts'
import { Secret } from '../../src/domain/secret.ts'
import type { AnswerHead, AnswerReceiver, PassingRequest } from '../../src/domain/upstream.ts'
import { httpPort } from '../helpers/http-server.ts'

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
