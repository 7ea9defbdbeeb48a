import { join } from 'node:path'
import t, { type Test } from 'tap'
import { sqliteStore } from '../../src/adapters/sqlite/store.ts'
import type { LedgerTerms } from '../../src/domain/ledger.ts'
import { revocationsContract } from '../contracts/revocations.ts'
import { taskLedgerContract } from '../contracts/task-ledger.ts'
import { unfinishedTasksContract } from '../contracts/unfinished-tasks.ts'

const noTerms: LedgerTerms = { reservedMs: 1000, sentMs: 1000, giveUpMs: 1000, refundsPerPeriod: 1 }
const places = {
  'SQLite in memory': () => ':memory:',
  'SQLite in a file': (t: Test) => join(t.testdir({}), 'gateway.db')
}

for (const [name, pathFor] of Object.entries(places)) {
  const open = (t: Test, { terms, now }: { terms: LedgerTerms, now: () => number }) => {
    const store = sqliteStore({ path: pathFor(t), terms, now, synchronous: 'normal' })
    t.teardown(() => store.close())
    return store
  }
  t.test(`${name} keeps the promises of a task ledger`, async t =>
    taskLedgerContract(t, (t, setup) => open(t, setup).ledger))
  t.test(`${name} finds unfinished tasks as promised`, async t =>
    unfinishedTasksContract(t, (t, now) => open(t, { terms: { ...noTerms, giveUpMs: 86_400_000 }, now })))
  t.test(`${name} keeps the promises of revocations`, async t =>
    revocationsContract(t, (t, now) => open(t, { terms: noTerms, now }).revocations))
}
