import t, { type Test } from 'tap'
import { sqliteStore } from '../../src/adapters/sqlite/store.ts'
import type { AuditEntry } from '../../src/domain/audit.ts'
import type { TaskDetail } from '../../src/domain/records.ts'
import { issueTimes } from '../../src/domain/session.ts'
import type { Store } from '../../src/domain/store.ts'
import type { Delivery } from '../../src/domain/webhooks.ts'
import { gatewayError } from '../../src/errors.ts'
import { isKnownSession, operator, sessionEnds } from '../../src/features/admin/admin.ts'
import { teamTokens } from '../../src/features/tokens/tokens.ts'
import { terms } from '../contracts/open-books.ts'
import { invitationOf, tokenOf } from '../contracts/token-book.ts'
import { clock, type Clock } from '../helpers/clock.ts'
import { wholeRecord } from '../helpers/whole.ts'

/** An operator over so many unknown tasks in memory, and what was written and done, in order. */
function over (
  count: number, down: { audit?: boolean } = {}, found: { task: TaskDetail, delivery: Delivery } | null = null
) {
  const tasks = Array.from({ length: count }, (_, index) =>
    wholeRecord({ id: `id-${index}`, taskId: null, model: 'suno', stage: 'unknown', microcredits: 1 }))
  const done: string[] = []
  const it = operator({
    now: () => 0,
    actor: 'cli',
    trail: {
      async append ([entry]: readonly AuditEntry[]) {
        if (down.audit === true) throw gatewayError('GW_STORE_DOWN')
        done.push(`noted ${entry!.kind}`)
      },
      read: async () => ({ items: [], next: null })
    },
    revocations: { revoke: async () => true, revokeSubject: async () => {} },
    times: { end: async () => 0 },
    tokens: { find: async () => null, revoke: async () => false },
    accounts: {
      async grant ({ microcredits }) {
        done.push('granted')
        return microcredits
      }
    },
    records: {
      async unknowns ({ cursor, limit }) {
        const end = Number(cursor) + limit
        return { items: tasks.slice(Number(cursor), end), next: end < tasks.length ? String(end) : null }
      },
      async release (id) {
        done.push(`released ${id}`)
        return true
      },
      usage: async () => [],
      tasks: async () => ({ items: [], next: null }),
      tasksOf: async () => ({ items: [], next: null }),
      taskAt: async () => found?.task ?? null
    },
    deliveries: { of: async () => found?.delivery ?? null }
  })
  return { it, done }
}

t.test('a task in full says where its end is told, by the host alone', async t => {
  const task: TaskDetail = {
    ...wholeRecord({ taskId: 'one' }),
    keyId: 'key-1',
    refundable: true,
    periodStart: 0,
    fromGrants: 0,
    sessionId: null,
    leaseUntil: 60_000,
    answerBytes: null
  }
  const attempts = [{ at: 1, status: 500, error: null }]
  const delivery = { taskId: 'one', url: 'https://app.test/secret', attempts, nextAt: 5000 }
  t.match(await over(0, {}, { task, delivery }).it.task('one'), {
    givenUpAt: '1970-01-01T00:01:00.000Z',
    delivery: { host: 'app.test', attempts: 1, nextAt: '1970-01-01T00:00:05.000Z' }
  })
})

t.test('a deed is written down before it is done', async t => {
  const { it, done } = over(1)
  t.equal(await it.grant('app:alice', 12.5), 12.5)
  t.equal(await it.release('id-0'), true)
  t.same(done, ['noted grant', 'granted', 'noted release', 'released id-0'])
})

t.test('what can not be written down is not done', async t => {
  const { it, done } = over(1, { audit: true })
  await t.rejects(it.grant('app:alice', 1), { code: 'GW_STORE_DOWN' })
  await t.rejects(it.release('id-0'), { code: 'GW_STORE_DOWN' })
  t.same(done, [])
})

t.test(
  'one of very many unknown tasks is found, and what is none of them is neither written down nor released',
  async t => {
    const { it, done } = over(1203)
    t.equal(await it.release('id-1202'), true)
    t.equal(await it.release('id-1203'), false)
    t.same(done, ['noted release', 'released id-1202'])
  }
)

t.test('instants are shown as texts, and credits as credits', async t => {
  const { items, next } = await over(3).it.unknowns({ limit: 1 })
  t.strictSame(items, [
    {
      id: 'id-0',
      subject: 'app:alice',
      taskId: null,
      operation: 'generateTask',
      model: 'suno',
      credits: 0.000001,
      createdAt: '1970-01-01T00:00:00.000Z',
      endedAt: null
    }
  ])
  t.type(next, 'string')
})

