import t from 'tap'
import { startGateway } from '../helpers/gateway.ts'

const app = 'https://app.example'
const env = { GATEWAY_ALLOWED_ORIGINS: `${app}, https://other.example:8443` }
const path = '/api/v1/generateTask/nano-banana'
const preflight = (origin: string, method = 'POST') => ({
  method: 'OPTIONS',
  headers: {
    origin,
    'access-control-request-method': method,
    'access-control-request-headers': 'authorization,content-type'
  }
})

t.test('a preflight of a listed origin is remembered for ten minutes and no longer', async t => {
  const { call, sandbox } = await startGateway(t, { env })
  const { status, headers } = await call(path, preflight(app))
  t.equal(status, 204)
  t.equal(headers.get('access-control-allow-origin'), app)
  t.equal(headers.get('access-control-max-age'), '600')
  t.same(headers.get('access-control-allow-methods')!.split(/, */).sort(), ['DELETE', 'GET', 'POST'])
  t.equal(headers.get('access-control-allow-credentials'), null)
  t.match(headers.get('vary'), /origin/i)
  t.equal(sandbox.calls.length, 0)
})

t.test('no other origin gets a yes, however near', async t => {
  const { call, submit, mint, sandbox } = await startGateway(t, { env })
  const token = await mint('alice')
  const foreign = [
    'https://evil.test',
    'http://app.example',
    'https://app.example:443',
    'https://app.example:8443',
    'https://app.example.evil.test',
    'https://evilapp.example',
    'https://sub.app.example',
    'https://APP.example',
    'https://app.example/',
    'null',
    '*',
    'file://',
    'https://app.example, https://evil.test',
    'https://app.example@evil.test',
    'https://app.example%00.evil.test',
    'https://app_example',
    'https://other.example'
  ]
  for (const origin of foreign) {
    const asked = await call(path, preflight(origin))
    t.equal(asked.headers.get('access-control-allow-origin'), null, origin)
    const sent = await submit(token, 'x', 'nano-banana', { headers: { origin } })
    t.equal(sent.headers.get('access-control-allow-origin'), null, origin)
  }
  t.ok(sandbox.calls.every(({ method }) => method === 'POST'), 'no preflight is forwarded')
})

t.test('errors carry CORS headers too, so that a page can read why', async t => {
  const { call } = await startGateway(t, { env })
  for (const where of [path, '/nowhere', '/gateway/session']) {
    const { headers } = await call(where, { method: where === path ? 'POST' : 'GET', headers: { origin: app } })
    t.equal(headers.get('access-control-allow-origin'), app, where)
    t.match(headers.get('access-control-expose-headers'), /x-gateway-error/i)
  }
})

t.test('an origin that was taken off the list gets no yes from the next start on', async t => {
  const { call } = await startGateway(t, { env: { GATEWAY_ALLOWED_ORIGINS: 'https://other.example' } })
  t.equal((await call(path, preflight(app))).headers.get('access-control-allow-origin'), null)
})

t.test('preflights cost no budget of a session, but do count against their address', async t => {
  const { call, submit, mint, sandbox } = await startGateway(t, {
    env,
    config:
      'plans: { default: { requestsPerMinute: 3, concurrentTasks: 10 } }\nlimits: { addressRequestsPerMinute: 60 }'
  })
  const token = await mint('alice')
  for (let round = 0; round < 40; round++) t.equal((await call(path, preflight(app))).status, 204)
  for (let round = 0; round < 3; round++) t.equal((await submit(token)).status, 200)
  const statuses = new Set<number>()
  for (let round = 0; round < 30; round++) statuses.add((await call(path, preflight(app))).status)
  t.ok(statuses.has(429), 'an address is capped')
  t.equal(sandbox.submits.length, 3)
})

t.test('origins that can not be listed keep the gateway from starting', async t => {
  for (const value of [
    '*',
    'https://*.example',
    'null',
    'app.example',
    'https://app.example/path',
    'https://app.example/',
    'HTTPS://APP.example',
    'ftp://app.example'
  ]) {
    await t.test(value, async t => {
      await t.rejects(startGateway(t, { env: { GATEWAY_ALLOWED_ORIGINS: value } }), { code: 'GW_SETTINGS' })
    })
  }
})
