import type { Test } from 'tap'
import type { ReserveRequest } from '../../src/domain/ledger.ts'
import { demandOf } from './ledger-balance.ts'
import { answer, type Fixture, openBooks, type OpenStore, periodStart, type Place, sent, terms } from './open-books.ts'

const subject = 'app:alice'
/** Seven of a period's ten are used. */
const limited = { creditLimit: 10 }

/** Every CreditAccounts, and the ledger that draws on it, must pass this. */
export function creditAccountsContract (t: Test, open: OpenStore): void {
  for (const group of [counting, granting, splitting, givingBack]) group(t, open)
}

async function withSevenUsed (t: Test, open: OpenStore): Promise<Fixture> {
  const books = await openBooks(t, open)
  await books.at('claimed', { ...limited, microcredits: 7 }, 'the first')
  return books
}

function counting (t: Test, open: OpenStore): void {
  t.test('a balance counts what is set aside, sent, running and unknown, and who takes a slot', async t => {
    const { accounts, ledger, at } = await openBooks(t, open)
    t.same(await accounts.balanceOf(subject, periodStart), { used: 0, granted: 0, unfinished: 0 })
    const places: ReadonlyArray<readonly [Place, number, number]> = [
      ['reserved', 1, 1], ['sent', 2, 2], ['claimed', 3, 3], ['unknown', 4, 3], ['settled', 5, 3], ['released', 5, 3]
    ]
    for (const [place, used, unfinished] of places) {
      await at(place, {}, place)
      t.same(await accounts.balanceOf(subject, periodStart), { used, granted: 0, unfinished }, place)
    }
    await ledger.settle({ taskId: 'claimed', state: 'failed', answer })
    t.same(await accounts.balanceOf(subject, periodStart), { used: 4, granted: 0, unfinished: 2 })
    t.same(
      await accounts.balanceOf(subject, periodStart + 1),
      { used: 0, granted: 0, unfinished: 2 },
      'slots know no periods'
    )
    t.same(await accounts.balanceOf('app:bob', periodStart), { used: 0, granted: 0, unfinished: 0 })
  })
}

function granting (t: Test, open: OpenStore): void {
  t.test('grants that could not be counted together are refused, and those before them stay', async t => {
    const { accounts } = await openBooks(t, open)
    const most = Number.MAX_SAFE_INTEGER
    for (let count = 0; count < 90; count++) await accounts.grant({ subject, microcredits: 1e14 })
    await t.rejects(accounts.grant({ subject, microcredits: 1e14 }), {
      code: 'GW_BAD_REQUEST',
      message: /^credits would be more than can be counted/
    })
    t.equal((await accounts.balanceOf(subject, periodStart)).granted, 9e15)
    t.equal(await accounts.grant({ subject, microcredits: most - 9e15 }), most)
    await t.rejects(accounts.grant({ subject, microcredits: 1 }), { code: 'GW_BAD_REQUEST' })
    t.equal(await accounts.grant({ subject: 'app:bob', microcredits: 1 }), 1, 'and nobody else is shut out')
  })

  t.test('grants add up, each subject for itself, also when they come at once', async t => {
    const { accounts } = await openBooks(t, open)
    t.equal(await accounts.grant({ subject, microcredits: 5 }), 5)
    t.equal(await accounts.grant({ subject, microcredits: 2 ** 40 }), 5 + 2 ** 40)
    t.equal(await accounts.grant({ subject: 'app:bob', microcredits: 3 }), 3)
    await Promise.all(Array.from({ length: 50 }, () => accounts.grant({ subject: 'app:bob', microcredits: 2 })))
    t.match(await accounts.balanceOf('app:bob', periodStart), { used: 0, granted: 103 })
    t.match(await accounts.balanceOf(subject, periodStart), { used: 0, granted: 5 + 2 ** 40 })
  })

  t.test('a grant says what is left beside what is set aside', async t => {
    const { accounts, reserve } = await openBooks(t, open)
    await accounts.grant({ subject, microcredits: 5 })
    await reserve({ creditLimit: 0, microcredits: 2 })
    t.equal(await accounts.grant({ subject, microcredits: 10 }), 13)
  })

  t.test('with grants for one, one of 50 parallel reservations is granted', async t => {
    const { accounts, ledger } = await openBooks(t, open)
    await accounts.grant({ subject, microcredits: 7 })
    const demand = demandOf({ creditLimit: 3, microcredits: 8 })
    const all = await Promise.all(Array.from({ length: 50 }, () => ledger.reserve(demand)))
    t.equal(all.filter(({ granted }) => granted).length, 1)
    t.match(await accounts.balanceOf(subject, periodStart), { used: 3, granted: 2 })
  })

  t.test('grants do not end with a period', async t => {
    const { accounts, reserve } = await openBooks(t, open)
    await accounts.grant({ subject, microcredits: 5 })
    await reserve({ creditLimit: 1, microcredits: 3 })
    await reserve({ creditLimit: 1, microcredits: 3, periodStart: periodStart + 1 })
    t.match(await accounts.balanceOf(subject, periodStart + 1), { used: 1, granted: 1 })
  })
}

