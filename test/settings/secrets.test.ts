import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { inspect, parseEnv } from 'node:util'
import t from 'tap'
import { Check } from 'typebox/schema'
import { parse } from 'yaml'
import { environmentVariables, gatewayFileSchema, gatewayFileSchemaText, loadSettings } from '../../src/settings.ts'
import type { JsonSchema } from '../../src/settings/file.ts'
import { apiKey, errorOf, load, problemsOf, required, sessionSecret } from './fixture.ts'

const reveal = (secrets: ReadonlyArray<{ reveal (): string }>) => secrets.map(secret => secret.reveal())

t.test('several keys and secrets are taken by commas or lines, trimmed and once each', t => {
  const settings = load(t, {
    env: {
      APIXO_API_KEY: ' ak-one,ak-two\n\r\n ak-one ',
      GATEWAY_SESSION_SECRET: `${sessionSecret}-newest,${sessionSecret}`
    }
  })
  t.strictSame(reveal(settings.apiKeys), ['ak-one', 'ak-two'])
  t.strictSame(reveal(settings.sessionSecrets), [`${sessionSecret}-newest`, sessionSecret])
  t.end()
})

t.test('a secret is read from the file that its _FILE variable names', t => {
  const settings = load(t, {
    env: {
      APIXO_API_KEY: '',
      APIXO_API_KEY_FILE: 'run/apixo',
      GATEWAY_ADMIN_TOKEN_FILE: 'run/admin',
      GATEWAY_ISSUER_TOKEN: 'is-9d2f7c61b0'
    },
    files: { 'run/apixo': `\uFEFF${apiKey}\nak-two\n`, 'run/admin': 'ad-71c0e5a94f\n' }
  })
  t.strictSame(reveal(settings.apiKeys), [apiKey, 'ak-two'])
  t.equal(settings.adminToken?.reveal(), 'ad-71c0e5a94f')
  t.equal(settings.issuerToken?.reveal(), 'is-9d2f7c61b0')
  t.strictSame([...settings.secretFiles], [
    ['APIXO_API_KEY', join(t.testdirName, 'run/apixo')], ['GATEWAY_ADMIN_TOKEN', join(t.testdirName, 'run/admin')]
  ])
  t.equal(settings.origins.get('APIXO_API_KEY'), settings.secretFiles.get('APIXO_API_KEY'))
  t.end()
})

t.test('a secret file is refused when it is missing, empty, or beside the variable itself', t => {
  t.match(problemsOf(t, { env: { APIXO_API_KEY_FILE: 'run/apixo' }, files: { 'run/apixo': 'ak-two' } }), [
    {
      setting: 'APIXO_API_KEY',
      source: 'environment',
      problem: 'APIXO_API_KEY_FILE is set as well',
      expected: 'one of the two'
    }
  ])
  t.match(problemsOf(t, { env: { APIXO_API_KEY: '', APIXO_API_KEY_FILE: 'ak-in-the-wrong-place' } }), [
    {
      setting: 'APIXO_API_KEY',
      source: 'environment',
      problem: `APIXO_API_KEY_FILE names no readable file (ENOENT; a relative path counts from ${t.testdirName})`
    }
  ])
  t.match(
    problemsOf(t, { env: { APIXO_API_KEY: '', APIXO_API_KEY_FILE: 'run/apixo' }, files: { 'run/apixo': '\n' } }),
    [{ setting: 'APIXO_API_KEY', source: join(t.testdirName, 'run/apixo'), problem: 'holds no value' }]
  )
  t.end()
})

