import { LRUCache } from 'lru-cache'
import { effectiveStatus, readEnvelope } from './answers.ts'
import type { KeyRing } from './key-ring.ts'
import type { Task, TaskLedger } from './ledger.ts'
import { failed, isRedirect, type StatusCall, type StatusOutcome } from './status-poller.ts'
import type { Clock } from './time.ts'
import { operationOf, type Upstream, type UpstreamAnswer, type UpstreamKey, upstreamPath } from './upstream.ts'

/** Which upstream keys the replicas hold, those that drain among them. Both throw `GW_STORE_DOWN`. */
export interface HeldKeys {
  /** Says that this replica holds them, for a minute from now on. */
  hold (keyIds: readonly string[]): Promise<void>
  isHeld (keyId: string): Promise<boolean>
}

/**
 * Asks about tasks whose key is gone: the ring has it no more, nor has that of another replica, or it drains and the
 * upstream refuses it. Another key may be of the same account, so the ready ones are asked. That is for status calls
 * alone:
 * a submit that goes on with such a task would be made, and paid for, by an account that does not know it.
 */
export interface GoneKeys {
  /**
   * What the first key that knows the task says; `failed` when none does. A task that none of them knows, twice and ten
   * minutes apart, has no known end: it is given up, and its charge stays. The outcome rejects with `GW_STORE_DOWN`.
   */
  ask (task: Task, outcome: StatusOutcome): Pick<StatusCall, 'outcome' | 'cancel'>
}

export interface GoneKeysOptions extends Pick<Clock, 'elapsed'> {
  readonly upstream: Upstream
  readonly keys: Pick<KeyRing, 'states' | 'byId'>
  /** `null` where there is only one replica. */
  readonly held: HeldKeys | null
  readonly ledger: Pick<TaskLedger, 'giveUp'>
  /** As the desk's, ms. */
  readonly intervalOf: (model: string) => number
  /** Told of a task that was given up. */
  readonly onGivenUp: (task: Task) => void
}

/** How long after it was first not known a task must still not be known, ms. */
export const apartMs = 600_000
/** Tasks that nobody knew. One that is forgotten counts as known until it is asked about twice more. */
const maxUnknown = 50_000

/** Instants of the monotonic clock, ms. */
interface Unknown {
  /** When none of the keys knew it for the first time; `null`: not yet. */
  readonly firstAt: number | null
  readonly askedAt: number
}

type Answer = StatusOutcome & { readonly kind: 'answered' }

/** `not known`: it says so. `undecided`: what came says nothing about the task. */
type Said = Answer | 'not known' | 'undecided'

export function goneKeys ({ upstream, keys, held, ledger, intervalOf, elapsed, onGivenUp }: GoneKeysOptions): GoneKeys {
  const unknown = new LRUCache<string, Unknown>({ max: maxUnknown })

  /** Whether only its maker may be asked: it is here and serves, or another replica has it. */
  const hasMaker = async ({ keyId }: Task): Promise<boolean> => {
    const state = keys.states().find(status => status.keyId === keyId)?.state
    if (state !== undefined) return state !== 'draining'
    return held !== null && await held.isHeld(keyId)
  }
  const readyKeys = (): UpstreamKey[] => keys.states()
    .filter(({ state }) => state === 'ready' || state === 'resting').map(({ keyId }) => keys.byId(keyId)!)

  /** After none of the keys that were asked has said how it is. Whether the task was given up. */
  const conclude = async (task: Task, isKnownToNone: boolean): Promise<boolean> => {
    const { taskId } = task
    const at = elapsed()
    const firstAt = unknown.get(taskId)?.firstAt ?? (isKnownToNone ? at : null)
    unknown.set(taskId, { firstAt, askedAt: at })
    if (!isKnownToNone || firstAt === null || at - firstAt < apartMs || !await ledger.giveUp(taskId)) return false
    onGivenUp(task)
    return true
  }

  return {
    ask (task, made) {
      const path = upstreamPath(operationOf('statusTask'), task.model, task.taskId)
      let stop = (): void => {}
      let isCancelled = false
      const askWith = async (key: UpstreamKey): Promise<Said> => {
        const exchange = upstream.send({ method: 'GET', path, key })
        stop = exchange.cancel
        const answer = await exchange.answer.catch(() => null)
        return answer === null ? 'undecided' : readAnswer(answer, task)
      }
      const askAll = async (): Promise<StatusOutcome> => {
        // The operator can find it among the unknown ones, and its caller need not come again.
        const noEnd: StatusOutcome = task.stage === 'unknown' ? endless : made
        const askedAt = unknown.get(task.taskId)?.askedAt ?? -Infinity
        if (elapsed() - askedAt < intervalOf(task.model)) return noEnd
        if (await hasMaker(task)) return made
        const asked: Said[] = []
        for (const key of readyKeys()) {
          const said = await askWith(key)
          if (isCancelled) return failed('cancelled')
          if (typeof said === 'object') {
            unknown.delete(task.taskId)
            return said
          }
          asked.push(said)
        }
        const isKnownToNone = asked.length > 0 && !asked.includes('undecided')
        return await conclude(task, isKnownToNone) ? endless : noEnd
      }
      return {
        outcome: askAll(),
        cancel () {
          isCancelled = true
          stop()
        }
      }
    }
  }
}

const endless: StatusOutcome = { kind: 'failed', code: 'GW_OUTCOME_UNKNOWN' }

/** Nothing here casts doubt on a key: it was asked about a task that need not be its own. */
function readAnswer (answer: UpstreamAnswer, { taskId }: Task): Said {
  const envelope = readEnvelope(answer.body)
  if (envelope === null || isRedirect(answer.status) || answer.leaksKey) return 'undecided'
  const status = effectiveStatus(answer.status, envelope)
  if (status === 401 || status === 403 || status === 404) return 'not known'
  // Without the id it may be anything: of a key's own task the id need not be told, of this one it must.
  if (status !== 200 || envelope.taskId !== taskId || !envelope.state) return 'undecided'
  return { kind: 'answered', answer, envelope }
}
