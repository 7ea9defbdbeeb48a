import t from 'tap'
import { startGateway } from '../helpers/gateway.ts'

const origin = 'https://app.example'
const env = { GATEWAY_ALLOWED_ORIGINS: `${origin},http://localhost:5173` }

t.test('a page on a listed origin may call, and read what it needs to know', async t => {
  const { call } = await startGateway(t, { env })
  const preflight = await call('/api/v1/generateTask/nano-banana', {
    method: 'OPTIONS',
    headers: {
      origin,
      'access-control-request-method': 'POST',
      'access-control-request-headers': 'authorization, content-type'
    }
  })
  t.equal(preflight.status, 204)
  t.match(Object.fromEntries(preflight.headers), {
    'access-control-allow-origin': origin,
    'access-control-allow-methods': 'GET, POST, DELETE',
    'access-control-allow-headers': 'authorization, content-type',
    'access-control-max-age': '600'
  })
  t.equal(preflight.headers.get('access-control-allow-credentials'), null)

  const refused = await call('/gateway/session', { headers: { origin: 'http://localhost:5173' } })
  t.equal(refused.status, 401)
  t.equal(refused.headers.get('access-control-allow-origin'), 'http://localhost:5173', 'errors can be read, too')
  t.match(refused.headers.get('vary'), /Origin/)
  for (const name of [
    'x-gateway-error',
    'x-request-id',
    'ratelimit-remaining',
    'retry-after',
    'idempotency-replayed',
    'content-range'
  ]) {
    t.match(refused.headers.get('access-control-expose-headers'), name)
  }
})

t.test('any other origin gets no CORS headers at all', async t => {
  const { call, mint } = await startGateway(t, { env })
  const token = await mint('alice')
  for (const other of [
    'https://app.example.evil',
    'https://APP.example',
    'http://app.example',
    'null',
    'https://app.example:8443'
  ]) {
    for (const options of [{ token }, { method: 'OPTIONS' }]) {
      const { headers } = await call('/gateway/session', {
        ...options,
        headers: { origin: other, 'access-control-request-method': 'GET' }
      })
      t.same(
        [...headers.keys()].filter(name => name.startsWith('access-control-')),
        [],
        other
      )
    }
  }
})

t.test('OPTIONS that is no preflight is an answer like any other', async t => {
  const { call } = await startGateway(t, { env })
  t.match(await call('/gateway/session', { method: 'OPTIONS' }), { status: 404, error: 'GW_NOT_FOUND' })
})
