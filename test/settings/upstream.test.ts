import t from 'tap'
import { load, problemsOf } from './fixture.ts'

t.test('a base URL is taken with or without its version, its slashes and a path before it', async t => {
  const rows = [
    ['https://api.apixo.ai', 'https://api.apixo.ai'],
    ['https://api.apixo.ai/', 'https://api.apixo.ai'],
    ['https://api.apixo.ai/api/v1', 'https://api.apixo.ai'],
    ['https://API.apixo.ai:443/api/v1//', 'https://api.apixo.ai'],
    ['https://relay.example:8443/apixo/api/v1/', 'https://relay.example:8443/apixo'],
    ['https://relay.example/v1', 'https://relay.example/v1'],
    ['http://127.0.0.1:9000/api/v1', 'http://127.0.0.1:9000']
  ] as const
  for (const [given, url] of rows) t.equal(load(t, { env: { APIXO_BASE_URL: given } }).tasksBaseUrl, url, given)
  for (const suffix of ['', '/', '/v1', '/v1beta', '/v1beta/']) {
    t.equal(
      load(t, { env: { APIXO_LLM_BASE_URL: `https://llm.example/x${suffix}` } }).llmBaseUrl,
      'https://llm.example/x'
    )
  }
})

t.test('a base URL with more than a place in it is refused', async t => {
  const rows = [
    ['https://me:pass@api.example', /credentials/],
    ['https://me@api.example', /credentials/],
    ['https://api.example?', /query or a fragment/],
    ['https://api.example/#x', /query or a fragment/],
    ['api.example', /not a URL/],
    ['https://api.example/a b', /not a URL/],
    ['https:\\\\api.example', /not a URL/],
    ['wss://api.example', /neither https: nor http:/]
  ] as const
  for (const [given, problem] of rows) {
    t.match(problemsOf(t, { env: { APIXO_BASE_URL: given } }), [{ setting: 'APIXO_BASE_URL', problem }], given)
  }
})

const unsafe = [
  'http://api.apixo.ai',
  'https://10.0.0.1',
  'https://172.16.3.4',
  'https://192.168.1.1',
  'https://100.64.0.1',
  'https://169.254.169.254',
  'https://0.0.0.0',
  'https://255.255.255.255',
  'https://224.0.0.1',
  'https://192.0.2.1',
  'https://0xa.1',
  'https://167772161',
  'https://[::]',
  'https://[fe80::1]',
  'https://[fd00:ec2::254]',
  'https://[::ffff:10.0.0.1]',
  'https://[64:ff9b::a00:1]',
  'https://[2002:a00:1::]',
  'https://metadata.google.internal', 'https://metadata.google.internal.', 'https://printer.local', 'https://sandbox',
  'http://10.0.0.1'
]

t.test('an upstream that is not encrypted or private is refused, and the message names the way out', async t => {
  for (const url of unsafe) {
    for (const name of ['APIXO_BASE_URL', 'APIXO_LLM_BASE_URL']) {
      t.match(problemsOf(t, { env: { [name]: url } }), [{
        setting: name,
        source: 'environment',
        problem: /is not encrypted|is a private address/,
        expected: /GATEWAY_INSECURE_UPSTREAM=true/
      }], `${name}=${url}`)
    }
  }
})

t.test('GATEWAY_INSECURE_UPSTREAM=true allows it, and every start warns', async t => {
  for (const url of unsafe) {
    const { insecureUpstream, warnings } = load(t, { env: { APIXO_BASE_URL: url, GATEWAY_INSECURE_UPSTREAM: 'true' } })
    t.ok(insecureUpstream)
    t.match(warnings, [/^GATEWAY_INSECURE_UPSTREAM=true: the APIXO key is sent although .+\.$/], url)
  }
  t.match(load(t, { env: { GATEWAY_INSECURE_UPSTREAM: 'true' } }).warnings, [/is not needed/])
})

t.test('loopback and public addresses need nothing', async t => {
  const hosts = [
    'http://127.0.0.1:9000',
    'http://127.9.9.9',
    'http://[::1]:9000',
    'http://[::ffff:127.0.0.1]',
    'http://localhost:9000',
    'http://LOCALHOST.',
    'http://apixo.localhost',
    'https://127.0.0.1',
    'https://8.8.8.8',
    'https://[2606:4700::1111]'
  ]
  for (const url of hosts) t.strictSame(load(t, { env: { APIXO_BASE_URL: url } }).warnings, [], url)
})
