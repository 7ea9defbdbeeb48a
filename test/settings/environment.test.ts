import { join } from 'node:path'
import t from 'tap'
import { environmentVariables, loadSettings } from '../../src/settings.ts'
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
  t.throws(() => loadSettings({ env: { APIXO_API_KEY: 1 as unknown as string }, cwd }), TypeError)
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
