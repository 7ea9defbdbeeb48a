import t from 'tap'
import { readUsageQuery, usageCsv, usageReport, type UsageRow } from '../../src/domain/records.ts'

const now = Date.UTC(2026, 1, 3, 23, 59)
const row = (more: Partial<UsageRow>): UsageRow => ({
  day: '2026-02-01',
  subject: 'app:alice',
  model: 'sora-2',
  tasks: 1,
  succeeded: 1,
  failed: 0,
  unknown: 0,
  microcredits: 1_000_000,
  ...more
})
const columns = 'tasks,succeeded,failed,unknown,credits\r\n'

t.test('what is not asked for is this month up to today, by subject', t => {
  t.strictSame(readUsageQuery({}, now), { from: '2026-02-01', to: '2026-02-03', by: ['subject'] })
  t.strictSame(readUsageQuery({ to: '2026-01-31' }, now), { from: '2026-01-01', to: '2026-01-31', by: ['subject'] })
  t.strictSame(readUsageQuery({ from: '2025-12-31', by: 'day,subject,model' }, now), {
    from: '2025-12-31',
    to: '2026-02-03',
    by: ['day', 'subject', 'model']
  })
  t.strictSame(readUsageQuery({ from: '2028-02-29', to: '2028-02-29' }, now).from, '2028-02-29')
  t.strictSame(readUsageQuery({ from: '2025-02-03', to: '2026-02-03' }, now).from, '2025-02-03', 'a year and a day')
  t.end()
})

t.test('days that are none, or too many, are refused by name', t => {
  for (const [asked, about] of [
    [{ from: '2026-02-29' }, /^from must/],
    [{ to: '2026-13-01' }, /^to must/],
    [{ from: '2026-2-1' }, /^from must/],
    [{ from: '2026-02-01T00:00' }, /^from must/],
    [{ from: '' }, /^from must/],
    [{ from: '2026-02-04' }, /^from \(2026-02-04\) is after to \(2026-02-03\)/],
    [{ from: '2025-02-02' }, /^from and to/],
    [{ by: 'subject,' }, /^by/],
    [{ by: 'Subject' }, /^by/]
  ] as const) { t.throws(() => readUsageQuery(asked, now), { code: 'GW_BAD_REQUEST', message: about }, JSON.stringify(asked)) }
  t.end()
})

t.test('rows that are alike in what they are grouped by are one, in the order of the groups', t => {
  const rows = [
    row({ subject: 'app:bob', microcredits: 100_000 }),
    row({ tasks: 3, failed: 2 }),
    row({ model: 'suno', unknown: 1 }),
    row({ day: '2026-02-02', subject: 'app:bob', microcredits: 200_000 })
  ]
  const sum = { tasks: 2, succeeded: 2, failed: 0, unknown: 0 }
  t.strictSame(
    usageReport({ from: 'a', to: 'b', by: ['subject'] }, rows),
    {
      from: 'a',
      to: 'b',
      by: ['subject'],
      rows: [
        { subject: 'app:alice', tasks: 4, succeeded: 2, failed: 2, unknown: 1, credits: 2 },
        { subject: 'app:bob', ...sum, credits: 0.3 }
      ]
    },
    'and 0.1 and 0.2 are 0.3'
  )
  t.strictSame(
    usageReport({ from: 'a', to: 'b', by: ['model', 'day'] }, rows).rows.map(({ model, day, subject, tasks }) => ({
      model,
      day,
      subject,
      tasks
    })),
    [
      { model: 'sora-2', day: '2026-02-01', subject: undefined, tasks: 4 },
      { model: 'sora-2', day: '2026-02-02', subject: undefined, tasks: 1 },
      { model: 'suno', day: '2026-02-01', subject: undefined, tasks: 1 }
    ]
  )
  t.same(rows[0], row({ subject: 'app:bob', microcredits: 100_000 }), 'what was given is left as it was')
  t.end()
})

t.test('names that contain what separates them stay apart', t => {
  const rows = [row({ subject: 'a:b","c' }), row({ subject: 'a:b', model: 'c' })]
  t.equal(usageReport({ from: 'a', to: 'b', by: ['subject', 'model'] }, rows).rows.length, 2)
  t.end()
})

t.test('CSV has a line of names, even when there is nothing to tell', t => {
  t.equal(usageCsv({ from: 'a', to: 'b', by: ['day', 'model'], rows: [] }), `day,model,${columns}`)
  t.end()
})

t.test('a subject can not end its cell', t => {
  const csv = (subject: string) => usageCsv(usageReport({ from: 'a', to: 'b', by: ['subject'] }, [row({ subject })]))
  for (const [subject, cell] of [
    ['a,b', '"a,b"'],
    ['a"b', '"a""b"'],
    ['a\r\nb', '"a\r\nb"'],
    ['a;b', '"a;b"'],
    ['","=1', '""",""=1"']
  ] as const) {
    t.equal(csv(subject), `subject,${columns}${cell},1,1,0,0,1\r\n`)
  }
  t.end()
})

t.test('no cell is a formula to a spreadsheet', t => {
  const report = (subject: string) =>
    usageCsv(usageReport({ from: 'a', to: 'b', by: ['subject'] }, [row({ subject })])).split('\r\n')[1]
  for (const start of ['=', '+', '-', '@', '\t', '\r', '\n', '\uFF1D', '\uFF0B', '\uFF0D', '\uFF20']) {
    t.ok(
      usageCsv(
        usageReport({ from: 'a', to: 'b', by: ['subject'] }, [row({ subject: `${start}cmd|' /C calc'!A0` })])
      ).includes(`"'${start}cmd|' /C calc'!A0"`),
      JSON.stringify(start)
    )
  }
  t.equal(report('app:=1+1'), '"app:=1+1",1,1,0,0,1', 'what begins with an issuer is left as it is')
  t.end()
})
