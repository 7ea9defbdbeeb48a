import { readdirSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { issueTimes } from '../domain/session.ts'
import type { Store } from '../domain/store.ts'
import { systemClock } from '../domain/time.ts'
import { checkSubject, isKnownSubject } from '../features/admin/admin.ts'
import { linesOf, stillRunning, subjects } from '../features/admin/subjects.ts'
import { copiesDirectory, forgetCopies } from '../features/results/copies.ts'
import type { Settings } from '../settings.ts'
import { choiceOf, type Command, UsageError } from './command.ts'
import { withStore } from './operator.ts'

const { now } = systemClock

export const subject: Command = {
  usage: `subject export --subject SUBJECT
       apixo-gateway subject erase --subject SUBJECT [--no-rewrite]

  All that the store holds of one subject: export prints it as JSON lines, erase
  ends its sessions and takes it away. What stays for the books, sums of days
  and models and grants, stays under a pseudonym. Nothing is erased while one
  of its tasks runs.

  --subject     in its stored form, issuer and name: app:alice
  --no-rewrite  leaves the file of a SQLite store as it is laid out. Without it
                the file is written anew, so that no byte of what was erased is
                left; a gateway that runs can not write meanwhile, some seconds
                for a million tasks
`,
  options: { subject: { type: 'string' }, 'no-rewrite': { type: 'boolean' } },
  operands: [1],
  async run ({ operands: [verb], options: { subject }, flags }) {
    const action = choiceOf('The word after subject', verb!, ['export', 'erase'])
    if (subject === undefined) throw new UsageError('Say whose: --subject SUBJECT.')
    checkSubject(subject)
    if (action === 'export' && flags.has('no-rewrite')) throw new UsageError('export has no option --no-rewrite.')
    await withStore(async (settings, store) => {
      if (!await isKnownSubject(store, subject)) process.stderr.write(`Nothing is known of ${subject}: is it misspelt?\n`)
      if (action === 'export') await exportAll(settings, store, subject)
      else await erase(settings, store, subject, !flags.has('no-rewrite'))
    })
    return 0
  }
}

function subjectsIn (settings: Settings, store: Store) {
  const { ledger, records, deliveries, revocations, tokens, audit: trail, subjects: data } = store
  return subjects({
    taskOf: ledger.taskOf,
    records,
    deliveries,
    revocations,
    times: issueTimes({ revocations, now }),
    tokens,
    trail,
    data,
    forgetCopies: task => forgetCopies(copiesDirectory(settings.store), task),
    actor: 'cli',
    now
  })
}

async function exportAll (settings: Settings, store: Store, subject: string): Promise<void> {
  for await (const line of linesOf(await subjectsIn(settings, store).export(subject))) process.stdout.write(line)
}

async function erase (settings: Settings, store: Store, subject: string, isRewritten: boolean): Promise<void> {
  const { erased, unfinished } = await subjectsIn(settings, store).erase(subject)
  if (erased === null) throw new Error(stillRunning(subject, unfinished))
  if (isRewritten) await store.subjects.rewrite()
  const { pseudonym, tasks, tokens, auditEntries } = erased
  process.stdout.write(`Erased: ${tasks} tasks and ${tokens} tokens; ${auditEntries} entries of the audit trail and the sums ` +
    `for the books are of ${pseudonym} now.\n`)
  /* c8 ignore next: of a submit that was let in a moment before the sessions ended */
  if (unfinished > 0) process.stderr.write(`But ${unfinished} came meanwhile: erase it again when they have ended.\n`)
  for (const copy of copiesBeside(settings.store)) {
    process.stderr.write(`A copy from before an upgrade still has all that it had then: delete ${copy}\n`)
  }
}

function copiesBeside (store: Settings['store']): readonly string[] {
  if (store.kind !== 'sqlite') return []
  const folder = dirname(store.path)
  const isCopy = (name: string): boolean => name.startsWith(`${basename(store.path)}.version-`)
  return readdirSync(folder).filter(isCopy).map(name => join(folder, name))
}
