import t, { type Test } from 'tap'
import { sqliteStore } from '../../src/adapters/sqlite/store.ts'
import { cookieRevocationId, type Revocations } from '../../src/domain/session.ts'
import { isTokenId, type Token, type TokenStore } from '../../src/domain/tokens.ts'
import { gatewayError } from '../../src/errors.ts'
import {
  hashOf, idIn, isHashOf, isTokenLike, newTokenId, printSecret, recentTokens, teamTokens, tokenSessions
} from '../../src/features/tokens/tokens.ts'
import { terms } from '../contracts/open-books.ts'
import { sessionVerifierContract } from '../contracts/session-verifier.ts'
import { tokenOf } from '../contracts/token-book.ts'
import { type Clock, clock } from '../helpers/clock.ts'
import { until } from '../helpers/until.ts'
import { throwing } from '../helpers/verifiers.ts'

t.test('a token is a text that a search for secrets finds, and a double click selects', async t => {
  for (let count = 0; count < 100; count++) {
    const id = newTokenId()
    t.match(printSecret('apx', id), /^apx_[0-9A-Za-z]{11}_[0-9A-Za-z]{49}$/)
    t.match(printSecret('apxi', id), /^apxi_[0-9A-Za-z]{11}_[0-9A-Za-z]{49}$/)
  }
})

t.test('no two are alike, and both say whose they are', async t => {
  const id = newTokenId()
  const [one, other] = [printSecret('apx', id), printSecret('apx', id)]
  t.not(one, other)
  t.same([idIn('apx', one), idIn('apx', other)], [id, id])
  t.not(newTokenId(), newTokenId())
  t.ok(isTokenId(id))
  for (const odd of ['', `${id}x`, id.slice(1), id.replace(/.$/, '-'), '3f2b8c1e-7f0a-4a54-8a3f-1d2e3f4a5b6c']) {
    t.notOk(isTokenId(odd), odd)
  }
})

t.test('a text that was never printed, or lost a character, is told apart without a look-up', async t => {
  const token = printSecret('apx', newTokenId())
  for (let index = 0; index < token.length; index++) {
    t.equal(idIn('apx', token.slice(0, index) + token.slice(index + 1)), null, `without character ${index}`)
    t.equal(
      idIn('apx', token.slice(0, index) + (token[index] === 'x' ? 'y' : 'x') + token.slice(index + 1)),
      null,
      `with another character ${index}`
    )
  }
  for (const odd of [
    '',
    'apx',
    'apx_',
    `${token}\n`,
    `${token}x`,
    ` ${token}`,
    token.toUpperCase(),
    'apx_'.repeat(100_000)
  ]) { t.equal(idIn('apx', odd), null) }
})

t.test('the secret of a link is no token, and a token opens no link', async t => {
  const id = newTokenId()
  const [token, link] = [printSecret('apx', id), printSecret('apxi', id)]
  t.same([idIn('apx', link), idIn('apxi', token), idIn('apxi', link)], [null, null, id])
  t.same([isTokenLike(token), isTokenLike(link), isTokenLike('eyJhbGciOiJIUzI1NiJ9.e30.x')], [true, false, false])
})

t.test('what is kept is a hash of the whole, which opens nothing', async t => {
  const token = printSecret('apx', newTokenId())
  const secret = { hash: hashOf(token), issuedAt: 0 }
  t.match(secret.hash, /^[\w-]{43}$/)
  t.ok(isHashOf(token, secret))
  t.notOk(isHashOf(secret.hash, secret))
  t.notOk(isHashOf(printSecret('apx', newTokenId()), secret))
})

const badSession = { code: 'GW_BAD_SESSION' }

/** A real book that counts what it is asked. */
function open (t: Test, time: Clock) {
  const store = sqliteStore({ path: ':memory:', terms, now: time.now, synchronous: 'normal' })
  t.teardown(() => store.close())
  const asked = { find: 0, used: 0 }
  const tokens: TokenStore = {
    ...store.tokens,
    async find (id) {
      asked.find++
      return await store.tokens.find(id)
    },
    async used (id, at) {
      asked.used++
      await store.tokens.used(id, at)
    }
  }
  const { tokenSessions, revocations } = teamTokens({ tokens, revocations: store.revocations }, time)
  const verifier = throwing(tokenSessions)
  const print = async (more: Partial<Token> = {}): Promise<string> => {
    const id = newTokenId()
    const text = printSecret('apx', id)
    const issuedAt = time.now()
    await tokens.create(
      tokenOf({
        id,
        createdAt: issuedAt,
        expiresAt: issuedAt + 3_600_000,
        secret: { hash: hashOf(text), issuedAt },
        ...more
      })
    )
    return text
  }
  return { store, tokens, asked, verifier, revocations, print }
}

