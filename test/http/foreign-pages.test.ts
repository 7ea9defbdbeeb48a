import t from 'tap'
import { adminToken, startGateway } from '../helpers/gateway.ts'

const preflight = (origin: string) => ({
  method: 'OPTIONS',
  headers: { origin, 'access-control-request-method': 'POST', 'access-control-request-headers': 'authorization' }
})
const extension = `chrome-extension://${'abcdefghijklmnop'.repeat(2)}`
const apps = [
  'capacitor://localhost', 'ionic://localhost', 'tauri://localhost', 'capacitor://my.app.example', extension,
  'moz-extension://0d2a5c1e-7b1f-4c55-9e64-1f0c1a1b2c3d', 'safari-web-extension://0D2A5C1E-7B1F-4C55-9E64-1F0C1A1B2C3D'
]

t.test('pages inside of apps and extensions can be listed, and may call then', async t => {
  const { call, mint, submit } = await startGateway(t, {
    env: { GATEWAY_ALLOWED_ORIGINS: `https://app.example, ${apps.join(', ')}` }
  })
  const token = await mint('alice', { origins: apps })
  for (const origin of apps) {
    const asked = await call('/gateway/session', preflight(origin))
    t.match(
      { status: asked.status, allowed: asked.headers.get('access-control-allow-origin') },
      { status: 204, allowed: origin },
      origin
    )
    const sent = await submit(token, 'x', 'nano-banana', { headers: { origin } })
    t.match(
      { status: sent.status, allowed: sent.headers.get('access-control-allow-origin') },
      { status: 200, allowed: origin }
    )
  }
  t.match(await submit(token, 'x', 'nano-banana', { headers: { origin: 'capacitor://localhost.evil.test' } }), {
    status: 403,
    error: 'GW_ORIGIN_DENIED'
  })
  for (const other of [
    `${apps[0]}:8080`,
    'capacitor://LOCALHOST',
    'capacitor://localhost.evil.test',
    'ionic://other',
    `${extension.slice(0, -1)}a`
  ]) {
    t.equal((await call('/gateway/session', preflight(other))).status, 403, other)
  }
})

t.test('they are listed exactly, or the gateway does not start', async t => {
  const odd = [
    'capacitor://',
    'capacitor://*',
    'capacitor://localhost/',
    'capacitor://localhost:80',
    'capacitor:localhost',
    'Capacitor://localhost',
    'tauri://LOCALHOST',
    'ionic://a b',
    'chrome-extension://*',
    'chrome-extension://abc',
    `${extension}/`,
    `${extension}q`,
    'moz-extension://x',
    'file://',
    'data:',
    'app://localhost',
    'about:blank'
  ]
  for (const value of odd) {
    await t.rejects(
      startGateway(t, { env: { GATEWAY_ALLOWED_ORIGINS: value } }),
      { code: 'GW_SETTINGS', message: /GATEWAY_ALLOWED_ORIGINS/ },
      value
    )
  }
  const { call } = await startGateway(t)
  for (const origin of ['capacitor://localhost/', 'chrome-extension://*', 'tauri:']) {
    const { status } = await call('/gateway/sessions', {
      token: 'issuer-token-of-the-backend-0001',
      body: { subject: 'alice', origins: [origin] }
    })
    t.equal(status, 400, origin)
  }
})

t.test('a preflight of an origin that is not listed is told which one, and where to list it', async t => {
  const gateway = await startGateway(t, { env: { GATEWAY_ALLOWED_ORIGINS: 'https://app.example' } })
  for (const path of ['/gateway/session', '/api/v1/generateTask/nano-banana', '/nowhere']) {
    const refused = await gateway.call(path, preflight('https://other.example'))
    t.match(refused, {
      status: 403,
      error: 'GW_ORIGIN_DENIED',
      json: { message: 'The origin "https://other.example" is not listed in GATEWAY_ALLOWED_ORIGINS.' }
    })
    t.same(
      [...refused.headers.keys()].filter(name => name.startsWith('access-control')),
      []
    )
  }
  t.match(
    await gateway.call('/gateway/session', { method: 'OPTIONS', headers: { origin: 'https://other.example' } }),
    { status: 404 },
    'OPTIONS that is no preflight'
  )
  const warnings = () => gateway.log.filter(({ level, msg }) => level === 40 && /not listed/.test(msg))
  t.match(warnings(), [{ origin: 'https://other.example', setting: 'GATEWAY_ALLOWED_ORIGINS' }])
  t.equal(warnings().length, 1, 'once')
  for (let count = 0; count < 300; count++) {
    await gateway.call('/gateway/session', preflight(`https://${count}.${'x'.repeat(count * 4)}.example`))
  }
  t.equal(warnings().length, 100, 'nobody fills the log')
  t.ok(warnings().every(({ origin }) => origin.length <= 256))
})

t.test('the admin port names no setting that would not help', async t => {
  const { gateway } = await startGateway(t, {
    env: { GATEWAY_ADMIN_TOKEN: adminToken, GATEWAY_ADMIN_PORT: '0', GATEWAY_ALLOWED_ORIGINS: 'https://app.example' }
  })
  const { port } = gateway.adminApp!.server.address() as { port: number }
  const response = await fetch(`http://127.0.0.1:${port}/gateway/admin/usage`, preflight('https://app.example'))
  t.equal(response.status, 403)
  t.match(await response.json(), { message: 'This port is for no pages of other origins: "https://app.example".' })
})