t.test('a subject without its issuer is refused with what was probably meant', async t => {
  const { it } = over(0)
  for (const [subject, hint] of [
    ['bob', 'app:bob'],
    ['bob the builder', 'app:bob the builder'],
    [':bob', 'app:alice'],
    ['', 'app:alice'],
    ['x'.repeat(160), 'app:alice']
  ] as const) {
    await t.rejects(it.grant(subject, 1), {
      code: 'GW_BAD_REQUEST',
      message: `subject must have its stored form, issuer and name: ${hint}.`
    })
  }
  for (const subject of ['app:bob', 'https://id.example/:00-11', 'token:x', 'guest:ä', `app:${'😀'.repeat(128)}`]) {
    await t.resolves(it.grant(subject, 1), subject)
  }
})

t.test('credits are numbers above zero, counted to the millionth', async t => {
  const { it } = over(0)
  for (const credits of [0, -1, NaN, Infinity, 100_000_000.1, 1e-7, 1.0000001]) {
    await t.rejects(it.grant('app:a', credits), { code: 'GW_BAD_REQUEST', message: /^credits must/ }, String(credits))
  }
  for (const credits of [0.1, 0.3, 1e-6, 74.87, 100_000_000, 99_999_999.999999]) {
    t.equal(await it.grant('app:a', credits), credits)
  }
})

t.test('the audit trail is read to its end for a session that it may speak of', async t => {
  const terms = { reservedMs: 1, sentMs: 1, giveUpMs: 1, refundsPerPeriod: 1, retentionMs: 1 }
  const store = sqliteStore({ path: ':memory:', synchronous: 'normal', terms, ...clock() })
  t.teardown(() => store.close())
  const { audit } = store
  const minted = Array.from({ length: 501 }, (_, number) => ({
    at: number, kind: 'mint', actor: 'issuer', subject: 'app:alice', detail: { session: `session-${number}` }
  } as const))
  await audit.append(minted)
  t.equal(await isKnownSession({ audit }, 'session-0'), true, 'the oldest, on the second page')
  t.equal(await isKnownSession({ audit }, 'session-501'), false)
})

const yearMs = 366 * 86_400_000

/** An operator over a real store, what the server has of it, and what was written down and done, in order. */
function start (t: Test, wrap: (store: Store, time: Clock) => Pick<Store, 'revocations' | 'tokens'> = store => store) {
  const time = clock()
  const store = sqliteStore({ path: ':memory:', terms, now: time.now, synchronous: 'normal' })
  t.teardown(() => store.close())
  const { revocations, tokens } = wrap(store, time)
  const done: Array<Omit<AuditEntry, 'at'> | string> = []
  let isDown = false
  const it = sessionEnds({
    revocations: {
      async revoke (id, expiresAt) {
        done.push('revoked')
        return await revocations.revoke(id, expiresAt)
      },
      async revokeSubject (subject, before, expiresAt) {
        done.push('revoked all')
        await revocations.revokeSubject(subject, before, expiresAt)
      }
    },
    tokens,
    trail: {
      async append ([{ at, ...entry }]: any) {
        if (isDown) throw gatewayError('GW_STORE_DOWN')
        t.equal(at, time.now())
        done.push(entry)
      },
      read: async () => ({ items: [], next: null })
    },
    actor: 'cli',
    now: time.now,
    times: issueTimes({ revocations: store.revocations, now: time.now })
  })
  const server = teamTokens(store, time).revocations
  return { it, time, store, server, done, fail: () => { isDown = true } }
}

t.test('all sessions of a subject end that were issued until now, for good, and no later ones', async t => {
  const { it, time, server, done } = start(t)
  const now = time.now()
  t.equal(await it.endSessions('app:alice'), new Date(now).toISOString())
  t.strictSame(done, [
    { kind: 'revoke', actor: 'cli', subject: 'app:alice', detail: { everywhere: true } },
    'revoked all'
  ])
  const isRevoked = (issuedAt: number, subject = 'app:alice') => server.isRevoked({ id: 'any', subject, issuedAt })
  t.same(
    [await isRevoked(0), await isRevoked(now), await isRevoked(now + 1), await isRevoked(0, 'app:bob')],
    [true, true, false, false]
  )
  time.advance(20 * yearMs)
  await it.endSessions('app:bob')
  t.equal(await isRevoked(now), true, 'whatever an issuer has promised')
})

t.test('one session ends for good, and the cookie that it was swapped for', async t => {
  const { it, time, server, done } = start(t)
  const session = { id: 'one', subject: 'app:alice', issuedAt: time.now() }
  await it.endSession('one')
  t.strictSame(done, [
    { kind: 'revoke', actor: 'cli', subject: null, detail: { session: 'one' } },
    'revoked',
    'revoked'
  ])
  time.advance(20 * yearMs)
  await it.endSession('other')
  const of = (more: object) => server.isRevoked({ ...session, ...more })
  t.same(
    await Promise.all([
      of({}),
      of({ id: 'cookie', rootId: 'one' }),
      of({ id: 'two' }),
      of({ id: 'cookie', rootId: 'two' })
    ]),
    [true, true, false, false]
  )
})

