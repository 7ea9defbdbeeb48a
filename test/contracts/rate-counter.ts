import { setTimeout as wait } from 'node:timers/promises'
import type { Test } from 'tap'
import { localRates } from '../../src/http/rates.ts'
import { openBooks, type OpenStore } from './open-books.ts'

const minuteMs = 60_000

/** Every RateCounter must pass this, whatever is behind it. */
export function rateCounterContract (t: Test, openStore: OpenStore): void {
  const open = async (t: Test) => {
    const { rates, time } = await openBooks(t, openStore)
    return {
      // The one process that has a store to itself counts for itself.
      it: rates ?? localRates({ elapsed: time.elapsed, maxKeys: 1000 }),
      time,
      /** Lets time pass, by the test's clock and by a server's. */
      async pass (ms: number): Promise<void> {
        time.advance(ms)
        await wait(ms)
      }
    }
  }

  t.test('each call of a key counts, and looking does not', async t => {
    const { it } = await open(t)
    t.strictSame(await it.look('one', minuteMs), { count: 0, endsInMs: 0 })
    for (const count of [1, 2, 3]) {
      const { endsInMs, ...rest } = await it.hit('one', minuteMs)
      t.strictSame(rest, { count })
      t.ok(endsInMs > minuteMs - 10_000 && endsInMs <= minuteMs, `${endsInMs}`)
    }
    for (let look = 0; look < 2; look++) {
      const { count, endsInMs } = await it.look('one', minuteMs)
      t.equal(count, 3)
      t.ok(endsInMs > minuteMs - 10_000 && endsInMs <= minuteMs, `${endsInMs}`)
    }
    t.match(await it.hit('two', minuteMs), { count: 1 }, 'another key has a count of its own')
  })

  t.test('of a hundred at the same time each gets its own count', async t => {
    const { it } = await open(t)
    const windows = await Promise.all(Array.from({ length: 100 }, () => it.hit('one', minuteMs)))
    t.strictSame(
      windows.map(({ count }) => count).sort((one, other) => one - other),
      Array.from({ length: 100 }, (_, index) => index + 1)
    )
  })

  t.test('a window ends so long after its first call, whatever comes within it, and the next begins at one', async t => {
    const { it, pass } = await open(t)
    const windowMs = 300
    t.match(await it.hit('one', windowMs), { count: 1 })
    await pass(150)
    const { count, endsInMs } = await it.hit('one', windowMs)
    t.equal(count, 2)
    t.ok(endsInMs <= 150, `${endsInMs}`)
    await pass(155)
    t.strictSame(await it.look('one', windowMs), { count: 0, endsInMs: 0 })
    t.match(await it.hit('one', windowMs), { count: 1 })
    t.match(await it.look('one', windowMs), { count: 1 })
  })

  t.test('a clock that is put ahead or back ends no window, and makes none longer', async t => {
    const { it, time } = await open(t)
    t.match(await it.hit('one', minuteMs), { count: 1 })
    for (const [index, stepMs] of [3_600_000, -7_200_000].entries()) {
      time.step(stepMs)
      const { count, endsInMs } = await it.hit('one', minuteMs)
      t.equal(count, index + 2)
      t.ok(endsInMs > minuteMs - 10_000 && endsInMs <= minuteMs, `${endsInMs}`)
    }
  })

  t.test('keys with odd characters do not mix', async t => {
    const { it } = await open(t)
    const keys = ["'", '{', '}', '{a}', '*', ':', '😀', 'ä', 'a\u0308', ' ', '0', '00', '']
    for (const key of keys) t.match(await it.hit(key, minuteMs), { count: 1 }, JSON.stringify(key))
    for (const key of keys) t.match(await it.hit(key, minuteMs), { count: 2 }, JSON.stringify(key))
  })
}
