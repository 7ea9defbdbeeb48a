import { execFileSync } from 'node:child_process'
import { chmodSync, mkdirSync, renameSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { inspect } from 'node:util'
import t, { type Test } from 'tap'
import { Secret } from '../../src/domain/secret.ts'
import { liveSecrets } from '../../src/settings.ts'
import { load, sessionSecret } from './fixture.ts'

const shop = 'https://shop.example'
const inVariables = {
  APIXO_API_KEY: 'ak-one',
  GATEWAY_SESSION_SECRET: `${sessionSecret}-one`,
  GATEWAY_ISSUER_TOKEN: 'issuer-9d2f7c61b0',
  GATEWAY_ADMIN_TOKEN: 'admin-71c0e5a94f'
} as const
const start = {
  ...inVariables,
  'issuers[0].secretFile': `${sessionSecret}-shop`,
  'guests.turnstileSecretFile': 'turnstile-61b0'
} as const
type Name = keyof typeof start
const names = Object.keys(start) as Name[]

const yaml = [
  'plans: { default: {} }',
  `issuers: [{ issuer: "${shop}", audience: app, algorithms: [HS256], secretFile: "run/issuers[0].secretFile" }]`,
  'guests: { turnstileSecretFile: run/guests.turnstileSecretFile }'
].join('\n')

const print = (value: string) => new Secret(value).fingerprint

/** Settings whose six secrets are in files of their own. */
function secretsInFiles (t: Test) {
  const settings = load(t, {
    yaml,
    env: Object.fromEntries(Object.keys(inVariables).flatMap(name => [[name, ''], [`${name}_FILE`, `run/${name}`]])),
    files: Object.fromEntries(names.map(name => [`run/${name}`, `${start[name]}\n`]))
  })
  const secrets = liveSecrets(settings)
  const path = (name: Name) => join(t.testdirName, 'run', name)
  return {
    secrets,
    path,
    write: (name: Name, text: string) => writeFileSync(path(name), text),
    rotate (name: Name, text: string) {
      writeFileSync(`${path(name)}.new`, text)
      renameSync(`${path(name)}.new`, path(name))
    },
    inUse: () => ({
      APIXO_API_KEY: secrets.apiKeys.current.map(key => key.reveal()).join(),
      GATEWAY_SESSION_SECRET: secrets.sessionSecrets.current.map(secret => secret.reveal()).join(),
      GATEWAY_ISSUER_TOKEN: secrets.issuerToken.current?.reveal(),
      GATEWAY_ADMIN_TOKEN: secrets.adminToken.current?.reveal(),
      'issuers[0].secretFile': secrets.issuerSecrets.get(shop)?.current.map(secret => secret.reveal()).join(),
      'guests.turnstileSecretFile': secrets.turnstileSecret.current?.reveal()
    })
  }
}

t.test('what is in use at the start stays, and is no news, until its file says otherwise', async t => {
  const { secrets, inUse, write } = secretsInFiles(t)
  t.same(inUse(), start)
  const [keys, token] = [secrets.apiKeys.current, secrets.adminToken.current]
  t.same(secrets.refresh(), [])
  write('APIXO_API_KEY', '\n ak-one ,\r\n')
  t.same(secrets.refresh(), [], 'the same, written another way')
  t.equal(secrets.apiKeys.current, keys, 'not even another list')
  t.equal(secrets.adminToken.current, token)
})

t.test('without files there is no news', async t => {
  const secrets = liveSecrets(load(t))
  t.same(secrets.refresh(), [])
  t.equal(secrets.issuerToken.current, undefined)
  t.equal(secrets.adminToken.current, undefined)
  t.equal(secrets.sessionSecrets.current[0]?.reveal(), sessionSecret)
  t.equal(secrets.turnstileSecret.current, undefined)
  t.equal(secrets.issuerSecrets.size, 0)
})

t.test('a new secret is taken from its file, and the news is who came and who went', async t => {
  const { secrets, inUse, write, path } = secretsInFiles(t)
  const next = `${sessionSecret}-two`
  write('GATEWAY_SESSION_SECRET', `${next}\n${start.GATEWAY_SESSION_SECRET}\n`)
  t.strictSame(secrets.refresh(), [{
    setting: 'GATEWAY_SESSION_SECRET',
    source: path('GATEWAY_SESSION_SECRET'),
    rotated: true,
    inUse: [print(next), print(start.GATEWAY_SESSION_SECRET)],
    gone: []
  }])
  t.equal(inUse().GATEWAY_SESSION_SECRET, `${next},${start.GATEWAY_SESSION_SECRET}`, 'the newest first')
  write('GATEWAY_SESSION_SECRET', next)
  write('GATEWAY_ADMIN_TOKEN', 'admin-another-a94f')
  t.match(secrets.refresh(), [
    { setting: 'GATEWAY_SESSION_SECRET', inUse: [print(next)], gone: [print(start.GATEWAY_SESSION_SECRET)] },
    { setting: 'GATEWAY_ADMIN_TOKEN', inUse: [print('admin-another-a94f')], gone: [print(start.GATEWAY_ADMIN_TOKEN)] }
  ])
  t.same(inUse(), { ...start, GATEWAY_SESSION_SECRET: next, GATEWAY_ADMIN_TOKEN: 'admin-another-a94f' })
  t.same(secrets.refresh(), [])
})

t.test('another order is news: the first one signs', async t => {
  const { secrets, inUse, write } = secretsInFiles(t)
  write('APIXO_API_KEY', 'ak-one,ak-two')
  secrets.refresh()
  write('APIXO_API_KEY', 'ak-two,ak-one')
  t.match(secrets.refresh(), [{ rotated: true, gone: [], inUse: [print('ak-two'), print('ak-one')] }])
  t.equal(inUse().APIXO_API_KEY, 'ak-two,ak-one')
})

/** What may befall a file, and what is said of it. */
const troubles: ReadonlyArray<readonly [title: string, befall: (path: string) => void, problem: string | RegExp]> = [
  ['it is empty', path => writeFileSync(path, ''), 'has 0 bytes, fewer than 12'],
  ['it has blanks alone', path => writeFileSync(path, ' \r\n\t\n'), 'has 0 bytes, fewer than 12'],
  ['it is too short', path => writeFileSync(path, 'tok-9d2f\n'), 'has 8 bytes, fewer than 12'],
  ['it is a sample', path => writeFileSync(path, 'change-me-9d2f7c61b0'), 'is a sample or a known default'],
  [
    'it is no text',
    path => writeFileSync(path, Buffer.from([0xff, 0xfe, ...Array(20).fill(0)])),
    'has characters other than visible ASCII'
  ],
  ['it is deleted', path => rmSync(path), 'can not be read (ENOENT)'],
  [
    'it is a folder',
    path => {
      rmSync(path)
      mkdirSync(path)
    },
    'is no plain file'
  ],
  [
    'it is a pipe',
    path => {
      rmSync(path)
      execFileSync('mkfifo', [path])
    },
    'is no plain file'
  ],
  ["it is a disk's worth of text", path => writeFileSync(path, 'x'.repeat(65_537)), 'has 65537 bytes, more than 65536'],
  [
    'it has the value of another secret',
    path => writeFileSync(path, start.GATEWAY_ADMIN_TOKEN),
    'has the value of GATEWAY_ADMIN_TOKEN'
  ]
]

for (const [title, befall, problem] of troubles) {
  t.test(`the secret in use stays, the trouble is told once, and it passes by itself: ${title}`, async t => {
    const { secrets, inUse, write, path } = secretsInFiles(t)
    const file = path('GATEWAY_ISSUER_TOKEN')
    const expected = 'at least 12 random bytes, for example made by `openssl rand -base64 48`'
    befall(file)
    t.strictSame(secrets.refresh(), [{ setting: 'GATEWAY_ISSUER_TOKEN', source: file, problem, expected }])
    t.same(inUse(), start)
    t.same(secrets.refresh(), [], 'nothing new')
    rmSync(file, { recursive: true, force: true })
    t.equal(secrets.refresh().length, title === 'it is deleted' ? 0 : 1, 'another trouble is news')
    write('GATEWAY_ISSUER_TOKEN', start.GATEWAY_ISSUER_TOKEN)
    t.strictSame(secrets.refresh(), [
      {
        setting: 'GATEWAY_ISSUER_TOKEN',
        source: file,
        rotated: false,
        inUse: [print(start.GATEWAY_ISSUER_TOKEN)],
        gone: []
      }
    ])
    write('GATEWAY_ISSUER_TOKEN', 'issuer-another-61b0')
    t.match(secrets.refresh(), [{ inUse: [print('issuer-another-61b0')] }])
    t.same(inUse(), { ...start, GATEWAY_ISSUER_TOKEN: 'issuer-another-61b0' })
  })
}

for (const name of ['APIXO_API_KEY', 'issuers[0].secretFile', 'guests.turnstileSecretFile'] as const) {
  t.test(`a file whose mode shuts us out is a trouble too: ${name}`, async t => {
    const { secrets, inUse, path } = secretsInFiles(t)
    chmodSync(path(name), 0o000)
    // Root reads everything: it is somebody else meanwhile.
    const isRoot = process.geteuid!() === 0
    if (isRoot) process.seteuid!(65534)
    const news = secrets.refresh()
    if (isRoot) process.seteuid!(0)
    t.match(news, [{ setting: name, problem: 'can not be read (EACCES)' }])
    t.same(inUse(), start)
    chmodSync(path(name), 0o400)
    t.match(secrets.refresh(), [{ setting: name, rotated: false, gone: [] }])
  })
}

t.test('one bad file does not hold up the others', async t => {
  const { secrets, inUse, write } = secretsInFiles(t)
  write('APIXO_API_KEY', 'ak-good,changeme')
  write('GATEWAY_ADMIN_TOKEN', 'admin-another-a94f')
  t.match(secrets.refresh(), [
    { setting: 'APIXO_API_KEY', problem: 'value 2 of 2 is a sample or a known default' },
    { setting: 'GATEWAY_ADMIN_TOKEN', gone: [print(start.GATEWAY_ADMIN_TOKEN)] }
  ])
  t.same(inUse(), { ...start, GATEWAY_ADMIN_TOKEN: 'admin-another-a94f' })
})

t.test('no two secrets become equal, however their files change', async t => {
  const { secrets, inUse, write } = secretsInFiles(t)
  write('GATEWAY_ISSUER_TOKEN', start.GATEWAY_ADMIN_TOKEN)
  write('GATEWAY_ADMIN_TOKEN', start.GATEWAY_ISSUER_TOKEN)
  t.match(secrets.refresh(), [{ gone: [String] }, { gone: [String] }])
  t.match(
    inUse(),
    { GATEWAY_ISSUER_TOKEN: start.GATEWAY_ADMIN_TOKEN, GATEWAY_ADMIN_TOKEN: start.GATEWAY_ISSUER_TOKEN },
    'two that change places differ'
  )

  write('GATEWAY_ISSUER_TOKEN', 'one-token-for-both')
  write('GATEWAY_ADMIN_TOKEN', 'one-token-for-both')
  t.match(secrets.refresh(), [
    { setting: 'GATEWAY_ISSUER_TOKEN', problem: 'has the value of GATEWAY_ADMIN_TOKEN' },
    { setting: 'GATEWAY_ADMIN_TOKEN' }
  ])
  t.match(inUse(), { GATEWAY_ISSUER_TOKEN: start.GATEWAY_ADMIN_TOKEN, GATEWAY_ADMIN_TOKEN: 'one-token-for-both' })

  // The admin token would get the value that the issuer token keeps because its own new one is bad.
  write('GATEWAY_ADMIN_TOKEN', start.GATEWAY_ADMIN_TOKEN)
  write('GATEWAY_ISSUER_TOKEN', 'short')
  t.match(secrets.refresh(), [
    { problem: 'has 5 bytes, fewer than 12' },
    { problem: 'has the value of GATEWAY_ISSUER_TOKEN' }
  ])
  t.match(inUse(), { GATEWAY_ISSUER_TOKEN: start.GATEWAY_ADMIN_TOKEN, GATEWAY_ADMIN_TOKEN: 'one-token-for-both' })

  write('GATEWAY_ISSUER_TOKEN', start.GATEWAY_ISSUER_TOKEN)
  t.match(secrets.refresh(), [{ gone: [String] }, { gone: [String] }], 'and now both are good')
  t.same(inUse(), start)
})

t.test('a secret shared with an issuer rotates by its file: all in it verify, and a comma is part of one', async t => {
  const { secrets, inUse, rotate, path } = secretsInFiles(t)
  const [old, next] = [start['issuers[0].secretFile'], `${sessionSecret},and-${sessionSecret}`]
  const setting = 'issuers[0].secretFile'
  const live = secrets.issuerSecrets.get(shop)!
  const before = live.current
  rotate(setting, `\n ${next} \r\n${old}\n${old}`)
  t.strictSame(secrets.refresh(), [
    { setting, source: path(setting), rotated: true, inUse: [print(next), print(old)], gone: [] }
  ])
  t.same(
    live.current.map(secret => secret.reveal()),
    [next, old]
  )
  t.not(live.current, before)
  rotate(setting, next)
  t.strictSame(secrets.refresh(), [
    { setting, source: path(setting), rotated: true, inUse: [print(next)], gone: [print(old)] }
  ])
  t.same(inUse(), { ...start, [setting]: next })
  t.same(secrets.refresh(), [])
})

t.test('the secret of Turnstile rotates by its file, one at a time', async t => {
  const { secrets, inUse, rotate, path } = secretsInFiles(t)
  const setting = 'guests.turnstileSecretFile'
  rotate(setting, 'turnstile-7c61')
  t.strictSame(secrets.refresh(), [
    { setting, source: path(setting), rotated: true, inUse: [print('turnstile-7c61')], gone: [print('turnstile-61b0')] }
  ])
  t.same(inUse(), { ...start, [setting]: 'turnstile-7c61' })
  rotate(setting, 'turnstile-7c61\nturnstile-0e5a')
  t.match(secrets.refresh(), [
    { problem: 'has characters other than visible ASCII', expected: 'a file with a secret of at least 1 bytes' }
  ])
  t.same(inUse(), { ...start, [setting]: 'turnstile-7c61' })
})

/** What may befall the file of an issuer's secret, and what is said of it. */
const sharedTroubles: typeof troubles = [
  ['it is truncated', path => truncateSync(path, 31), 'has 31 bytes, fewer than 32'],
  ['it is empty', path => truncateSync(path), 'holds no value'],
  ['it is a sample', path => writeFileSync(path, `${sessionSecret}-change-me`), 'is a sample or a known default'],
  [
    'half of it is missing',
    path => writeFileSync(path, `${sessionSecret}-new\n${sessionSecret.slice(9)}`),
    'value 2 of 2 has 23 bytes, fewer than 32'
  ],
  [
    'it has more secrets than are tried',
    path => writeFileSync(path, Array.from('123456', digit => `${sessionSecret}-${digit}`).join('\n')),
    'holds 6 values, more than 5'
  ],
  ['it is deleted', path => rmSync(path), 'can not be read (ENOENT)'],
  [
    'it has the value of another secret',
    path => writeFileSync(path, start.GATEWAY_SESSION_SECRET),
    'has the value of GATEWAY_SESSION_SECRET'
  ],
  [
    'one of its values is another secret',
    path => writeFileSync(path, `${start['issuers[0].secretFile']}\n${start.GATEWAY_SESSION_SECRET}`),
    'has the value of GATEWAY_SESSION_SECRET'
  ]
]

for (const [title, befall, problem] of sharedTroubles) {
  t.test(`the secret shared with an issuer stays, and the trouble is told once: ${title}`, async t => {
    const { secrets, inUse, write, path } = secretsInFiles(t)
    const setting = 'issuers[0].secretFile'
    const { current } = secrets.issuerSecrets.get(shop)!
    befall(path(setting))
    const expected = 'a file with a secret of at least 32 bytes, or with several, a line each'
    t.strictSame(secrets.refresh(), [{ setting, source: path(setting), problem, expected }])
    t.same(secrets.refresh(), [])
    t.same(inUse(), start)
    write(setting, start[setting])
    t.match(secrets.refresh(), [{ rotated: false, gone: [] }])
    t.equal(secrets.issuerSecrets.get(shop)!.current, current, 'not even another list')
  })
}

t.test('a secret of the config file is nobody else\'s either', async t => {
  const { secrets, inUse, write } = secretsInFiles(t)
  write('GATEWAY_SESSION_SECRET', `${sessionSecret}-two,${start['issuers[0].secretFile']}`)
  write('GATEWAY_ADMIN_TOKEN', start['guests.turnstileSecretFile'])
  t.match(secrets.refresh(), [
    { setting: 'GATEWAY_SESSION_SECRET', problem: 'has the value of issuers[0].secretFile' },
    { setting: 'GATEWAY_ADMIN_TOKEN', problem: 'has the value of guests.turnstileSecretFile' }
  ])
  t.same(inUse(), start)
})

t.test('two issuers never share one secret', async t => {
  const issuers = ['a', 'b'].map(
    name => `{ issuer: ${name}, audience: app, algorithms: [HS256], secretFile: run/${name} }`
  )
  const files = { 'run/a': `${sessionSecret}-a`, 'run/b': `${sessionSecret}-b` }
  const secrets = liveSecrets(load(t, { yaml: `plans: { default: {} }\nissuers: [${issuers.join()}]`, files }))
  writeFileSync(join(t.testdirName, 'run', 'b'), `${files['run/b']}\n${files['run/a']}`)
  t.match(secrets.refresh(), [{ setting: 'issuers[1].secretFile', problem: 'has the value of issuers[0].secretFile' }])
  writeFileSync(join(t.testdirName, 'run', 'a'), `${sessionSecret}-c`)
  t.match(
    secrets.refresh(),
    [
      { setting: 'issuers[0].secretFile', rotated: true },
      { setting: 'issuers[1].secretFile', rotated: true }
    ],
    'it may have the one that the other gives up'
  )
  t.same(
    [...secrets.issuerSecrets].map(([name, { current }]) => [name, current.length]),
    [
      ['a', 1],
      ['b', 2]
    ]
  )
})

t.test('no news holds the value of a secret, good or bad', async t => {
  const { secrets, write } = secretsInFiles(t)
  const said: unknown[] = [secrets]
  for (const text of [
    'canary-71c0e5a94f',
    'canary',
    'changeme-canary-71c0e5a94f',
    `canary-${sessionSecret}`,
    'canary canary',
    'canary\n'.repeat(20_000)
  ]) {
    for (const name of names) write(name, `${name}${text}`)
    said.push(secrets.refresh())
  }
  t.notMatch(inspect(said, { depth: 9, getters: true, maxArrayLength: null }), /canary|9d2f7c61b0|ak-one|61b0|-shop/)
})
