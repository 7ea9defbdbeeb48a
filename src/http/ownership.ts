import { maxTaskIdLength } from '../domain/bodies/envelope.ts'
import type { TaskReferences } from '../domain/bodies/task-references.ts'
import type { Task, TaskLedger } from '../domain/ledger/ledger.ts'
import { badRequest, gatewayError } from '../errors.ts'
import type { Context } from './call.ts'
import type { Rate } from './rates.ts'

/** Whose a task is. */
export interface Ownership {
  /**
   * The caller's task. Whether somebody else's exists is not the caller's business: that is the same
   * `GW_TASK_NOT_FOUND` as for an id that nobody has, and it counts as a poll, so that guessing has a price.
   *
   * With a model, what was made with another one, or by another operation, is not it: a batch is no task to ask about,
   * though `input` may name either.
   */
  own (taskId: string, context: Context, model?: string, operation?: string): Promise<Task>
  /** The key of the earlier tasks that a submit refers to; `undefined` when it refers to none. */
  keyOfReferences (input: TaskReferences, context: Context): Promise<string | undefined>
}

export function ownership (ledger: TaskLedger, misses: Rate): Ownership {
  const notFound = async (context: Context) => {
    await misses(context)
    return gatewayError('GW_TASK_NOT_FOUND')
  }

  const own = async (taskId: string, context: Context, model?: string, operation = 'generateTask'): Promise<Task> => {
    const task = taskId.length > maxTaskIdLength ? null : await ledger.taskOf(taskId)
    const isOwn = task !== null && task.subject === context.call.session.subject &&
      (model === undefined || (task.model === model && task.operation === operation))
    if (!isOwn) throw await notFound(context)
    return task
  }

  return {
    own,
    async keyOfReferences ({ references, mentions }, context) {
      const keyIds = new Set<string>()
      for (const taskId of references) keyIds.add((await own(taskId, context)).keyId)
      for (const word of mentions) {
        const task = await ledger.taskOf(word)
        if (task === null) continue // a word like any other
        if (task.subject !== context.call.session.subject) throw await notFound(context)
        keyIds.add(task.keyId)
      }
      if (keyIds.size > 1) throw badRequest('The input refers to tasks of different upstream accounts.')
      return [...keyIds][0]
    }
  }
}
