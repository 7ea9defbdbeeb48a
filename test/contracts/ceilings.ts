import type { Test } from 'tap'
import { type CeilingAccounts, ceilings } from '../../src/domain/ceilings.ts'
import type { Hold, ReserveRequest } from '../../src/domain/ledger.ts'
import { loadZones } from '../../src/domain/windows.ts'
import { demandOf } from './ledger-balance.ts'
import { answer, type Fixture, openBooks, type OpenStore, periodStart, type Place, sent, terms } from './open-books.ts'

const hourMs = 3_600_000
const bob = 'app:bob'
const pool: Hold = { account: 'pool:team', window: 'day:1', endsAt: 9e12, limit: 10 }
const tomorrow: Hold = { ...pool, window: 'day:2' }
const gateway: Hold = { account: 'gateway', window: 'none', endsAt: null, limit: 100 }
const plan: Hold = { account: 'plan:default', window: 'hour:1', endsAt: 8e12, limit: 50 }

type Run = (t: Test, books: Fixture, beside: CeilingAccounts | null) => Promise<void>

/** Every CeilingAccounts, and the ledger that draws on it, must pass this. */
export function ceilingsContract (t: Test, open: OpenStore, openBeside?: OpenStore): void {
  const test = (title: string, run: Run): void => {
    t.test(title, async t => {
      const books = await openBooks(t, open)
      const beside = openBeside === undefined ? null : await openBeside(t, { terms, now: books.time.now })
      await run(t, books, beside?.ceilings ?? null)
    })
  }
  for (const group of [refusing, keeping, turning, running, raising]) group(test)
}

type Tests = (title: string, run: Run) => void

/** What is used of each of these windows. */
async function usedIn ({ ceilings }: Fixture, ...holds: readonly Hold[]): Promise<readonly number[]> {
  return (await ceilings.stateOf(holds)).map(({ used }) => used)
}

function refusing (test: Tests): void {
  test('a ceiling is that of all its subjects together, and a refusal says which, and when it resets', async (t, books) => {
    const { ledger, reserve } = books
    const holds = [gateway, pool, plan]
    await reserve({ holds, microcredits: 6 })
    await reserve({ subject: bob, holds, microcredits: 4 })
    t.same(await ledger.reserve(demandOf({ subject: 'app:carol', holds })), {
      granted: false, reason: 'ceiling', account: 'pool:team', window: 'day:1', resetsAt: 9e12
    })
    t.match(await ledger.reserve(demandOf({ holds, microcredits: 0 })), { granted: true }, 'what is free goes on')
    t.match(await ledger.reserve(demandOf({ holds: [gateway, plan] })), { granted: true }, 'and so do others')
    t.same(await usedIn(books, ...holds), [11, 10, 11])
    t.same(await ledger.reserve(demandOf({ holds: [gateway], microcredits: 90 })), {
      granted: false, reason: 'ceiling', account: 'gateway', window: 'none', resetsAt: null
    })
  })

  test('what was refused anywhere is set aside nowhere', async (t, books) => {
    const { ledger } = books
    const holds = [gateway, pool, plan]
    const tried = [{ microcredits: 11 }, { creditLimit: 0 }, { taskLimit: 0 }] satisfies Array<Partial<ReserveRequest>>
    for (const more of tried) t.match(await ledger.reserve(demandOf({ holds, ...more })), { granted: false })
    const session = { id: 'spent', uses: 0, creditLimit: null, expiresAt: 9e15 }
    t.match(await ledger.reserve(demandOf({ holds, session })), { granted: false, reason: 'uses' })
    t.same(await usedIn(books, ...holds), [0, 0, 0])
    const batch = [demandOf({ holds, microcredits: 6 }), demandOf({ holds, microcredits: 6 })]
    t.match(await ledger.reserveAll(batch), { granted: false, reason: 'ceiling', account: 'pool:team' })
    t.same(await usedIn(books, ...holds), [0, 0, 0])
    t.match(await ledger.reserveAll(batch.map(one => ({ ...one, microcredits: 5 }))), { granted: true })
    t.same(await usedIn(books, ...holds), [10, 10, 10])
  })

  test('the outermost account that lacks something is named, and its running tasks first', async (t, { ledger, at }) => {
    const none = { ...gateway, limit: 0 }
    const runningLimits = [{ account: 'gateway', limit: 0 }, { account: 'pool:team', limit: 0 }] as const
    const reasonOf = async (more: Partial<ReserveRequest>) => {
      const { reason, account } = { reason: null, account: null, ...await ledger.reserve(demandOf(more)) }
      return [reason, account]
    }
    t.same(await reasonOf({ holds: [none, { ...pool, limit: 0 }], runningLimits }), ['running', 'gateway'])
    t.same(await reasonOf({ holds: [none], runningLimits: [runningLimits[1]], taskLimit: 0 }), ['ceiling', 'gateway'])
    t.same(await reasonOf({ holds: [{ ...pool, limit: 0 }], runningLimits: [runningLimits[1]] }), ['running', 'pool:team'])
    t.same(await reasonOf({ holds: [{ ...plan, limit: 0 }], creditLimit: 0 }), ['ceiling', 'plan:default'])
    const idempotency = { key: 'key', fingerprint: 'print' }
    await at('claimed', { idempotency })
    t.same(await reasonOf({ holds: [none], idempotency }), ['duplicate', null], 'but what was made before is told')
  })

  test('with credits for one, one of 500 submits of fifty subjects is granted', async (t, { ledger }) => {
    const all = await Promise.all(Array.from({ length: 500 }, (_, index) =>
      ledger.reserve(demandOf({ subject: `app:${index % 50}`, holds: [pool], microcredits: 10 }))))
    t.equal(all.filter(({ granted }) => granted).length, 1)
  })
}