t.test('a weak, sample or default secret is refused', async t => {
  const strong = sessionSecret.slice(0, 20)
  const rows: Record<string, ReadonlyArray<readonly [value: string, problem: RegExp]>> = {
    APIXO_API_KEY: [
      ...[
        'your-api-key',
        'YOUR_APIXO_API_KEY_HERE',
        'changeme',
        'change_me',
        'sk-xxxx',
        'xxxxxxxx',
        '<api key>',
        'sk-...',
        'sk-****',
        'replace-me',
        'placeholder-key',
        '123456',
        'admin',
        'password',
        'secret',
        'api-key',
        'sk-123456789',
        'undefined',
        'example'
      ].map(value => [value, /^is a sample or a known default$/] as const),
      ['ключ-ak-1', /other than visible ASCII/],
      ['ak with spaces', /other than visible ASCII/],
      ['ak-good,changeme', /^value 2 of 2 is a sample/]
    ],
    GATEWAY_SESSION_SECRET: [
      ['short-71c0e5a94f', /^has 16 bytes, fewer than 32$/],
      [`${strong}-change-me-${strong}`, /sample/],
      [`${strong}-please-replace-it-${strong}`, /sample/],
      [`your-secret-${strong}-${strong}`, /sample/],
      [`${strong}-placeholder-${strong}`, /sample/],
      [`an-example-${strong}-${strong}`, /sample/],
      [`a-sample-${strong}-${strong}`, /sample/],
      ['12345678901234567890123456789012', /sample/],
      ['passwordpasswordpasswordpassword', /sample/],
      ['abcabcabcabcabcabcabcabcabcabcabcabc', /fewer than 8 different/],
      [`${sessionSecret}-new,short`, /^value 2 of 2 has 5 bytes/]
    ],
    GATEWAY_ISSUER_TOKEN: [
      ['123456', /sample/],
      ['9d2f7c61b0', /^has 10 bytes/],
      ['abababababab', /repeats itself/],
      ['is 9d2f7c61b0', /visible/]
    ],
    GATEWAY_ADMIN_TOKEN: [
      ...['admin', 'password', 'admin-password', 'change-me-9d2f7c61b0'].map(value => [value, /sample/] as const),
      ['   ', /^has 0 bytes/]
    ]
  }
  for (const [name, values] of Object.entries(rows)) {
    for (const [value, problem] of values) {
      const error = errorOf(t, { env: { [name]: value } })
      t.match(error.problems, [{ setting: name, source: 'environment', problem }], `${name}=${value}`)
    }
  }
})

t.test('no two secrets may be equal, wherever they stand', t => {
  const shared = `${sessionSecret}-shared`
  const problems = problemsOf(t, {
    env: {
      APIXO_API_KEY: `ak-one,${shared}`,
      GATEWAY_SESSION_SECRET: `${sessionSecret},${shared}`,
      GATEWAY_ISSUER_TOKEN: 'is-9d2f7c61b0',
      GATEWAY_ADMIN_TOKEN: 'is-9d2f7c61b0'
    },
    yaml: 'plans: { default: {} }\nissuers:\n  - { issuer: a, audience: b, algorithms: [HS256], secretFile: run/issuer }\n',
    files: { 'run/issuer': shared }
  })
  t.match(problems, [
    { setting: 'GATEWAY_SESSION_SECRET', source: 'environment', problem: 'has the value of APIXO_API_KEY' },
    { setting: 'GATEWAY_ADMIN_TOKEN', source: 'environment', problem: 'has the value of GATEWAY_ISSUER_TOKEN' },
    { setting: 'issuers[0].secretFile', source: /gateway\.yaml:3$/, problem: 'has the value of APIXO_API_KEY' }
  ])
  t.equal(problems.length, 3)
  t.end()
})

t.test('secrets that the config file names are read from their own files', t => {
  const yaml = [
    'plans: { default: {} }',
    'issuers: [{ issuer: "https://shop.example", audience: app, algorithms: [HS256], secretFile: run/shop }]',
    'guests: { turnstileSecretFile: run/turnstile }'
  ].join('\n')
  const settings = load(t, { yaml, files: { 'run/shop': `${sessionSecret}-shop\n`, 'run/turnstile': '0x4AAAF00D\n' } })
  t.strictSame(reveal(settings.issuerSecrets.get('https://shop.example')!), [`${sessionSecret}-shop`])
  t.equal(settings.turnstileSecret?.reveal(), '0x4AAAF00D')
  t.equal(settings.issuerSecrets.size, 1)
  t.strictSame(
    [...settings.secretFiles],
    [
      ['issuers[0].secretFile', join(t.testdirName, 'run/shop')],
      ['guests.turnstileSecretFile', join(t.testdirName, 'run/turnstile')]
    ]
  )
  const several = load(t, {
    yaml,
    files: { 'run/shop': `${sessionSecret},shop\r\n\n ${sessionSecret}-old\n`, 'run/turnstile': '0x4AAAF00D' }
  })
  t.strictSame(
    reveal(several.issuerSecrets.get('https://shop.example')!),
    [`${sessionSecret},shop`, `${sessionSecret}-old`],
    'a line each'
  )
  t.match(
    problemsOf(t, {
      yaml,
      files: {
        'run/shop': `# shared with the shop, rotated on 2026-11-01\n${sessionSecret}-shop`,
        'run/turnstile': '0x4AAAF00D'
      }
    }),
    [{ setting: 'issuers[0].secretFile', problem: 'value 1 of 2 looks like a comment' }]
  )
  t.match(problemsOf(t, { yaml, files: { 'run/shop': 'short-9d2f' } }), [
    {
      setting: 'issuers[0].secretFile',
      source: /gateway\.yaml:2$/,
      problem: 'has 10 bytes, fewer than 32',
      expected: 'a file with a secret of at least 32 bytes'
    },
    { setting: 'guests.turnstileSecretFile', source: /gateway\.yaml:3$/, problem: 'names no readable file (ENOENT)' }
  ])
  t.end()
})

