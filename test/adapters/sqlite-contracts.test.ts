import { join } from 'node:path'
import t, { type Test } from 'tap'
import { sqliteStore } from '../../src/adapters/sqlite/store.ts'
import { auditTrailContract } from '../contracts/audit-trail.ts'
import { callbackSecretsContract } from '../contracts/callback-secrets.ts'
import { creditAccountsContract } from '../contracts/credit-accounts.ts'
import { deliveriesContract } from '../contracts/deliveries.ts'
import { guestCountsContract } from '../contracts/guest-counts.ts'
import { idempotencyStoreContract } from '../contracts/idempotency-store.ts'
import { oneChargeContract } from '../contracts/one-charge.ts'
import type { OpenStore } from '../contracts/open-books.ts'
import { revocationsContract } from '../contracts/revocations.ts'
import { spentProofsContract } from '../contracts/spent-proofs.ts'
import { taskLedgerContract } from '../contracts/task-ledger.ts'
import { taskRecordsContract } from '../contracts/task-records.ts'
import { tokenBookContract } from '../contracts/token-book.ts'
import { unfinishedTasksContract } from '../contracts/unfinished-tasks.ts'

const places = {
  'SQLite in memory': () => ':memory:',
  'SQLite in a file': (t: Test) => join(t.testdir({}), 'gateway.db')
}
const contracts = {
  'the promises of a task ledger': taskLedgerContract,
  'the promises of unfinished tasks': unfinishedTasksContract,
  'the promises of idempotency keys': idempotencyStoreContract,
  'the promises of credit accounts': creditAccountsContract,
  'the promises of task records': taskRecordsContract,
  'the promises of an audit trail': auditTrailContract,
  'the promises of callback secrets': callbackSecretsContract,
  'the promises of deliveries': deliveriesContract,
  'the promises of revocations': revocationsContract,
  'the promises of guest counts': guestCountsContract,
  'the promises of spent proofs': spentProofsContract,
  'the promises of a token book': tokenBookContract,
  'one charge for each submit': oneChargeContract
}

for (const [name, pathFor] of Object.entries(places)) {
  const open: OpenStore = (t, { terms, now }) => {
    const store = sqliteStore({ path: pathFor(t), terms, now, synchronous: 'normal' })
    t.teardown(() => store.close())
    return store
  }
  for (const [promise, contract] of Object.entries(contracts)) {
    t.test(`${name} keeps ${promise}`, async t => contract(t, open))
  }
}
