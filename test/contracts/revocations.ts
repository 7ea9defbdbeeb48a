import type { Test } from 'tap'
import { forgetSlackMs, type RevocableSession, type Revocations } from '../../src/domain/session.ts'
import type { Clock } from '../helpers/clock.ts'
import { openBooks, type OpenStore, terms } from './open-books.ts'

/** A session of alice's that began long ago. */
export function sessionOf (id: string): RevocableSession {
  return { id, subject: 'app:alice', issuedAt: 1000 }
}

/** Every Revocations must pass this, whatever is behind it. */
export function revocationsContract (t: Test, openStore: OpenStore, openBeside?: OpenStore): void {
  const open = async (t: Test): Promise<{ it: Revocations, time: Clock }> => {
    const { revocations: it, time } = await openBooks(t, openStore)
    return { it, time }
  }

  t.test('a session is revoked once somebody has said so, and not before', async t => {
    const { it, time } = await open(t)
    t.equal(await it.isRevoked(sessionOf('one')), false)
    await it.revoke('one', time.now() + 1000)
    t.equal(await it.isRevoked(sessionOf('one')), true)
    t.equal(await it.isRevoked(sessionOf('two')), false)
    t.equal(await it.isRevoked(sessionOf('One')), false)
    t.equal(await it.isRevoked(sessionOf('')), false)
  })

  t.test('revoking twice is once, also at the same time', async t => {
    const { it, time } = await open(t)
    await Promise.all(Array.from({ length: 50 }, () => it.revoke('one', time.now() + 1000)))
    await it.revoke('one', time.now() + 1000)
    t.equal(await it.isRevoked(sessionOf('one')), true)
  })

  t.test('a revocation holds until the session would have ended by itself, whatever else is forgotten', async t => {
    const { it, time } = await open(t)
    await it.revoke('short', time.now() + 1000)
    await it.revoke('long', time.now() + 1_000_000)
    time.advance(999)
    t.equal(await it.isRevoked(sessionOf('short')), true)
    time.advance(10_000)
    await it.revoke('other', time.now() + 1000)
    t.equal(await it.isRevoked(sessionOf('long')), true)
  })

  t.test(
    'a revocation outlives its session by two days: the clock may be put forward by one, and back again',
    async t => {
      const { it, time } = await open(t)
      await it.revoke('one', time.now() + 1000)
      await it.revokeSubject('app:bob', time.now(), time.now() + 1000)
      time.advance(1000 + forgetSlackMs - 1)
      await it.revoke('other', time.now() + 1000)
      t.equal(await it.isRevoked(sessionOf('one')), true)
      t.equal((await it.endedBefore('app:bob')) > 0, true)
    }
  )

  t.test('ids with odd characters do not mix', async t => {
    const { it, time } = await open(t)
    const ids = ["'", '"', '%', '_', '*', '😀', 'ä', 'a\u0308', ' ', '0', '00', "'; DROP TABLE revocations; --"]
    for (const [index, id] of ids.entries()) {
      t.equal(await it.isRevoked(sessionOf(id)), false, JSON.stringify(id))
      if (index % 2 === 0) await it.revoke(id, time.now() + 1000)
    }
    for (const [index, id] of ids.entries()) {
      t.equal(await it.isRevoked(sessionOf(id)), index % 2 === 0, JSON.stringify(id))
    }
  })
  /** Asks with an id that nobody knows. */
  const asker = (it: Revocations) => {
    let asked = 0
    return (subject: string, issuedAt: number) => it.isRevoked({ id: `asked ${++asked}`, subject, issuedAt })
  }

  t.test(
    "all sessions of a subject that were issued by then are revoked, and no later one and nobody else's",
    async t => {
      const { it, time } = await open(t)
      const isRevoked = asker(it)
      const now = time.now()
      await it.revokeSubject('app:alice', now, now + 1_000_000)
      for (const [issuedAt, revoked] of [
        [0, true],
        [now - 1, true],
        [now, true],
        [now + 1, false],
        [now + 1e9, false]
      ] as const) {
        t.equal(await isRevoked('app:alice', issuedAt), revoked, String(issuedAt - now))
      }
      for (const other of ['app:bob', 'app:Alice', 'app:alice ', 'alice', 'guest:alice', '']) {
        t.equal(await isRevoked(other, 0), false, other)
      }
    }
  )

  t.test('of several words about a subject the latest instant holds, in whatever order they come', async t => {
    const { it, time } = await open(t)
    const isRevoked = asker(it)
    const now = time.now()
    await Promise.all([5, 9, 2].map(before => it.revokeSubject('app:alice', now + before, now + 1_000_000)))
    await it.revokeSubject('app:alice', now + 1, now + 1_000_000)
    t.equal(await isRevoked('app:alice', now + 9), true)
    t.equal(await isRevoked('app:alice', now + 10), false)
  })

  t.test(
    'a word about a subject holds until its sessions would have ended by themselves, whatever else is forgotten',
    async t => {
      const { it, time } = await open(t)
      const isRevoked = asker(it)
      const now = time.now()
      await it.revokeSubject('app:alice', now, now + 10_000)
      await it.revokeSubject('app:bob', now, now + 1_000_000)
      time.advance(9999)
      await it.revokeSubject('app:carol', now, now + 1_000_000)
      t.equal(await isRevoked('app:alice', now), true)
      time.advance(100_000)
      await it.revoke('other', time.now() + 1000)
      t.equal(await isRevoked('app:bob', now), true)
    }
  )

  t.test('up to when a subject\'s sessions were ended is known, as nothing is of another', async t => {
    const { it, time } = await open(t)
    t.equal(await it.endedBefore('app:alice'), -Infinity)
    await it.revokeSubject('app:alice', time.now(), time.now() + 1_000_000)
    t.same([await it.endedBefore('app:alice'), await it.endedBefore('app:bob')], [time.now(), -Infinity])
  })

  t.test('a later session of an id whose earlier ones have ended with their subject\'s is good', async t => {
    const { it, time } = await open(t)
    const now = time.now()
    t.equal(await it.isRevoked({ id: 'one', subject: 'app:alice', issuedAt: now }), false)
    await it.revokeSubject('app:alice', now, now + 1_000_000)
    t.equal(await it.isRevoked({ id: 'one', subject: 'app:alice', issuedAt: now }), true)
    t.equal(await it.isRevoked({ id: 'one', subject: 'app:alice', issuedAt: now + 1 }), false)
  })

  t.test('a word for good lasts for years', async t => {
    const { it, time } = await open(t)
    const isRevoked = asker(it)
    const now = time.now()
    await it.revoke('one', 8.64e15)
    await it.revokeSubject('app:alice', now, 8.64e15)
    time.advance(3650 * 86_400_000)
    await it.revoke('other', time.now() + 1000)
    t.equal(await it.isRevoked(sessionOf('one')), true)
    t.same([await isRevoked('app:alice', now), await isRevoked('app:alice', now + 1)], [true, false])
  })

  if (openBeside === undefined) return

  t.test('what somebody else says over the same store holds within a second, and nothing else does', async t => {
    const { it, time } = await open(t)
    const isRevoked = asker(it)
    const { revocations: other } = await openBeside(t, { terms, now: time.now, elapsed: time.elapsed })
    const now = time.now()
    /** Of somebody whose sessions are ended one by one. */
    const zoe = (id: string): RevocableSession => ({ id, subject: 'app:zoe', issuedAt: now })
    for (const [id, subject] of [['one', 'app:alice'], ['two', 'app:bob'], ['three', 'app:carol']] as const) {
      t.same([await it.isRevoked(zoe(id)), await isRevoked(subject, now)], [false, false])
      await other.revoke(id, now + 1_000_000)
      await other.revokeSubject(subject, now, now + 1_000_000)
      t.same([await other.isRevoked(zoe(id)), await asker(other)(subject, now)], [true, true], 'there at once')
      time.advance(999)
      t.same([await it.isRevoked(zoe(id)), await isRevoked(subject, now)], [true, true])
      t.same(
        [await it.isRevoked(zoe('four')), await isRevoked(subject, now + 1), await isRevoked('app:dan', now)],
        [false, false, false]
      )
    }
    await it.revoke('five', now + 1_000_000)
    await it.revokeSubject('app:erin', now, now + 1_000_000)
    time.advance(999)
    t.same(
      [await other.isRevoked(zoe('five')), await asker(other)('app:erin', now)],
      [true, true],
      'and the other way round'
    )
  })
}
