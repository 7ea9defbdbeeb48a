import { execFileSync } from 'node:child_process'
import { chmodSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { inspect } from 'node:util'
import t, { type Test } from 'tap'
import { liveSecrets } from '../../src/settings.ts'
import { Secret } from '../../src/domain/secret.ts'
import { load, sessionSecret } from './fixture.ts'

const start = {
  APIXO_API_KEY: 'ak-one',
  GATEWAY_SESSION_SECRET: `${sessionSecret}-one`,
  GATEWAY_ISSUER_TOKEN: 'issuer-9d2f7c61b0',
  GATEWAY_ADMIN_TOKEN: 'admin-71c0e5a94f'
} as const
type Name = keyof typeof start

const print = (value: string) => new Secret(value).fingerprint

/** Settings whose four secrets are in files of their own. */
function secretsInFiles (t: Test, options: { readonly yaml?: string, readonly files?: Readonly<Record<string, string>> } = {}) {
  const names = Object.keys(start) as Name[]
  const settings = load(t, {
    ...options,
    env: Object.fromEntries(names.flatMap(name => [[name, ''], [`${name}_FILE`, `run/${name}`]])),
    files: { ...options.files, ...Object.fromEntries(names.map(name => [`run/${name}`, `${start[name]}\n`])) }
  })
  const secrets = liveSecrets(settings)
  const path = (name: Name) => join(t.testdirName, 'run', name)
  return {
    secrets,
    path,
    write: (name: Name, text: string) => writeFileSync(path(name), text),
    inUse: () => ({
      APIXO_API_KEY: secrets.apiKeys.current.map(key => key.reveal()).join(),
      GATEWAY_SESSION_SECRET: secrets.sessionSecrets.current.map(secret => secret.reveal()).join(),
      GATEWAY_ISSUER_TOKEN: secrets.issuerToken.current?.reveal(),
      GATEWAY_ADMIN_TOKEN: secrets.adminToken.current?.reveal()
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
})

t.test('a new secret is taken from its file, and the news is who came and who went', async t => {
  const { secrets, inUse, write, path } = secretsInFiles(t)
  const next = `${sessionSecret}-two`
  write('GATEWAY_SESSION_SECRET', `${next}\n${start.GATEWAY_SESSION_SECRET}\n`)
  t.strictSame(secrets.refresh(), [{
    setting: 'GATEWAY_SESSION_SECRET',
    source: path('GATEWAY_SESSION_SECRET'),
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
  t.match(secrets.refresh(), [{ gone: [], inUse: [print('ak-two'), print('ak-one')] }])
  t.equal(inUse().APIXO_API_KEY, 'ak-two,ak-one')
})

/** What may befall a file, and what is said of it. */
const troubles: ReadonlyArray<readonly [title: string, befall: (path: string) => void, problem: string | RegExp]> = [
  ['it is empty', path => writeFileSync(path, ''), 'has 0 bytes, fewer than 12'],
  ['it has blanks alone', path => writeFileSync(path, ' \r\n\t\n'), 'has 0 bytes, fewer than 12'],
  ['it is too short', path => writeFileSync(path, 'tok-9d2f\n'), 'has 8 bytes, fewer than 12'],
  ['it is a sample', path => writeFileSync(path, 'change-me-9d2f7c61b0'), 'is a sample or a known default'],
  ['it is no text', path => writeFileSync(path, Buffer.from([0xff, 0xfe, ...Array(20).fill(0)])), 'has characters other than visible ASCII'],
  ['it is deleted', path => rmSync(path), 'can not be read (ENOENT)'],
  ['it is a folder', path => {
    rmSync(path)
    mkdirSync(path)
  }, 'is no plain file'],
  ['it is a pipe', path => {
    rmSync(path)
    execFileSync('mkfifo', [path])
  }, 'is no plain file'],
  ['it is a disk\'s worth of text', path => writeFileSync(path, 'x'.repeat(65_537)), 'has 65537 bytes, more than 65536'],
  ['it has the value of another secret', path => writeFileSync(path, start.GATEWAY_ADMIN_TOKEN), 'has the value of GATEWAY_ADMIN_TOKEN']
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
    t.strictSame(secrets.refresh(), [{ setting: 'GATEWAY_ISSUER_TOKEN', source: file, inUse: [print(start.GATEWAY_ISSUER_TOKEN)], gone: [] }])
    write('GATEWAY_ISSUER_TOKEN', 'issuer-another-61b0')
    t.match(secrets.refresh(), [{ inUse: [print('issuer-another-61b0')] }])
    t.same(inUse(), { ...start, GATEWAY_ISSUER_TOKEN: 'issuer-another-61b0' })
  })
}

t.test('a file whose mode shuts us out is a trouble too', async t => {
  const { secrets, inUse, path } = secretsInFiles(t)
  chmodSync(path('APIXO_API_KEY'), 0o000)
  // Root reads everything: it is somebody else meanwhile.
  const isRoot = process.geteuid!() === 0
  if (isRoot) process.seteuid!(65534)
  const news = secrets.refresh()
  if (isRoot) process.seteuid!(0)
  t.match(news, [{ setting: 'APIXO_API_KEY', problem: 'can not be read (EACCES)' }])
  t.same(inUse(), start)
  chmodSync(path('APIXO_API_KEY'), 0o400)
  t.match(secrets.refresh(), [{ setting: 'APIXO_API_KEY', gone: [] }])
})

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
  t.match(inUse(), { GATEWAY_ISSUER_TOKEN: start.GATEWAY_ADMIN_TOKEN, GATEWAY_ADMIN_TOKEN: start.GATEWAY_ISSUER_TOKEN }, 'two that change places differ')

  write('GATEWAY_ISSUER_TOKEN', 'one-token-for-both')
  write('GATEWAY_ADMIN_TOKEN', 'one-token-for-both')
  t.match(secrets.refresh(), [{ setting: 'GATEWAY_ISSUER_TOKEN', problem: 'has the value of GATEWAY_ADMIN_TOKEN' }, { setting: 'GATEWAY_ADMIN_TOKEN' }])
  t.match(inUse(), { GATEWAY_ISSUER_TOKEN: start.GATEWAY_ADMIN_TOKEN, GATEWAY_ADMIN_TOKEN: 'one-token-for-both' })

  // The admin token would get the value that the issuer token keeps because its own new one is bad.
  write('GATEWAY_ADMIN_TOKEN', start.GATEWAY_ADMIN_TOKEN)
  write('GATEWAY_ISSUER_TOKEN', 'short')
  t.match(secrets.refresh(), [{ problem: 'has 5 bytes, fewer than 12' }, { problem: 'has the value of GATEWAY_ISSUER_TOKEN' }])
  t.match(inUse(), { GATEWAY_ISSUER_TOKEN: start.GATEWAY_ADMIN_TOKEN, GATEWAY_ADMIN_TOKEN: 'one-token-for-both' })

  write('GATEWAY_ISSUER_TOKEN', start.GATEWAY_ISSUER_TOKEN)
  t.match(secrets.refresh(), [{ gone: [String] }, { gone: [String] }], 'and now both are good')
  t.same(inUse(), start)
})

t.test('a secret of the config file is nobody else\'s either', async t => {
  const yaml = [
    'plans: { default: {} }',
    'issuers: [{ issuer: "https://shop.example", audience: app, algorithms: [HS256], secretFile: other/shop }]',
    'guests: { turnstileSecretFile: other/turnstile }'
  ].join('\n')
  const files = { 'other/shop': `${sessionSecret}-shop`, 'other/turnstile': 'turnstile-61b0' }
  const { secrets, inUse, write } = secretsInFiles(t, { yaml, files })
  write('GATEWAY_SESSION_SECRET', `${sessionSecret}-two,${files['other/shop']}`)
  write('GATEWAY_ADMIN_TOKEN', files['other/turnstile'])
  t.match(secrets.refresh(), [
    { setting: 'GATEWAY_SESSION_SECRET', problem: 'has the value of issuers[].secretFile' },
    { setting: 'GATEWAY_ADMIN_TOKEN', problem: 'has the value of guests.turnstileSecretFile' }
  ])
  t.same(inUse(), start)
})

t.test('no news holds the value of a secret, good or bad', async t => {
  const { secrets, write } = secretsInFiles(t)
  const said: unknown[] = [secrets]
  for (const text of ['canary-71c0e5a94f', 'canary', 'changeme-canary-71c0e5a94f', `canary-${sessionSecret}`, 'canary canary', 'canary\n'.repeat(20_000)]) {
    for (const name of Object.keys(start) as Name[]) write(name, `${name}${text}`)
    said.push(secrets.refresh())
  }
  t.notMatch(inspect(said, { depth: 9, getters: true, maxArrayLength: null }), /canary|9d2f7c61b0|ak-one/)
})
