import { upstreamPath, operationOf } from './catalog.ts'
import { readEnvelope } from './envelope.ts'
import type { KeyRing } from './keys.ts'
import type { ReservationId, Task, TaskLedger, UnfinishedTasks } from './ledger.ts'
import { finalState } from './outcome.ts'
import type { Upstream } from './upstream.ts'

/**
 * Ends tasks that nobody polls any more: a closed tab must not keep its subject's slot, or a failed task its credits,
 * for a whole day.
 */
export interface Reconciler {
  /** Asks the upstream about the next few old tasks, and starts over when it has asked about all. */
  round (): Promise<void>
}

export interface ReconcilerOptions {
  readonly unfinished: UnfinishedTasks
  readonly ledger: TaskLedger
  readonly upstream: Upstream
  readonly keys: KeyRing
  readonly now: () => number
}

/** Younger tasks are left to their callers, ms. */
export const patienceWithCallersMs = 120_000
/** Tasks a round: with a round every five seconds, one status call a second at the most. */
const tasksPerRound = 5

export function reconciler ({ unfinished, ledger, upstream, keys, now }: ReconcilerOptions): Reconciler {
  let cursor: ReservationId = 0

  const end = async ({ taskId, model, keyId }: Task): Promise<void> => {
    const key = keys.byId(keyId)
    if (key === undefined) return
    const exchange = upstream.send({ method: 'GET', path: upstreamPath(operationOf('statusTask'), model, taskId), key })
    const answer = await exchange.answer.catch(() => null) // it is asked again in the next turn
    const state = answer === null || answer.leaksKey ? null : finalState(answer, readEnvelope(answer.body), taskId)
    if (state !== null) await ledger.settle({ taskId, state, answer: answer!.body })
  }

  return {
    async round () {
      const tasks = await unfinished.after(cursor, now() - patienceWithCallersMs, tasksPerRound)
      cursor = tasks.length < tasksPerRound ? 0 : tasks.at(-1)!.id
      await Promise.all(tasks.map(end))
    }
  }
}
