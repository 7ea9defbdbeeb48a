import t from 'tap'
import type { TaskRecord } from '../../src/domain/records.ts'
import { filteredPage, readTaskFilter, taskStateOf } from '../../src/domain/task-list.ts'
import { wholeRecord } from '../helpers/whole.ts'

const dayMs = 86_400_000
const record = (number: number, more: Partial<TaskRecord> = {}): TaskRecord =>
  wholeRecord({ id: String(number), taskId: `task ${number}`, model: 'suno', microcredits: 1, createdAt: number, ...more })

/** So many rows, the newest first, of which every seventh is past its retention; and how many were read. */
function list (count: number, of: (number: number) => Partial<TaskRecord> = () => ({})) {
  const read: number[] = []
  return {
    read,
    page: (cursor: string | null, limit: number, filter = {}) => filteredPage({ cursor, limit }, filter, {
      read (cursor, most) {
        const newest = cursor === null ? count - 1 : Number(cursor) - 1
        const numbers = Array.from({ length: Math.max(0, Math.min(most, newest + 1)) }, (_, index) => newest - index)
        read.push(numbers.length)
        return numbers
      },
      recordOf: number => number % 7 === 3 ? null : record(number, of(number)),
      cursorOf: String
    })
  }
}

t.test('a day and a state are read, and what is neither is refused by name', t => {
  t.strictSame(readTaskFilter({}), { model: undefined, state: undefined, from: undefined, before: undefined })
  t.strictSame(readTaskFilter({ model: 'sora-2', state: 'failed', from: '2026-02-28', to: '2026-02-28' }), {
    model: 'sora-2', state: 'failed', from: Date.UTC(2026, 1, 28), before: Date.UTC(2026, 2, 1)
  })
  for (const [asked, about] of [
    [{ state: 'done' }, /^state must be one of running, success, failed, unknown\.$/],
    [{ state: '' }, /^state/],
    [{ model: 'a b' }, /^model/],
    [{ model: '' }, /^model/],
    [{ from: '2026-02-30' }, /^from must/],
    [{ to: 'today' }, /^to must/],
    [{ from: '2026-02-02', to: '2026-02-01' }, /^from \(2026-02-02\) is after to \(2026-02-01\)\.$/]
  ] as const) t.throws(() => readTaskFilter(asked), { code: 'GW_BAD_REQUEST', message: about }, JSON.stringify(asked))
  t.end()
})

t.test('a task that is settled without a state of the upstream has succeeded', t => {
  t.equal(taskStateOf({ stage: 'settled', state: null }), 'success')
  t.equal(taskStateOf({ stage: 'settled', state: 'failed' }), 'failed')
  t.equal(taskStateOf({ stage: 'unknown', state: null }), 'unknown')
  t.equal(taskStateOf({ stage: 'sent', state: null }), 'running')
  t.end()
})

t.test('however few rows are wanted of however many, one page is bounded work', async t => {
  const { page, read } = list(100_000, number => ({ model: number === 5 ? 'veo' : 'suno' }))
  const first = await page(null, 10, { model: 'veo' })
  t.same(first.items, [])
  t.ok(Number(first.next) > 0)
  t.ok(Math.max(...read) <= 251, 'in slices')
  const looked = read.reduce((sum, rows) => sum + rows)
  t.ok(looked >= 10_000 && looked <= 10_251)
  let [found, cursor] = [first.items, first.next]
  while (cursor !== null) {
    const more = await page(cursor, 10, { model: 'veo' })
    found = [...found, ...more.items]
    cursor = more.next
  }
  t.match(found, [{ taskId: 'task 5' }])
})

t.test('a list that begins at a day ends well before its oldest row', async t => {
  const { page, read } = list(20_000, number => ({ createdAt: number * 60_000 }))
  const from = 19_000 * 60_000
  let count = 0
  let cursor: string | null = null
  do {
    const { items, next }: Awaited<ReturnType<typeof page>> = await page(cursor, 100, { from })
    t.ok(items.every(({ createdAt }) => createdAt >= from))
    count += items.length
    cursor = next
  } while (cursor !== null)
  t.equal(count, 857, 'a thousand without those that are past their retention')
  t.ok(read.reduce((sum, rows) => sum + rows) < 10_000)
})

t.test('a list without a filter reads no more than it shows, but for rows that are gone', async t => {
  const { page, read } = list(30)
  t.same((await page(null, 4)).items.map(({ id }) => Number(id)), [29, 28, 27, 26])
  t.same(read, [5])
  t.same((await page('25', 4)).items.map(({ id }) => Number(id)), [23, 22, 21, 20], 'the 24th is past its retention')
  t.same(await page(null, 100), {
    items: Array.from({ length: 30 }, (_, index) => 29 - index).filter(number => number % 7 !== 3)
      .map(number => record(number)),
    next: null
  })
  t.equal((await page(null, 100, { from: 3 * dayMs })).next, null)
})
