import type { Test } from 'tap'
import { pagesOf } from '../helpers/pages.ts'
import { answer, type Fixture, openBooks, type OpenStore } from './open-books.ts'

/** Every UnfinishedTasks must pass this, whatever is behind it. */
export function unfinishedTasksContract (t: Test, open: OpenStore): void {
  t.test('claimed tasks are found in pages, as the ledger knows them, and no others', async t => {
    const books = await openBooks(t, open)
    const claimed: string[] = []
    const places = ['claimed', 'settled', 'unknown', 'sent', 'reserved'] as const
    for (let count = 0; count < 25; count++) {
      const place = places[count % places.length]!
      await books.at(place, { subject: `app:${count}`, model: 'suno' }, `task ${count}`)
      if (place === 'claimed') claimed.push(`task ${count}`)
    }
    t.same(await allPages(t, books, books.time.now() + 1, 2), claimed.sort())
  })

  t.test('tasks that stay unfinished are found, however many end between two pages', async t => {
    const books = await openBooks(t, open)
    for (let count = 0; count < 12; count++) await books.at('claimed', {}, `task ${count}`)
    let count = 0
    const found = await allPages(t, books, books.time.now() + 1, 3, async () => {
      await books.ledger.settle({ taskId: `task ${count}`, state: 'success', answer })
      count += 2
    })
    for (const taskId of ['task 1', 'task 3', 'task 5', 'task 7', 'task 9', 'task 11']) {
      t.ok(found.includes(taskId), taskId)
    }
  })

  t.test('tasks that are too young are left out', async t => {
    const books = await openBooks(t, open)
    await books.at('claimed', {}, 'old')
    books.time.advance(1000)
    await books.at('claimed', {}, 'young')
    const now = books.time.now()
    t.same(await allPages(t, books, now - 1001, 10), [])
    t.same(await allPages(t, books, now - 1, 10), ['old'])
    t.same(await allPages(t, books, now + 1, 10), ['old', 'young'])
  })
}

/** Their ids, sorted. */
async function allPages (
  t: Test,
  { ledger, unfinished }: Pick<Fixture, 'ledger' | 'unfinished'>,
  before: number,
  limit: number,
  between = async () => {}
): Promise<string[]> {
  const found = new Set<string>()
  for await (const { items, next } of pagesOf(cursor => unfinished.page(cursor, before, limit))) {
    t.ok(items.length <= limit)
    for (const task of items) {
      t.same(task, await ledger.taskOf(task.taskId))
      found.add(task.taskId)
    }
    if (next !== null) await between()
  }
  return [...found].sort()
}
