import { LRUCache } from 'lru-cache'
import { endedTaskIds } from '../../domain/bodies/batch-answer.ts'
import { maxBatchItems } from '../../domain/bodies/batch-body.ts'
import type { TaskLedger } from '../../domain/ledger/ledger.ts'
import type { StatusOutcome } from '../../domain/status/status-call.ts'
import type { EndTask } from '../../domain/status/task-ending.ts'
import type { StatusOrder } from '../authorize.ts'
import type { Context } from '../call.ts'
import type { Answer } from '../reply.ts'
import { settleStatus } from '../settle.ts'

/** Tasks that are remembered as asked about. */
const maxAsked = 10_000

/**
 * *settle* for the status of a batch. That a task has ended is a hint here: the ledger keeps a task's own last answer,
 * byte for byte, and a batch's is not that, nor is its shape known. So each of the caller's tasks that it says have ended
 * is asked about, once, one after the other and behind the caller's back: its slot is soon free. One that gave no end
 * then is left to its caller's status calls and to the reconciler.
 */
export function settleBatchStatus (ledger: TaskLedger, end: EndTask) {
  const asked = new LRUCache<string, true>({ max: maxAsked })

  const endTasks = async (taskIds: readonly string[], subject: string): Promise<void> => {
    for (const taskId of taskIds) {
      const task = await ledger.taskOf(taskId)
      if (task === null || task.subject !== subject || task.stage !== 'claimed' || asked.has(taskId)) continue
      asked.set(taskId, true)
      await end(task)
    }
  }

  return async (outcome: StatusOutcome, _order: StatusOrder, context: Context): Promise<Answer> => {
    const answer = await settleStatus(outcome)
    if (outcome.kind === 'answered') {
      const { request, call: { session: { subject } } } = context
      endTasks(endedTaskIds(outcome.answer, maxBatchItems), subject)
        .catch(error => request.log.warn({ err: error }, 'tasks of a batch that have ended are left to their own status calls'))
    }
    return answer
  }
}
