import t from 'tap'
import { settingsFor } from '../helpers/gateway.ts'

const config = 'plans: { default: {} }'

const weak: Readonly<Record<string, readonly string[]>> = {
  APIXO_API_KEY: [
    '',
    ' ',
    ',',
    'YOUR_APIXO_API_KEY',
    'your-api-key',
    '<your key>',
    'sk-xxx',
    'changeme',
    'sk-123456',
    'api-key',
    'a b',
    'clé',
    'placeholder',
    '...',
    'null',
    'undefined'
  ],
  GATEWAY_SESSION_SECRET: [
    '',
    'short',
    'secret',
    'a'.repeat(31),
    'a'.repeat(64),
    'ab'.repeat(32),
    '123456789012345678901234567890123456789'.slice(0, 31),
    'change-me-change-me-change-me-change-me',
    'your-secret-your-secret-your-secret-1234',
    'replace-this-with-32-random-bytes-please',
    'example-secret-example-secret-example-1',
    'secret-secret-secret-secret-secret-secret',
    'good-secret-of-32-bytes-and-more-0001,short'
  ],
  GATEWAY_ISSUER_TOKEN: [
    'admin',
    '123456',
    'password',
    'admin-password',
    'changeme-please',
    'token-token-token',
    'aaaaaaaaaaaaaaaa',
    'short',
    'with space in it 12',
    'your-issuer-token-here-sample'
  ],
  GATEWAY_ADMIN_TOKEN: ['admin', 'root', 'admin123456', '123456', 'admin-admin-admin', 'secret-password-1'.slice(0, 11)]
}

for (const [name, values] of Object.entries(weak)) {
  t.test(`a missing, short or sample ${name} keeps the gateway from starting, and is not repeated`, async t => {
    for (const value of values) {
      // An optional secret that is empty is not set; then what it opens stays shut.
      if (value === '' && name !== 'APIXO_API_KEY' && name !== 'GATEWAY_SESSION_SECRET') continue
      await t.test(JSON.stringify(value), async t => {
        try {
          settingsFor(t, 'http://127.0.0.1:1', { config, env: { [name]: value } })
          t.fail('it started')
        } catch (error) {
          const { code, message } = error as { code: string, message: string }
          t.equal(code, 'GW_SETTINGS')
          t.match(message, name)
          if (value.length > 8) t.notMatch(message, value)
        }
      })
    }
  })
}

t.test('one value for two secrets keeps it from starting', async t => {
  const twins: ReadonlyArray<Readonly<Record<string, string>>> = [
    { GATEWAY_ADMIN_TOKEN: 'issuer-token-of-the-backend-0001' },
    { GATEWAY_ISSUER_TOKEN: 'a-session-secret-of-32-bytes-and-more' },
    { GATEWAY_ISSUER_TOKEN: 'apixo-key-of-the-operator-0001' },
    { GATEWAY_SESSION_SECRET: 'newer-session-secret-of-32-bytes-or-so,issuer-token-of-the-backend-0001' }
  ]
  for (const env of twins) {
    await t.test(JSON.stringify(Object.keys(env)), async t => {
      t.throws(() => settingsFor(t, 'http://127.0.0.1:1', { config, env }), { code: 'GW_SETTINGS' })
    })
  }
})

t.test('a secret that is set twice, or in a file that can not be read, keeps it from starting', async t => {
  await t.test('twice', async t => {
    t.throws(
      () => settingsFor(t, 'http://127.0.0.1:1', { config, env: { GATEWAY_SESSION_SECRET_FILE: 'gateway.yaml' } }),
      { code: 'GW_SETTINGS' }
    )
  })
  await t.test('no file', async t => {
    t.throws(
      () =>
        settingsFor(t, 'http://127.0.0.1:1', {
          config,
          env: { GATEWAY_SESSION_SECRET: '', GATEWAY_SESSION_SECRET_FILE: 'nowhere' }
        }),
      { code: 'GW_SETTINGS' }
    )
  })
  await t.test('a config that is missing', async t => {
    t.throws(() => settingsFor(t, 'http://127.0.0.1:1', { config, env: { GATEWAY_CONFIG: 'nowhere.yaml' } }), {
      code: 'GW_SETTINGS'
    })
  })
})
