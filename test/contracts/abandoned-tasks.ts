import type { Test } from 'tap'
import { hourMs } from '../../src/domain/time.ts'
import { answer, type Fixture, openBooks, type OpenStore, periodStart, type Place, places, terms } from './open-books.ts'

/** So many parallel calls meet each other. */
const parallel = 30

/** Every TaskLedger must pass this for `abandon`, whatever is behind it. */
export function abandonedTasksContract (t: Test, openStore: OpenStore): void {
  const open = (t: Test): Promise<Fixture> => openBooks(t, openStore)
  const giveUp = ({ ledger }: Pick<Fixture, 'ledger'>, taskId = 'task', mostPerHour = 100) =>
    ledger.abandon({ taskId, mostPerHour })

  t.test('a task that runs gives its slot back, and nothing else', async t => {
    const books = await open(t)
    const { ledger, accounts, records, unfinished, time, at, creditsUsed, slotsUsed } = books
    await at('claimed', { microcredits: 5 })
    await at('claimed', { microcredits: 3 }, 'other')
    time.advance(1000)
    t.same(await giveUp(books), { result: 'abandoned', at: time.now() })
    t.equal(await slotsUsed(), 1)
    t.equal(await creditsUsed(), 8)
    t.match(await accounts.balanceOf('app:alice', periodStart), { used: 8, unfinished: 1 })
    t.match(await ledger.taskOf('task'), { stage: 'claimed', microcredits: 5, finalAnswer: null })
    const { items } = await records.tasksOf('app:alice', { cursor: null, limit: 10 })
    t.match(items, [
      { taskId: 'other', abandonedAt: null },
      { taskId: 'task', stage: 'claimed', endedAt: null, abandonedAt: time.now() }
    ])
    const page = await unfinished.page(null, time.now(), 10)
    t.same(page.items.map(({ taskId }) => taskId), ['task', 'other'], 'both are still followed')
  })

  t.test('once more changes nothing, and tells since when', async t => {
    const books = await open(t)
    const { time, at, slotsUsed } = books
    await at('claimed')
    const first = await giveUp(books)
    time.advance(2 * hourMs)
    t.same(await giveUp(books, 'task', 1), first)
    t.equal(await slotsUsed(), 0)
  })

  for (const place of places.filter(place => place !== 'claimed')) {
    t.test(`what is ${place} can not be given up`, async t => {
      const books = await open(t)
      await books.at(place)
      await books.at('claimed', {}, 'other')
      const before = [await books.slotsUsed(), await books.creditsUsed()]
      t.same(await giveUp(books), { result: 'ended' })
      t.same([await books.slotsUsed(), await books.creditsUsed()], before)
    })
  }

  const ends: ReadonlyArray<readonly [Place | 'failed', number]> = [['settled', 5], ['failed', 0], ['given up', 5]]
  for (const [place, used] of ends) {
    t.test(`when it is ${place} after that, it gives no second slot, and credits as any other`, async t => {
      const books = await open(t)
      const { ledger, records, time, at, creditsUsed, slotsUsed } = books
      await at('claimed', {}, 'other')
      await at('claimed', { microcredits: 5 })
      time.advance(1000)
      await giveUp(books)
      const abandonedAt = time.now()
      if (place === 'given up') t.equal(await ledger.giveUp('task'), true)
      else await ledger.settle({ taskId: 'task', state: place === 'failed' ? 'failed' : 'success', answer })
      t.equal(await slotsUsed(), 1, place)
      t.equal(await creditsUsed(), used + 1, place)
      t.equal(await ledger.settle({ taskId: 'task', state: 'failed', answer }), place === 'given up')
      t.equal(await slotsUsed(), 1, `${place}, and ended late`)
      t.same(await giveUp(books), { result: 'ended' })
      t.match((await records.tasksOf('app:alice', { cursor: null, limit: 1 })).items, [{ taskId: 'task', abandonedAt }])
    })
  }

  t.test('one that never ends becomes unknown, and its slot came free before', async t => {
    const books = await open(t)
    const { ledger, time, at, slotsUsed } = books
    await at('claimed')
    await giveUp(books)
    await at('claimed', {}, 'other')
    time.advance(terms.giveUpMs)
    t.same(await ledger.sweep(), { released: 0, unknown: 2 })
    t.equal(await slotsUsed(), 0)
    await at('claimed', {}, 'next')
    t.equal(await slotsUsed(), 1)
  })

  t.test('when it ends in that moment, its slot comes free once', async t => {
    const books = await open(t)
    const { ledger, at, slotsUsed, creditsUsed } = books
    for (let round = 0; round < 12; round++) {
      const [subject, taskId] = [`app:${round}`, `task ${round}`]
      await at('claimed', { subject, microcredits: 5 }, `other ${round}`)
      await at('claimed', { subject, microcredits: 5 }, taskId)
      const ends = [() => ledger.settle({ taskId, state: 'failed', answer }), () => ledger.giveUp(taskId)]
      const calls = Array.from({ length: parallel }, (_, index) =>
        index % 4 === round % 4 ? ends[index % 2]! : () => giveUp(books, taskId))
      await Promise.all(calls.map(call => call()))
      await ledger.settle({ taskId, state: 'failed', answer })
      t.equal(await slotsUsed({ subject }), 1)
      t.equal(await creditsUsed({ subject }), 5, 'refunded once')
    }
  })

  t.test('a subject gives up so many within an hour, and hears when it may again', async t => {
    const books = await open(t)
    const { time, at, slotsUsed } = books
    for (const task of ['one', 'two', 'three', 'four']) await at('claimed', {}, task)
    await at('claimed', { subject: 'app:bob' }, 'of bob')
    const first = time.now()
    t.match(await giveUp(books, 'one', 2), { result: 'abandoned' })
    time.advance(60_000)
    t.match(await giveUp(books, 'two', 2), { result: 'abandoned' })
    t.same(await giveUp(books, 'three', 2), { result: 'limited', retryAt: first + hourMs })
    t.equal(await slotsUsed(), 2)
    t.match(await giveUp(books, 'one', 2), { result: 'abandoned' }, 'what was given up stays so')
    t.match(await giveUp(books, 'of bob', 2), { result: 'abandoned' }, 'another subject has its own')
    t.same(await giveUp(books, 'three', 1), { result: 'limited', retryAt: first + 60_000 + hourMs }, 'a smaller plan')
    await books.ledger.settle({ taskId: 'one', state: 'success', answer })
    t.match(await giveUp(books, 'three', 2), { result: 'limited' }, 'one that has ended counts as well')
    time.advance(hourMs - 60_000)
    t.match(await giveUp(books, 'three', 2), { result: 'abandoned' })
    t.match(await giveUp(books, 'four', 2), { result: 'limited' })
    time.advance(60_000)
    t.match(await giveUp(books, 'four', 2), { result: 'abandoned' })
    t.equal(await slotsUsed(), 0)
  })

  t.test('with room for one, one of many parallel calls gives its task up', async t => {
    const books = await open(t)
    const tasks = Array.from({ length: parallel }, (_, index) => `task ${index}`)
    for (const task of tasks) await books.at('claimed', {}, task)
    const answers = await Promise.all(tasks.map(task => giveUp(books, task, 1)))
    t.equal(answers.filter(({ result }) => result === 'abandoned').length, 1)
    t.equal(await books.slotsUsed(), parallel - 1)
  })
}
