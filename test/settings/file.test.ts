import t from 'tap'
import { configPath, load, problemsOf } from './fixture.ts'

t.test('every key has the documented default', t => {
  const { file } = load(t)
  t.same(file, {
    plans: {
      default: {
        models: ['*'],
        requestsPerMinute: 60,
        pollsPerMinute: 600,
        concurrentTasks: 5,
        credits: 100,
        period: 'day'
      }
    },
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
    llm: { defaultMaxOutputTokens: 4096 },
    issuers: [],
    guests: { enabled: false, plan: 'guest', sessionsPerAddressPerDay: 5, proof: 'work' },
    callbacks: { inbound: false, allowedHosts: [] },
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
      'a field of the body such as input.duration'
    ],
    ['prices: { a: { inputPerMillion: 1 } }', 'prices.a.outputPerMillion', 'is missing', 'a number, 0 to 1000000000'],
    ['prices: { a: { credits: 1, onFailed: keep } }', 'prices.a.onFailed', 'is "keep"', 'one of: refund, charge'],
    ['caps: { a: { input.n: {} } }', 'caps.a["input.n"]', 'is an empty mapping', 'a mapping with min, max or oneOf'],
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
