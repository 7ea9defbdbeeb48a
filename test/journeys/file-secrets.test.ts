import { truncateSync, unlinkSync, writeFileSync } from 'node:fs'
import { setTimeout as wait } from 'node:timers/promises'
import { SignJWT } from 'jose'
import t, { type Test } from 'tap'
import { Secret } from '../../src/domain/secret.ts'
import { openEvents, streamsAcross } from '../helpers/event-source.ts'
import { adminToken, sessionSecret, startGateway, type TestGatewayOptions } from '../helpers/gateway.ts'
import { guestsOf } from '../helpers/guests.ts'
import { load } from '../helpers/load.ts'
import { secretFiles } from '../helpers/secret-files.ts'
import { holdStore, storeFile } from '../helpers/store-file.ts'
import { turnstileSecret, turnstileServer } from '../helpers/turnstile-server.ts'
import { until } from '../helpers/until.ts'

const print = (secret: string) => `sha256:${new Secret(secret).fingerprint}`
const shop = 'https://shop.example'
const [oldShared, newShared] = [
  'q7Zc0vT2mLx9RfWk4JbN8sHd1yUeGaPo-of-the-shop',
  'T2mLx9RfWk4JbN8sHd1yUeGaPoq7Zc0v-of-the-shop'
] as const
const newTurnstile = '0x4AAAAAAA-another-secret-of-a-widget'
const newSession = 'another-session-secret-of-32-bytes-and-more'
const isRead = 'a file with a secret was read again'
/** Longer than it takes on a machine with much else to do, ms. */
const soonMs = 5000

/** A gateway whose config file names files with secrets. */
async function withFiles (t: Test, options: TestGatewayOptions = {}) {
  const files = secretFiles(t, {
    GATEWAY_SESSION_SECRET: sessionSecret,
    shop: `${oldShared}\n`,
    turnstile: turnstileSecret
  })
  const server = await turnstileServer(t)
  const gateway = await startGateway(t, {
    env: { ...files.env, GATEWAY_ADMIN_TOKEN: adminToken },
    siteverifyUrl: server.url,
    config: `
plans: { default: { requestsPerMinute: 1000000, concurrentTasks: 1000000, credits: unlimited }, guest: {} }
issuers: [{ issuer: "${shop}", audience: app, algorithms: [HS256], secretFile: "${files.path('shop')}" }]
guests: { enabled: true, proof: turnstile, turnstileSecretFile: "${files.path('turnstile')}", sessionsPerAddressPerDay: 50 }`,
    ...options
  })
  const { call, log, time } = gateway
  const said = (setting: string, pattern: object) =>
    log.filter(
      line => line.setting === setting && Object.entries(pattern).every(([name, value]) => line[name] === value)
    )
  return {
    ...gateway,
    files,
    server,
    /** What the shop gives to its users. */
    sign: (secret: string, sub = 'alice') => {
      const seconds = time.now() / 1000
      return new SignJWT({ iss: shop, sub, aud: 'app', iat: seconds, exp: seconds + 600 })
        .setProtectedHeader({ alg: 'HS256' })
        .sign(Buffer.from(secret))
    },
    said,
    /** Does something to a file; resolves when the log has told of it. */
    async after (setting: string, change: () => void, pattern: object = { msg: isRead }) {
      const { length } = said(setting, pattern)
      change()
      await until(`${setting}: ${JSON.stringify(pattern)}`, () => said(setting, pattern).length > length, soonMs)
    },
    /** Those in the audit trail, when there are so many. */
    async rotations (count: number): Promise<any[]> {
      let found: any[] = []
      await until(`${count} rotations`, async () => {
        const { json } = await call('/gateway/admin/audit?limit=500', { token: adminToken })
        found = json.items.filter(({ kind }: any) => kind === 'secret').toReversed()
        return found.length >= count
      })
      return found
    }
  }
}

