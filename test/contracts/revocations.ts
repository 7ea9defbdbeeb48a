import type { Test } from 'tap'
import type { Revocations } from '../../src/domain/session.ts'
import { clock } from '../helpers/clock.ts'

/** Every Revocations must pass this, whatever is behind it. `open` starts empty and ends with its test. */
export function revocationsContract (t: Test, open: (t: Test, now: () => number) => Revocations): void {
  t.test('a session is revoked once somebody has said so, and not before', async t => {
    const time = clock()
    const it = open(t, time.now)
    t.equal(await it.isRevoked('one'), false)
    await it.revoke('one', time.now() + 1000)
    t.equal(await it.isRevoked('one'), true)
    t.equal(await it.isRevoked('two'), false)
    t.equal(await it.isRevoked('One'), false)
    t.equal(await it.isRevoked(''), false)
  })

  t.test('revoking twice is once, also at the same time', async t => {
    const time = clock()
    const it = open(t, time.now)
    await Promise.all(Array.from({ length: 50 }, () => it.revoke('one', time.now() + 1000)))
    await it.revoke('one', time.now() + 1000)
    t.equal(await it.isRevoked('one'), true)
  })

  t.test('a revocation holds until the session would have ended by itself, whatever else is forgotten', async t => {
    const time = clock()
    const it = open(t, time.now)
    await it.revoke('short', time.now() + 1000)
    await it.revoke('long', time.now() + 1_000_000)
    time.advance(999)
    t.equal(await it.isRevoked('short'), true)
    time.advance(10_000)
    await it.revoke('other', time.now() + 1000)
    t.equal(await it.isRevoked('long'), true)
  })

  t.test('ids with odd characters do not mix', async t => {
    const time = clock()
    const it = open(t, time.now)
    const ids = ["'", '"', '%', '_', '*', '😀', 'ä', 'a\u0308', ' ', '0', '00', "'; DROP TABLE revocations; --"]
    for (const [index, id] of ids.entries()) {
      t.equal(await it.isRevoked(id), false, JSON.stringify(id))
      if (index % 2 === 0) await it.revoke(id, time.now() + 1000)
    }
    for (const [index, id] of ids.entries()) t.equal(await it.isRevoked(id), index % 2 === 0, JSON.stringify(id))
  })
}
