import t from 'tap'
import { apiKey, startGateway } from '../helpers/gateway.ts'
import { rawHttp, rawRequest } from '../helpers/raw-http.ts'

const body = '{"input":{"prompt":"x"}}'
const options = [
  'authorization',
  'Authorization, content-type',
  'close, authorization, host',
  'keep-alive, authorization',
  'content-length',
  'content-type, content-length, host, accept',
  'x-api-key',
  'upgrade, authorization',
  'authorization,authorization',
  ',,,',
  '"authorization"'
]

t.test('a Connection header strips nothing from the upstream request and adds nothing to it', async t => {
  const { origin, mint, sandbox } = await startGateway(t, { config: 'plans: { default: { concurrentTasks: 100 } }' })
  const token = await mint('alice')
  for (const option of options) {
    const bytes = rawRequest(
      'POST /api/v1/generateTask/nano-banana',
      [`authorization: Bearer ${token}`, `connection: ${option}`],
      body
    )
    t.equal((await rawHttp(t, origin, bytes)).status, 200, option)
  }
  for (const name of ['proxy-connection', 'keep-alive', 'te', 'trailer', 'proxy-authenticate', 'http2-settings']) {
    const bytes = rawRequest(
      'POST /api/v1/generateTask/nano-banana',
      [`authorization: Bearer ${token}`, `${name}: authorization`],
      body
    )
    t.equal((await rawHttp(t, origin, bytes)).status, 200, name)
  }
  t.equal(sandbox.submits.length, options.length + 6)
  for (const { rawHeaders, body: sent } of sandbox.submits) {
    const at = rawHeaders.findIndex(name => name.toLowerCase() === 'authorization')
    t.equal(rawHeaders[at + 1], `Bearer ${apiKey}`)
    t.equal(rawHeaders.filter(name => name.toLowerCase() === 'authorization').length, 1)
    t.match(sent.toString(), '"input":{"prompt":"x"}')
    t.notMatch(rawHeaders.filter(name => /proxy|trailer|^te$|http2/i.test(name)), [/./])
  }
})

t.test('a Connection header of the upstream\'s takes no header off the answer', async t => {
  const { submit, mint, sandbox } = await startGateway(t)
  const token = await mint('alice')
  sandbox.next((_request, response) => {
    response.writeHead(429, {
      connection: 'close, cache-control, x-request-id',
      'keep-alive': 'timeout=1',
      'content-type': 'application/json',
      trailer: 'x'
    })
    response.end('{"code":429,"message":"slow"}')
  })
  const reply = await submit(token)
  t.equal(reply.status, 429)
  t.equal(reply.headers.get('cache-control'), 'no-store')
  t.ok(reply.headers.has('x-request-id'))
  t.equal(reply.headers.get('trailer'), null)
})
