import { join } from 'node:path'
import t from 'tap'
import { describeSettings, environmentVariables, loadSettings, readDotEnv, SettingsError } from '../../src/settings.ts'
import { apiKey, configPath, errorOf, install, load, problemsOf, sessionSecret } from './fixture.ts'

t.test('the required variables and a config file are enough, and all else has its default', t => {
  const { apiKeys, sessionSecrets, file, origins, ...rest } = load(t)
  t.same(apiKeys.map(key => key.reveal()), [apiKey])
  t.same(sessionSecrets.map(key => key.reveal()), [sessionSecret])
  t.equal(file.limits.bodyBytes, 16777216)
  t.equal(origins.get('PORT'), 'default')
  t.equal(origins.get('APIXO_API_KEY'), 'environment')
  t.strictSame(rest, {
    tasksBaseUrl: 'https://api.apixo.ai',
    llmBaseUrl: 'https://llm.apixo.ai',
    insecureUpstream: false,
    host: '127.0.0.1',
    port: 8080,
    issuerToken: undefined,
    adminToken: undefined,
    adminPort: undefined,
    store: { kind: 'sqlite', path: join(t.testdirName, 'data/gateway.db') },
    allowedOrigins: [],
    trustProxy: [],
    publicUrl: undefined,
    staticDir: undefined,
    configPath: configPath(t),
    logLevel: 'info',
    models: [],
    alarmSecrets: undefined,
    issuerSecrets: new Map(),
    turnstileSecret: undefined,
    secretFiles: new Map(),
    warnings: []
  })
  t.end()
})

t.test('the environment beats the default, and an empty variable counts as unset', t => {
  const settings = load(t, {
    env: {
      HOST: '::1',
      PORT: '0',
      GATEWAY_ADMIN_PORT: '0',
      GATEWAY_STORE: 'sqlite::memory:',
      GATEWAY_ALLOWED_ORIGINS: 'https://app.example, http://localhost:5173,',
      GATEWAY_TRUST_PROXY: '10.0.0.0/8,::1, loopback',
      GATEWAY_PUBLIC_URL: 'https://gateway.example',
      GATEWAY_STATIC_DIR: 'dist',
      GATEWAY_ADMIN_TOKEN: '',
      LOG_LEVEL: 'silent'
    },
    files: { 'dist/index.html': '<!doctype html>' }
  })
  t.match(settings, {
    host: '::1',
    port: 0,
    adminPort: 0,
    store: { kind: 'sqlite', path: ':memory:' },
    allowedOrigins: ['https://app.example', 'http://localhost:5173'],
    trustProxy: ['10.0.0.0/8', '::1', 'loopback'],
    publicUrl: 'https://gateway.example',
    staticDir: join(t.testdirName, 'dist'),
    adminToken: undefined,
    logLevel: 'silent'
  })
  t.end()
})

t.test('a bad value is refused with its name, what was given and what is expected', async t => {
  const rows: ReadonlyArray<readonly [name: string, value: string, problem: string, expected: string]> = [
    ['HOST', 'http://localhost', '"http://localhost" is neither an address nor a host name', 'an IP address'],
    ['PORT', '65536', '"65536" is not a port', '0 to 65535'],
    ['PORT', 'http', '"http" is not a port', '0 to 65535'],
    ['GATEWAY_INSECURE_UPSTREAM', 'yes', '"yes" is neither true nor false', 'true or false'],
    ['LOG_LEVEL', 'DEBUG', '"DEBUG" is not known', 'one of: trace, debug'],
    ['GATEWAY_ADMIN_PORT', '8080', '8080 is PORT as well', 'a port of its own'],
    ['GATEWAY_STATIC_DIR', 'missing', 'there is no directory', 'an existing directory'],
    ['GATEWAY_STATIC_DIR', 'config/gateway.yaml', 'there is no directory', 'an existing directory'],
    ['GATEWAY_ALLOWED_ORIGINS', '*', '"*" has a wildcard', 'https://app.example'],
    [
      'GATEWAY_ALLOWED_ORIGINS',
      'https://*.app.example',
      '"https://*.app.example" has a wildcard',
      'each origin in full'
    ],
    ['GATEWAY_ALLOWED_ORIGINS', 'null', 'null is any sandboxed page', 'an origin of your own'],
    ['GATEWAY_ALLOWED_ORIGINS', 'https://app.example/', 'is not exactly an origin', 'https://app.example'],
    ['GATEWAY_ALLOWED_ORIGINS', 'https://App.example:443/path', 'is not exactly an origin', 'https://app.example'],
    ['GATEWAY_ALLOWED_ORIGINS', 'app.example', '"app.example" is not a URL', 'origins without a path'],
    ['GATEWAY_ALLOWED_ORIGINS', 'file:///index.html', 'is neither https: nor http:', 'origins without a path'],
    ['GATEWAY_PUBLIC_URL', 'https://gateway.example/app', 'is not exactly an origin', 'https://gateway.example'],
    ['GATEWAY_TRUST_PROXY', 'true', '"true" trusts everybody', 'your own proxies'],
    ['GATEWAY_TRUST_PROXY', '*', '"*" trusts everybody', 'your own proxies'],
    ['GATEWAY_TRUST_PROXY', '0.0.0.0/0', '"0.0.0.0/0" trusts everybody', 'your own proxies'],
    ['GATEWAY_TRUST_PROXY', '1', 'neither an address, a network nor a known name', 'your own proxies'],
    ['GATEWAY_TRUST_PROXY', '10.0.0.0/33', 'neither an address, a network nor a known name', 'your own proxies'],
    ['GATEWAY_TRUST_PROXY', 'fd00::/129', 'neither an address, a network nor a known name', 'your own proxies'],
    ['GATEWAY_TRUST_PROXY', 'fe80::1%eth0', 'neither an address, a network nor a known name', 'your own proxies'],
    ['GATEWAY_TRUST_PROXY', '10.0.0.0/8/8', 'neither an address, a network nor a known name', 'your own proxies'],
    ['GATEWAY_TRUST_PROXY', '10.0.0.0/255.0.0.0', 'neither an address, a network nor a known name', 'your own proxies'],
    ['GATEWAY_STORE', 'data/gateway.db', 'has no scheme', 'sqlite:./data/gateway.db'],
    ['GATEWAY_STORE', 'postgres://db/gateway', 'the scheme "postgres" is not known', 'redis://host:6379/0'],
    ['GATEWAY_STORE', 'sqlite:', 'names no file', 'sqlite:./data/gateway.db'],
    ['GATEWAY_STORE', 'sqlite://data/gateway.db', 'is not a plain path', 'sqlite:./data/gateway.db'],
    ['GATEWAY_STORE', 'sqlite:data/gateway.db?mode=ro', 'is not a plain path', 'sqlite:./data/gateway.db'],
    ['GATEWAY_STORE', 'redis://', 'is not a URL with a host', 'redis://host:6379/0'],
    ['GATEWAY_STORE', 'redis:///0', 'is not a URL with a host', 'redis://host:6379/0'],
    ['GATEWAY_STORE', 'redis://cache:6379/sessions', 'more after the host than the number', 'redis://host:6379/0'],
    ['GATEWAY_STORE', 'redis://cache:6379?db=1', 'more after the host than the number', 'redis://host:6379/0']
  ]
  for (const [name, value, problem, expected] of rows) {
    await t.test(`${name}=${value}`, async t => {
      const problems = problemsOf(t, { env: { [name]: value } })
      t.match(problems, [{ setting: name, source: 'environment' }])
      t.equal(problems.length, 1)
      t.ok(problems[0]!.problem.includes(problem), problems[0]!.problem)
      t.ok(problems[0]!.expected.includes(expected), problems[0]!.expected)
    })
  }
})

