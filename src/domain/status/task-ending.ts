import type { Task, TaskLedger } from '../ledger/ledger.ts'
import { batchRow } from '../policy/catalog.ts'
import type { StatusDesk } from './status-desk.ts'

/**
 * Ends a task in the ledger if the upstream says that it has ended; its caller need not ask. For a batch's own row nothing
 * is asked. Throws `GW_STORE_DOWN`; an upstream that can't say leaves it as it is.
 */
export type EndTask = (task: Task) => Promise<void>

export interface TaskEndingOptions {
  readonly ledger: Pick<TaskLedger, 'settle'>
  readonly desk: StatusDesk
}

/** What a batch's own row ends with: the answer to nothing. */
const noAnswer = Buffer.from('{}')

export function taskEnding ({ ledger, desk }: TaskEndingOptions): EndTask {
  return async task => {
    if (task.operation === batchRow) await endBatch(ledger, task.taskId)
    else await desk.ask(task).report
  }
}

/** A batch's own row is over once the batch was accepted. Throws `GW_STORE_DOWN`. */
export async function endBatch (ledger: Pick<TaskLedger, 'settle'>, batchId: string): Promise<void> {
  await ledger.settle({ taskId: batchId, state: 'success', answer: noAnswer })
}
