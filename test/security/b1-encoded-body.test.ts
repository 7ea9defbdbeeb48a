import { brotliCompressSync, deflateSync, gzipSync, zstdCompressSync } from 'node:zlib'
import t from 'tap'
import { issuerToken, startGateway } from '../helpers/gateway.ts'
import { rawHttp } from '../helpers/raw-http.ts'

const path = '/api/v1/generateTask/nano-banana'
const bomb = Buffer.from(`{"input":{"prompt":"${' '.repeat(50 * 1024 * 1024)}"}}`)

t.test('a compressed body is a 415: a bomb needs a decoder', async t => {
  const { origin, mint, sandbox } = await startGateway(t)
  const token = await mint('mallory')
  const encodings: ReadonlyArray<readonly [string, Buffer]> = [
    ['gzip', gzipSync(bomb)],
    ['x-gzip', gzipSync(bomb)],
    ['GZIP', gzipSync(bomb)],
    ['br', brotliCompressSync(bomb.subarray(0, 1e6))],
    ['deflate', deflateSync(bomb)],
    ['zstd', zstdCompressSync(bomb)],
    ['gzip, gzip', gzipSync(gzipSync(bomb))],
    ['identity, gzip', gzipSync(bomb)],
    ['gzip, identity', gzipSync(bomb)],
    ['compress', Buffer.from('x')],
    ['aes128gcm', Buffer.from('x')],
    ['dcb', Buffer.from('x')],
    ['', Buffer.from('{}')],
    [' ', Buffer.from('{}')],
    ['*', Buffer.from('{}')],
    ['identity, identity', Buffer.from('{}')]
  ]
  for (const [encoding, body] of encodings) {
    for (const [target, credential] of [[path, token], ['/gateway/sessions', issuerToken]] as const) {
      const response = await fetch(origin + target, {
        method: 'POST',
        headers: {
          authorization: `Bearer ${credential}`,
          'content-type': 'application/json',
          'content-encoding': encoding
        },
        body: new Uint8Array(body)
      })
      const expected = encoding.trim() === '' ? [400, 415] : [415]
      t.ok(expected.includes(response.status), `${encoding} on ${target}: ${response.status}`)
      await response.arrayBuffer()
    }
  }
  t.equal(sandbox.calls.length, 0)
})

t.test('a compressed body without the header is no JSON', async t => {
  const { origin, mint, sandbox } = await startGateway(t)
  const headers = { authorization: `Bearer ${await mint('mallory')}`, 'content-type': 'application/json' }
  const response = await fetch(origin + path, {
    method: 'POST',
    headers,
    body: new Uint8Array(gzipSync('{"input":{"prompt":"x"}}'))
  })
  t.equal(response.headers.get('x-gateway-error'), 'GW_BAD_REQUEST')
  t.equal(sandbox.calls.length, 0)
})

t.test('an encoding of the transfer is not undone either', async t => {
  const { origin, mint, sandbox } = await startGateway(t)
  const token = await mint('mallory')
  for (const encoding of ['gzip, chunked', 'gzip', 'chunked, gzip', 'deflate, chunked', 'identity']) {
    const body = gzipSync('{"input":{"prompt":"x"}}')
    const head = `POST ${path} HTTP/1.1\r\nhost: gateway.test\r\nconnection: close\r\nauthorization: Bearer ${token}\r\ncontent-type: application/json\r\ntransfer-encoding: ${encoding}\r\n\r\n`
    const bytes = Buffer.concat([
      Buffer.from(`${head}${body.length.toString(16)}\r\n`),
      body,
      Buffer.from('\r\n0\r\n\r\n')
    ])
    t.equal((await rawHttp(t, origin, bytes)).status, 400, encoding)
  }
  t.equal(sandbox.calls.length, 0)
})

t.test('another type than JSON is a 415', async t => {
  const { call, mint, sandbox } = await startGateway(t)
  const token = await mint('mallory')
  const body = '{"input":{"prompt":"x"}}'
  const types = [
    'text/plain',
    'application/x-www-form-urlencoded',
    'multipart/form-data; boundary=x',
    'text/json',
    'application/json5',
    'application/xml',
    'application/jsonx',
    'application',
    'text/plain; application/json',
    '*/*',
    'application/vnd.api+json',
    '; application/json',
    'application/ json'
  ]
  for (const type of types) {
    t.match(
      await call(path, { token, body, headers: { 'content-type': type } }),
      { status: 415, error: 'GW_UNSUPPORTED_MEDIA_TYPE' },
      type
    )
  }
  t.equal(sandbox.calls.length, 0)
})
