import { mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import t from 'tap'
import { load, problemsOf, sessionSecret } from './fixture.ts'

t.test('values that do not go together are refused', async t => {
  const issuer = 'issuer: a, audience: b'
  const rows: ReadonlyArray<readonly [yaml: string, setting: string, problem: RegExp]> = [
    ['guests: { enabled: true }', 'guests.plan', /^there is no plan "guest"$/],
    ['guests: { enabled: true, plan: constructor }', 'guests.plan', /^there is no plan "constructor"$/],
    ['guests: { enabled: true, plan: rich }', 'plans.rich.credits', /^is unlimited, in the plan of guests$/],
    ['guests: { enabled: true, plan: default, proof: turnstile }', 'guests.turnstileSecretFile', /^is missing$/],
    ['pools: { a: { zone: Mars/Base } }', 'pools.a.zone', /^is "Mars\/Base", which is no time zone$/],
    ['gateway: { resetHour: 24 }', 'gateway.resetHour', /^is 24$/],
    ['pools: { a: { ceilings: { hour: 3, month: 2 } } }', 'pools.a.ceilings.hour',
      /^is 3 and never counts, as pools\.a\.ceilings\.month is 2$/],
    ['gateway: { ceilings: { week: 5, month: 2 } }', 'gateway.ceilings.week', /^is 5 and never counts/],
    ['gateway: { ceilings: { day: 0.1234567 } }', 'gateway.ceilings.day', /^is 0.1234567$/],
    ['pools: { a: { ceilings: { year: 1 } } }', 'pools.a.ceilings.year', /./],
    ['sessions: { defaultTtlSeconds: 60, maxTtlSeconds: 59 }', 'sessions.defaultTtlSeconds', /^is 60, longer/],
    ['limits: { bodyBytesInFlight: 1 }', 'limits.bodyBytesInFlight', /^is 1, which has no room/],
    [
      'submit: { fields: [provider, Callback_URL] }',
      'submit.fields[1]',
      /^is "Callback_URL", which is never passed on$/
    ],
    ['submit: { fields: [webhook_url] }', 'submit.fields[0]', /never passed on/],
    ['submit: { fields: [request_type] }', 'submit.fields[0]', /never passed on/],
    ['prices: { a: { credits: 1, default: 8 } }', 'prices.a.default', /^stands without per$/],
    ['prices: { a: 0.1234567 }', 'prices.a', /^is 0.1234567$/],
    [
      'prices: { a: { inputPerMillion: 1, outputPerMillion: 1.1234567 } }',
      'prices.a.outputPerMillion',
      /^is 1.1234567$/
    ],
    ['caps: { a: { input.n: { min: 3, max: 2 } } }', 'caps.a["input.n"]', /^min 3 is greater than max 2$/],
    [`issuers: [{ ${issuer} }]`, 'issuers[0]', /^has no keys$/],
    ['issuers: [{ issuer: "http://a.example", audience: b }]', 'issuers[0]', /^has no keys$/],
    ['issuers: [{ issuer: "https://a.example?b", audience: b }]', 'issuers[0]', /^has no keys$/],
    [
      'issuers: [{ issuer: "https://a.example", audience: b, algorithms: [HS256] }]',
      'issuers[0].algorithms',
      /^do not fit the keys$/
    ],
    ['issuers: [{ issuer: "https://a.example" }]', 'issuers[0].audience', /^is missing$/],
    ['issuers: [{ issuer: "https://a.example", claims: {} }]', 'issuers[0].audience', /^is missing$/],
    [
      `issuers: [{ ${issuer}, jwksUrl: "https://a.example", secretFile: secret }]`,
      'issuers[0].secretFile',
      /beside jwksUrl$/
    ],
    [
      `issuers: [{ ${issuer}, jwksUrl: "https://a.example", algorithms: [RS256, HS256] }]`,
      'issuers[0].algorithms',
      /^do not fit the keys$/
    ],
    [`issuers: [{ ${issuer}, secretFile: secret }]`, 'issuers[0].algorithms', /^do not fit the keys$/],
    [`issuers: [{ ${issuer}, jwksUrl: "http://a.example" }]`, 'issuers[0].jwksUrl', /^is not an https: URL$/],
    [`issuers: [{ ${issuer}, jwksUrl: jwks.json }]`, 'issuers[0].jwksUrl', /^is not an https: URL$/],
    [`issuers: [{ ${issuer}, jwksUrl: "https://me@a.example" }]`, 'issuers[0].jwksUrl', /^has credentials in it$/],
    [`issuers: [{ ${issuer}, jwksUrl: "https://:x@a.example" }]`, 'issuers[0].jwksUrl', /^has credentials in it$/],
    [
      `issuers: [{ ${issuer}, jwksUrl: "https://a.example", plan: gold }]`,
      'issuers[0].plan',
      /^there is no plan "gold"$/
    ],
    [`issuers: [${`{ ${issuer}, jwksUrl: "https://a.example" },`.repeat(2)}]`, 'issuers[1].issuer', /^is there twice$/],
    [
      `issuers: [{ issuer: "https://a.example/${'x'.repeat(79)}", audience: b }]`,
      'issuers[0].subjectPrefix',
      /^is missing$/
    ],
    [
      'issuers: [{ issuer: "https://a.example", audience: b }, { issuer: "https://a.example:8443", audience: b }]',
      'issuers[1].subjectPrefix',
      /^is missing$/
    ],
    [
      'issuers: [{ issuer: "https://a.example:8443", audience: b }, { issuer: "https://a.example", audience: b }]',
      'issuers[1].subjectPrefix',
      /^is missing$/
    ],
    [
      'issuers: [{ issuer: apixo-gateway, audience: b, jwksUrl: "https://a.example" }]',
      'issuers[0].issuer',
      /^is the gateway itself$/
    ],
    [
      'issuers: [{ issuer: "app:a", audience: b, jwksUrl: "https://a.example" }]',
      'issuers[0].issuer',
      /^begins like the subjects/
    ],
    [
      'issuers: [{ issuer: "https://a.example", audience: b, subjectPrefix: shop }, { issuer: shop, audience: b, jwksUrl: "https://a.example" }]',
      'issuers[1].subjectPrefix',
      /^is the name of another issuer$/
    ],
    [
      'issuers: [{ issuer: shop, audience: b, jwksUrl: "https://a.example" }, { issuer: "https://a.example", audience: b, subjectPrefix: shop }]',
      'issuers[1].subjectPrefix',
      /^is the name of another issuer$/
    ],
    [
      `issuers: [{ ${issuer}, jwksUrl: "https://a.example", subjectPrefix: guest }]`,
      'issuers[0].subjectPrefix',
      /^begins like the subjects/
    ]
  ]
  for (const [yaml, setting, problem] of rows) {
    const problems = problemsOf(t, {
      yaml: `plans: { default: {}, rich: { credits: unlimited } }\n${yaml}\n`,
      files: { secret: 'q7Zc0vT2mLx9RfWk4JbN8sHd1yUeGaPo-issuer' }
    })
    t.match(problems, [{ setting, source: /gateway\.yaml:\d$/, problem }], yaml)
    t.equal(problems.length, 1, 'and nothing else is wrong')
  }
})

t.test('credits of a plan have at most six decimals', t => {
  t.match(problemsOf(t, { yaml: 'plans: { default: { credits: 0.0000001 } }' }), [
    { setting: 'plans.default.credits', problem: 'is 1e-7' }
  ])
  t.equal(load(t, { yaml: 'plans: { default: { credits: 1.123456 } }' }).file.plans['default']?.credits, 1.123456)
  t.end()
})

t.test('what goes together is accepted', t => {
  const { file } = load(t, {
    yaml: `plans: { default: {}, guest: {} }
prices: { a: { credits: 1, per: input.n }, b: { inputPerMillion: 1, outputPerMillion: 2 } }
caps: { a: { input.n: { min: 2, max: 2 }, input.m: { min: 1 } } }
guests: { enabled: true, proof: none }
issuers:
  - { issuer: a, audience: b, jwksUrl: "https://a.example", algorithms: [ES256, EdDSA], subjectPrefix: one }
  - { issuer: b, audience: b, jwksUrl: "http://127.0.0.1:9000/jwks", subjectPrefix: one, plan: guest }
  - { issuer: "https://clerk.example", claims: { azp: ["https://app.example"], email_verified: [true] } }
  - { issuer: "http://localhost:9000/realms/app", audience: b, planClaim: app_metadata.plan }
  - { issuer: "https://a.example/${'x'.repeat(100)}", audience: b, subjectPrefix: long }
  - { issuer: "https://a.example/${'x'.repeat(100)}:y", audience: b, subjectPrefix: longer }
`
  })
  t.equal(file.guests.enabled, true)
  t.equal(
    load(t, { yaml: 'plans: { default: {} }\nguests: { plan: missing }' }).file.guests.enabled,
    false,
    'guests that are off need no plan'
  )
  t.end()
})

t.test('a rule is left out while a section that it reads has a problem of its own', t => {
  const problems = problemsOf(t, {
    yaml: 'plans: { defautl: { model: [] } }\nguests: { enabled: true }\nlimits: { bodyBytesInFlight: 1 }\n'
  })
  t.strictSame(
    problems.map(({ setting }) => setting),
    ['plans.defautl.model', 'limits.bodyBytesInFlight']
  )
  t.end()
})

t.test('inbound callbacks need a public https: origin of our own', async t => {
  const yaml = 'plans: { default: {} }\ncallbacks: { inbound: true }\n'
  const rows = [
    [undefined, 'is not set, and callbacks.inbound is true', 'default'],
    ['http://gateway.example', 'http://gateway.example can not take callbacks', 'environment'],
    ['https://192.168.1.5', 'https://192.168.1.5 can not take callbacks', 'environment'],
    ['https://localhost', 'https://localhost can not take callbacks', 'environment'],
    ['https://gateway.internal', 'https://gateway.internal can not take callbacks', 'environment']
  ] as const
  for (const [url, problem, source] of rows) {
    t.match(problemsOf(t, { yaml, env: { GATEWAY_PUBLIC_URL: url } }), [
      { setting: 'GATEWAY_PUBLIC_URL', source, problem }
    ])
  }
  t.equal(problemsOf(t, { yaml, env: { GATEWAY_PUBLIC_URL: 'x' } }).length, 1, 'a bad origin is one problem, not two')
  t.equal(
    load(t, { yaml, env: { GATEWAY_PUBLIC_URL: 'https://gateway.example' } }).publicUrl,
    'https://gateway.example'
  )
})

t.test('a folder with settings, secrets or the store in it is not served', async t => {
  const files = {
    '.env': '',
    'run/key': 'ak-one',
    'dist/index.html': '',
    '..dist/index.html': '',
    'data/index.html': ''
  }
  const rows = [
    ['.', {}, 'config/gateway.yaml'],
    ['config', {}, 'config/gateway.yaml'],
    ['data', {}, 'data/gateway.db'],
    ['run', { APIXO_API_KEY: undefined, APIXO_API_KEY_FILE: 'run/key' }, 'run/key'],
    ['.', { GATEWAY_CONFIG: '../elsewhere/config/gateway.yaml', GATEWAY_STORE: 'sqlite::memory:' }, '.env']
  ] as const
  for (const [folder, env, path] of rows) {
    const problem = `${join(t.testdirName, path)} lies in it and would be served`
    const problems = problemsOf(t, { files, env: { ...env, GATEWAY_STATIC_DIR: folder } })
    t.match(
      problems.find(({ setting }) => setting === 'GATEWAY_STATIC_DIR'),
      { source: 'environment', problem },
      folder
    )
  }
  const yaml = 'plans: { default: {} }\nguests: { turnstileSecretFile: dist/turnstile }\n' +
    'issuers: [{ issuer: shop, audience: app, algorithms: [HS256], secretFile: run/shop }]'
  for (const [folder, path] of [['run', 'run/shop'], ['dist', 'dist/turnstile']] as const) {
    const named = { ...files, 'run/shop': sessionSecret + '-shop', 'dist/turnstile': '0x4AAAF00D' }
    const problem = `${join(t.testdirName, path)} lies in it and would be served`
    t.match(
      problemsOf(t, { yaml, files: named, env: { GATEWAY_STATIC_DIR: folder } }),
      [{ setting: 'GATEWAY_STATIC_DIR', problem }],
      folder
    )
  }
  const link = join(mkdtempSync(join(tmpdir(), 'gateway-web-')), 'web')
  t.teardown(() => rmSync(dirname(link), { recursive: true }))
  symlinkSync(join(t.testdirName, 'data'), link)
  t.match(
    problemsOf(t, { files, env: { GATEWAY_STATIC_DIR: link } }),
    [{ setting: 'GATEWAY_STATIC_DIR', problem: /gateway\.db lies in it/ }],
    'wherever a link leads'
  )
  for (const [folder, env] of [
    ['dist', {}],
    ['..dist', {}],
    ['data', { GATEWAY_STORE: 'redis://cache' }]
  ] as const) {
    t.equal(load(t, { files, env: { ...env, GATEWAY_STATIC_DIR: folder } }).staticDir, join(t.testdirName, folder))
  }
})

t.test('nor is a folder with a link in it to one of them, as which it would be served', async t => {
  const files = { 'run/key': 'ak-one', 'run/gateway.db': '', 'run/shop': `${sessionSecret}-shop` }
  const folder = mkdtempSync(join(tmpdir(), 'gateway-web-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  for (const name of ['key', 'gateway.db', 'shop']) symlinkSync(join(t.testdirName, 'run', name), join(folder, name))
  symlinkSync(join(t.testdirName, 'run'), join(folder, 'out'))
  const yaml = `plans: { default: {} }\nissuers: [{ issuer: shop, audience: app, algorithms: [HS256], secretFile: "${folder}/shop" }]`
  for (const [name, env, wanted] of [
    ['key', { APIXO_API_KEY: undefined, APIXO_API_KEY_FILE: `${folder}/key` }],
    ['out/key', { APIXO_API_KEY: undefined, APIXO_API_KEY_FILE: `${folder}/out/key` }],
    ['gateway.db', { GATEWAY_STORE: `sqlite:${folder}/gateway.db` }],
    ['shop', {}, yaml]
  ] as const) {
    const problems = problemsOf(t, {
      files,
      env: { ...env, GATEWAY_STATIC_DIR: folder },
      ...(wanted === undefined ? {} : { yaml: wanted })
    })
    t.match(
      problems,
      [{ setting: 'GATEWAY_STATIC_DIR', problem: `${join(folder, name)} lies in it and would be served` }],
      name
    )
  }
})

t.test('what stands in a plan, and can not be, is refused with its line', t => {
  const rows: ReadonlyArray<readonly [plan: string, setting: string, problem: RegExp]> = [
    ['pool: design', 'plans.default.pool', /^there is no pool "design"$/],
    ['zone: "+01:00"', 'plans.default.zone', /^is "\+01:00", which is no time zone$/],
    ['resetHour: -1', 'plans.default.resetHour', /^is -1$/],
    ['ceilings: { day: 3, week: 2 }', 'plans.default.ceilings.day', /^is 3 and never counts/],
    ['ceilings: { none: 1 }', 'plans.default.ceilings.none', /./]
  ]
  for (const [plan, setting, problem] of rows) {
    t.test(plan, async t => {
      const problems = problemsOf(t, { yaml: `prices: { "*": 1 }\nplans:\n  default: { ${plan} }\n` })
      t.match(problems, [{ setting, source: /gateway\.yaml:3$/, problem }])
      t.equal(problems.length, 1)
    })
  }
  t.end()
})

t.test('windows may be narrower than longer ones, and a week than twice a month', async t => {
  const yaml = `prices: { "*": 1 }
plans: { default: { pool: a, ceilings: { hour: 1, day: 1, week: 2, month: 1 } } }
pools: { a: { zone: Europe/Berlin, resetHour: 23, ceilings: { none: 0, month: 5 } } }
gateway: { concurrentTasks: 3, ceilings: { day: 4 } }
`
  const { warnings, file } = load(t, { yaml })
  t.same(warnings, [])
  t.match(file, {
    plans: { default: { pool: 'a', zone: 'UTC', resetHour: 0 } },
    pools: { a: { ceilings: { none: 0, month: 5 } } },
    gateway: { concurrentTasks: 3, resetHour: 0 }
  })
})
