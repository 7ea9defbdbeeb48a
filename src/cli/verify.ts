import { setImmediate as nextTurn } from 'node:timers/promises'
import { type Fault, faultText, remedies } from '../domain/books.ts'
import { systemClock } from '../domain/time.ts'
import type { Verified } from '../domain/verification.ts'
import { type Command, exitCodeOf, hint, printable } from './command.ts'

export const verify: Command = {
  usage: `verify [--json]

  Holds what the ledger has written down twice against each other: credits used
  and granted, sessions with limits of their own, slots, leases, owners of tasks
  and idempotency keys, each against the tasks that are there. It reads alone,
  and a gateway may be running. What is wrong is told in a line each, with what
  to do; nothing is repaired.

  Exit code 0: all of it agrees; 1: something does not; 69: the store can not be
  read.

  --json    for programs
`,
  options: { json: { type: 'boolean' } },
  async run ({ flags }) {
    const verified = await readable(verifyStore)
    process.stdout.write(flags.has('json') ? `${JSON.stringify(shown(verified), null, 2)}\n` : report(verified))
    return verified.count === 0 ? 0 : 1
  }
}

/** Loaded here and not above: a mistyped word need not wait for a database driver. */
async function verifyStore (): Promise<Verified> {
  const [{ openBooks }, { processSettings }] = await Promise.all([import('../stores.ts'), import('../settings.ts')])
  const { books, close } = await openBooks(processSettings(), systemClock)
  try {
    return await books.verify(nextTurn)
  } finally {
    await close()
  }
}

/** A store that can not be read is not one with faults. */
async function readable<T> (read: () => Promise<T>): Promise<T> {
  try {
    return await read()
  } catch (cause) {
    const error = cause as Error & { readonly code?: unknown }
    // What a store has thrown says for callers alone that it is down.
    const { message } = error.code === 'GW_STORE_DOWN' ? error.cause as Error : error
    const code = exitCodeOf(error) === 1 ? 'EX_UNAVAILABLE' : error.code
    throw Object.assign(new Error(`${message}\n${hint}`, { cause }), { code })
  }
}

/** For people. */
export function report ({ subjects, tasks, skipped, count, faults }: Verified): string {
  const lines = faults.map(fault => `${printable(faultText(fault))}\n`)
  if (skipped > 0) lines.push(`${skipped} subjects were busy all the time, and are left out: run it again.\n`)
  if (count > faults.length) lines.push(`And ${count - faults.length} more.\n`)
  const seen = `${subjects} subjects and ${tasks} tasks`
  const all = count === 1 ? '1 fault' : `${count} faults`
  return `${lines.join('')}${count === 0 ? `The books of ${seen} agree.` : `${all} in the books of ${seen}.`}\n`
}

function shown ({ subjects, tasks, skipped, count, faults }: Verified) {
  const withRemedy = (fault: Fault) => ({ ...fault, remedy: remedies[fault.kind] })
  return { subjects, tasks, skipped, count, faults: faults.map(withRemedy) }
}