t.test(
  'a secret shared with an issuer rotates under load: a token is good as long as the secret that signed it',
  async t => {
    const { call, submit, sign, files, after, rotations, origin, time } = await withFiles(t)
    const [old, fresh] = [await sign(oldShared), await sign(newShared)]
    t.equal((await call('/gateway/session', { token: fresh })).status, 401, 'not yet')
    let count = 0
    // Some hold the old token, some get another one each time.
    const callers = load(6, async worker => {
      const token = worker < 3 ? old : await sign(oldShared, `user-${count++}`)
      return worker % 2 === 0 ? await submit(token) : await call('/gateway/session', { token })
    })
    await callers.more()
    await after('issuers[0].secretFile', () => files.rotate('shop', `${newShared}\n${oldShared}\n`))
    const newcomers = load(
      3,
      async worker => await call('/gateway/session', { token: worker === 0 ? fresh : await sign(newShared) })
    )
    await callers.more(50)
    await newcomers.more(50)
    await callers.end()
    t.same(callers.failed(), [])

    const streams = await streamsAcross(t, `${origin}/gateway/events`, { old, fresh })
    await after('issuers[0].secretFile', () => files.rotate('shop', newShared))
    t.match(await call('/gateway/session', { token: old }), { status: 401, error: 'GW_BAD_SESSION' })
    t.match(await submit(await sign(oldShared)), { status: 401, error: 'GW_BAD_SESSION' })
    await streams.renewed()
    await newcomers.more()
    await newcomers.end()
    t.same(newcomers.failed(), [])

    const entry = { at: new Date(time.now()).toISOString(), kind: 'secret', actor: 'gateway', subject: null }
    t.strictSame(await rotations(2), [
      {
        ...entry,
        detail: { setting: 'issuers[0].secretFile', inUse: `${print(newShared)}, ${print(oldShared)}`, gone: null }
      },
      { ...entry, detail: { setting: 'issuers[0].secretFile', inUse: print(newShared), gone: print(oldShared) } }
    ])
    t.comment(`${callers.replies.length + newcomers.replies.length} calls`)
  }
)

t.test('the secret of Turnstile rotates: the next token is asked about with the new one', async t => {
  const gateway = await withFiles(t)
  const { files, server, after, rotations } = gateway
  const { enter, make } = guestsOf(gateway)
  const { json: { token, subject } } = await enter(server.token('session', '127.0.0.1'))
  const guest = subject.slice('guest:'.length)
  server.secrets.add(newTurnstile)
  await after('guests.turnstileSecretFile', () => files.rotate('turnstile', newTurnstile))
  server.secrets.delete(turnstileSecret)
  t.equal((await make(token, server.token(guest, '127.0.0.1'))).status, 200)
  t.equal((await enter(server.token('session', '127.0.0.1'))).status, 201)
  t.same([...new Set(server.asked.map(({ secret }) => secret))], [turnstileSecret, newTurnstile])
  t.match(await rotations(1), [
    { detail: { setting: 'guests.turnstileSecretFile', inUse: print(newTurnstile), gone: print(turnstileSecret) } }
  ])
})

t.test('a rotation of another secret ends no stream, and a further shared secret none either', async t => {
  const { files, after, sign, origin } = await withFiles(t)
  const stream = await openEvents(t, `${origin}/gateway/events`, { token: await sign(oldShared) })
  await after('guests.turnstileSecretFile', () => files.rotate('turnstile', newTurnstile))
  await after('issuers[0].secretFile', () => files.rotate('shop', `${oldShared}\n${newShared}`))
  await after('GATEWAY_SESSION_SECRET', () => files.rotate('GATEWAY_SESSION_SECRET', `${newSession},${sessionSecret}`))
  await wait(50)
  t.notOk(stream.isOver)
})

