import { METHODS } from 'node:http'
import t from 'tap'
import { startGateway, issuerToken } from '../helpers/gateway.ts'
import { rawHttp, rawRequest } from '../helpers/raw-http.ts'

const config = 'plans: { default: {} }\nlimits: { addressFailuresPerMinute: 10000 }'
const routes: Readonly<Record<string, readonly string[]>> = {
  '/api/v1/generateTask/nano-banana': ['POST'],
  '/api/v1/statusTask/nano-banana?taskId=x': ['GET', 'HEAD'],
  '/gateway/sessions': ['POST'],
  '/gateway/session': ['GET', 'HEAD', 'DELETE'],
  '/livez': ['GET', 'HEAD'],
  '/readyz': ['GET', 'HEAD']
}

t.test('every other method is a 405 that names the right ones, and nothing is sent', async t => {
  const { origin, mint, sandbox } = await startGateway(t, { config })
  const headers = [`authorization: Bearer ${await mint('alice')}`]
  for (const [path, allowed] of Object.entries(routes)) {
    for (const method of METHODS.filter(method => !['CONNECT', 'OPTIONS', ...allowed].includes(method))) {
      const answer = await rawHttp(t, origin, rawRequest(`${method} ${path}`, headers, '{"input":{"prompt":"x"}}'))
      t.match(answer, { status: 405, error: 'GW_METHOD_NOT_ALLOWED' }, `${method} ${path}`)
      for (const name of allowed) t.match(answer.text, new RegExp(`^allow: .*\\b${name}\\b`, 'im'))
    }
  }
  t.equal(sandbox.calls.length, 0)
})

t.test('methods that do not exist, or in another case, are no requests', async t => {
  const { origin, mint, sandbox } = await startGateway(t, { config })
  const headers = [`authorization: Bearer ${await mint('alice')}`]
  for (const method of ['post', 'Post', 'FETCH', 'POSTX', 'GET\tPOST', 'P0ST', 'PRI', 'DEBUG']) {
    const { status } = await rawHttp(
      t,
      origin,
      rawRequest(`${method} /api/v1/generateTask/nano-banana`, headers, '{"input":{"prompt":"x"}}')
    )
    t.ok(status === 400 || status === 405, `${method}: ${status}`)
  }
  const { status } = await rawHttp(t, origin, 'CONNECT api.apixo.ai:443 HTTP/1.1\r\nhost: api.apixo.ai:443\r\n\r\n')
  t.not(status, 200, 'there is no tunnel')
  t.equal(sandbox.calls.length, 0)
})

t.test('no header or query turns one method into another', async t => {
  const { call, mint, sandbox } = await startGateway(t, { config })
  const token = await mint('alice')
  const body = { input: { prompt: 'x' } }
  for (const name of ['x-http-method-override', 'x-http-method', 'x-method-override', 'x-original-method']) {
    t.equal(
      (
        await call('/api/v1/statusTask/nano-banana?taskId=x', {
          token,
          body,
          method: 'POST',
          headers: { [name]: 'GET' }
        })
      ).status,
      405,
      name
    )
    t.equal((await call('/api/v1/generateTask/nano-banana', { token, headers: { [name]: 'POST' } })).status, 405, name)
    t.equal((await call('/gateway/sessions', { token: issuerToken, headers: { [name]: 'POST' } })).status, 405, name)
    t.equal((await call('/gateway/session', { token, headers: { [name]: 'DELETE' } })).status, 200, name)
  }
  t.equal(
    (await call('/api/v1/statusTask/nano-banana?_method=GET&taskId=x', { token, method: 'POST', body })).status,
    405
  )
  t.equal((await call('/gateway/session', { token })).status, 200, 'the session still lives')
  t.equal(sandbox.calls.length, 0)
})

t.test('a 405 needs no session and reads no body', async t => {
  const { origin, call, sandbox } = await startGateway(t, { config })
  t.equal((await call('/api/v1/generateTask/nano-banana', { method: 'PUT', body: {} })).status, 405)
  const head =
    'PUT /api/v1/generateTask/nano-banana HTTP/1.1\r\nhost: gateway.test\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: 1000000\r\n\r\n'
  t.equal((await rawHttp(t, origin, head)).status, 405)
  t.equal(sandbox.calls.length, 0)
})

t.test('an upgrade is not taken up', async t => {
  const { origin, mint, sandbox } = await startGateway(t, { config })
  const token = await mint('alice')
  for (const protocol of ['websocket', 'h2c', 'TLS/1.0']) {
    const headers = [
      'upgrade: ' + protocol,
      `authorization: Bearer ${token}`,
      'sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==',
      'sec-websocket-version: 13'
    ]
    const bytes = rawRequest('GET /api/v1/statusTask/nano-banana?taskId=x', headers).replace(
      'connection: close',
      'connection: upgrade, close'
    )
    t.equal((await rawHttp(t, origin, bytes)).status, 404, protocol)
  }
  t.equal(sandbox.calls.length, 0)
})
