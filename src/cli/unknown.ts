import type { UnknownTask } from '../domain/operator/operator.ts'
import { type Command, UsageError } from './command.ts'
import { first, withOperator } from './ledger.ts'
import { type Column, shortInstant, table } from './table.ts'
import { choiceOf, countOf } from './words.ts'

export const command: Command = {
  usage: `unknown [--limit N] [--format FORMAT]
       apixo-gateway unknown release ID

  Submits and tasks without a known end that are still charged, the oldest
  first: the upstream may have accepted them. Look there; what it has not made,
  let go: its credits are given back.

  --limit   how many; 100 when absent
  --format  table (for people) or json; table when absent
`,
  options: { limit: { type: 'string' }, format: { type: 'string' } },
  operands: [0, 2],
  run: async ({ operands: [verb, id], options }) => verb === undefined ? await list(options) : await release(verb, id!)
}

const columns: ReadonlyArray<Column<UnknownTask>> = [
  { title: 'id', of: ({ id }) => id },
  { title: 'made (UTC)', of: ({ createdAt }) => shortInstant(createdAt) },
  { title: 'subject', of: ({ subject }) => subject, shrinks: true },
  { title: 'model', of: ({ model }) => model, shrinks: true },
  { title: 'credits', of: ({ credits }) => credits },
  { title: 'task id', of: ({ taskId }) => taskId ?? '-', shrinks: true }
]

async function list ({ limit = '100', format = 'table' }: Readonly<Record<string, string | undefined>>): Promise<number> {
  const [most, form] = [countOf('--limit', limit), choiceOf('--format', format, ['table', 'json'])]
  const { items, hasMore } = await withOperator(operator => first(most, operator.unknowns))
  if (form === 'json') process.stdout.write(`${JSON.stringify(items, null, 2)}\n`)
  else process.stdout.write(items.length === 0 ? 'All is known.\n' : table(columns, items))
  if (hasMore) process.stderr.write('There are more: see --limit.\n')
  return 0
}

async function release (verb: string, id: string): Promise<number> {
  if (verb !== 'release') throw new UsageError('What can be done with one of them is: release.')
  if (!await withOperator(operator => operator.release(id))) throw new Error(`${id} is none of them, or not any more.`)
  process.stdout.write('Released: its credits are given back.\n')
  return 0
}
