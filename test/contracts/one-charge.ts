import type { Test } from 'tap'
import type { FinalState } from '../../src/domain/upstream.ts'
import { type Fixture, openBooks, type OpenStore, periodStart, sent, terms } from './open-books.ts'

/** What may happen to a submit that has been sent. The three that end it say different things. */
const happenings = ['claimed', 'poll', 'callback', 'reconciler', 'given up', 'unknown'] as const
type Happening = (typeof happenings)[number]

const states: Readonly<Partial<Record<Happening, FinalState>>> = {
  poll: 'failed',
  callback: 'success',
  reconciler: 'failed'
}
const price = 5

/** All orders of a list. */
function permutations<Item> (items: readonly Item[]): Item[][] {
  if (items.length === 0) return [[]]
  return items.flatMap((item, index) => permutations(items.toSpliced(index, 1)).map(rest => [item, ...rest]))
}

const orders = permutations(happenings)

/** Whatever happens to a submit, and in whatever order: it is one row and one charge, or one refund. */
export function oneChargeContract (t: Test, open: OpenStore): void {
  const repetitions: Readonly<Record<string, (order: readonly Happening[]) => Happening[]>> = {
    'each once': order => [...order],
    'each twice in a row': order => order.flatMap(one => [one, one]),
    'all over again': order => [...order, ...order]
  }
  for (const [name, repeat] of Object.entries(repetitions)) {
    t.test(
      `in each of ${orders.length} orders of what may happen to a submit, ${name}, it is charged once or refunded once`,
      async t => {
        const books = await openBooks(t, open, { refundsPerPeriod: 1 })
        const wrong: string[] = []
        for (const [index, order] of orders.map(repeat).entries()) {
          const problem = await problemOf(books, `app:${index}`, order)
          if (problem !== null) wrong.push(`${order.join(', ')}: ${problem}`)
        }
        t.same(wrong, [])
      }
    )
  }

  t.test('refunds end at their number, whatever the order', async t => {
    const refundsPerPeriod = 100
    const books = await openBooks(t, open, { refundsPerPeriod })
    let failed = 0
    for (const [index, order] of orders.entries()) {
      const { ended } = await run(books, 'app:alice', `task ${index}`, order)
      if (ended === 'poll' || ended === 'reconciler') failed++
    }
    t.ok(failed > refundsPerPeriod)
    t.match(await books.accounts.balanceOf('app:alice', periodStart), {
      used: price * (orders.length - refundsPerPeriod)
    })
  })
}

interface Run {
  /** The call that ended the task. */
  readonly ended: Happening | null
  /** More than one did, or one that could not. */
  readonly isOdd: boolean
  /** What was charged after each happening. */
  readonly charges: readonly number[]
}

async function run (books: Fixture, subject: string, taskId: string, order: readonly Happening[]): Promise<Run> {
  const { ledger, time } = books
  const id = await books.reserve({ subject, microcredits: price })
  await ledger.advance(id, sent)
  const endings: Happening[] = []
  const charges: number[] = []
  let isClaimed = false
  let isOdd = false
  for (const one of order) {
    const state = states[one]
    if (state !== undefined) {
      const ends = await ledger.settle({ taskId, state, answer: Buffer.from(one) })
      if (ends !== (isClaimed && endings.length === 0)) isOdd = true
      if (ends) endings.push(one)
    } else if (one === 'claimed') {
      isClaimed = await ledger.advance(id, { to: 'claimed', taskId })
      if (!isClaimed) isOdd = true
    } else if (one === 'unknown') {
      await ledger.advance(id, { to: 'unknown' })
    } else {
      time.advance(terms.giveUpMs)
      await ledger.sweep()
    }
    charges.push((await books.accounts.balanceOf(subject, periodStart)).used)
  }
  return { ended: endings[0] ?? null, isOdd, charges }
}

/** What is wrong with the books after all this; `null`: nothing. */
async function problemOf (books: Fixture, subject: string, order: readonly Happening[]): Promise<string | null> {
  const taskId = `task of ${subject}`
  const { ended, isOdd, charges } = await run(books, subject, taskId, order)
  if (isOdd) return 'an end or a claim that was not open was taken, or one that was open was not'
  const state = ended === null ? null : states[ended]!
  const end =
    ended === null
      ? order.length
      : order.findIndex((one, index) => one === ended && order.slice(0, index).includes('claimed'))
  const expected = order.map((_, index) => (state === 'failed' && index >= end ? 0 : price))
  if (charges.join() !== expected.join()) return `charged ${charges.join()}, not ${expected.join()}`
  const { items } = await books.records.tasksOf(subject, { cursor: null, limit: 10 })
  if (items.length !== 1) return `${items.length} rows`
  if (items[0]!.state !== state) return `ended ${items[0]!.state}, not ${state}`
  const answer = (await books.ledger.taskOf(taskId))?.finalAnswer?.toString() ?? null
  if (answer !== ended) return `answered ${answer}, not ${ended}`
  const { unfinished } = await books.accounts.balanceOf(subject, periodStart)
  return unfinished === (items[0]!.stage === 'claimed' ? 1 : 0) ? null : `${unfinished} slots taken`
}
