import { join } from 'node:path'
import t from 'tap'
import { describeSettings, environmentVariables } from '../../src/settings.ts'
import { apiKey, configPath, load, sessionSecret } from './fixture.ts'

t.test('the settings in force are shown with their origins, aligned, and with secrets as fingerprints', t => {
  const settings = load(t, {
    env: {
      APIXO_API_KEY: '',
      APIXO_API_KEY_FILE: 'run/keys',
      GATEWAY_ADMIN_TOKEN: 'ad-71c0e5a94f',
      GATEWAY_ADMIN_PORT: '9090',
      GATEWAY_STORE: 'redis://gateway:hunter2-hunter2@cache:6379/0',
      GATEWAY_ALLOWED_ORIGINS: 'https://a.example,https://b.example'
    },
    files: { 'run/keys': `${apiKey}\nak-two`, 'run/shop': `${sessionSecret}-shop`, 'run/widget': '0x4AAAF00D' },
    yaml: 'plans: { default: { models: [] } }\nguests: { turnstileSecretFile: run/widget }\n' +
      'issuers: [{ issuer: a, audience: b, jwksUrl: "https://a.example" }, { issuer: c, audience: b, secretFile: run/shop, algorithms: [HS256] }]\n'
  })
  const text = describeSettings(settings)
  const lines = text.split('\n')
  const path = configPath(t)
  const [first, second] = settings.apiKeys
  const shown = (name: string) => lines.find(line => line.startsWith(`${name} `))?.replace(/ {2,}/g, '  ')
  const fingerprints = `sha256:${first!.fingerprint}, sha256:${second!.fingerprint}`
  t.equal(shown('APIXO_API_KEY'), `APIXO_API_KEY  ${fingerprints}  (from ${join(t.testdirName, 'run/keys')})`)
  t.equal(shown('GATEWAY_ISSUER_TOKEN'), 'GATEWAY_ISSUER_TOKEN  unset  (from default)')
  t.equal(
    shown('GATEWAY_ADMIN_TOKEN'),
    `GATEWAY_ADMIN_TOKEN  sha256:${settings.adminToken!.fingerprint}  (from environment)`
  )
  t.equal(shown('GATEWAY_ADMIN_PORT'), 'GATEWAY_ADMIN_PORT  9090  (from environment)')
  t.equal(shown('GATEWAY_STORE'), 'GATEWAY_STORE  redis://cache:6379/0  (from environment)')
  t.equal(
    shown('GATEWAY_ALLOWED_ORIGINS'),
    'GATEWAY_ALLOWED_ORIGINS  https://a.example, https://b.example  (from environment)'
  )
  t.equal(shown('GATEWAY_TRUST_PROXY'), 'GATEWAY_TRUST_PROXY  none  (from default)')
  t.equal(shown('GATEWAY_STATIC_DIR'), 'GATEWAY_STATIC_DIR  unset  (from default)')
  t.equal(shown('plans.default.models'), `plans.default.models  none  (from ${path})`)
  t.equal(shown('plans.default.credits'), 'plans.default.credits  100  (from default)')
  t.equal(shown('results.hosts'), 'results.hosts  *.apixo.ai  (from default)')
  t.equal(shown('prices'), 'prices  none  (from default)')
  t.equal(shown('issuers[0].jwksUrl'), `issuers[0].jwksUrl  https://a.example  (from ${path})`)
  t.equal(
    shown('issuers[1].secretFile'),
    `issuers[1].secretFile  run/shop (sha256:${settings.issuerSecrets.get('c')![0]!.fingerprint})  (from ${path})`
  )
  t.equal(
    shown('guests.turnstileSecretFile'),
    `guests.turnstileSecretFile  run/widget (sha256:${settings.turnstileSecret!.fingerprint})  (from ${path})`
  )
  for (const secret of ['0x4AAAF00D', apiKey, sessionSecret, 'ak-two', 'hunter2', 'ad-71c0e5a94f']) {
    t.notMatch(text, secret)
  }
  for (const { name } of environmentVariables) t.ok(shown(name), name)
  t.end()
})

t.test('columns are aligned', t => {
  const lines = describeSettings(load(t)).split('\n')
  t.equal(new Set(lines.map(line => line.lastIndexOf('(from '))).size, 1)
  t.match(lines.find(line => line.startsWith('GATEWAY_STORE')), `sqlite:${join(t.testdirName, 'data/gateway.db')}`)
  t.end()
})
