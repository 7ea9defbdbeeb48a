import type { KeyRing } from './key-ring.ts'
import type { Task, TaskLedger } from './ledger.ts'
import { recent } from './recent.ts'
import {
  answerOf, failed, readStatus, type StatusFailure, type StatusOutcome, type UpstreamStatus
} from './task-status.ts'
import type { Clock } from './time.ts'
import {
  effectiveStatus, operationOf, type Upstream, type UpstreamAnswer, UpstreamFailure, type UpstreamKey, upstreamPath
} from './upstream.ts'

/** Which upstream keys the replicas hold, those that drain among them. Both throw `GW_STORE_DOWN`. */
export interface HeldKeys {
  /** Says that this replica holds them, for a minute from now on. */
  hold (keyIds: readonly string[]): Promise<void>
  isHeld (keyId: string): Promise<boolean>
}

/**
 * Asks about tasks whose key is gone: no replica has it in its ring any more, or it drains and the upstream refuses it.
 * Another key may be of the same account, so the ready ones are asked. That is for status calls alone: a submit that
 * goes on with such a task would be made, and paid for, by an account that does not know it.
 */
export interface GoneKeys {
  /**
   * What the first key that knows the task says; `failure`, what its own key came to, when none does. A task that none
   * of them knows, twice and ten minutes apart, has no known end: it is given up, and its charge stays. Rejects with
   * `GW_STORE_DOWN`. `signal` cancels the call.
   */
  ask (task: Task, failure: StatusFailure, signal: AbortSignal): Promise<StatusOutcome>
}

interface GoneKeysOptions extends Pick<Clock, 'elapsed'> {
  readonly upstream: Upstream
  readonly keys: Pick<KeyRing, 'states' | 'byId'>
  /** `null` where there is only one replica. */
  readonly held: HeldKeys | null
  readonly ledger: Pick<TaskLedger, 'giveUp'>
  /** Least time between two rounds of calls for a task of this model, ms. */
  readonly intervalOf: (model: string) => number
  /** Called with each task that is given up. */
  readonly onGivenUp: (task: Task) => void
}

/** How long after no key knew it for the first time a task must still be unknown to all of them, ms. */
export const apartMs = 600_000
/** Tasks that no key knew. One that is forgotten counts as known until two more rounds. */
const maxUnknown = 50_000

/** Instants of the monotonic clock, ms. */
interface Round {
  /** When none of the keys knew the task for the first time; `null`: not yet. */
  readonly unknownSince: number | null
  readonly askedAt: number
}

/** `not known`: the account does not know the task. `undecided`: the answer says nothing about it. */
type KeyAnswer = UpstreamStatus | 'not known' | 'undecided'

const noKnownEnd: StatusFailure = { source: 'none', code: 'GW_OUTCOME_UNKNOWN' }

export function goneKeys (options: GoneKeysOptions): GoneKeys {
  const { upstream, keys, held, ledger, intervalOf, elapsed, onGivenUp } = options
  const rounds = recent<Round>(maxUnknown)

  /** Whether the task's own key still serves, here or on another replica: only that one may be asked then. */
  const isKeyHeld = async ({ keyId }: Task): Promise<boolean> => {
    const state = keys.states().find(status => status.keyId === keyId)?.state
    if (state !== undefined) return state !== 'draining'
    return held !== null && await held.isHeld(keyId)
  }
  const readyKeys = (): UpstreamKey[] => keys.states()
    .filter(({ state }) => state === 'ready' || state === 'resting').map(({ keyId }) => keys.byId(keyId)!)

  /** Notes a round in which no key told the task's state. Whether the task was given up. */
  const noteRound = async (task: Task, isKnownToNone: boolean): Promise<boolean> => {
    const { taskId } = task
    const at = elapsed()
    const unknownSince = rounds.get(taskId)?.unknownSince ?? (isKnownToNone ? at : null)
    rounds.set(taskId, { unknownSince, askedAt: at })
    if (!isKnownToNone || unknownSince === null || at - unknownSince < apartMs) return false
    if (!await ledger.giveUp(taskId)) return false
    onGivenUp(task)
    return true
  }

  return {
    async ask (task, failure, signal) {
      // The operator finds it among the unknown ones, and its caller need not come again.
      const noAnswer = task.stage === 'unknown' ? noKnownEnd : failure
      const askedAt = rounds.get(task.taskId)?.askedAt ?? -Infinity
      if (elapsed() - askedAt < intervalOf(task.model)) return noAnswer
      if (await isKeyHeld(task)) return failure
      const path = upstreamPath(operationOf('statusTask'), task.model, task.taskId)
      const answers: KeyAnswer[] = []
      for (const key of readyKeys()) {
        const answer = readAnswer(await answerOf(upstream.send({ method: 'GET', path, key }), signal), task)
        if (signal.aborted) return failed('cancelled')
        if (typeof answer === 'object') {
          rounds.delete(task.taskId)
          return answer
        }
        answers.push(answer)
      }
      const isKnownToNone = answers.length > 0 && !answers.includes('undecided')
      return await noteRound(task, isKnownToNone) ? noKnownEnd : noAnswer
    }
  }
}

/** Nothing here casts doubt on a key: it was asked about a task that need not be its own. */
function readAnswer (answer: UpstreamAnswer | UpstreamFailure, { taskId }: Task): KeyAnswer {
  const status = answer instanceof UpstreamFailure ? null : readStatus(answer, taskId)
  if (status === null) return 'undecided'
  const { state, envelope } = status
  if ([401, 403, 404].includes(effectiveStatus(status.answer.status, envelope))) return 'not known'
  // An answer of the task's own key need not name the task. This one must: it could be about any.
  return state !== null && envelope.taskId === taskId ? status : 'undecided'
}
