import t from 'tap'
import { load } from './fixture.ts'

t.test('who sets what this version does nothing with is told, by name', t => {
  const { warnings } = load(t, {
    env: { GATEWAY_ADMIN_TOKEN: 'k7Zc0vT2mLx9RfWk4J', GATEWAY_ADMIN_PORT: '9090', GATEWAY_STATIC_DIR: 'web', GATEWAY_PUBLIC_URL: 'https://gateway.example' },
    files: { 'web/index.html': '' },
    yaml: `
plans: { default: {}, guest: {} }
issuers: [{ issuer: "https://id.example/", jwksUrl: "https://id.example/jwks.json", audience: my-app }]
guests: { enabled: true }
callbacks: { inbound: true, allowedHosts: [app.example] }
batches: { enabled: true }
results: { keep: directory }
`
  })
  t.same(warnings.map(warning => warning.split(' ')[0]), [
    'GATEWAY_ADMIN_TOKEN', 'GATEWAY_ADMIN_PORT', 'GATEWAY_STATIC_DIR', 'issuers', 'guests.enabled', 'callbacks.inbound',
    'callbacks.allowedHosts', 'batches.enabled', 'results.keep'
  ])
  t.end()
})

t.test('the settings that ship are all of effect', t => {
  t.same(load(t).warnings, [])
  t.end()
})
