import type { Test } from 'tap'
import type { ReserveRequest } from '../../src/domain/ledger.ts'
import { demandOf } from './ledger-balance.ts'
import { type Fixture, openBooks, type OpenStore, sent } from './open-books.ts'

/** So many equal submits of alice's. */
const batchOf = (count: number, more: Partial<ReserveRequest> = {}): ReserveRequest[] =>
  Array.from({ length: count }, () => demandOf(more))

const session = { id: 'session', uses: null, creditLimit: null, expiresAt: Date.UTC(2026, 5, 1) }
const repeat = { fingerprint: 'print', call: 'call', arrivedAt: 0 }
const idempotency = { key: 'key', fingerprint: 'print' }

/** Every TaskLedger must pass this for `reserveAll`, whatever is behind it. */
export function reserveAllContract (t: Test, openStore: OpenStore): void {
  const open = (t: Test): Promise<Fixture> => openBooks(t, openStore)

  t.test('all are granted, in their order, and each lives by itself', async t => {
    const { ledger, creditsUsed, slotsUsed } = await open(t)
    const batch = [1, 2, 3].map(microcredits => demandOf({ microcredits }))
    const reserved = await ledger.reserveAll(batch)
    if (!reserved.granted) throw new Error(`no ${reserved.reason}`)
    t.equal(new Set(reserved.ids).size, 3)
    t.equal(await creditsUsed(), 6)
    t.equal(await slotsUsed(), 3)
    const [first, second, third] = reserved.ids as [string, string, string]
    t.equal(await ledger.advance(first, { to: 'released' }), true)
    t.equal(await creditsUsed(), 5, 'the first cost one')
    for (const id of [second, third]) t.equal(await ledger.advance(id, sent), true)
    t.equal(await ledger.advance(third, { to: 'claimed', taskId: 'task' }), true)
    t.match(await ledger.taskOf('task'), { microcredits: 3, stage: 'claimed' })
    t.equal(await ledger.advance(second, { to: 'released' }), true)
    t.equal(await creditsUsed(), 3)
  })

  t.test('when there is room for all but one there is none, and nothing is set aside', async t => {
    const { ledger, accounts, creditsUsed, slotsUsed } = await open(t)
    const lacking = [
      [batchOf(3, { taskLimit: 2 }), 'slot'],
      [batchOf(3, { microcredits: 4, creditLimit: 11 }), 'credits'],
      [batchOf(3, { session: { ...session, uses: 2 } }), 'uses'],
      [batchOf(3, { session: { ...session, creditLimit: 2 } }), 'credits'],
      [[...batchOf(2), demandOf({ microcredits: 5, creditLimit: 6 })], 'credits'],
      [[...batchOf(2), demandOf({ creditLimit: 0 }), demandOf({ taskLimit: 0 })], 'credits']
    ] as const
    for (const [batch, reason] of lacking) t.same(await ledger.reserveAll(batch), { granted: false, reason })
    t.equal(await creditsUsed(), 0)
    t.equal(await slotsUsed(), 0)
    t.same(await accounts.spentIn('app:alice', session.id), { uses: 0, microcredits: 0 })
    t.match(await ledger.reserveAll(batchOf(2, { taskLimit: 2 })), { granted: true })
  })

  t.test('what was to come from grants stays there when all can not be had', async t => {
    const { ledger, accounts } = await open(t)
    await accounts.grant({ subject: 'app:alice', microcredits: 10 })
    const { periodStart } = demandOf()
    const left = () => accounts.balanceOf('app:alice', periodStart)
    const batch = batchOf(3, { microcredits: 4, creditLimit: 1 })
    t.same(await ledger.reserveAll(batch), { granted: false, reason: 'credits' })
    t.same(await left(), { used: 0, granted: 10, unfinished: 0 })
    t.match(await ledger.reserveAll(batch.slice(1)), { granted: true })
    t.same(await left(), { used: 1, granted: 3, unfinished: 2 })
  })

  t.test('of twenty at the same time with room for two, two have all of theirs and the others nothing', async t => {
    const { ledger, creditsUsed, slotsUsed } = await open(t)
    const all = await Promise.all(Array.from({ length: 20 }, () => ledger.reserveAll(batchOf(3, { taskLimit: 8 }))))
    t.equal(all.filter(({ granted }) => granted).length, 2)
    t.equal(await creditsUsed(), 6)
    t.equal(await slotsUsed(), 6)
  })

  t.test('a used idempotency key is told before a lack of room', async t => {
    const { ledger, reserve, slotsUsed } = await open(t)
    await reserve({ idempotency })
    const batch = [demandOf({ taskLimit: 1 }), demandOf({ idempotency })]
    t.same(await ledger.reserveAll(batch), { granted: false, reason: 'duplicate', earlier: { kind: 'pending' } })
    t.equal(await slotsUsed(), 1)
  })

  t.test('the idempotency key of what could not be had is free', async t => {
    const { ledger, idempotency: keys, slotsUsed } = await open(t)
    const batch = [demandOf({ idempotency }), demandOf({ taskLimit: 1 })]
    t.same(await ledger.reserveAll(batch), { granted: false, reason: 'slot' })
    t.equal(await keys.earlier('app:alice', idempotency), null)
    t.match(await ledger.reserveAll([demandOf({ idempotency }), demandOf()]), { granted: true })
    t.same(await keys.earlier('app:alice', idempotency), { kind: 'pending' })
    t.equal(await slotsUsed(), 2)
  })

  t.test('what could not be had is nothing to repeat; and what is lost serves one repeat as any submit', async t => {
    const { ledger, repeats } = await open(t)
    const batch = [demandOf({ repeat }), demandOf({ taskLimit: 1 })]
    t.same(await ledger.reserveAll(batch), { granted: false, reason: 'slot' })
    const next = { ...repeat, call: 'next' }
    t.equal(await repeats.take('app:alice', next), null)
    const reserved = await ledger.reserveAll([demandOf({ repeat: next }), demandOf()])
    if (!reserved.granted) throw new Error(`no ${reserved.reason}`)
    await ledger.advance(reserved.ids[0]!, sent)
    await ledger.advance(reserved.ids[0]!, { to: 'unknown' })
    const again = [demandOf(), demandOf({ repeat: { ...repeat, call: 'again' } })]
    t.same(await ledger.reserveAll(again), { granted: false, reason: 'duplicate', earlier: { kind: 'unknown' } })
    t.equal(await repeats.take('app:alice', { ...repeat, call: 'other' }), null, 'it serves that one')
  })

  t.test('what nobody sends lapses, each by itself', async t => {
    const { ledger, time, creditsUsed, slotsUsed } = await open(t)
    const reserved = await ledger.reserveAll(batchOf(3))
    if (!reserved.granted) throw new Error(`no ${reserved.reason}`)
    await ledger.advance(reserved.ids[1]!, sent)
    time.advance(31_000)
    t.same(await ledger.sweep(), { released: 2, unknown: 0 })
    t.equal(await creditsUsed(), 1)
    t.equal(await slotsUsed(), 1)
  })
}