function keeping (test: Tests): void {
  const places: ReadonlyArray<readonly [Place, number, number]> = [
    ['reserved', 1, 1], ['sent', 2, 2], ['claimed', 3, 3], ['unknown', 4, 3], ['settled', 5, 3], ['released', 5, 3]
  ]
  test('a window counts what is set aside, sent, running and unknown', async (t, books) => {
    const { ledger, ceilings, at } = books
    for (const [place, used, running] of places) {
      await at(place, { holds: [pool] }, place)
      t.same(await usedIn(books, pool), [used], place)
      t.equal(await ceilings.runningIn('pool:team'), running, place)
    }
    await ledger.settle({ taskId: 'claimed', state: 'failed', answer })
    t.same(await usedIn(books, pool), [4], 'refunded')
    t.equal(await ceilings.runningIn('pool:team'), 2)
  })

  test('what is given back goes to the window that it came from, and to none that began since', async (t, books) => {
    const { ledger, records, at } = books
    await at('claimed', { holds: [gateway, pool], microcredits: 3 }, 'refunded')
    const released = await at('sent', { holds: [pool], microcredits: 2 })
    const letGo = await at('unknown', { holds: [pool] })
    await at('claimed', { holds: [gateway, tomorrow], microcredits: 4 }, 'next')
    await ledger.settle({ taskId: 'refunded', state: 'failed', answer })
    await ledger.advance(released, { to: 'released' })
    t.equal(await records.release(letGo), true)
    t.same(await usedIn(books, gateway, pool, tomorrow), [4, 0, 4])
  })

  test('what lapses or is lost goes back, or stays, where it was taken', async (t, books) => {
    const { ledger, time, at, tidyAll } = books
    await at('reserved', { holds: [pool], microcredits: 4 })
    await at('sent', { holds: [pool], microcredits: 3 })
    time.advance(terms.sentMs)
    t.same(await ledger.sweep(), { released: 1, unknown: 1 })
    t.same(await usedIn(books, pool), [3])
    await tidyAll()
    t.same(await usedIn(books, pool), [3])
  })

  test('a task that is found late is charged once, and a refund past its number is not given', async (t, books) => {
    const { ledger, at } = books
    const id = await at('unknown', { holds: [pool], microcredits: 4 })
    t.equal(await ledger.advance(id, { to: 'claimed', taskId: 'late' }), true)
    t.same(await usedIn(books, pool), [4])
    for (let count = 0; count < terms.refundsPerPeriod; count++) {
      await at('claimed', { holds: [pool] }, `${count}`)
      await ledger.settle({ taskId: `${count}`, state: 'failed', answer })
    }
    await ledger.settle({ taskId: 'late', state: 'failed', answer })
    t.same(await usedIn(books, pool), [4])
  })

  test('windows that are long over are forgotten, and the others are not', async (t, books) => {
    const { time, at, tidyAll } = books
    const short: Hold = { ...pool, window: 'hour:1', endsAt: time.now() + hourMs }
    await at('settled', { holds: [short, gateway] })
    await tidyAll()
    t.same(await usedIn(books, short, gateway), [1, 1])
    time.advance(2 * terms.retentionMs)
    await tidyAll()
    t.same(await usedIn(books, short, gateway), [0, 1])
  })
}

