import { creditsFrom } from '../domain/ledger.ts'
import { microcredits } from '../domain/policy.ts'
import {
  type Page, type PageQuery, readUsageQuery, usageColumns, usageCsv, type UsageReport, type UsageSum
} from '../domain/records.ts'
import { issueTimes } from '../domain/session.ts'
import type { Store } from '../domain/store.ts'
import { systemClock } from '../domain/time.ts'
import { type Operator, operator, type ShownAuditEntry, type UnknownTask } from '../features/admin/admin.ts'
import type { Settings } from '../settings.ts'
import {
  choiceOf, type Column, type Command, countOf, type Given, hint, paragraph, shortInstant, table, UsageError
} from './command.ts'

const { now } = systemClock

/** Lets the operator work beside a server that may be running. */
export async function withOperator<Result> (
  work: (operator: Operator, store: Store) => Promise<Result>
): Promise<Result> {
  return await withStore((_settings, store) => {
    const { accounts, records, deliveries, revocations, tokens, audit: trail } = store
    const times = issueTimes({ revocations, now })
    return work(operator({ accounts, records, deliveries, revocations, tokens, times, trail, actor: 'cli', now }), store)
  })
}

/** Opens the store of a server that may be running, and closes it again. */
export async function withStore<Result> (work: (settings: Settings, store: Store) => Promise<Result>): Promise<Result> {
  const { settings, store } = await openOperatorStore()
  try {
    return await work(settings, store)
  } finally {
    await store.close()
  }
}

/** Loaded here and not above: a mistyped word need not wait for a database driver. */
async function openOperatorStore () {
  const [{ openStore }, { processSettings }] = await Promise.all([import('../stores.ts'), import('../settings.ts')])
  try {
    const settings = processSettings()
    return { settings, store: await openStore(settings, systemClock, 'operator') }
  } catch (cause) {
    const { message, code } = cause as Error & { code?: unknown }
    throw Object.assign(new Error(`${message}\n${hint}`, { cause }), { code })
  }
}

const pageSize = 500

/** The first so many of a list, and whether there are more. */
export async function first<Item> (
  limit: number, read: (page: PageQuery) => Promise<Page<Item>>
): Promise<{ readonly items: readonly Item[], readonly hasMore: boolean }> {
  const items: Item[] = []
  for (let cursor: string | undefined; items.length < limit;) {
    const page = await read({ cursor, limit: Math.min(pageSize, limit - items.length) })
    items.push(...page.items)
    if (page.next === null) return { items, hasMore: false }
    cursor = page.next
  }
  return { items, hasMore: true }
}

interface ListOptions {
  readonly limit: string
  readonly format: string | undefined
}

/** Prints the first so many of a list: as `show` has it for people, or as JSON. Throws `UsageError`. */
export async function printList<Item> (
  { limit, format = 'table' }: ListOptions,
  read: (limit: number) => Promise<{ readonly items: readonly Item[], readonly hasMore: boolean }>,
  show: (items: readonly Item[]) => string
): Promise<void> {
  const [most, form] = [countOf('--limit', limit), choiceOf('--format', format, ['table', 'json'])]
  const { items, hasMore } = await read(most)
  process.stdout.write(form === 'json' ? `${JSON.stringify(items, null, 2)}\n` : show(items))
  if (hasMore) process.stderr.write('There are more: see --limit.\n')
}

export const audit: Command = {
  usage: `audit [--limit N] [--format FORMAT]

  Who did what, the newest first: sessions minted and revoked, credits granted
  and released, settings that changed, secrets that rotated while the gateway
  ran, and what was refused to whom.

  --limit   how many; 50 when absent
  --format  table (for people) or json; table when absent
`,
  options: { limit: { type: 'string' }, format: { type: 'string' } },
  async run ({ options: { limit = '50', format } }) {
    await printList({ limit, format }, most => withOperator(operator => first(most, operator.audit)), listing)
    return 0
  }
}

const columns: ReadonlyArray<Column<ShownAuditEntry>> = [
  { title: 'at (UTC)', of: ({ at }) => shortInstant(at) },
  { title: 'what', of: ({ kind }) => kind },
  { title: 'by', of: ({ actor }) => actor, shrinks: true },
  { title: 'subject', of: ({ subject }) => subject ?? '-', shrinks: true }
]

/**
 * A table, with what is known of each entry under its row: it is most of what one wants to know, and too long for a
 * cell.
 */
function listing (entries: readonly ShownAuditEntry[]): string {
  const [head, ...rows] = table(columns, entries).trimEnd().split('\n')
  return `${head}\n${rows.map((row, index) => `${row}\n${paragraph(facts(entries[index]!.detail))}`).join('')}`
}

/** Without what only the next comparison of settings needs. */
function facts ({ snapshot, digest, ...detail }: ShownAuditEntry['detail']): string[] {
  return Object.entries(detail).map(([name, value]) => `${name}=${value}`)
}

export const usage: Command = {
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

export const unknown: Command = {
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

const unknownColumns: ReadonlyArray<Column<UnknownTask>> = [
  { title: 'id', of: ({ id }) => id },
  { title: 'made (UTC)', of: ({ createdAt }) => shortInstant(createdAt) },
  { title: 'subject', of: ({ subject }) => subject, shrinks: true },
  { title: 'model', of: ({ model }) => model, shrinks: true },
  { title: 'credits', of: ({ credits }) => credits },
  { title: 'task id', of: ({ taskId }) => taskId ?? '-', shrinks: true }
]

async function list ({ limit = '100', format }: Given['options']): Promise<number> {
  await printList({ limit, format }, most => withOperator(operator => first(most, operator.unknowns)), items =>
    items.length === 0 ? 'All is known.\n' : table(unknownColumns, items))
  return 0
}

async function release (verb: string, id: string): Promise<number> {
  if (verb !== 'release') throw new UsageError('What can be done with one of them is: release.')
  if (!await withOperator(operator => operator.release(id))) throw new Error(`${id} is none of them, or not any more.`)
  process.stdout.write('Released: its credits are given back.\n')
  return 0
}

export const alarms: Command = {
  usage: `alarms test

  Sends a message to alarms.url that says that it is a test, signed with
  GATEWAY_ALARM_SECRET by the rules of https://www.standardwebhooks.com, and
  prints what came of it. Exit code 0 when the server has taken it (any 2xx).
`,
  operands: [1],
  async run ({ operands: [verb] }) {
    if (verb !== 'test') throw new UsageError('What can be done with alarms is: test.')
    const [{ processSettings, liveSecrets }, { openAlarmTarget }] = await Promise.all([
      import('../settings.ts'), import('../alarms.ts')
    ])
    const settings = processSettings()
    const target = await openAlarmTarget(settings, liveSecrets(settings), Date.now)
    if (target === null) {
      process.stderr.write('alarms.url is not set: alarms are in the log and in /metrics alone.\n')
      return 1
    }
    const { status, error } = await target.test()
    await target.close()
    const hasArrived = status !== null && status >= 200 && status < 300
    process.stdout.write(`${hasArrived ? 'Told' : 'Not told'}: ${status === null ? error : `status ${status}`}.\n`)
    return hasArrived ? 0 : 1
  }
}