t.test('no message holds the value of a secret, whatever is wrong with it or wherever it was put', async t => {
  const canary = 'canary-71c0e5a94f'
  const yaml = (text: string) => ({ yaml: `plans: { default: {} }\n${text}` })
  const rows = [
    { env: { APIXO_API_KEY: `${canary} ` + canary } },
    { env: { APIXO_API_KEY: `${canary}-changeme` } },
    { env: { APIXO_API_KEY: '', APIXO_API_KEY_FILE: canary } },
    { env: { GATEWAY_SESSION_SECRET: canary } },
    { env: { GATEWAY_SESSION_SECRET: '', GATEWAY_SESSION_SECRET_FILE: `/${canary}/${canary}` } },
    { env: { GATEWAY_ISSUER_TOKEN: canary, GATEWAY_ADMIN_TOKEN: canary } },
    { env: { GATEWAY_STORE: `redis://:${canary}@cache:6379/x` } },
    { env: { GATEWAY_STORE: `postgres://:${canary}@cache:6379/x` } },
    { env: { APIXO_BASE_URL: `https://me:${canary}@api.example` } },
    { env: { APIXO_BASE_URL: `ftp://me:${canary}@api.example` } },
    { env: { APIXO_BASE_URL: `https://me:${canary}@api example` } },
    { env: { APIXO_BASE_URL: `https://me:p/${canary}@api.example` } },
    { env: { APIXO_BASE_URL: `me:${canary}@api.example` } },
    { env: { APIXO_BASE_URL: `https://api.example?key=${canary}` } },
    { env: { APIXO_BASE_URL: `api.example?key=${canary}&x=1` } },
    { env: { GATEWAY_ALLOWED_ORIGINS: `https://a.example/#${canary},ftp://a.example/?${canary}` } },
    { env: { GATEWAY_PUBLIC_URL: `https://me:${canary}@api.example` } },
    yaml(`issuers: [{ issuer: a, audience: b, algorithms: [HS256], secretFile: ${canary} }]`),
    yaml(`issuers: [{ issuer: a, audience: b, algorithms: [HS256], secretFile: [${canary}] }]`),
    yaml('guests: { turnstileSecretFile: 1234567890 }'),
    yaml(`issuers: [{ issuer: a, audience: b, jwksUrl: "https://me:${canary}@id.example" }]`),
    yaml(`apiKey: ${canary}`),
    { yaml: `APIXO_API_KEY=${canary}\n` },
    { yaml: `- ${canary}\n` },
    { yaml: `a: |${canary}\n` },
    { yaml: `a: "\\q${canary}"\n` },
    { yaml: `%${canary}\n---\na: 1\n` },
    { yaml: `a: *${canary}\n` },
    { yaml: `a: !${canary} 1\n` },
    { yaml: `a: 1\n}${canary}\n` }
  ]
  for (const row of rows) {
    const error = errorOf(t, row)
    t.notMatch(inspect(error, { depth: 9 }), /canary|1234567890/, JSON.stringify(row))
  }
})