const doors = {
  'the bare store that the command line has': (store: Store) => store,
  'the revocations of a server': (store: Store, time: Clock) => ({ ...store, ...teamTokens(store, time) })
}
for (const [over, wrap] of Object.entries(doors)) {
  t.test(`a token ends by its id over ${over}, and so does an invitation`, async t => {
    const { it, time, store: { tokens }, server, done } = start(t, wrap)
    await tokens.create(tokenOf())
    await tokens.create(invitationOf({ id: '0123456789A', subject: 'token:bob' }))
    await it.endSession('abcdefghijk')
    await it.endSession('0123456789A')
    t.strictSame(
      done.map(entry => (typeof entry === 'string' ? entry : [entry.subject, entry.detail])),
      [
        ['token:alice', { session: 'abcdefghijk' }],
        ['token:bob', { session: '0123456789A' }]
      ]
    )
    t.match(
      [await tokens.find('abcdefghijk'), await tokens.find('0123456789A')],
      [{ revokedAt: time.now() }, { revokedAt: time.now() }]
    )
    t.equal(
      await server.isRevoked({ id: 'abcdefghijk', subject: 'token:alice', issuedAt: tokenOf().secret.issuedAt }),
      true
    )
    t.equal(
      await server.isRevoked({
        id: 'a cookie',
        rootId: 'abcdefghijk',
        subject: 'token:alice',
        issuedAt: tokenOf().secret.issuedAt
      }),
      true
    )
    await it.endSession('no-token-00')
    await it.endSession('notokenatal')
    t.equal(
      await server.isRevoked({ id: 'notokenatal', subject: 'app:bob', issuedAt: 0 }),
      true,
      'what only looks like one is a session'
    )
  })
}

t.test('all sessions of the subject of a token end with it, and a secret that is printed later is good', async t => {
  const { it, time, store: { tokens }, server } = start(t)
  await tokens.create(tokenOf())
  const { id, subject, secret: { issuedAt } } = tokenOf()
  t.equal(await server.isRevoked({ id, subject, issuedAt }), false)
  await it.endSessions('token:alice')
  t.equal(await server.isRevoked({ id, subject, issuedAt }), true)
  time.advance(1000)
  await tokens.rotate(id, { hash: 'hash-2', issuedAt: time.now() }, time.now())
  time.advance(1000)
  t.equal(await server.isRevoked({ id, subject, issuedAt: time.now() - 1000 }), false)
})

t.test('what can not be written down is not done', async t => {
  const { it, store, done, fail } = start(t)
  await store.tokens.create(tokenOf())
  fail()
  await t.rejects(it.endSessions('app:alice'), { code: 'GW_STORE_DOWN' })
  for (const id of ['one', 'abcdefghijk']) await t.rejects(it.endSession(id), { code: 'GW_STORE_DOWN' })
  t.same(done, [])
  t.match(await store.tokens.find('abcdefghijk'), { revokedAt: null })
})

t.test(
  'what can not be a subject or a session is refused with what to change, and a token is written nowhere',
  async t => {
    const { it, done } = start(t)
    await t.rejects(it.endSessions('alice'), {
      code: 'GW_BAD_REQUEST',
      message: 'subject must have its stored form, issuer and name: app:alice.'
    })
    const id = 'session must be the id of a session'
    for (const [session, message] of [
      ['', `${id}: at most 256 printable characters.`],
      ['x'.repeat(257), `${id}: at most 256 printable characters.`],
      ['a\nb', `${id}: at most 256 printable characters.`],
      ['apx_abcdefghijk_secret', `${id}, and never its token.`],
      ['apxi_abcdefghijk_secret', `${id}, and never its token.`],
      ['eyJhbGciOiJIUzI1NiJ9.e30.sig', `${id}, and never its token.`],
      ['Bearer eyJhbGciOiJIUzI1NiJ9.e30.sig', `${id}, and never its token.`],
      ['__Host-apixo_session=eyJhbGciOi', `${id}, and never its token.`],
      ['"eyJhbGciOi"', `${id}, and never its token.`],
      ["'eyJhbGciOi'", `${id}, and never its token.`],
      ['"apx_abcdefghijk_secret"', `${id}, and never its token.`],
      ['app:alice', `${id}: to end all sessions of a subject, name it as subject.`],
      ['token:alice', `${id}: to end all sessions of a subject, name it as subject.`]
    ] as const) { await t.rejects(it.endSession(session), { code: 'GW_BAD_REQUEST', message }, session) }
    t.same(done, [])
    for (const session of [
      'https://id.example/:jti',
      'shop:a b',
      'x'.repeat(256),
      'apx_is_an_issuer:1',
      '3f2b8c1e-7f0a-4a54-8a3f-1d2e3f4a5b6c'
    ]) { await t.resolves(it.endSession(session), session) }
  }
)
