import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, readFileSync, writeSync } from 'node:fs'
import { join, resolve } from 'node:path'
import t, { type Test } from 'tap'
import { loadSettings } from '../../src/settings.ts'
import { readModels } from '../../src/settings/file.ts'
import { InvalidSetting, isLasting, readText } from '../../src/settings/problems.ts'
import { gatewayEnvironment } from '../helpers/gateway-process.ts'
import { root } from '../helpers/program.ts'
import { apiKey, configPath, install, load, problemsOf } from './fixture.ts'

t.test('every key has the documented default', t => {
  const { file } = load(t, { yaml: 'plans: { default: {} }' })
  t.same(file, {
    plans: {
      default: {
        models: ['*'],
        requestsPerMinute: 60,
        pollsPerMinute: 600,
        concurrentTasks: 5,
        credits: 100,
        period: 'day',
        ceilings: {},
        zone: 'UTC',
        resetHour: 0
      }
    },
    pools: {},
    gateway: { ceilings: {}, zone: 'UTC', resetHour: 0 },
    prices: {},
    caps: {},
    limits: {
      addressRequestsPerMinute: 6000,
      addressFailuresPerMinute: 60,
      bodyBytes: 16777216,
      bodyBytesInFlight: 67108864,
      streamsPerSubject: 20,
      socketsPerAddress: 2000,
      refundsPerPeriod: 50,
      onStoreError: 'refuse'
    },
    sessions: { defaultTtlSeconds: 3600, maxTtlSeconds: 7776000, cookieMaxAgeSeconds: 604800 },
    upstream: { connectMs: 5000, headersMs: 60000, bodyIdleMs: 60000, keepAliveMs: 4000, drainMs: 10000 },
    polling: { image: 3000, video: 15000, audio: 10000, '*': 5000 },
    tasks: { giveUpMs: 86400000, retentionDays: 30 },
    results: { hosts: ['*.apixo.ai'], maxBytes: 536870912, keep: 'none', ticketSeconds: 900 },
    submit: { fields: [] },
    batches: { enabled: false },
    llm: {
      defaultMaxOutputTokens: 4096,
      askForUsage: true,
      statefulFields: [],
      headersMs: 600_000,
      idleMs: 120_000,
      totalMs: 1_800_000,
      heartbeatMs: 20_000,
      maxCalls: 512
    },
    issuers: [],
    guests: { enabled: false, plan: 'guest', sessionsPerAddressPerDay: 5, proof: 'work' },
    callbacks: { inbound: false, allowedHosts: [] },
    alarms: { insecureUrl: false, leastSeconds: 300 },
    ledger: { synchronous: 'normal' }
  })
  t.end()
})

t.test('what the file says stands beside the defaults of what it leaves out, in any plan', t => {
  const { file, origins } = load(t, {
    yaml: `
plans:
  default: { models: [] }
  pro: { credits: unlimited, period: month }
prices:
  "sora-2*": { credits: 2.5, per: input.duration, default: 8, onFailed: charge }
  "claude-*": { inputPerMillion: 300, outputPerMillion: 0.000001 }
  "*": 0
caps: { "sora-2*": { input.duration: { max: 12 }, input.size: { oneOf: [1K, 2, true] } } }
polling: { "*": 1000 }
issuers: [{ issuer: "https://id.example/", jwksUrl: "http://localhost:9000/jwks", audience: app, subjectPrefix: x }]
`
  })
  t.same(file.plans['default']?.models, [])
  t.equal(file.plans['default']?.credits, 100)
  t.match(file.plans['pro'], { models: ['*'], credits: 'unlimited', period: 'month' })
  t.strictSame(Object.keys(file.prices), ['sora-2*', 'claude-*', '*'], 'the order of globs is kept')
  t.equal(file.prices['*'], 0)
  t.strictSame(file.caps['sora-2*']?.['input.size']?.oneOf, ['1K', 2, true])
  t.same(file.polling, { image: 3000, video: 15000, audio: 10000, '*': 1000 })
  t.match(file.issuers, [{ algorithms: ['RS256'], plan: 'default' }])
  const path = configPath(t)
  t.equal(origins.get('plans.default.models'), path)
  t.equal(origins.get('plans.default.credits'), 'default')
  t.equal(origins.get('polling["*"]'), path)
  t.equal(origins.get('polling.image'), 'default')
  t.equal(origins.get('issuers[0].plan'), 'default')
  t.equal(origins.get('issuers[0].audience'), path)
  t.end()
})