const root = fileURLToPath(new URL('../../', import.meta.url))
const read = (path: string) => readFileSync(new URL(path, new URL('../../', import.meta.url)), 'utf8')
const loadSample = (path: string) => loadSettings({ env: { ...required, GATEWAY_CONFIG: path }, cwd: root })

t.test('config/gateway.schema.json is current', t => {
  const script = 'import("./src/settings.ts").then(s => process.stdout.write(s.gatewayFileSchemaText()))'
  const command = `node -e '${script}' > config/gateway.schema.json`
  t.equal(read('config/gateway.schema.json'), gatewayFileSchemaText(), `make it anew by: ${command}`)
  t.end()
})

t.test('the config file that ships is valid, changes no default but prices and caps, and has the plans of the examples', t => {
  t.ok(Check(gatewayFileSchema(), parse(read('config/gateway.yaml'))))
  const { file, warnings } = loadSample('config/gateway.yaml')
  const { plans: { default: plan, guest, team, ...others }, prices, caps, ...rest } = file
  const { plans, prices: none, caps: nothing, ...defaults } = load(t).file
  t.strictSame(warnings, [], 'and nothing in it is doubtful')
  t.same({ default: plan, ...others }, plans)
  t.same(rest, defaults)
  t.match([guest, team], [{ credits: 5, models: ['nano-banana*'] }, { credits: 500, period: 'month' }])
  t.end()
})

t.test('the complete example is valid, and shows the default of every key but those of its examples', t => {
  t.ok(Check(gatewayFileSchema(), parse(read('config/gateway.example.yaml'))))
  const { plans, pools, prices, caps, ...example } = loadSample('config/gateway.example.yaml').file
  const { plans: defaultPlans, pools: noPools, prices: none, caps: nothing, ...defaults } = load(t).file
  t.same(plans['default'], defaultPlans['default'])
  t.same(pools['design']?.ceilings.none, 0)
  t.same(example, defaults)
  t.end()
})

t.test('what the complete example has in comments can be put in as it is', t => {
  const [before, rest] = read('config/gateway.example.yaml').split(/^issuers: \[\].*\n/m)
  const [commented] = /^(?:#.*\n)+/.exec(rest!)!
  const issuers = commented.replace(/^# /gm, '')
  const { file } = load(t, {
    yaml: before! + issuers + rest!.slice(commented.length),
    files: { 'secrets/shop': 's'.repeat(3) + 'q7Zc0vT2mLx9RfWk4JbN8sHd1yUeGaPo' }
  })
  t.match(file.issuers, [
    { issuer: 'https://id.example/', algorithms: ['RS256'] },
    { issuer: 'https://shop.example', secretFile: './secrets/shop' }
  ])
  t.end()
})

t.test('the complete example has every key of the schema', t => {
  const text = read('config/gateway.example.yaml')
  for (const name of Object.keys(keysOf(gatewayFileSchema()))) {
    t.match(text, new RegExp(`^[\\s#]*(?:- |.*[{ ])?"?${RegExp.escape(name)}"?:`, 'm'), name)
  }
  t.end()
})

t.test('every key of the schema says what it does and what it takes', t => {
  for (const [name, { title, description }] of Object.entries(keysOf(gatewayFileSchema()))) {
    t.match(description, /^.+\.$/, `${name}: description`)
    t.type(title, 'string', `${name}: title`)
  }
  t.end()
})

t.test('.env.example has every variable with its default, and no secret in it', t => {
  const text = read('.env.example')
  t.same(
    parseEnv(text),
    Object.fromEntries(environmentVariables.filter(({ secret }) => secret).map(({ name }) => [name, '']))
  )
  const all = parseEnv(text.replace(/^# (?=[A-Z_]+=)/gm, ''))
  t.same(all, Object.fromEntries(environmentVariables.map(({ name, default: value }) => [name, value ?? ''])))
  t.equal(text.match(/openssl rand -base64 48/g)?.length, 4)
  t.end()
})

/** The named keys of a schema, at any depth. */
function keysOf (schema: JsonSchema): Record<string, JsonSchema> {
  const { properties = {}, patternProperties = {}, items, anyOf = [] } = schema
  const inner = [...Object.values(properties), ...Object.values(patternProperties), ...[items ?? []].flat(), ...anyOf]
  return Object.assign({ ...properties }, ...inner.map(keysOf))
}