t.test(
  'whatever happens to the files, what was read before serves, with one alarm each and nothing in the audit trail',
  async t => {
    const gateway = await withFiles(t)
    const { call, sign, files, said, after, rotations, server, log } = gateway
    const { enter } = guestsOf(gateway)
    const token = await sign(oldShared)
    const paths = {
      'issuers[0].secretFile': files.path('shop'),
      'guests.turnstileSecretFile': files.path('turnstile')
    } as const
    const troubles: ReadonlyArray<
      readonly [setting: keyof typeof paths, problem: string, befall: (path: string) => void]
    > = [
      ['issuers[0].secretFile', 'has 20 bytes, fewer than 32', path => truncateSync(path, 20)],
      ['issuers[0].secretFile', 'holds no value', path => truncateSync(path)],
      [
        'issuers[0].secretFile',
        'has the value of GATEWAY_SESSION_SECRET',
        path => writeFileSync(path, `${oldShared}\n${sessionSecret}`)
      ],
      ['issuers[0].secretFile', 'can not be read (ENOENT)', path => unlinkSync(path)],
      ['guests.turnstileSecretFile', 'has 0 bytes, fewer than 1', path => truncateSync(path)],
      [
        'guests.turnstileSecretFile',
        'is a sample or a known default',
        path => writeFileSync(path, 'your-turnstile-key')
      ],
      ['guests.turnstileSecretFile', 'can not be read (ENOENT)', path => unlinkSync(path)]
    ]
    for (const [setting, problem, befall] of troubles) {
      await after(setting, () => befall(paths[setting]), { problem })
      t.equal((await call('/gateway/session', { token })).status, 200)
      t.equal((await enter(server.token('session', '127.0.0.1'))).status, 201)
    }
    await after('issuers[0].secretFile', () => files.rotate('shop', oldShared))
    await after('guests.turnstileSecretFile', () => files.rotate('turnstile', turnstileSecret))
    t.match(
      log.filter(line => line.level >= 50),
      troubles.map(([setting, problem]) => ({ alarm: 'secret-file', setting, problem, source: paths[setting] }))
    )
    t.match(said('issuers[0].secretFile', { msg: isRead }), [{ rotated: false }], 'and it passes by itself')
    t.same(await rotations(0), [])
    t.notMatch(JSON.stringify(log), new RegExp([oldShared, turnstileSecret, sessionSecret].join('|')))
  }
)

t.test('while the audit trail can not be written secrets rotate all the same, and are written down later', async t => {
  const store = storeFile(t)
  const { files, said, after, rotations, call, gateway, time } = await withFiles(t, { store })
  const at = new Date(time.now()).toISOString()
  const letGo = holdStore(t, store)
  const isKept = { msg: 'the audit trail does not have this rotation yet; it is tried again' }
  await after('issuers[0].secretFile', () => files.rotate('shop', newShared), isKept)
  await after('GATEWAY_SESSION_SECRET', () => files.rotate('GATEWAY_SESSION_SECRET', newSession), isKept)
  t.match(said('issuers[0].secretFile', { msg: isRead }), [{ rotated: true }])
  await t.rejects(gateway.tidy(), { code: 'GW_STORE_DOWN' })
  letGo()
  time.advance(60_000)
  await until('the store is back', async () => (await call('/readyz')).status === 200)
  await gateway.tidy()
  await gateway.tidy()
  const entries = await rotations(2)
  t.match(entries, [
    { at, detail: { setting: 'issuers[0].secretFile', gone: print(oldShared) } },
    { at, detail: { setting: 'GATEWAY_SESSION_SECRET', gone: print(sessionSecret) } }
  ], 'once each, as of the moment when they rotated')
  t.equal(entries.length, 2)
})

t.test('the next start compares its settings with those of the last start, whatever has rotated between', async t => {
  const store = storeFile(t)
  const first = await withFiles(t, { store })
  await first.after('GATEWAY_SESSION_SECRET', () => first.files.rotate('GATEWAY_SESSION_SECRET', newSession))
  await first.rotations(1)
  await first.gateway.close()
  const { call } = await startGateway(t, {
    store,
    config: 'plans: { default: {} }',
    env: { GATEWAY_SESSION_SECRET: newSession, GATEWAY_ADMIN_TOKEN: adminToken }
  })
  const {
    items: [settings, rotation, before]
  } = (await call('/gateway/admin/audit', { token: adminToken })).json
  t.match(
    [settings, rotation, before].map(({ kind }) => kind),
    ['settings', 'secret', 'settings']
  )
  t.equal(settings.detail.GATEWAY_SESSION_SECRET, `${print(sessionSecret)} -> ${print(newSession)}`)
  t.equal(settings.detail.APIXO_API_KEY, undefined, 'what has not changed is not there')
})
