import type { Test } from 'tap'
import type { DeliveryAttempt } from '../../src/domain/webhooks.ts'
import { answer, type Fixture, openBooks, type OpenStore } from './open-books.ts'

const deliverTo = 'https://app.example/hooks?a=ä%20\'"'

/** Every Deliveries must pass this, whatever is behind it. */
export function deliveriesContract (t: Test, open: OpenStore): void {
  for (const group of [becomingDue, attempting, ending]) group(t, open)
}

const failed = (at: number): DeliveryAttempt => ({ at, status: 503, error: null })

async function ended ({ at, ledger }: Fixture, taskId: string, more = {}): Promise<void> {
  await at('claimed', { deliverTo, ...more }, taskId)
  await ledger.settle({ taskId, state: 'success', answer })
}

function becomingDue (t: Test, open: OpenStore): void {
  t.test('a delivery is due from the step that ends its task, with the final answer, byte for byte', async t => {
    const { deliveries, ledger, at, time } = await openBooks(t, open)
    await at('claimed', { deliverTo }, 'one')
    t.same(await deliveries.due(10), [])
    t.same(await deliveries.of('one'), { taskId: 'one', url: deliverTo, attempts: [], nextAt: null })
    const body = Buffer.from('{"data":"\\u0000 ä"}\0')
    await ledger.settle({ taskId: 'one', state: 'failed', answer: body })
    const delivery = { taskId: 'one', url: deliverTo, attempts: [], nextAt: time.now() }
    t.same(await deliveries.due(10), [{ ...delivery, body }])
    t.same(await deliveries.of('one'), delivery)
  })

  t.test('a task ends once, and so its delivery is due once', async t => {
    const books = await openBooks(t, open)
    await ended(books, 'one')
    await books.deliveries.attempted('one', { at: 1, status: 200, error: null }, null)
    t.equal(await books.ledger.settle({ taskId: 'one', state: 'failed', answer }), false)
    t.same(await books.deliveries.due(10), [])
  })

  t.test('a task that was given up and ends late is delivered then', async t => {
    const { deliveries, ledger, at } = await openBooks(t, open)
    await at('given up', { deliverTo }, 'one')
    t.same(await deliveries.due(10), [])
    await ledger.settle({ taskId: 'one', state: 'success', answer })
    t.match(await deliveries.due(10), [{ taskId: 'one' }])
  })

  t.test('who did not ask has none, and what came to nothing has none', async t => {
    const { deliveries, ledger, at } = await openBooks(t, open)
    await at('settled', {}, 'one')
    await at('released', { deliverTo })
    const lapsed = await at('unknown', { deliverTo })
    t.same(await deliveries.due(10), [])
    t.equal(await deliveries.of('one'), null)
    t.equal(await deliveries.of("nobody's"), null)
    await ledger.advance(lapsed, { to: 'claimed', taskId: 'late' })
    t.match(await deliveries.of('late'), { url: deliverTo, nextAt: null })
  })
}

function attempting (t: Test, open: OpenStore): void {
  t.test(
    "the one that has waited longest is the first, whoever's it is, and no more come than were asked for",
    async t => {
      const books = await openBooks(t, open)
      const names = ['c', 'a', 'd', 'b']
      for (const [index, taskId] of names.entries()) {
        await ended(books, taskId, { subject: `app:${index % 3}` })
        books.time.advance(1)
      }
      t.same(
        (await books.deliveries.due(10)).map(({ taskId }) => taskId),
        names
      )
      t.same(
        (await books.deliveries.due(2)).map(({ taskId }) => taskId),
        ['c', 'a']
      )
    }
  )

  t.test('attempts are kept in their order, and the next is due at its time', async t => {
    const books = await openBooks(t, open)
    const { deliveries, time } = books
    await ended(books, 'one')
    const attempts = [failed(time.now()), { at: time.now() + 1, status: null, error: 'timeout' as const }]
    for (const attempt of attempts) await deliveries.attempted('one', attempt, time.now() + 30_000)
    t.same(await deliveries.due(10), [])
    t.same(await deliveries.of('one'), { taskId: 'one', url: deliverTo, attempts, nextAt: time.now() + 30_000 })
    time.advance(29_999)
    t.same(await deliveries.due(10), [])
    time.advance(1)
    t.match(await deliveries.due(10), [{ taskId: 'one', attempts, body: answer }])
  })

  t.test('attempts of many at once are all kept', async t => {
    const books = await openBooks(t, open)
    await ended(books, 'one')
    await Promise.all(Array.from({ length: 20 }, (_, at) => books.deliveries.attempted('one', failed(at), 1)))
    t.equal((await books.deliveries.of('one'))?.attempts.length, 20)
  })

  t.test('where nothing is due any more, nothing becomes so', async t => {
    const books = await openBooks(t, open)
    await ended(books, 'one')
    await books.deliveries.attempted('one', { at: 1, status: 204, error: null }, null)
    await books.deliveries.attempted('one', failed(2), 3)
    t.match(await books.deliveries.of('one'), {
      nextAt: null,
      attempts: [
        { at: 1, status: 204 },
        { at: 2, status: 503 }
      ]
    })
    t.same(await books.deliveries.due(10), [])
  })

  t.test('an attempt for a task that is forgotten is forgotten', async t => {
    const { deliveries } = await openBooks(t, open)
    await deliveries.attempted('gone', failed(1), 2)
    t.equal(await deliveries.of('gone'), null)
  })
}

function ending (t: Test, open: OpenStore): void {
  t.test('a delivery is kept as long as its task', async t => {
    const books = await openBooks(t, open, { retentionMs: 1000 })
    await ended(books, 'one')
    books.time.advance(999)
    await books.tidyAll()
    t.match(await books.deliveries.due(10), [{ taskId: 'one' }])
    books.time.advance(1)
    await books.tidyAll()
    t.same(await books.deliveries.due(10), [])
    t.equal(await books.deliveries.of('one'), null)
  })

  t.test('deliveries of many subjects are found, also of those that do nothing else any more', async t => {
    const books = await openBooks(t, open)
    for (let count = 0; count < 120; count++) await ended(books, `task ${count}`, { subject: `app:${count}` })
    books.time.advance(20 * 60_000)
    await books.tidyAll()
    t.equal((await books.deliveries.due(200)).length, 120)
    for (let count = 0; count < 120; count++) {
      await books.deliveries.attempted(`task ${count}`, failed(1), count % 2 ? null : books.time.now() + 3_600_000)
    }
    t.same(await books.deliveries.due(200), [])
    books.time.advance(3_600_000)
    await books.tidyAll()
    t.equal((await books.deliveries.due(200)).length, 60)
  })
}