t.test('the settings can not be changed, and a plan named like a method is no plan', t => {
  const settings = load(t, { yaml: 'plans: { default: { models: [a] } }\n' })
  t.throws(() => Object.assign(settings, { port: 1 }), TypeError)
  t.throws(() => Object.assign(settings.file.limits, { bodyBytes: 1 }), TypeError)
  t.throws(() => (settings.file.plans['default']!.models as string[]).push('b'), TypeError)
  t.equal(settings.file.plans['constructor'], undefined)
  t.equal(Object.getPrototypeOf(settings.file.plans), null)
  t.end()
})

t.test('a value that breaks the schema is refused with its key, its line and what is expected', async t => {
  const count = 'a whole number, 1 or more'
  const rows: ReadonlyArray<readonly [yaml: string, setting: string, problem: string, expected: RegExp | string]> = [
    ['limits: { streamsPerSubject: 0 }', 'limits.streamsPerSubject', 'is 0', count],
    ['limits: { streamsPerSubject: 1.5 }', 'limits.streamsPerSubject', 'is 1.5', count],
    ['limits: { streamsPerSubject: .inf }', 'limits.streamsPerSubject', 'is Infinity', count],
    ['limits: { streamsPerSubject: .nan }', 'limits.streamsPerSubject', 'is NaN', count],
    [
      'limits: { streamsPerSubject: 12345678901234567890 }',
      'limits.streamsPerSubject',
      'is 12345678901234567000',
      count
    ],
    ['limits: { streamsPerSubject: "20" }', 'limits.streamsPerSubject', 'is "20"', count],
    ['limits: { streamsPerSubject: }', 'limits.streamsPerSubject', 'is empty', count],
    [
      'upstream: { connectMs: 3000000000 }',
      'upstream.connectMs',
      'is 3000000000',
      'a whole number of milliseconds, 1 to 2147483647'
    ],
    ['limits: { onStoreError: maybe }', 'limits.onStoreError', 'is "maybe"', 'one of: refuse, allow'],
    ['results: { keep: all }', 'results.keep', 'is "all"', 'one of: none, directory'],
    ['limits: { refundsPerPeriod: -1 }', 'limits.refundsPerPeriod', 'is -1', 'a whole number, 0 or more'],
    ['batches: { enabled: yes }', 'batches.enabled', 'is "yes"', 'true or false'],
    ['limits:', 'limits', 'is empty', 'a mapping of known keys'],
    ['limits: []', 'limits', 'is an empty list', 'a mapping of known keys'],
    ['limits: [1]', 'limits', 'is a list', 'a mapping of known keys'],
    ['limits: { bodyBytes: {} }', 'limits.bodyBytes', 'is an empty mapping', 'a whole number of bytes, 1 or more'],
    ['limits: { bodyBytes: { max: 1 } }', 'limits.bodyBytes', 'is a mapping', 'a whole number of bytes, 1 or more'],
    ['limit: {}', 'limit', 'there is no such key', 'a known key; the nearest is limits'],
    ['limits: { bodyByte: 1 }', 'limits.bodyByte', 'there is no such key', 'a known key; the nearest is bodyBytes'],
    ['__proto__: {}', '__proto__', 'there is no such key', /nearest/],
    ['<<: { limits: {} }', '["<<"]', 'there is no such key', /nearest/],
    ['polling: { movie: 1 }', 'polling.movie', 'there is no such key', /nearest is \w+$/],
    ['"": 1', '[""]', 'there is no such key', /nearest/],
    [
      'prices: { "sora 2": 1 }',
      'prices["sora 2"]',
      'can not be a name here',
      /^prices, each under a model id or a glob/
    ],
    ['prices: { "42": 1 }', 'prices["42"]', 'can not be a name here', /^prices, each under/],
    ['prices: { a: -1 }', 'prices.a', 'is -1', /^a number, or \{credits/],
    ['prices: { a: free }', 'prices.a', 'is "free"', /^a number, or \{credits/],
    ['prices: { a: { credit: 1 } }', 'prices.a.credits', 'is missing', 'a number, 0 to 1000000000'],
    [
      'prices: { a: { credits: 1, pre: input.n } }',
      'prices.a.pre',
      'there is no such key',
      'a known key; the nearest is per'
    ],
    [
      'prices: { a: { credits: 1, per: "a b" } }',
      'prices.a.per',
      'is "a b"',
      'a field of the input such as input.duration, or a list of such fields'
    ],
    ['prices: { a: { inputPerMillion: 1 } }', 'prices.a.outputPerMillion', 'is missing', 'a number, 0 to 1000000000'],
    ['prices: { a: { credits: 1, onFailed: keep } }', 'prices.a.onFailed', 'is "keep"', 'one of: refund, charge'],
    ['caps: { a: { input.n: {} } }', 'caps.a["input.n"]', 'is an empty mapping', /^a mapping with required, /],
    [
      'caps: { a: { input.n: { oneOf: [] } } }',
      'caps.a["input.n"].oneOf',
      'is an empty list',
      'a list of at least one value'
    ],
    [
      'caps: { a: { input.n: { oneOf: [{ b: 1 }] } } }',
      'caps.a["input.n"].oneOf[0]',
      'is a mapping',
      /^a text, a number/
    ],
    [
      'caps: { a: { input.__proto__: { min: 1 } } }',
      'caps.a["input.__proto__"]',
      'can not be a name here',
      /^caps, each under/
    ],
    [
      'results: { hosts: ["https://cdn.example"] }',
      'results.hosts[0]',
      'is "https://cdn.example"',
      /^a host in lower case/
    ],
    ['results: { hosts: ["*"] }', 'results.hosts[0]', 'is "*"', /^a host/],
    ['results: { hosts: ["*.com"] }', 'results.hosts[0]', 'is "*.com"', /^a host/],
    ['results: { hosts: "a.example" }', 'results.hosts', 'is "a.example"', 'a list of hosts'],
    ['submit: { fields: ["a.b"] }', 'submit.fields[0]', 'is "a.b"', 'the name of a field'],
    ['issuers: [{ issuer: a, jwksUrl: "https://a.example" }]', 'issuers[0].audience', 'is missing', 'a text'],
    ['issuers: [{ issuer: "", audience: b }]', 'issuers[0].issuer', 'is empty', 'a text'],
    [
      'issuers: [{ issuer: a, audience: b, algorithms: [] }]',
      'issuers[0].algorithms',
      'is an empty list',
      'a list of signature algorithms'
    ],
    [
      'issuers: [{ issuer: a, audience: b, algorithms: [none] }]',
      'issuers[0].algorithms[0]',
      'is "none"',
      /^one of: RS256/
    ],
    ['guests: { turnstileSecretFile: 1 }', 'guests.turnstileSecretFile', 'is a number', 'the path of a file']
  ]
  for (const [yaml, setting, problem, expected] of rows) {
    const problems = problemsOf(t, { yaml: `plans: { default: {} }\n\n${yaml}\n` })
    t.match(problems[0], { setting, source: `${configPath(t)}:3`, problem, expected }, yaml)
  }
})

t.test('the keys of a plan are checked in every plan', async t => {
  const rows: ReadonlyArray<readonly [plan: string, setting: string, problem: string, expected: RegExp | string]> = [
    ['{ models: ["sora?"] }', 'models[0]', 'is "sora?"', /^a model id or a glob/],
    ['{ models: "*" }', 'models', 'is "*"', 'a list of globs'],
    ['{ models: }', 'models', 'is empty', 'a list of globs'],
    ['{ credits: none }', 'credits', 'is "none"', /or the word unlimited$/],
    ['{ credits: -1 }', 'credits', 'is -1', /or the word unlimited$/],
    ['{ credits: { a: 1 } }', 'credits', 'is a mapping', /or the word unlimited$/],
    ['{ period: week }', 'period', 'is "week"', 'one of: minute, hour, day, month'],
    ['{ requestPerMinute: 1 }', 'requestPerMinute', 'there is no such key', /nearest is requestsPerMinute$/]
  ]
  for (const [plan, key, problem, expected] of rows) {
    const problems = problemsOf(t, { yaml: `plans:\n  default: {}\n  pro: ${plan}\n` })
    t.match(problems, [{ setting: `plans.pro.${key}`, source: /:3$/, problem, expected }], plan)
    t.equal(problems.length, 1)
  }
  t.match(problemsOf(t, { yaml: 'plans: { default: {}, "a b": {} }' }), [
    { setting: 'plans["a b"]', problem: 'can not be a name here' }
  ])
})

t.test('the line is that of the key, also in lists, behind aliases and when the key is missing', t => {
  const yaml = `plans:
  default: &plan
    credits: 1
  pro: *plan
limits: &limits
  bodyBytes: 0
issuers:
  - issuer: a
    jwksUrl: https://a.example
    audience: b
  - issuer: b
    jwksUrl: https://a.example
upstream: *limits
`
  const lines = problemsOf(t, { yaml }).map(({ setting, source }) => `${setting}:${source.split(':').at(-1)}`)
  t.strictSame(lines, ['limits.bodyBytes:6', 'upstream.bodyBytes:6', 'issuers[1].audience:11'])
  t.end()
})

/** Each line holds the one before it nine times. */
const bomb = Array.from('bcdefghij', (name, index) =>
  `${name}: &${name} [${`*${'abcdefghij'[index]},`.repeat(9)}]\n`).join('')

t.test('text that is not strict YAML 1.2 is refused with its line', async t => {
  const rows: ReadonlyArray<readonly [yaml: string, line: number | undefined, problem: RegExp]> = [
    ['plans:\n\tdefault: {}\n', 2, /^Tabs are not allowed/],
    ['plans: [\n', 2, /must be sufficiently indented/],
    ['plans: !include other.yaml\n', 1, /^Unresolved tag$/],
    ['? [a]\n: 1\n', 1, /keys must be strings$/],
    ['a: 1\n---\nb: 1\n', 2, /multiple documents/],
    ['a: *b\n', undefined, /^an alias has no anchor/],
    [`a: &a [1]\n${bomb}`, undefined, /too many aliases$/]
  ]
  for (const [yaml, line, problem] of rows) {
    const problems = problemsOf(t, { yaml })
    const path = configPath(t)
    const source = line === undefined ? path : `${path}:${line}`
    t.match(problems[0], { setting: 'GATEWAY_CONFIG', source, problem, expected: 'YAML 1.2 with each key once' }, yaml)
  }
})

t.test('a key that stands there twice is named with both lines, and where they go', t => {
  const shipped = readFileSync(join(root, 'config/gateway.yaml'), 'utf8')
  const line = (text: string, start: string) => text.split('\n').findIndex(line => line.startsWith(start)) + 1
  const rows = [
    [
      `${shipped}plans:\n  pro: {}\n`,
      `"plans" stands there twice, in line ${line(shipped, 'plans:')} and in line ${shipped.split('\n').length}`
    ],
    ['plans: { default: {}, default: {} }\n', '"default" stands there twice, in line 1'],
    ['plans:\n  a: &x { credits: 1 }\n  "a": *x\n', '"a" stands there twice, in line 2 and in line 3'],
    ['prices:\n  1: 2\n  1: 3\n', '"1" stands there twice, in line 2 and in line 3'],
    [
      'issuers:\n  - { issuer: a, audience: b }\n  - audience: b\n    issuer: a\n    audience: c\n',
      '"audience" stands there twice, in line 3 and in line 5'
    ],
    [
      `${'x'.repeat(100)}: 1\n${'x'.repeat(100)}: 1\n`,
      `"${'x'.repeat(78)}… stands there twice, in line 1 and in line 2`
    ]
  ] as const
  for (const [yaml, problem] of rows) {
    const expected = 'each key once: merge the second into the first'
    const source = `${configPath(t)}:${problem.split(' ').at(-1)}`
    t.match(problemsOf(t, { yaml }), [{ setting: 'GATEWAY_CONFIG', source, problem, expected }], yaml)
  }
  t.end()
})

t.test('every second key of a file is told of, and one that is thrice there twice', t => {
  t.strictSame(
    problemsOf(t, { yaml: 'plans: {}\nplans: {}\nlimits: {}\nplans: {}\nlimits: {}\n' }).map(({ problem }) => problem),
    [
      '"plans" stands there twice, in line 1 and in line 2',
      '"plans" stands there twice, in line 1 and in line 4',
      '"limits" stands there twice, in line 3 and in line 5'
    ]
  )
  t.end()
})

t.test('a file that is no mapping is refused, and an empty one has no plans', t => {
  const rows = [
    ['- plans\n', 'GATEWAY_CONFIG', 'is a list', 'a mapping of known keys'],
    ['plans\n', 'GATEWAY_CONFIG', 'is a string', 'a mapping of known keys'],
    ['# nothing yet\n', 'plans.default', 'there is no plan "default"', 'a plan of that name under plans']
  ] as const
  for (const [yaml, setting, problem, expected] of rows) {
    const problems = problemsOf(t, { yaml })
    t.strictSame(problems, [{ setting, source: configPath(t), problem, expected }], yaml)
  }
  t.end()
})

t.test('a config file that is not there is refused with the place where it was looked for', async t => {
  const rows = [
    ['etc/gateway.yaml', 'etc/gateway.yaml', 'can not be read (ENOENT)'],
    ['../gateway.yaml', '../gateway.yaml', 'can not be read (ENOENT)'],
    ['/nowhere/gateway.yaml', '/nowhere/gateway.yaml', 'can not be read (ENOENT)'],
    ['config', 'config', 'can not be read (EISDIR)']
  ] as const
  for (const [given, path, problem] of rows) {
    const [found] = problemsOf(t, { env: { GATEWAY_CONFIG: given } })
    t.match(found, { setting: 'GATEWAY_CONFIG', source: resolve(t.testdirName, path), problem })
  }
})

t.test('files are read by the given function alone', t => {
  const readFile = (path: string) => {
    if (path === '/app/config/models.json') return '{"models":[]}'
    if (path !== '/app/config/gateway.yaml') throw new Error(`the disk is on fire: ${path}`)
    return 'plans: { default: {} }'
  }
  const { env } = install(t)
  t.equal(loadSettings({ env, cwd: '/app', readFile }).configPath, '/app/config/gateway.yaml')
  t.throws(() => loadSettings({ env, cwd: '/srv', readFile }), /can not be read \(for no known reason\)/)
  t.end()
})

const written = (models: unknown): string => JSON.stringify({ models })

t.test('models.json stands beside the config file', async t => {
  t.strictSame(load(t, {}).models, [])
  const models = [
    { id: 'nano-banana', category: 'image' },
    { id: 'gpt-5.4', category: 'text', options: { sizes: [1, 2] } }
  ]
  const { warnings, ...settings } = load(t, { models: written(models) })
  t.strictSame(settings.models, models)
  t.strictSame(warnings, [])
})

t.test('beside a config file that has none the shipped one counts, with a warning', async t => {
  const shipped = join(root, 'config/models.json')
  const { models, warnings } = load(t, { models: null })
  t.same(models, JSON.parse(readFileSync(shipped, 'utf8')).models)
  t.strictSame(warnings, [`There is no models.json beside ${configPath(t)}: the shipped ${shipped} counts.`])
})

t.test('where the shipped one is gone there are no models, and it is said', async t => {
  const nowhere = () => { throw Object.assign(new Error('no'), { code: 'ENOENT' }) }
  for (const path of ['/app/config/gateway.yaml', join(root, 'config/gateway.yaml')]) {
    t.strictSame(readModels(path, nowhere), {
      models: [], problems: [], warnings: [`There is no models.json beside ${path}: no model has a category.`]
    })
  }
})

t.test('a shipped one that is broken is a problem too', async t => {
  const { problems } = readModels('/app/config/gateway.yaml', path => {
    if (path === join(root, 'config/models.json')) return '{}'
    throw Object.assign(new Error('no'), { code: 'ENOTDIR' })
  })
  t.match(problems, [{ setting: 'models', source: join(root, 'config/models.json:1'), problem: 'is missing' }])
})

t.test('one that is broken refuses to start, and says where', async t => {
  const place = join(t.testdirName, 'config', 'models.json')
  const problem = (text: string) => problemsOf(t, { models: text })
  t.match(problem('{"models": ['), [{ setting: 'models', source: place, problem: 'is no JSON' }])
  t.match(problem('models: []'), [{ problem: 'is no JSON' }])
  t.match(problem('[]'), [{ setting: 'models', problem: 'is an empty list', expected: 'a mapping with models' }])
  t.match(problem('{}'), [{ setting: 'models', problem: 'is missing' }])
  t.match(problem('{"models":[],\n"models":[]}'), [
    {
      source: `${place}:2`,
      problem: '"models" stands there twice, in line 1 and in line 2',
      expected: 'each key once: merge the second into the first'
    }
  ])
  t.match(problem('{"models":[\n{"id":"a","category":"picture"}]}'), [
    {
      setting: 'models[0].category',
      source: `${place}:2`,
      problem: 'is "picture"',
      expected: 'one of image, video, audio, text'
    }
  ])
  t.match(problem('{"models":[{"id":"../a","category":"image"}]}'), [
    { setting: 'models[0].id', expected: 'the name of a model' }
  ])
  t.match(problem('{"models":[{"id":"a"}]}'), [{ setting: 'models[0].category', problem: 'is missing' }])
  t.match(problem('{"models":[{"id":"a","category":"image","price":1}]}'), [
    { setting: 'models[0].price', problem: 'there is no such key' }
  ])
  t.match(problem('{"models":[{"id":"a","category":"image","options":[]}]}'), [{ setting: 'models[0].options' }])
  t.match(problem('{"models":[{"id":"a","category":"image"},{"id":"A","category":"video"}]}'), [
    { setting: 'models[1].id', problem: '"A" stands there twice' }
  ])
})

t.test('one that can not be read is not the same as none', async t => {
  const failing = (code: string) =>
    readModels('/app/config/gateway.yaml', () => {
      throw Object.assign(new Error('no'), { code })
    })
  t.match(failing('EACCES'), {
    models: [],
    problems: [{ source: '/app/config/models.json', problem: 'can not be read (EACCES)' }]
  })
})

t.test('the models that ship can be read, and each category is there', async t => {
  const { models, problems } = readModels(join(root, 'config/gateway.yaml'), path => readFileSync(path, 'utf8'))
  t.strictSame(problems, [])
  t.strictSame(new Set(models.map(({ category }) => category)), new Set(['image', 'video', 'audio', 'text']))
})

t.test('whoever asks nothing of guests is told at every start', t => {
  const warnings = (guests: string) =>
    load(t, { yaml: `plans: { default: {}, guest: {} }\nprices: { "*": 1 }\nguests: { ${guests} }\n` }).warnings
  t.match(warnings('enabled: true, proof: none'), [/^guests\.proof is none: .+\.$/])
  t.same(warnings('enabled: false, proof: none'), [], 'guests that are off cost nothing')
  t.same(warnings('enabled: true'), [])
  t.end()
})

function namedPipe (t: Test): string {
  const path = join(t.testdir({}), 'pipe')
  execFileSync('mkfifo', [path])
  return path
}

t.test('a file is read up to its bound, and no further', async t => {
  const path = join(t.testdir({ 'a.txt': 'ключ\n'.repeat(10_000) }), 'a.txt')
  t.equal(readText(path), 'ключ\n'.repeat(10_000))
  t.equal(readText(path, 90_000).length, 50_000)
  t.throws(() => readText(path, 89_999), new InvalidSetting('has more than 89999 bytes'))
  t.throws(() => readText(`${path}.gone`), { code: 'ENOENT' })
  t.throws(() => readText(t.testdirName), { code: 'EISDIR' })
  t.equal(readText('/dev/null'), '')
})

t.test('a file without an end is refused at once, wherever it is named', t => {
  t.match(problemsOf(t, { env: { APIXO_API_KEY: '', APIXO_API_KEY_FILE: '/dev/zero' } }), [
    { setting: 'APIXO_API_KEY', problem: /^APIXO_API_KEY_FILE names no readable file \(has more than 65536 bytes; / }
  ])
  t.match(problemsOf(t, { env: { GATEWAY_CONFIG: '/dev/zero' } }), [
    { setting: 'GATEWAY_CONFIG', problem: 'can not be read (has more than 4194304 bytes)' }
  ])
  t.match(
    problemsOf(t, { yaml: 'plans: { default: {} }\nguests: { proof: turnstile, turnstileSecretFile: /dev/zero }' }),
    [{ setting: 'guests.turnstileSecretFile', problem: 'names no readable file (has more than 65536 bytes)' }]
  )
  t.end()
})

t.test('a pipe is waited for, but not for ever', async t => {
  const path = namedPipe(t)
  t.throws(() => readText(path, 10, 20), new InvalidSetting('does not come to an end'), 'nobody writes to it')
  const end = openSync(path, 'r+')
  writeSync(end, 'half of')
  t.throws(
    () => readText(path, 10, 20),
    new InvalidSetting('does not come to an end'),
    'whoever writes to it does not end'
  )
  closeSync(end)
  const writer = spawn('sh', ['-c', `sleep 0.1; printf "${apiKey}" > "${path}"`])
  t.equal(readText(path), apiKey)
  await once(writer, 'close')
})

t.test('a pipe has said all: nobody follows what becomes of it', async t => {
  t.notOk(isLasting(namedPipe(t)))
  t.notOk(isLasting('/dev/zero'))
  t.ok(isLasting(import.meta.filename))
  t.ok(isLasting('/nowhere/at/all'), 'it may come back')
  const { secretFiles, apiKeys } = load(t, {
    env: { APIXO_API_KEY: '', APIXO_API_KEY_FILE: 'run/key' },
    files: { 'run/key': apiKey }
  })
  t.same([apiKeys.length, secretFiles.size], [1, 1])
})

t.test('a secret may come on standard input', async t => {
  const cwd = t.testdir({ 'gateway.yaml': 'plans: { default: {} }', 'models.json': '{"models":[]}' })
  const { APIXO_API_KEY, ...env } = gatewayEnvironment('http://127.0.0.1:1')
  const command = `printf "%s\\n" "$KEY" | APIXO_API_KEY_FILE=/dev/stdin '${process.execPath}' '${join(root, 'src/cli.ts')}' check`
  const stdout = execFileSync('sh', ['-c', command], {
    cwd,
    env: { PATH: process.env.PATH, KEY: APIXO_API_KEY, ...env },
    encoding: 'utf8'
  })
  t.match(stdout, /^APIXO_API_KEY +sha256:[0-9a-f]{8} +\(from \/dev\/stdin\)$/m)
})
