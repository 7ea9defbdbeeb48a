import { readTaskFilter } from '../domain/task-list.ts'
import { checkSubject, type ShownTask } from '../features/admin/admin.ts'
import { choiceOf, type Column, type Command, type Given, shortInstant, table, UsageError } from './command.ts'
import { first, printList, withOperator } from './operator.ts'

export const task: Command = {
  usage: `task list [--subject SUBJECT] [--state STATE] [--model NAME]
                              [--from DAY] [--to DAY]
                              [--limit N] [--format FORMAT]
       apixo-gateway task show ID

  Tasks of everybody, the newest first, or one in full: how far it has come,
  what it has cost, and by which upstream key it was sent. Neither prompts nor
  answers are shown.

  --subject  whose: in its stored form, app:alice
  --state    running, success, failed or unknown; what runs now is found at once
  --model    such as nano-banana
  --from     the first day (UTC) on which it was made, such as 2026-01-01
  --to       the last one
  --limit    how many; 50 when absent
  --format   table (for people) or json; table when absent
  ID         a task id, or an id of the list
`,
  options: {
    subject: { type: 'string' },
    state: { type: 'string' },
    model: { type: 'string' },
    from: { type: 'string' },
    to: { type: 'string' },
    limit: { type: 'string' },
    format: { type: 'string' }
  },
  operands: [1, 2],
  async run ({ operands: [verb, id], options }) {
    const action = choiceOf('The word after task', verb!, ['list', 'show'])
    if ((action === 'show') !== (id !== undefined)) throw new UsageError('Say task list, or task show ID.')
    if (action === 'list') await list(options)
    else await show(id!)
    return 0
  }
}

const columns: ReadonlyArray<Column<ShownTask>> = [
  { title: 'made (UTC)', of: ({ createdAt }) => shortInstant(createdAt) },
  { title: 'subject', of: ({ subject }) => subject, shrinks: true },
  { title: 'model', of: ({ model }) => model, shrinks: true },
  { title: 'state', of: ({ state }) => state },
  { title: 'credits', of: ({ credits, refunded }) => refunded ? `${credits} (refunded)` : credits },
  { title: 'id', of: ({ id, taskId }) => taskId ?? id }
]

async function list ({ subject, limit = '50', format, ...narrowed }: Given['options']): Promise<void> {
  if (subject !== undefined) checkSubject(subject)
  const filter = { subject, ...readTaskFilter(narrowed) }
  await printList({ limit, format }, most =>
    withOperator(operator => first(most, page => operator.tasks(page, filter))), items =>
    items.length === 0 ? 'There are no such tasks.\n' : table(columns, items))
}

async function show (id: string): Promise<void> {
  const found = await withOperator(operator => operator.task(id))
  if (found === null) throw new Error(`There is no task ${id}.`)
  process.stdout.write(`${JSON.stringify(found, null, 2)}\n`)
}
