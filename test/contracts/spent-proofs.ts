import type { Test } from 'tap'
import { openBooks, type OpenStore } from './open-books.ts'

/** Every SpentProofs must pass this, whatever is behind it. */
export function spentProofsContract (t: Test, openStore: OpenStore): void {
  const open = async (t: Test) => {
    const { spentProofs: it, time, tidyAll } = await openBooks(t, openStore)
    return { it, time, tidyAll }
  }

  t.test('a proof is spent once, and others are not spent by it', async t => {
    const { it, time } = await open(t)
    const end = time.now() + 300_000
    t.equal(await it.spend('one', end), true)
    t.equal(await it.spend('one', end), false)
    t.equal(await it.spend('one', end + 1), false, 'whatever it says about its end')
    t.equal(await it.spend('One', end), true)
    t.equal(await it.spend('two', end), true)
  })

  t.test('of fifty that spend one proof at the same time, one does', async t => {
    const { it, time } = await open(t)
    const end = time.now() + 300_000
    const spent = await Promise.all(Array.from({ length: 50 }, () => it.spend('one', end)))
    t.equal(spent.filter(isFirst => isFirst).length, 1)
  })

  t.test('a proof stays spent until its end, whatever else is forgotten, and is not spent from then on', async t => {
    const { it, time, tidyAll } = await open(t)
    const end = time.now() + 300_000
    t.equal(await it.spend('short', time.now() + 1000), true)
    t.equal(await it.spend('long', end), true)
    time.advance(299_999)
    await tidyAll()
    t.equal(await it.spend('long', end), false)
    time.advance(1)
    await tidyAll()
    t.equal(await it.spend('long', end), false, 'though it may be forgotten')
    t.equal(await it.spend('new', end), false)
  })

  t.test('a proof stays spent when the clock is put a day and an hour ahead, and is right again', async t => {
    const { it, time, tidyAll } = await open(t)
    const end = time.now() + 300_000
    t.equal(await it.spend('one', end), true)
    time.step(25 * 3_600_000)
    await tidyAll()
    t.equal(await it.spend('one', end), false)
    time.step(-25 * 3_600_000)
    t.equal(await it.spend('one', end), false)
  })

  t.test('ids with odd characters do not mix', async t => {
    const { it, time } = await open(t)
    const end = time.now() + 300_000
    const ids = ["'", '%', '_', '*', '😀', 'ä', 'a\u0308', ' ', '', '0', '00', '{a}', "'; DROP TABLE spent_proofs; --"]
    for (const id of ids) t.equal(await it.spend(id, end), true, JSON.stringify(id))
    for (const id of ids) t.equal(await it.spend(id, end), false, JSON.stringify(id))
  })
}
