import t from 'tap'
import { startGateway } from '../helpers/gateway.ts'

const config = 'plans: { default: {} }\nlimits: { addressFailuresPerMinute: 10000 }'

const headers: ReadonlyArray<Readonly<Record<string, string>>> = [
  { 'user-agent': 'kube-probe/1.30' },
  { 'user-agent': 'ELB-HealthChecker/2.0' },
  { 'user-agent': 'GoogleHC/1.0' },
  { 'user-agent': 'Prometheus/3.0' },
  { 'x-forwarded-uri': '/livez' },
  { 'x-original-url': '/livez' },
  { 'x-original-uri': '/livez' },
  { 'x-rewrite-url': '/livez' },
  { 'x-forwarded-path': '/readyz' },
  { 'x-forwarded-prefix': '/livez' },
  { 'x-forwarded-method': 'OPTIONS' },
  { 'x-original-method': 'OPTIONS' },
  { 'x-forwarded-user': 'admin' },
  { 'x-remote-user': 'admin' },
  { 'x-auth-request-user': 'admin' },
  { 'x-forwarded-for': '127.0.0.1' },
  { 'x-real-ip': '127.0.0.1' },
  { forwarded: 'for=127.0.0.1;host=localhost' },
  { 'x-client-cert': 'x' },
  { 'x-internal': 'true' },
  { 'x-skip-auth': '1' },
  { 'x-gateway-error': 'none' },
  { 'x-subject': 'app:alice' },
  { 'x-middleware-subrequest': 'src/middleware:src/middleware' },
  { 'access-control-request-method': 'POST', origin: 'https://app.example' },
  { 'sec-fetch-site': 'same-origin' },
  { origin: 'http://127.0.0.1' },
  { authorization: 'Bearer undefined' },
  { authorization: 'Bearer null' },
  { authorization: 'Bearer true' },
  { authorization: 'Bearer dummy' },
  { authorization: 'Bearer *' },
  { 'x-api-key': 'sk-1234' },
  { cookie: 'session=1; admin=1' }
]

t.test('no header stands in for a session', async t => {
  const { call, sandbox } = await startGateway(t, { config, env: { GATEWAY_ALLOWED_ORIGINS: 'https://app.example' } })
  for (const set of headers) {
    const name = JSON.stringify(set)
    const submit = await call('/api/v1/generateTask/nano-banana', { body: { input: { prompt: 'x' } }, headers: set })
    t.match(submit, { status: 401, error: /^GW_(NO|BAD)_SESSION$/ }, name)
    t.equal((await call('/api/v1/statusTask/nano-banana?taskId=x', { headers: set })).status, 401, name)
    t.equal((await call('/gateway/session', { headers: set })).status, 401, name)
    const mint = await call('/gateway/sessions', { body: { subject: 'x' }, headers: set })
    t.ok(mint.status === 401 || mint.status === 403, `minting: ${name}`)
  }
  t.equal(sandbox.calls.length, 0)
})

t.test('all of them together do not either', async t => {
  const { call, sandbox } = await startGateway(t, { config })
  const all = Object.assign({}, ...headers.filter(set => !('authorization' in set || 'x-api-key' in set)))
  t.equal(
    (await call('/api/v1/generateTask/nano-banana', { body: { input: { prompt: 'x' } }, headers: all })).error,
    'GW_NO_SESSION'
  )
  t.equal(sandbox.calls.length, 0)
})