/** Where a window ends and the next one begins: summer time and winter time, ends of months and weeks, a leap day. */
const edges = [
  ['day', 'Europe/Berlin', 0, '2026-03-29T22:00Z'],
  ['day', 'Europe/Berlin', 2, '2026-03-29T01:00Z'],
  ['hour', 'Europe/Berlin', 0, '2026-10-25T01:00Z'],
  ['day', 'Europe/Berlin', 6, '2026-10-26T05:00Z'],
  ['month', 'America/New_York', 0, '2026-11-01T04:00Z'],
  ['week', 'UTC', 0, '2026-11-30T00:00Z'],
  ['week', 'Asia/Tokyo', 4, '2026-12-06T19:00Z'],
  ['day', 'UTC', 0, '2028-02-29T00:00Z'],
  ['month', 'America/New_York', 23, '2028-03-02T04:00Z']
] as const

function turning (test: Tests): void {
  test('a new window begins whole, to the millisecond, and what the old one gets back is not its', async (t, books) => {
    const { ledger, time } = books
    await loadZones(edges.map(([, zone]) => ({ zone })))
    const open = { ceilings: {}, zone: 'UTC', resetHour: 0 }
    for (const [kind, zone, resetHour, edge] of edges) {
      const task = `${kind} ${zone} ${resetHour}`
      const { above } = ceilings({
        gateway: open, plans: {}, pools: { [task]: { ceilings: { [kind]: 0.000_002 }, zone, resetHour } }
      })!
      const request = () => demandOf({ ...above('default', task, time.now()), microcredits: 2 })
      const refused = { granted: false, reason: 'ceiling', resetsAt: Date.parse(edge) }
      time.advance(Date.parse(edge) - 2 - time.now())
      await books.at('claimed', request(), task)
      time.advance(1)
      t.match(await ledger.reserve(request()), refused, task)
      time.advance(1)
      t.match(await ledger.reserve(request()), { granted: true }, task)
      await ledger.settle({ taskId: task, state: 'failed', answer })
      t.match(await ledger.reserve(request()), { granted: false, reason: 'ceiling' }, task)
    }
  })
}

function running (test: Tests): void {
  test('so many tasks run in an account, those of all its subjects together', async (t, { ledger, ceilings, at }) => {
    const runningLimits = [{ account: 'gateway', limit: 3 }, { account: 'pool:team', limit: 2 }] as const
    await at('claimed', { runningLimits, holds: [pool] }, 'one')
    await at('claimed', { runningLimits, subject: bob }, 'two')
    const demand = demandOf({ runningLimits, subject: 'app:carol' })
    t.same(await ledger.reserve(demand), { granted: false, reason: 'running', account: 'pool:team' })
    t.match(await ledger.reserve({ ...demand, runningLimits: [runningLimits[0]] }), { granted: true })
    t.same(await ledger.reserve(demand), { granted: false, reason: 'running', account: 'gateway' })
    await ledger.settle({ taskId: 'two', state: 'success', answer })
    t.match(await ledger.reserve(demand), { granted: true })
    t.same([await ceilings.runningIn('gateway'), await ceilings.runningIn('pool:team')], [3, 2])
  })
}

