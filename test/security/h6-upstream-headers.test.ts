import t from 'tap'
import { startGateway } from '../helpers/gateway.ts'

const passed = new Set([
  'cache-control',
  'connection',
  'content-length',
  'content-security-policy',
  'content-type',
  'date',
  'keep-alive',
  'retry-after',
  'vary',
  'x-content-type-options',
  'x-request-id',
  'access-control-allow-origin',
  'access-control-expose-headers',
  'ratelimit-limit',
  'ratelimit-remaining',
  'ratelimit-reset'
])
/** Longer than the least time between two status calls of a task. */
const pollMs = 20_000

const stray = {
  'set-cookie': ['upstream=1; Path=/', 'other=2'],
  'access-control-allow-origin': '*',
  'access-control-allow-credentials': 'true',
  'access-control-expose-headers': '*',
  server: 'sandbox',
  via: '1.1 cdn',
  'x-powered-by': 'php',
  'www-authenticate': 'Basic realm="upstream"',
  'proxy-authenticate': 'Basic realm="upstream"',
  'clear-site-data': '"*"',
  'strict-transport-security': 'max-age=1',
  'content-security-policy': "default-src *; script-src 'unsafe-inline'",
  'x-content-type-options': 'x',
  'cache-control': 'public, max-age=31536000',
  'x-request-id': 'of-the-upstream',
  'x-gateway-error': 'GW_INTERNAL',
  'x-should-retry': 'true',
  etag: '"x"',
  expires: 'Fri, 31 Dec 2099 23:59:59 GMT',
  link: '</x>; rel=preload',
  'alt-svc': 'h3=":443"',
  'content-disposition': 'attachment',
  'service-worker-allowed': '/',
  'report-to': '{}',
  nel: '{}',
  'x-anything': 'else'
}

t.test("no header of the upstream's own choice reaches the caller, on good answers and on bad", async t => {
  const { submit, status, mint, sandbox, time } = await startGateway(t, {
    env: { GATEWAY_ALLOWED_ORIGINS: 'https://app.example' }
  })
  const token = await mint('alice')
  const { taskId } = (await submit(token)).json.data
  const headers = { origin: 'https://app.example' }
  for (const code of [200, 201, 400, 403, 404, 429, 500, 503]) {
    time.advance(pollMs)
    sandbox.next((_request, response) => {
      response
        .writeHead(code, { ...stray, 'content-type': 'application/json' })
        .end(JSON.stringify({ code, message: 'x', data: { taskId: `t${code}` } }))
    })
    const before = sandbox.calls.length
    const reply = await (code % 2 === 0
      ? submit(token, 'x', 'nano-banana', { headers })
      : status(token, taskId, 'nano-banana', { headers }))
    t.ok(sandbox.calls.length > before)
    t.same([...reply.headers.keys()].filter(name => !passed.has(name)), [], String(code))
    t.match(Object.fromEntries(reply.headers), {
      'access-control-allow-origin': 'https://app.example',
      'cache-control': 'no-store',
      'content-security-policy': "default-src 'none'; sandbox",
      'content-type': /^application\/json/,
      'x-content-type-options': 'nosniff'
    })
    t.not(reply.headers.get('x-request-id'), 'of-the-upstream')
  }
})

t.test('the sandbox\'s case of stray headers, for a submit and for a status call', async t => {
  const { submit, status, mint } = await startGateway(t)
  const token = await mint('alice')
  const submitted = await submit(token, 'sandbox:bad-headers sandbox:status-bad-headers')
  for (const reply of [submitted, await status(token, submitted.json.data.taskId)]) {
    t.equal(reply.status, 200)
    t.same([...reply.headers.keys()].filter(name => !passed.has(name) || name.startsWith('access-control')), [])
  }
})

t.test('a content type that a browser would render is replaced', async t => {
  const { submit, mint, sandbox } = await startGateway(t)
  const token = await mint('alice')
  for (const type of [
    'text/html',
    'image/svg+xml',
    'application/json; charset=utf-7',
    'application/json, text/html',
    'text/javascript',
    ''
  ]) {
    sandbox.next((_request, response) => {
      response.writeHead(400, { 'content-type': type }).end('{"code":400,"message":"<script>alert(1)</script>"}')
    })
    const reply = await submit(token)
    t.equal(reply.headers.get('content-type'), 'application/json; charset=utf-8', type)
    t.equal(reply.headers.get('x-content-type-options'), 'nosniff')
  }
})
