import type { ShownAuditEntry } from '../domain/operator/operator.ts'
import type { Command } from './command.ts'
import { first, withOperator } from './ledger.ts'
import { type Column, paragraph, shortInstant, table } from './table.ts'
import { choiceOf, countOf } from './words.ts'

export const command: Command = {
  usage: `audit [--limit N] [--format FORMAT]

  Who did what, the newest first: sessions minted and revoked, credits granted
  and released, settings that changed, secrets that rotated while the gateway
  ran, and what was refused to whom.

  --limit   how many; 50 when absent
  --format  table (for people) or json; table when absent
`,
  options: { limit: { type: 'string' }, format: { type: 'string' } },
  async run ({ options: { limit = '50', format = 'table' } }) {
    const [most, form] = [countOf('--limit', limit), choiceOf('--format', format, ['table', 'json'])]
    const { items, hasMore } = await withOperator(operator => first(most, operator.audit))
    if (form === 'json') process.stdout.write(`${JSON.stringify(items, null, 2)}\n`)
    else process.stdout.write(listing(items))
    if (hasMore) process.stderr.write('There are more: see --limit.\n')
    return 0
  }
}

const columns: ReadonlyArray<Column<ShownAuditEntry>> = [
  { title: 'at (UTC)', of: ({ at }) => shortInstant(at) },
  { title: 'what', of: ({ kind }) => kind },
  { title: 'by', of: ({ actor }) => actor, shrinks: true },
  { title: 'subject', of: ({ subject }) => subject ?? '-', shrinks: true }
]

/** A table, with what is known of each entry under its row: it is most of what one wants to know, and too long for a cell. */
function listing (entries: readonly ShownAuditEntry[]): string {
  const [head, ...rows] = table(columns, entries).trimEnd().split('\n')
  return `${head}\n${rows.map((row, index) => `${row}\n${paragraph(facts(entries[index]!.detail))}`).join('')}`
}

/** Without what only the next comparison of settings needs. */
function facts ({ snapshot, digest, ...detail }: ShownAuditEntry['detail']): string[] {
  return Object.entries(detail).map(([name, value]) => `${name}=${value}`)
}
