import type { Test } from 'tap'
import { openBooks, type OpenStore } from './open-books.ts'

const hourMs = 3_600_000

/** Every GuestCounts must pass this, whatever is behind it. */
export function guestCountsContract (t: Test, openStore: OpenStore): void {
  const open = async (t: Test) => {
    const { guestCounts: it, time, tidyAll } = await openBooks(t, openStore)
    return { it, time, tidyAll }
  }

  t.test('there is room up to the limit, and then none until the window ends', async t => {
    const { it, tidyAll } = await open(t)
    t.equal(await it.take('one', 2, hourMs), 0)
    t.equal(await it.take('one', 2, hourMs), 0)
    await tidyAll()
    const waitMs = await it.take('one', 2, hourMs)
    t.ok(waitMs > hourMs - 60_000 && waitMs <= hourMs, `${waitMs}`)
    t.equal(await it.take('two', 2, hourMs), 0, 'other names have a count of their own')
    t.equal(await it.take('one', 3, hourMs), 0, 'what found no room is not counted')
  })

  t.test('of fifty at the same time as many are counted as there is room for', async t => {
    const { it } = await open(t)
    const waits = await Promise.all(Array.from({ length: 50 }, () => it.take('one', 7, hourMs)))
    t.equal(waits.filter(waitMs => waitMs === 0).length, 7)
  })

  t.test('what is put back makes room for one more in the same window, and never for more than there were', async t => {
    const { it } = await open(t)
    for (const name of ['one', 'nobody']) await it.putBack(name)
    for (let count = 0; count < 2; count++) t.equal(await it.take('one', 2, hourMs), 0)
    await it.putBack('one')
    t.equal(await it.take('one', 2, hourMs), 0)
    const waitMs = await it.take('one', 2, hourMs)
    t.ok(waitMs > hourMs - 60_000 && waitMs <= hourMs, `${waitMs}`)
    for (let count = 0; count < 3; count++) await it.putBack('one')
    const waits = await Promise.all(Array.from({ length: 5 }, () => it.take('one', 2, hourMs)))
    t.equal(waits.filter(waitMs => waitMs === 0).length, 2)
  })

  t.test('a full window is full when the clock was put a day and an hour ahead, and is right again', async t => {
    const { it, time, tidyAll } = await open(t)
    t.equal(await it.take('one', 1, hourMs), 0)
    time.step(25 * hourMs)
    await tidyAll()
    time.step(-25 * hourMs)
    t.not(await it.take('one', 1, hourMs), 0)
  })

  t.test('addresses of every kind are names', async t => {
    const { it } = await open(t)
    const names = ['address 192.0.2.1', 'address 2001:db8::', 'address ', 'everybody', "'", '{a}', '*']
    for (const name of names) t.equal(await it.take(name, 1, hourMs), 0, name)
    for (const name of names) t.not(await it.take(name, 1, hourMs), 0, name)
  })
}
