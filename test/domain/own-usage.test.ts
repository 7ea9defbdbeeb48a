import t from 'tap'
import { ownUsage, ownUsageCsv, readOwnUsageQuery } from '../../src/domain/own-usage.ts'
import type { PageRequest, TaskRecord } from '../../src/domain/records.ts'

const now = Date.UTC(2026, 1, 3, 23, 59)
const [second, third] = [Date.UTC(2026, 1, 2), Date.UTC(2026, 1, 3)]
const record = (more: Partial<TaskRecord>): TaskRecord => ({
  id: '1',
  subject: 'app:alice',
  taskId: 'task',
  operation: 'generateTask',
  model: 'sora-2',
  stage: 'settled',
  state: 'success',
  microcredits: 100_000,
  refunded: false,
  createdAt: second,
  endedAt: third,
  abandonedAt: null,
  ...more
})
const query = { from: '2026-02-01', to: '2026-02-03', by: ['day'] } as const

/** Two pages of them. */
const over = (records: readonly TaskRecord[]) => ({
  async tasksOf (_subject: string, { cursor }: PageRequest) {
    return cursor === null
      ? { items: records.slice(0, 2), next: 'more' }
      : { items: records.slice(2), next: null }
  }
})

t.test('what is not asked for is this month up to today by day, as far as tasks are kept', t => {
  t.strictSame(readOwnUsageQuery({}, now, 30), { from: '2026-02-01', to: '2026-02-03', by: ['day'] })
  t.strictSame(readOwnUsageQuery({}, now, 2), { from: '2026-02-02', to: '2026-02-03', by: ['day'] })
  t.strictSame(readOwnUsageQuery({ to: '2026-01-31', by: 'state,model' }, now, 30), {
    from: '2026-01-05', to: '2026-01-31', by: ['state', 'model']
  })
  t.end()
})

t.test('days that are none, or not kept, and groups that are none are refused by name', t => {
  for (const [asked, about] of [
    [{ from: '2026-02-30' }, /^from must be a day/],
    [{ to: '2026-2-1' }, /^to must be a day/],
    [{ from: '2026-01-04' }, /^from must be 2026-01-05 or later: tasks are kept so long\.$/],
    [{ to: '2026-01-04' }, /^from \(2026-01-05\) is after to/],
    [{ from: '2026-02-03', to: '2026-02-02' }, /^from \(2026-02-03\) is after to/],
    [{ by: 'subject' }, /^by must be one or more of day, model, state/],
    [{ by: 'day,day' }, /^by/]
  ] as const) {
    t.throws(() => readOwnUsageQuery(asked, now, 30), { code: 'GW_BAD_REQUEST', message: about }, JSON.stringify(asked))
  }
  t.end()
})

t.test('credits are charged, refunded or set aside, each once, and sums of decimals are exact', async t => {
  const records = [
    record({ microcredits: 100_000 }),
    record({ microcredits: 200_000 }),
    record({ state: 'failed', refunded: true, microcredits: 400_000, createdAt: third }),
    record({ stage: 'claimed', state: null, endedAt: null, microcredits: 700_000, createdAt: third }),
    record({ stage: 'unknown', state: null, model: 'suno' }),
    record({ operation: 'batch', microcredits: 0 })
  ]
  t.strictSame(await ownUsage(over(records), 'app:alice', query), {
    ...query,
    rows: [
      { day: '2026-02-02', tasks: 3, charged: 0.4, refunded: 0, setAside: 0 },
      { day: '2026-02-03', tasks: 2, charged: 0, refunded: 0.4, setAside: 0.7 }
    ],
    total: { tasks: 5, charged: 0.4, refunded: 0.4, setAside: 0.7 }
  })
  t.strictSame((await ownUsage(over(records), 'app:alice', { ...query, by: ['model', 'state'] })).rows, [
    { model: 'sora-2', state: 'failed', tasks: 1, charged: 0, refunded: 0.4, setAside: 0 },
    { model: 'sora-2', state: 'running', tasks: 1, charged: 0, refunded: 0, setAside: 0.7 },
    { model: 'sora-2', state: 'success', tasks: 2, charged: 0.3, refunded: 0, setAside: 0 },
    { model: 'suno', state: 'unknown', tasks: 1, charged: 0.1, refunded: 0, setAside: 0 }
  ])
  t.equal(
    ownUsageCsv(await ownUsage(over(records), 'app:alice', { ...query, by: ['day', 'state'] })).split('\r\n')[1],
    '"2026-02-02","success",2,0.3,0,0'
  )
})

t.test('a report on nothing is its names and zeros', async t => {
  const report = await ownUsage(over([]), 'app:alice', query)
  t.strictSame(report, { ...query, rows: [], total: { tasks: 0, charged: 0, refunded: 0, setAside: 0 } })
  t.equal(ownUsageCsv(report), 'day,tasks,charged,refunded,setAside\r\n')
})

t.test('a model can be no formula to a spreadsheet', async t => {
  const report = await ownUsage(over([record({ model: '=1+1' })]), 'app:alice', { ...query, by: ['model'] })
  t.match(ownUsageCsv(report), '"\'=1+1",1,')
})
