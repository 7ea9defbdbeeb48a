import { creditsFrom } from '../domain/ledger/balance.ts'
import { readUsageQuery, type UsageReport, type UsageSum, usageColumns, usageCsv } from '../domain/operator/usage.ts'
import { microcredits } from '../domain/policy/pricing.ts'
import type { Command } from './command.ts'
import { withOperator } from './ledger.ts'
import { type Column, table } from './table.ts'
import { choiceOf } from './words.ts'

export const command: Command = {
  usage: `usage [--from DAY] [--to DAY] [--by WHAT] [--format FORM]

  What was spent, from the first to the last of these days, both included: UTC
  days of the submit.

  --from    such as 2026-01-01; the first of the month when absent
  --to      such as 2026-01-31; today when absent
  --by      subject, model, day, or several with commas between;
            subject when absent
  --format  table (for people), csv or json; table when absent
`,
  options: { from: { type: 'string' }, to: { type: 'string' }, by: { type: 'string' }, format: { type: 'string' } },
  async run ({ options: { format = 'table', ...asked } }) {
    const write = formats[choiceOf('--format', format, ['table', 'csv', 'json'])]
    const query = readUsageQuery(asked, Date.now())
    process.stdout.write(write(await withOperator(operator => operator.usage(query))))
    return 0
  }
}

const formats = {
  csv: usageCsv,
  json: (report: UsageReport) => `${JSON.stringify(report, null, 2)}\n`,
  table: (report: UsageReport) => {
    const { from, to, by, rows } = report
    if (rows.length === 0) return `No tasks from ${from} to ${to}.\n`
    const columns = usageColumns(report).map((name): Column<UsageSum> => ({
      title: name,
      of: row => row[name]!,
      ...(name === 'subject' || name === 'model' ? { shrinks: true } : {})
    }))
    const shown = rows.length === 1 ? rows : [...rows, { ...total(rows), [by[0]!]: 'total' }]
    return `From ${from} to ${to}:\n\n${table(columns, shown)}`
  }
}

function total (rows: readonly UsageSum[]): UsageSum {
  const sum = { subject: '', model: '', day: '', tasks: 0, succeeded: 0, failed: 0, unknown: 0, credits: 0 }
  for (const row of rows) {
    for (const name of ['tasks', 'succeeded', 'failed', 'unknown'] as const) sum[name] += row[name]
    sum.credits += microcredits(row.credits) // whole numbers: 0.1 + 0.2 is not 0.3
  }
  return { ...sum, credits: creditsFrom(sum.credits) }
}
