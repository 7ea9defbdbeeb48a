import t from 'tap'
import { apiKey, startGateway } from '../helpers/gateway.ts'
import { rawHttp, rawRequest } from '../helpers/raw-http.ts'

const ours = [
  'host',
  'connection',
  'content-type',
  'content-length',
  'accept',
  'accept-encoding',
  'user-agent',
  'authorization'
]

function pairs (rawHeaders: readonly string[]): Array<[string, string]> {
  return Array.from({ length: rawHeaders.length / 2 }, (_, index) => [
    rawHeaders[index * 2]!.toLowerCase(),
    rawHeaders[index * 2 + 1]!
  ])
}

t.test('the upstream gets headers of the gateway\'s own and none of the caller\'s', async t => {
  const { call, submit, mint, sandbox, status } = await startGateway(t)
  const token = await mint('alice')
  const headers = {
    cookie: `session=${token}`,
    'x-api-key': token,
    'x-goog-api-key': token,
    'x-mcp-token': 'x',
    'proxy-authorization': 'Basic eDp4',
    'user-agent': 'evil-agent/1.0',
    accept: 'text/html',
    'accept-language': 'xx',
    'x-request-id': 'of-the-caller',
    'idempotency-key': 'of-the-caller',
    traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
    'x-forwarded-for': '1.2.3.4',
    forwarded: 'for=1.2.3.4',
    origin: 'https://app.example',
    referer: 'https://app.example/secret',
    te: 'trailers',
    priority: 'u=1',
    range: 'bytes=0-1',
    'if-none-match': '"x"',
    'x-anything': 'else'
  }
  const body = { input: { prompt: 'x' } }
  const { taskId } = (await call('/api/v1/generateTask/nano-banana', { token, body, headers })).json.data
  await status(token, taskId, 'nano-banana', { headers })
  await submit(token, 'sandbox:http-403', 'nano-banana')
  t.equal(sandbox.calls.length, 4, 'two submits, a status call, and a probe')
  for (const { rawHeaders, method } of sandbox.calls) {
    const sent = pairs(rawHeaders)
    t.same(sent.filter(([name]) => !ours.includes(name)), [], method)
    t.same(sent.filter(([name]) => name === 'authorization'), [['authorization', `Bearer ${apiKey}`]])
    t.notMatch(rawHeaders.join('\n'), token)
    t.notMatch(rawHeaders.join('\n'), /evil-agent|of-the-caller|1\.2\.3\.4/)
    t.equal(new Set(sent.map(([name]) => name)).size, sent.length, 'each once')
  }
})

t.test('folded, split or smuggled headers of a caller do not get across', async t => {
  const { origin, mint, sandbox } = await startGateway(t)
  const token = await mint('alice')
  const body = '{"input":{"prompt":"x"}}'
  const odd = [
    'x-a: 1\r\n\tauthorization: Bearer evil',
    'x-b: 1\nauthorization: Bearer evil',
    'x-c: 1\rauthorization: Bearer evil',
    'x d: 1',
    'x-e : 1',
    'x-f: \x00',
    ': 1',
    'x-g'
  ]
  for (const header of odd) {
    await rawHttp(
      t,
      origin,
      rawRequest('POST /api/v1/generateTask/nano-banana', [`authorization: Bearer ${token}`, header], body)
    )
  }
  await rawHttp(
    t,
    origin,
    rawRequest(
      'POST /api/v1/generateTask/nano-banana',
      [`authorization: Bearer ${token}`, ...Array.from({ length: 1500 }, (_, index) => `a${index}:1`)],
      body
    )
  )
  for (const { rawHeaders } of sandbox.calls) t.notMatch(rawHeaders.join('\n'), /evil|x-[a-g]/i)
  t.ok(sandbox.calls.every(({ rawHeaders }) => pairs(rawHeaders).every(([name]) => ours.includes(name))))
})