function raising (test: Tests): void {
  test('an extra raises each window of its account until it ends', async (t, { ledger, ceilings, time }) => {
    const until = time.now() + hourMs
    t.equal(await ceilings.raise({ account: 'pool:team', microcredits: 5, until }), 5)
    t.equal(await ceilings.raise({ account: 'pool:team', microcredits: 2, until: until + 1 }), 7)
    const demand = demandOf({ holds: [pool], microcredits: 17 })
    t.same(await ceilings.stateOf([pool, tomorrow, gateway]), [
      { used: 0, limit: 17 }, { used: 0, limit: 17 }, { used: 0, limit: 100 }
    ])
    time.advance(hourMs)
    t.match(await ledger.reserve(demand), { granted: false, reason: 'ceiling' })
    t.match(await ledger.reserve({ ...demand, microcredits: 12 }), { granted: true })
    time.advance(1)
    t.same(await ceilings.stateOf([pool]), [{ used: 12, limit: 10 }])
    t.match(await ledger.reserve(demand), { granted: false, reason: 'ceiling' })
  })

  test('a grant is prepaid: it raises the window that never ends, and only that', async (t, { ledger, ceilings }) => {
    const day: Hold = { ...gateway, window: 'day:1', endsAt: 9e12 }
    t.equal(await ceilings.raise({ account: 'gateway', microcredits: 5, until: null }), 5)
    t.equal(await ceilings.raise({ account: 'gateway', microcredits: 6, until: null }), 11)
    t.same(await ceilings.stateOf([gateway, day]), [{ used: 0, limit: 111 }, { used: 0, limit: 100 }])
    t.match(await ledger.reserve(demandOf({ holds: [gateway], microcredits: 111 })), { granted: true })
    t.match(await ledger.reserve(demandOf({ holds: [gateway] })), { granted: false, reason: 'ceiling' })
  })

  test('an extra of a subject raises its period until it ends', async (t, { ledger, accounts, ceilings, time }) => {
    const until = time.now() + hourMs
    const demand = demandOf({ creditLimit: 3, microcredits: 8 })
    t.match(await ledger.reserve(demand), { granted: false, reason: 'credits' })
    t.equal(await ceilings.raise({ account: 'subject:app:alice', microcredits: 5, until }), 5)
    t.same(await accounts.balanceOf('app:alice', periodStart), { used: 0, granted: 0, unfinished: 0, extra: 5 })
    t.match(await ledger.reserve({ ...demand, subject: bob }), { granted: false })
    const reserved = await ledger.reserve(demand)
    t.match(reserved, { granted: true })
    if (reserved.granted) await ledger.advance(reserved.id, sent)
    time.advance(hourMs)
    t.same(await accounts.balanceOf('app:alice', periodStart), { used: 8, granted: 0, unfinished: 1 })
    t.match(await ledger.reserve({ ...demand, microcredits: 1 }), { granted: false, reason: 'credits' })
  })

  test('more than can be counted is refused, and what was given before stays', async (t, { ceilings }) => {
    const most = Number.MAX_SAFE_INTEGER
    t.equal(await ceilings.raise({ account: 'pool:team', microcredits: most, until: null }), most)
    await t.rejects(ceilings.raise({ account: 'pool:team', microcredits: 1, until: null }), { code: 'GW_BAD_REQUEST' })
    t.equal(await ceilings.raise({ account: 'pool:team', microcredits: 1, until: 9e12 }), 1, 'extras have their own sum')
  })

  test('what the operator gives beside a server counts at the next submit', async (t, { ledger }, beside) => {
    if (beside === null) {
      t.pass('nobody can be beside it')
      return
    }
    const demand = demandOf({ holds: [pool], microcredits: 15 })
    t.match(await ledger.reserve(demand), { granted: false, reason: 'ceiling' })
    await beside.raise({ account: 'pool:team', microcredits: 5, until: 9e12 })
    t.same(await beside.stateOf([pool]), [{ used: 0, limit: 15 }])
    t.match(await ledger.reserve(demand), { granted: true })
  })
}