function splitting (t: Test, open: OpenStore): void {
  t.test('what is left of the period is used first, the rest is taken from the grants', async t => {
    const { accounts, ledger, reserve } = await withSevenUsed(t, open)
    await accounts.grant({ subject, microcredits: 4 })
    t.match(await ledger.reserve(demandOf({ ...limited, microcredits: 8 })), { granted: false, reason: 'credits' })
    await reserve({ ...limited, microcredits: 5 })
    t.match(await accounts.balanceOf(subject, periodStart), { used: 10, granted: 2 })
    await reserve({ ...limited, microcredits: 2 })
    t.match(await accounts.balanceOf(subject, periodStart), { used: 10, granted: 0 })
    t.match(await ledger.reserve(demandOf({ ...limited, microcredits: 1 })), { granted: false, reason: 'credits' })
    await reserve({ ...limited, microcredits: 0 })
  })

  t.test('what fits the period, or has no limit, takes nothing from the grants', async t => {
    const { accounts, reserve } = await withSevenUsed(t, open)
    await accounts.grant({ subject, microcredits: 4 })
    await reserve({ ...limited, microcredits: 3 })
    await reserve({ creditLimit: null, microcredits: 100 })
    t.match(await accounts.balanceOf(subject, periodStart), { used: 110, granted: 4 })
  })

  t.test('what a plan had more before it was changed is not taken from the grants', async t => {
    const { accounts, reserve } = await withSevenUsed(t, open)
    await accounts.grant({ subject, microcredits: 4 })
    await reserve({ creditLimit: 2, microcredits: 4 })
    t.match(await accounts.balanceOf(subject, periodStart), { used: 7, granted: 0 })
  })
}

function givingBack (t: Test, open: OpenStore): void {
  const ways: Readonly<Record<string, (books: Fixture, demand: Partial<ReserveRequest>) => Promise<unknown>>> = {
    'is given back before it was sent': async ({ ledger, at }, demand) =>
      ledger.advance(await at('reserved', demand), { to: 'released' }),
    'is refused': async ({ ledger, at }, demand) => ledger.advance(await at('sent', demand), { to: 'released' }),
    'is refused with an answer that is kept': async ({ ledger, at }, demand) =>
      ledger.advance(await at('reserved', { ...demand, idempotency: { key: 'one', fingerprint: 'print' } }), {
        to: 'released', answer: { status: 400, contentType: 'text/plain', body: answer }
      }),
    lapses: async ({ ledger, at, time }, demand) => {
      await at('reserved', demand)
      time.advance(terms.reservedMs)
      await ledger.sweep()
    },
    fails: async ({ ledger, at }, demand) => {
      await at('claimed', demand)
      await ledger.settle({ taskId: 'task', state: 'failed', answer })
    },
    'is let go by the operator': async ({ records, at }, demand) => records.release(await at('unknown', demand))
  }
  for (const [name, giveBack] of Object.entries(ways)) {
    t.test(`what ${name} goes back to the accounts that it came from`, async t => {
      const books = await withSevenUsed(t, open)
      await books.accounts.grant({ subject, microcredits: 9 })
      await giveBack(books, { ...limited, microcredits: 5 })
      t.match(await books.accounts.balanceOf(subject, periodStart), { used: 7, granted: 9, unfinished: 1 })
    })
  }

  t.test('a refund that is one too many gives nothing back to either', async t => {
    const { accounts, ledger, at } = await openBooks(t, open, { refundsPerPeriod: 1 })
    await accounts.grant({ subject, microcredits: 20 })
    for (const taskId of ['one', 'two']) {
      await at('claimed', { creditLimit: 8, microcredits: 5 }, taskId)
    }
    t.match(await accounts.balanceOf(subject, periodStart), { used: 8, granted: 18 })
    for (const taskId of ['two', 'one']) await ledger.settle({ taskId, state: 'failed', answer })
    t.match(
      await accounts.balanceOf(subject, periodStart),
      { used: 5, granted: 20 },
      'the second one, of three and two, came first'
    )
  })

  t.test('what is paid by grants alone is refunded, and counted, all the same', async t => {
    const { accounts, ledger, at } = await openBooks(t, open, { refundsPerPeriod: 1 })
    await accounts.grant({ subject, microcredits: 20 })
    for (const taskId of ['one', 'two']) {
      const id = await at('sent', { creditLimit: 0, microcredits: 5 })
      await ledger.advance(id, sent)
      await ledger.advance(id, { to: 'claimed', taskId })
      await ledger.settle({ taskId, state: 'failed', answer })
    }
    t.match(await accounts.balanceOf(subject, periodStart), { used: 0, granted: 15 })
  })
}
