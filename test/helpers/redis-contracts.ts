import type { Test } from 'tap'
import { redisStore } from '../../src/adapters/redis/store.ts'
import { Secret } from '../../src/domain/secret.ts'
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

/** Holds what is at that address against every contract of a store; each test has a prefix of its own, and so an empty one. */
export function redisContracts (t: Test, name: string, url: string): void {
  let opened = 0
  const open: OpenStore = async (t, { terms, now }) => {
    const store = await redisStore({ url: new Secret(url), terms, now, onLost: () => {}, prefix: `test-${++opened}` })
    t.teardown(() => store.close())
    return store
  }
  for (const [promise, contract] of Object.entries(contracts)) {
    t.test(`${name} keeps ${promise}`, async t => contract(t, open))
  }
}
