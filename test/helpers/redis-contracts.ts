import type { Test } from 'tap'
import { redisStore } from '../../src/adapters/redis/store.ts'
import { Secret } from '../../src/domain/secret.ts'
import { everyContract } from '../contracts/every-contract.ts'
import type { OpenStore } from '../contracts/open-books.ts'

/**
 * Holds what is at that address against every contract of a store; each test has a prefix of its own, and so an empty
 * one.
 */
export function redisContracts (t: Test, name: string, url: string): void {
  let opened = 0
  const openNext: OpenStore = (...given) => {
    opened++
    return openAgain(...given)
  }
  const openAgain: OpenStore = async (t, { terms, now, elapsed }) => {
    const store = await redisStore({
      url: new Secret(url),
      terms,
      now,
      onLost: () => {},
      prefix: `test-${opened}`,
      ...(elapsed && { elapsed })
    })
    t.teardown(() => store.close())
    return store
  }
  everyContract(t, name, openNext, openAgain)
}
