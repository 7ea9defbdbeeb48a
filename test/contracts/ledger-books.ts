import { setImmediate as nextTurn } from 'node:timers/promises'
import type { Test } from 'tap'
import type { Fault } from '../../src/domain/books.ts'
import type { Hold } from '../../src/domain/ledger.ts'
import { dayMs } from '../../src/domain/time.ts'
import { answer, openBooks, type OpenStore, places, terms } from './open-books.ts'

const holds: readonly Hold[] = [
  { account: 'gateway', window: 'none', endsAt: null, limit: 1e6 },
  { account: 'pool:team', window: 'hour:2026-01-15T12:00Z', endsAt: Date.UTC(2026, 0, 15, 13), limit: 1e6 },
  { account: 'pool:team', window: 'day:2026-01-15', endsAt: Date.UTC(2026, 0, 16), limit: 1e6 }
]
const session = { id: 'few', uses: 100, creditLimit: 1000, expiresAt: 9e15 }

export function ledgerBooksContract (t: Test, open: OpenStore, openBeside: OpenStore = open): void {
  t.test('the books of a store that has nothing in it agree', async t => {
    const { books } = await openBooks(t, open)
    t.match(await books.verify(nextTurn), { subjects: 0, tasks: 0, skipped: 0, count: 0, faults: [] })
  })

  t.test('wherever a reservation has come to, the books agree', async t => {
    const { books, accounts, at } = await openBooks(t, open)
    await accounts.grant({ subject: 'app:alice', microcredits: 10_000_000 })
    for (const [index, place] of places.entries()) {
      for (const [nth, more] of [{}, { session }, { creditLimit: 0 }, { subject: 'app:bob' }].entries()) {
        const idempotency = { key: `key ${index} ${nth}`, fingerprint: 'print' }
        await at(place, { microcredits: 3_000_001 % (index + 2), idempotency, ...more }, `task-${index}-${nth}`)
        t.same((await books.verify(nextTurn)).faults, [], `${place} ${nth}`)
      }
    }
    t.match(await books.verify(nextTurn), { subjects: 2, count: 0 })
  })

  t.test('what failed and was given back agrees, and so does what an operator has let go', async t => {
    const { books, at, ledger, records } = await openBooks(t, open)
    for (let count = 0; count < terms.refundsPerPeriod + 2; count++) {
      await at('claimed', { session }, `task-${count}`)
      await ledger.settle({ taskId: `task-${count}`, state: 'failed', answer })
    }
    const id = await at('unknown', { session })
    await records.release(id)
    t.same((await books.verify(nextTurn)).faults, [])
    await ledger.advance(id, { to: 'claimed', taskId: 'late' })
    t.same((await books.verify(nextTurn)).faults, [])
    await ledger.settle({ taskId: 'late', state: 'failed', answer })
    t.same((await books.verify(nextTurn)).faults, [])
  })

  t.test('and so does what retention has ended, with what is left', async t => {
    const { books, accounts, at, ledger, time, tidyAll } = await openBooks(t, open)
    await accounts.grant({ subject: 'app:alice', microcredits: 100 })
    for (let day = 0; day < 40; day++) {
      for (const more of [{}, { session }, { creditLimit: 0 }]) {
        await at('settled', { microcredits: 2, ...more }, `task-${day}-${Object.keys(more).join()}`)
      }
      time.advance(dayMs)
      await ledger.sweep()
      await tidyAll()
      if (day % 8 === 0 || day > 28) t.same((await books.verify(nextTurn)).faults, [], `day ${day}`)
    }
  })

  t.test('a subject with many tasks is read in parts', async t => {
    const { books, at } = await openBooks(t, open)
    for (let count = 0; count < 250; count++) await at('settled', {}, `task-${count}`)
    t.match(await books.verify(nextTurn), { subjects: 1, tasks: 250, skipped: 0, count: 0 })
  })

  t.test('a reservation that nobody has swept is told, when its lease has ended for long', async t => {
    const { books, at, time, ledger, leads } = await openBooks(t, open)
    t.ok(await leads(), 'there is somebody who sweeps')
    await at('claimed')
    time.advance(terms.giveUpMs + terms.sentMs)
    t.same((await books.verify(nextTurn)).faults, [], 'a round of the housekeeping may last so long')
    time.advance(1)
    t.match((await books.verify(nextTurn)).faults, [{ kind: 'lease', subject: 'app:alice', problem: /^task task is claimed/ }])
    await ledger.sweep()
    t.same((await books.verify(nextTurn)).faults, [])
  })

  t.test('what three members have used of a pool agrees while they use it, whatever comes of it', async t => {
    const { at, time, ledger, ceilings, records } = await openBooks(t, open)
    const beside = await openBeside(t, { terms, now: time.now })
    const more = { holds, runningLimits: [{ account: 'gateway', limit: 1000 }] } as const
    const member = async (subject: string) => {
      for (let nth = 0; nth < 30; nth++) {
        const [task, cost] = [`${subject} ${nth}`, { subject, microcredits: nth, ...more }]
        await at('settled', cost, task)
        const ways = [
          () => at('released', cost),
          async () => await records.release(await at('unknown', cost)),
          async () => {
            await at('claimed', cost, `${task} failed`)
            await ledger.settle({ taskId: `${task} failed`, state: 'failed', answer })
          },
          async () => await ledger.advance(await at('sent', cost), { to: 'used', microcredits: 2 * nth, isEstimate: false }),
          () => at('unknown', cost),
          () => at('claimed', cost, `${task} runs`)
        ]
        await ways[nth % ways.length]!()
      }
    }
    const load = { isOver: false }
    const made = Promise.all(['app:alice', 'app:bob', 'app:carol'].map(member)).finally(() => { load.isOver = true })
    const faults: Fault[] = []
    let looks = 0
    for (; !load.isOver; await nextTurn()) {
      faults.push(...(await beside.books.verify(nextTurn)).faults)
      looks++
    }
    await made
    t.same(faults, [], `in ${looks} looks`)
    t.same((await beside.books.verify(nextTurn)).faults, [])
    t.ok((await ceilings.stateOf(holds)).every(({ used }) => used > 1000))
  })

  t.test('they are read beside a store that is in use', async t => {
    const { at, time } = await openBooks(t, open)
    const beside = await openBeside(t, { terms, now: time.now })
    const made = Promise.all(Array.from({ length: 50 }, (_, nth) => at('settled', { microcredits: nth }, `task-${nth}`)))
    const load = { isOver: false }
    made.finally(() => { load.isOver = true })
    const faults: Fault[] = []
    for (; !load.isOver; await nextTurn()) faults.push(...(await beside.books.verify(nextTurn)).faults)
    await made
    t.same(faults, [])
  })
}
