import type { Test } from 'tap'
import type { Store } from '../../src/domain/store.ts'
import { localUnknownCalls } from '../../src/domain/unknown-calls.ts'
import { openBooks, type OpenStore } from './open-books.ts'

/** Every UnknownCalls must pass this, whatever is behind it. */
export function unknownCallsContract (t: Test, openStore: OpenStore): void {
  const open = async (t: Test): Promise<NonNullable<Store['unknownCalls']>> => {
    const { unknownCalls, time } = await openBooks(t, openStore)
    if (unknownCalls !== null) return unknownCalls
    // The one process that has a store to itself remembers for itself.
    const own = localUnknownCalls(time.elapsed)
    return {
      remember: async (_, fingerprint) => own.remember(fingerprint),
      has: async (_, fingerprint) => own.has(fingerprint)
    }
  }

  t.test('a call is known from when it was remembered, and no other call is', async t => {
    const it = await open(t)
    t.equal(await it.has('alice', 'one'), false)
    await it.remember('alice', 'one')
    await it.remember('alice', 'one')
    t.equal(await it.has('alice', 'one'), true)
    t.equal(await it.has('alice', 'One'), false)
    t.equal(await it.has('alice', 'two'), false)
  })
}