const idOf = (token: string): string => token.split('_')[1]!

t.test('tokens keep the promises of a session verifier', async t => {
  sessionVerifierContract(t, async time => {
    const { verifier, print, tokens } = open(t, time)
    const [kept, revoked, stranger] = [await print(), await print(), printSecret('apx', newTokenId())]
    await tokens.revoke(idOf(revoked), time.now())
    return {
      verifier,
      subject: 'token:alice',
      print: ttlSeconds =>
        print({
          plan: 'default',
          models: ['sora-2*'],
          scopes: ['tasks:read'],
          expiresAt: time.now() + ttlSeconds * 1000
        }),
      foreign: [
        ['a JWT', 'eyJhbGciOiJIUzI1NiJ9.e30.c2ln'],
        ['an invitation', printSecret('apxi', newTokenId())],
        ['a key', 'sk-1234567890']
      ],
      bad: [
        ['of nobody', stranger],
        ['another secret of somebody', printSecret('apx', idOf(kept))],
        ['cut', kept.slice(0, -1)],
        ['only the prefix', 'apx_'],
        ['very long', `apx_${'x'.repeat(100_000)}`],
        ['of an invitation', await print({ isInvitation: true })],
        ['revoked', revoked]
      ]
    }
  })
})

t.test('a token in use is asked for once a second, however many requests come', async t => {
  const time = clock()
  const { verifier, print, asked } = open(t, time)
  const token = await print()
  await Promise.all(Array.from({ length: 20 }, () => verifier.verify(token)))
  time.advance(999)
  await verifier.verify(token)
  t.equal(asked.find, 1)
  time.advance(1)
  await Promise.all(Array.from({ length: 20 }, () => verifier.verify(token)))
  t.equal(asked.find, 2)
})

t.test('what has changed counts after a second at the latest', async t => {
  const time = clock()
  const { verifier, print, store } = open(t, time)
  const token = await print()
  await verifier.verify(token)
  await store.tokens.revoke(idOf(token), time.now())
  time.advance(1000)
  await t.rejects(async () => verifier.verify(token), badSession)
})

t.test('what is not found is not remembered, and what could not be asked for neither', async t => {
  const time = clock()
  const { verifier, print, asked, tokens } = open(t, time)
  const stranger = printSecret('apx', newTokenId())
  for (let count = 0; count < 3; count++) await t.rejects(async () => verifier.verify(stranger), badSession)
  t.equal(asked.find, 3)
  const token = await print()
  const down = gatewayError('GW_STORE_DOWN')
  let isDown = true
  const tokenOf = recentTokens(
    {
      find: async id => {
        if (isDown) throw down
        return await tokens.find(id)
      }
    },
    time.elapsed
  )
  const failing = throwing(tokenSessions({ tokens, ...time, tokenOf }))
  await t.rejects(async () => failing.verify(token), { code: 'GW_STORE_DOWN' }, 'closed')
  isDown = false
  t.ok(await failing.verify(token))
})

t.test('a text that was never printed costs no look-up', async t => {
  const { verifier, print, asked } = open(t, clock())
  const token = await print()
  await t.rejects(async () => verifier.verify(`${token.slice(0, -1)}${token.endsWith('0') ? '1' : '0'}`), badSession)
  t.equal(asked.find, 0)
})

t.test('after a rotation both secrets are sessions, until the grace ends', async t => {
  const time = clock()
  const { verifier, revocations, print, store } = open(t, time)
  const old = await print()
  const before = await verifier.verify(old)
  time.advance(5000)
  const text = printSecret('apx', idOf(old))
  const graceUntil = time.now() + 60_000
  await store.tokens.rotate(idOf(old), { hash: hashOf(text), issuedAt: time.now() }, graceUntil)
  const [one, other] = [await verifier.verify(old), await verifier.verify(text)]
  t.match(one, { id: before!.id, subject: 'token:alice', issuedAt: before!.issuedAt, expiresAt: graceUntil })
  t.match(other, { id: before!.id, subject: 'token:alice', issuedAt: time.now(), expiresAt: before!.expiresAt })
  t.same([await revocations.isRevoked(one!), await revocations.isRevoked(other!)], [false, false])
  time.advance(60_000)
  await t.rejects(async () => verifier.verify(old), badSession)
  t.ok(await verifier.verify(text))
  t.same(
    [await revocations.isRevoked(one!), await revocations.isRevoked(other!)],
    [true, false],
    'a stream of the old one ends as well'
  )
})