t.test('every bad entry of a list is named, and long or broken text is shown on one short line', t => {
  const entry = `x\n${'y'.repeat(100)}`
  const [problem] = problemsOf(t, {
    env: { GATEWAY_ALLOWED_ORIGINS: `https://a.example/,https://good.example,${entry}` }
  })
  t.equal(problem?.problem, `"https://a.example/" is not exactly an origin, "x\\n${'y'.repeat(75)}… is not a URL`)
  t.equal(problem?.expected, 'https://a.example')
  t.end()
})

t.test('a redis store keeps its password to itself', t => {
  const { store } = load(t, { env: { GATEWAY_STORE: 'rediss://gateway:hunter2-hunter2@cache.example:6380/3' } })
  if (store.kind !== 'redis') throw new Error('not redis')
  t.equal(store.url.reveal(), 'rediss://gateway:hunter2-hunter2@cache.example:6380/3')
  t.equal(store.address, 'rediss://cache.example:6380/3')
  t.notMatch(JSON.stringify(store), 'hunter2')
  t.end()
})

t.test('all problems are reported at once, in a list that people can read', t => {
  const error = errorOf(t, {
    env: { APIXO_API_KEY: undefined, PORT: 'x', GATEWAY_PORTS: '1' },
    yaml: 'plans:\n  default:\n    model: ["*"]\nguests: { enabled: maybe }\n'
  })
  t.equal(error.code, 'GW_SETTINGS')
  t.equal(error.name, 'SettingsError')
  const path = configPath(t)
  t.strictSame(error.message.split('\n'), [
    '5 settings are wrong:',
    '- GATEWAY_PORTS (environment): there is no such variable; expected: a known name; the nearest is PORT',
    '- APIXO_API_KEY (environment): neither APIXO_API_KEY nor APIXO_API_KEY_FILE is set; expected: the key of your APIXO account',
    '- PORT (environment): "x" is not a port; expected: a whole number, 0 to 65535',
    `- plans.default.model (${path}:3): there is no such key; expected: a known key; the nearest is models`,
    `- guests.enabled (${path}:4): is "maybe"; expected: true or false`
  ])
  t.match(errorOf(t, { env: { PORT: 'x' } }).message, /^One setting is wrong:\n- PORT /)
  t.end()
})

t.test('a mistake of ours is not taken for one of the operator', t => {
  const { cwd } = install(t)
  const ours = new TypeError('a mistake')
  t.throws(() => loadSettings({ env: { get APIXO_API_KEY (): string { throw ours } }, cwd }), ours)
  t.end()
})

t.test('the table of variables says all that a reader needs', t => {
  for (const variable of environmentVariables) {
    t.match(variable.description, /^.+\.$/, variable.name)
    t.not(variable.expected, '')
    t.notOk(variable.required && variable.default !== undefined)
  }
  t.end()
})

t.test('variables are read from .env, and none without such a file', t => {
  const cwd = t.testdir({ '.env': '# a comment\nPORT=9000\nAPIXO_API_KEY="ak-one\nak-two"\n' })
  t.same(readDotEnv(cwd), { PORT: '9000', APIXO_API_KEY: 'ak-one\nak-two' })
  t.same(readDotEnv(join(cwd, 'elsewhere')), {})
  t.end()
})

t.test('a .env that can not be read is refused: its settings would be missed in silence', t => {
  const cwd = t.testdir({ '.env': {} })
  t.throws(
    () => readDotEnv(cwd),
    new SettingsError([
      {
        setting: '.env',
        source: join(cwd, '.env'),
        problem: 'can not be read (EISDIR)',
        expected: 'a text file, or none'
      }
    ])
  )
  t.end()
})

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
