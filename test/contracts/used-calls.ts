import { setImmediate as nextTurn } from 'node:timers/promises'
import type { Test } from 'tap'
import type { Hold } from '../../src/domain/ledger.ts'
import { type Fixture, openBooks, type OpenStore, periodStart, terms } from './open-books.ts'

const subject = 'app:alice'
const pool: Hold = { account: 'pool:team', window: 'day:1', endsAt: 9e12, limit: 100 }
const used = (microcredits: number, isEstimate = false) => ({ to: 'used', microcredits, isEstimate }) as const

/** Calls that make no task, and cost what they have used. */
export function usedCallsContract (t: Test, open: OpenStore): void {
  const test = (title: string, run: (t: Test, books: Fixture) => Promise<void>): void => {
    t.test(title, async t => {
      const books = await openBooks(t, open)
      await run(t, books)
    })
  }
  const stateOf = async ({ accounts, ceilings }: Fixture) => {
    const { used, granted, unfinished } = await accounts.balanceOf(subject, periodStart)
    return { used, granted, unfinished, pool: (await ceilings.stateOf([pool]))[0]!.used }
  }

  test('a call that has cost less gives the rest back, to the grants first', async (t, books) => {
    await books.accounts.grant({ subject, microcredits: 20 })
    const demand = { creditLimit: 10, microcredits: 16, holds: [pool] }
    const id = await books.at('sent', demand)
    t.same(await stateOf(books), { used: 10, granted: 14, unfinished: 1, pool: 16 })
    t.equal(await books.ledger.advance(id, used(12)), true)
    t.same(await stateOf(books), { used: 10, granted: 18, unfinished: 0, pool: 12 })
    const other = await books.at('sent', { ...demand, microcredits: 3 })
    t.equal(await books.ledger.advance(other, used(0)), true)
    t.same(await stateOf(books), { used: 10, granted: 18, unfinished: 0, pool: 12 })
  })

  test('a call that has cost more is charged with that, past any limit', async (t, books) => {
    const id = await books.at('sent', { creditLimit: 10, microcredits: 10, holds: [{ ...pool, limit: 10 }] })
    t.equal(await books.ledger.advance(id, used(15, true)), true)
    t.same(await stateOf(books), { used: 15, granted: 0, unfinished: 0, pool: 15 })
  })

  test('a call that set nothing aside is charged in every window all the same', async (t, books) => {
    const id = await books.at('sent', { microcredits: 0, holds: [pool] })
    t.equal(await books.ledger.advance(id, used(7)), true)
    t.same(await stateOf(books), { used: 7, granted: 0, unfinished: 0, pool: 7 })
  })

  test('what is missing comes from the grants that it draws on, as far as they go', async (t, books) => {
    await books.accounts.grant({ subject, microcredits: 8 })
    const id = await books.at('sent', { creditLimit: 10, microcredits: 12 })
    t.equal(await books.ledger.advance(id, used(17)), true)
    t.match(await stateOf(books), { used: 10, granted: 1 })
    const last = await books.at('sent', { creditLimit: 10, microcredits: 1 })
    t.equal(await books.ledger.advance(last, used(5)), true)
    t.match(await stateOf(books), { used: 14, granted: 0 })
  })

  test('it is a row without a task, that has ended well', async (t, books) => {
    const id = await books.at('sent', { operation: 'chat', microcredits: 5 })
    await books.ledger.advance(id, used(3, true))
    await books.at('settled', {}, 'task')
    const { items } = await books.records.tasksOf(subject, { cursor: null, limit: 10 })
    t.match(items[1], { id, operation: 'chat', taskId: null, stage: 'settled', state: 'success', microcredits: 3 })
    const ends = await books.records.endsOf(subject, { endedAt: 0, taskId: '' }, 10)
    t.same(ends.map(({ taskId }) => taskId), ['task'], 'and no event')
    await books.tidyAll()
  })

  test('said twice it is said once, and only of what was sent', async (t, books) => {
    const id = await books.at('sent', { microcredits: 5 })
    t.equal(await books.ledger.advance(id, used(3)), true)
    t.equal(await books.ledger.advance(id, used(4)), true)
    t.match(await stateOf(books), { used: 3 })
    for (const step of [{ to: 'released' }, { to: 'unknown' }, { to: 'claimed', taskId: 'task' }] as const) {
      t.equal(await books.ledger.advance(id, step), false, step.to)
    }
    for (const place of ['reserved', 'claimed', 'settled', 'given up', 'released'] as const) {
      t.equal(await books.ledger.advance(await books.at(place, {}, place), used(1)), false, place)
    }
  })

  test('what is counted as used by its session is what it has cost, and the use stays', async (t, books) => {
    const session = { id: 'session', uses: 5, creditLimit: 20, expiresAt: 9e15 }
    const id = await books.at('sent', { session, microcredits: 10 })
    await books.ledger.advance(id, used(4))
    t.same(await books.accounts.spentIn(subject, 'session'), { uses: 1, microcredits: 4 })
    const more = await books.at('sent', { session, microcredits: 10 })
    await books.ledger.advance(more, used(30))
    t.same(await books.accounts.spentIn(subject, 'session'), { uses: 2, microcredits: 34 })
  })

  test('its idempotency key stays, and says that its answer is not known any more', async (t, books) => {
    const idempotency = { key: 'key', fingerprint: 'print' }
    const id = await books.at('sent', { idempotency })
    await books.ledger.advance(id, used(1))
    t.same(await books.idempotency.earlier(subject, idempotency), { kind: 'unknown' })
  })

  test('one whose end is told after a sweep was unknown, and costs what it has used all the same', async (t, books) => {
    const { ledger, accounts, ceilings, records, time } = books
    const session = { id: 'session', uses: null, creditLimit: 90, expiresAt: 9e15 }
    await accounts.grant({ subject, microcredits: 20 })
    const id = await books.at('sent', { creditLimit: 10, microcredits: 16, holds: [pool], session })
    time.advance(terms.sentMs)
    t.match(await ledger.sweep(), { unknown: 1 })
    t.same(await stateOf(books), { used: 10, granted: 14, unfinished: 0, pool: 16 })
    for (const cost of [12, 3]) t.equal(await ledger.advance(id, used(cost)), true, 'the first is what counts')
    t.same(await stateOf(books), { used: 10, granted: 18, unfinished: 0, pool: 12 })
    t.same(await accounts.spentIn(subject, 'session'), { uses: 1, microcredits: 12 })
    const more = await books.at('unknown', { creditLimit: 20, microcredits: 4, holds: [pool], session })
    t.equal(await ledger.advance(more, used(9, true)), true)
    t.same(await stateOf(books), { used: 19, granted: 18, unfinished: 0, pool: 21 })
    t.same(await accounts.spentIn(subject, 'session'), { uses: 2, microcredits: 21 })
    t.equal(await ceilings.runningIn(pool.account), 0)
    t.match(await records.usage({ from: '0000-01-01', to: '9999-12-31' }), [
      { tasks: 2, succeeded: 2, failed: 0, unknown: 0, microcredits: 21 }
    ])
    t.same((await books.books.verify(nextTurn)).faults, [])
    t.equal(await records.release(more), false, 'nothing is left to let go')
  })

  test('one that was let go before its end was told stays free', async (t, books) => {
    const id = await books.at('unknown', { microcredits: 5, holds: [pool] })
    t.equal(await books.records.release(id), true)
    t.equal(await books.ledger.advance(id, used(3)), false)
    t.same(await stateOf(books), { used: 0, granted: 0, unfinished: 0, pool: 0 })
  })

  test('one whose end is never told stays unknown, and charged with all of it', async (t, books) => {
    await books.at('sent', { microcredits: 5, holds: [pool] })
    books.time.advance(terms.sentMs)
    await books.ledger.sweep()
    t.same(await stateOf(books), { used: 5, granted: 0, unfinished: 0, pool: 5 })
  })
}