t.test('that a token was used is written once a minute, and nobody waits for it', async t => {
  const time = clock()
  const { verifier, print, asked, tokens } = open(t, time)
  const token = await print()
  for (let count = 0; count < 100; count++) {
    await verifier.verify(token)
    time.advance(1000)
  }
  t.equal(asked.used, 2)
  await until('it is written', async () => (await tokens.find(idOf(token)))?.usedAt !== null)
  const slow: TokenStore = { ...tokens, used: () => new Promise(() => {}) }
  const patient = teamTokens({ tokens: slow, revocations: {} as Revocations }, time).tokenSessions
  time.advance(60_000)
  t.ok(await patient.verify(token), 'not for a store that hangs')
  const failing: TokenStore = {
    ...tokens,
    used: async () => {
      throw gatewayError('GW_STORE_DOWN')
    }
  }
  t.ok(
    await teamTokens({ tokens: failing, revocations: {} as Revocations }, time).tokenSessions.verify(token),
    'nor one that fails'
  )
})

t.test('what another replica has noted is not noted again', async t => {
  const time = clock()
  const { print, asked, store, verifier } = open(t, time)
  const token = await print()
  await store.tokens.used(idOf(token), time.now())
  time.advance(59_999)
  await verifier.verify(token)
  t.equal(asked.used, 0)
})

t.test('whoever logs out with a token revokes it, and any other session ends as ever', async t => {
  const time = clock()
  const { verifier, revocations, print, store } = open(t, time)
  const token = await print()
  const session = await verifier.verify(token)
  t.equal(await revocations.isRevoked(session!), false)
  await revocations.revoke(session!.id, session!.expiresAt)
  t.equal((await store.tokens.find(idOf(token)))?.revokedAt, time.now())
  time.advance(1000)
  t.equal(await revocations.isRevoked(session!), true)
  const other = { id: 'abcdefghijk', subject: 'app:bob', issuedAt: time.now() }
  t.equal(await revocations.isRevoked(other), false, 'an id that looks like one')
  await revocations.revoke(other.id, time.now() + 1000)
  t.equal(await revocations.isRevoked(other), true)
})

t.test('what stands in for a token ends with it: a cookie, and all sessions of a subject', async t => {
  const time = clock()
  const { verifier, revocations, print, store } = open(t, time)
  const session = (await verifier.verify(await print()))!
  const cookie = { ...session, id: '3f2b8c1e-7f0a-4a54-8a3f-1d2e3f4a5b6c', isCookie: true }
  t.equal(await revocations.isRevoked(cookie), false)
  t.equal(
    await revocations.isRevoked({ ...cookie, issuedAt: session.issuedAt - 1 }),
    true,
    'of a secret that is none any more'
  )
  const stray = { ...cookie, rootId: 'abcdefghijk' }
  t.equal(await revocations.isRevoked(stray), true, 'of a token that is not there')
  await store.tokens.revoke(session.id, time.now())
  time.advance(1000)
  t.equal(await revocations.isRevoked(cookie), true)
  const other = (await verifier.verify(await print()))!
  await revocations.revokeSubject('token:alice', time.now(), time.now() + 86_400_000)
  t.equal(await revocations.isRevoked(other), true)
})

t.test('a cookie ends with what stands in for its session, and not by being swapped for it', async t => {
  const time = clock()
  const { revocations } = open(t, time)
  const cookie = { id: 'cookie', rootId: 'bearer', subject: 'app:alice', issuedAt: time.now() }
  await revocations.revoke('bearer', time.now() + 1000)
  t.equal(await revocations.isRevoked(cookie), false, 'as a swap does')
  await revocations.revoke(cookieRevocationId('bearer'), time.now() + 1000)
  t.equal(await revocations.isRevoked(cookie), true)
  t.equal(await revocations.isRevoked({ ...cookie, rootId: 'other' }), false)
  await revocations.revoke('cookie', time.now() + 1000)
  t.equal(await revocations.isRevoked({ ...cookie, rootId: 'other' }), true, 'and by its own id')
})
