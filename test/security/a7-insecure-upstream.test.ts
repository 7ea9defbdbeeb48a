import t, { type Test } from 'tap'
import { settingsFor } from '../helpers/gateway.ts'

const config = 'plans: { default: {} }\nprices: { "*": 1 }'
const load = (t: Test, url: string, env: Record<string, string> = {}) => settingsFor(t, url, { config, env })

const refused = [
  'http://api.apixo.ai',
  'http://api.apixo.ai/api/v1',
  'https://169.254.169.254',
  'http://169.254.169.254/latest/meta-data',
  'https://10.0.0.1',
  'https://172.16.0.1',
  'https://192.168.1.1',
  'https://100.64.0.1',
  'https://0.0.0.0',
  'https://[::]',
  'https://[fe80::1]',
  'https://[fd00::1]',
  'https://[::ffff:10.0.0.1]',
  'https://[64:ff9b::a00:1]',
  'https://metadata.google.internal',
  'https://router.local',
  'https://redis',
  'https://167772161',
  'https://0x0a000001',
  'https://012.0.0.1',
  'https://10.1',
  'https://224.0.0.1',
  'https://255.255.255.255',
  'https://[2002:a00:1::]'
]
const broken = [
  'ftp://api.apixo.ai',
  'file:///etc/passwd',
  'api.apixo.ai',
  'https://',
  'https://user:pass@api.apixo.ai',
  'https://api.apixo.ai?x=1',
  'https://api.apixo.ai#x',
  'javascript:x',
  '\\\\host\\share'
]

t.test('an upstream that is not encrypted, or is on a private network, keeps the gateway from starting', async t => {
  for (const url of refused) {
    await t.test(url, async t => {
      t.throws(() => load(t, url), { code: 'GW_SETTINGS', message: /APIXO_BASE_URL/ })
    })
  }
  await t.test('the LLM host as well', async t => {
    t.throws(() => load(t, 'https://api.apixo.ai', { APIXO_LLM_BASE_URL: 'http://10.0.0.1' }), {
      message: /APIXO_LLM_BASE_URL/
    })
  })
})

t.test('what is no https: or http: URL is refused, with and without leave', async t => {
  for (const url of broken) {
    await t.test(url, async t => {
      t.throws(() => load(t, url), { code: 'GW_SETTINGS' })
      t.throws(() => load(t, url, { GATEWAY_INSECURE_UPSTREAM: 'true' }), { code: 'GW_SETTINGS' })
    })
  }
})

t.test('leave has to be given in so many words, and is said at every start', async t => {
  for (const word of ['1', 'yes', 'TRUE', 'on', 'false']) {
    await t.test(word, async t => {
      t.throws(() => load(t, 'http://10.0.0.1', { GATEWAY_INSECURE_UPSTREAM: word }), { code: 'GW_SETTINGS' })
    })
  }
  await t.test('true', async t => {
    const { warnings, tasksBaseUrl } = load(t, 'http://10.0.0.1', { GATEWAY_INSECURE_UPSTREAM: 'true' })
    t.equal(tasksBaseUrl, 'http://10.0.0.1')
    t.match(warnings, [/GATEWAY_INSECURE_UPSTREAM/])
  })
})

t.test('public hosts by https:, and loopback, need no leave', async t => {
  for (const url of [
    'https://api.apixo.ai',
    'https://api.apixo.ai/api/v1/',
    'http://127.0.0.1:9',
    'http://localhost:9',
    'http://[::1]:9'
  ]) {
    await t.test(url, async t => {
      t.same(load(t, url).warnings, [])
    })
  }
})
