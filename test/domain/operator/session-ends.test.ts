import t, { type Test } from 'tap'
import { sqliteStore } from '../../../src/adapters/sqlite/store.ts'
import { sessionEnds } from '../../../src/domain/admin.ts'
import type { AuditEntry } from '../../../src/domain/audit.ts'
import { issueTimes } from '../../../src/domain/session.ts'
import type { Store } from '../../../src/domain/store.ts'
import { teamTokens } from '../../../src/domain/tokens.ts'
import { gatewayError } from '../../../src/errors.ts'
import { terms } from '../../contracts/open-books.ts'
import { invitationOf, tokenOf } from '../../contracts/token-book.ts'
import { type Clock, clock } from '../../helpers/clock.ts'

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
