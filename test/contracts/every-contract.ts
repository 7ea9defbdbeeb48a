import type { Test } from 'tap'
import { abandonedTasksContract } from './abandoned-tasks.ts'
import { alarmBookContract } from './alarm-book.ts'
import { auditTrailContract } from './audit-trail.ts'
import { callbackSecretsContract } from './callback-secrets.ts'
import { ceilingsContract } from './ceilings.ts'
import { creditAccountsContract } from './credit-accounts.ts'
import { deliveriesContract } from './deliveries.ts'
import { guestCountsContract } from './guest-counts.ts'
import { idempotencyStoreContract } from './idempotency-store.ts'
import { ledgerBooksContract } from './ledger-books.ts'
import { nearEndsContract } from './near-ends.ts'
import { oneChargeContract } from './one-charge.ts'
import type { OpenStore } from './open-books.ts'
import { rateCounterContract } from './rate-counter.ts'
import { repeatsContract } from './repeats.ts'
import { reserveAllContract } from './reserve-all.ts'
import { revocationsContract } from './revocations.ts'
import { spentProofsContract } from './spent-proofs.ts'
import { subjectDataContract } from './subject-data.ts'
import { taskLedgerContract } from './task-ledger.ts'
import { taskRecordsContract } from './task-records.ts'
import { tokenBookContract } from './token-book.ts'
import { unfinishedTasksContract } from './unfinished-tasks.ts'
import { unknownCallsContract } from './unknown-calls.ts'
import { upstreamStatesContract } from './upstream-states.ts'
import { usedCallsContract } from './used-calls.ts'

const contracts = {
  'the promises of a task ledger': taskLedgerContract,
  'the promises of several reservations at a time': reserveAllContract,
  'the promises of tasks that are given up': abandonedTasksContract,
  'the promises of unfinished tasks': unfinishedTasksContract,
  'the promises of idempotency keys': idempotencyStoreContract,
  'the promises of repeats': repeatsContract,
  'the promises of credit accounts': creditAccountsContract,
  'the promises of ceilings': ceilingsContract,
  'the promises of accounts that are nearly used up': nearEndsContract,
  'the promises of calls without a task': usedCallsContract,
  'the promises of its books': ledgerBooksContract,
  'the promises of task records': taskRecordsContract,
  'the promises of an alarm book': alarmBookContract,
  'the promises of an audit trail': auditTrailContract,
  'the promises of what is held of a subject': subjectDataContract,
  'the promises of callback secrets': callbackSecretsContract,
  'the promises of deliveries': deliveriesContract,
  'the promises of revocations': revocationsContract,
  'the promises of guest counts': guestCountsContract,
  'the promises of spent proofs': spentProofsContract,
  'the promises of a rate counter': rateCounterContract,
  'the promises of unknown calls': unknownCallsContract,
  'the promises of what the upstream keeps': upstreamStatesContract,
  'the promises of a token book': tokenBookContract,
  'one charge for each submit': oneChargeContract
}

/**
 * Holds a store against every contract of a store. `name` is what titles call it. `openBeside` opens once more what
 * `open` has opened last, as the operator does; absent where nobody else can.
 */
export function everyContract (t: Test, name: string, open: OpenStore, openBeside?: OpenStore): void {
  for (const [promise, contract] of Object.entries(contracts)) {
    t.test(`${name} keeps ${promise}`, async t => contract(t, open, openBeside))
  }
}
