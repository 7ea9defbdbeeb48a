import t from 'tap'
import { load, problemsOf } from './fixture.ts'

t.test('an unknown variable is refused with the nearest known name', async t => {
  const rows = [
    ['GATEWAY_SESSION_SECRETS', 'GATEWAY_SESSION_SECRET'],
    ['GATEWAY_ISSUER_TOKEN_FIEL', 'GATEWAY_ISSUER_TOKEN_FILE'],
    ['GATEWAY_API_KEY', 'APIXO_API_KEY'],
    ['GATEWAY_HOST', 'HOST'],
    ['GATEWAY_ORIGINS', 'GATEWAY_ALLOWED_ORIGINS']
  ] as const
  for (const [name, nearest] of rows) {
    t.strictSame(problemsOf(t, { env: { [name]: 'x' } }), [{
      setting: name,
      source: 'environment',
      problem: 'there is no such variable',
      expected: `a known name; the nearest is ${nearest}`
    }], name)
  }
  t.doesNotThrow(
    () => load(t, { env: { GATEWAY_UNKNOWN: '', OTHER: 'x', APIXO_OTHER: 'x' } }),
    'nor are others ours to judge'
  )
})

t.test('what Kubernetes and Docker announce about a service of our name is no setting', t => {
  const settings = load(t, {
    env: {
      GATEWAY_SERVICE_HOST: '10.96.0.7',
      GATEWAY_SERVICE_PORT: '8080',
      GATEWAY_SERVICE_PORT_HTTP: '8080',
      GATEWAY_PORT: 'tcp://10.96.0.7:8080',
      GATEWAY_PORT_8080_TCP: 'tcp://10.96.0.7:8080',
      GATEWAY_PORT_8080_TCP_PROTO: 'tcp',
      GATEWAY_PORT_8080_TCP_PORT: '8080',
      GATEWAY_PORT_8080_TCP_ADDR: '10.96.0.7',
      GATEWAY_ADMIN_SERVICE_HOST: '10.96.0.8',
      GATEWAY_ADMIN_PORT: 'tcp://10.96.0.8:80'
    }
  })
  t.equal(settings.adminPort, undefined)
  t.match(problemsOf(t, { env: { GATEWAY_PORT: '8080' } }), [{ setting: 'GATEWAY_PORT', expected: /nearest is PORT$/ }])
  t.end()
})
