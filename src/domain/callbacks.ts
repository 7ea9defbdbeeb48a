import { LRUCache } from 'lru-cache'
import { hash, randomBytes } from 'node:crypto'
import { finalState, isFinal, readEnvelope, statedState } from './answers.ts'
import type { KeyChoice } from './key-ring.ts'
import type { LedgerClient } from './ledger-client.ts'
import type { ReservationId, Task } from './ledger.ts'
import { eventFrom, statusCall, type StatusPoller, type TaskEvents } from './status-poller.ts'
import type { Clock, Timers } from './time.ts'
import { operationOf, type Upstream } from './upstream.ts'

/** The reservation that a callback's secret was made for. */
export interface CallbackTarget {
  readonly reservation: ReservationId
  readonly subject: string
  readonly model: string
  /** The key that it was sent with: only its account knows the task. */
  readonly keyId: string
  /** `null` while nobody knows its id: the submit is on its way, or its answer was lost. */
  readonly task: Task | null
}

/**
 * Finds reservations by the secrets that their callbacks come with. A store knows the hashes alone (`Step`: sent), so
 * that
 * nobody can call back for us who has read the store.
 */
export interface CallbackSecrets {
  /** `null`: there is none, or none any more. Throws `GW_STORE_DOWN`. */
  reservationOf (secretHash: string): Promise<CallbackTarget | null>
}

/** Where the upstream is to call. */
export interface CallbackAddress {
  /** Whoever has it can make us ask for a status: never logged, never stored. */
  readonly url: string
  readonly secretHash: string
}

/** The route on which callbacks come in. */
export const callbackPath = '/gateway/callbacks/'

/** Makes addresses that nobody can guess, 256 random bits each. `publicUrl`: our own origin as the upstream sees it. */
export function callbackAddresses (publicUrl: string): () => CallbackAddress {
  return () => {
    const secret = randomBytes(32).toString('base64url')
    return { url: `${publicUrl}${callbackPath}${secret}`, secretHash: secretHashOf(secret) }
  }
}

/**
 * What a secret is looked up by. How long a look-up takes depends on the hash, of which a guess says nothing: there is
 * nothing to compare in constant time.
 */
export function secretHashOf (secret: string): string {
  return hash('sha256', secret, 'base64url')
}

/** Whether it could be a secret of ours. */
export function isSecretForm (text: string): boolean {
  return /^[\w-]{43}$/.test(text)
}

/** What the upstream announces by itself. */
export interface Callbacks {
  /** Whose secret it is; `null`: nobody's. Throws `GW_STORE_DOWN`. */
  find (secret: string): Promise<CallbackTarget | null>
  /**
   * Looks into it, behind the answer. The body is a hint and no more: the upstream is asked, at most once per interval
   * and
   * task however often somebody calls, and its answer decides. `null`: the body could not be read.
   */
  handle (calledBack: CallbackTarget, body: Buffer | null): void
  /** Resolves when what is under way is done. */
  close (): Promise<void>
}

/** What a callback said that can not be so. */
export type Anomaly = 'not its task' | 'a task that has not ended' | 'a task that the upstream does not know'

export interface CallbacksOptions extends Clock {
  readonly secrets: CallbackSecrets
  readonly ledger: Pick<LedgerClient, 'claim' | 'settle' | 'taskOf'>
  readonly upstream: Upstream
  readonly keys: KeyChoice
  readonly desk: StatusPoller
  readonly events: TaskEvents
  /** As the desk's, ms. */
  readonly intervalOf: (model: string) => number
  readonly timers: Timers
  readonly onOdd: (calledBack: CallbackTarget, oddity: Anomaly) => void
  /** A reservation whose answer was lost has its task. */
  readonly onFound: (calledBack: CallbackTarget, taskId: string) => void
  readonly onTrouble: (calledBack: CallbackTarget, error: unknown) => void
}

/** Reservations whose last check is remembered, and tasks that are asked about later. */
const maxRemembered = 10_000
/** Ids are opaque, but go into a URL; all that were seen are of letters, digits and `_`. */
const taskIdForm = /^[\x21-\x7e]{1,256}$/

export function callbacks (options: CallbacksOptions): Callbacks {
  const { secrets, onOdd, onTrouble } = options
  const running = new Set<Promise<void>>()
  const askFor = asking(options)
  const adopt = adopting(options)

  const consider = async (calledBack: CallbackTarget, body: Buffer | null): Promise<void> => {
    const { task } = calledBack
    const said = body === null ? null : readEnvelope(body)
    if (said?.state !== undefined && !isFinal(said.state)) return onOdd(calledBack, 'a task that has not ended')
    if (task !== null && said?.taskId !== undefined && said.taskId !== task.taskId) {
      return onOdd(calledBack, 'not its task')
    }
    if (task === null) await adopt(calledBack, said?.taskId ?? '')
    else if (task.finalAnswer === null) await askFor(calledBack, task)
  }

  return {
    find: async secret => isSecretForm(secret) ? await secrets.reservationOf(secretHashOf(secret)) : null,
    handle (calledBack, body) {
      const work = consider(calledBack, body)
        .catch(error => onTrouble(calledBack, error))
        .finally(() => running.delete(work))
      running.add(work)
    },
    async close () { await Promise.all(running) }
  }
}

/**
 * Asks about a task at once; if that was done not long ago because of another callback, later, once for all that come
 * until then.
 */
function asking ({ desk, ledger, timers, intervalOf, elapsed, onTrouble }: CallbacksOptions) {
  const later = new Set<string>()
  const askedAt = new LRUCache<string, number>({ max: maxRemembered })

  /** `false`: it was asked about too lately. */
  const ask = async (task: Task): Promise<boolean> => {
    askedAt.set(task.taskId, elapsed())
    const { kind } = await desk.ask(task, { hasNews: true }).report
    return kind !== 'early'
  }
  const again = async (taskId: string): Promise<void> => {
    later.delete(taskId)
    const task = await ledger.taskOf(taskId)
    if (task !== null) await ask(task)
  }

  return async (calledBack: CallbackTarget, task: Task): Promise<void> => {
    const { taskId, model } = task
    const isFirst = elapsed() - (askedAt.get(taskId) ?? -Infinity) >= intervalOf(model)
    if (isFirst && await ask(task)) return
    if (later.has(taskId) || later.size >= maxRemembered) return
    later.add(taskId)
    timers.after(intervalOf(model), () => { again(taskId).catch(error => onTrouble(calledBack, error)) })
  }
}

/**
 * A submit whose answer was lost, or is still on its way: the callback names the task that came of it. It is claimed
 * when
 * the upstream says, to the key of the submit, that it knows this task, and when nobody else has it.
 */
function adopting ({
  ledger,
  upstream,
  keys,
  events,
  intervalOf,
  now,
  elapsed,
  onOdd,
  onFound
}: CallbacksOptions) {
  const checkedAt = new LRUCache<ReservationId, number>({ max: maxRemembered })

  return async (calledBack: CallbackTarget, taskId: string): Promise<void> => {
    const { reservation, model } = calledBack
    if (!taskIdForm.test(taskId)) return onOdd(calledBack, 'not its task')
    if (elapsed() - (checkedAt.get(reservation) ?? -Infinity) < intervalOf(model)) return
    if (await ledger.taskOf(taskId) !== null) return onOdd(calledBack, 'not its task')
    checkedAt.set(reservation, elapsed())
    const outcome = await statusCall({ upstream, keys }, operationOf('statusTask'), { ...calledBack, taskId }).outcome
    if (outcome.kind === 'failed') return
    const { answer, envelope } = outcome
    if (envelope.taskId !== taskId || statedState(answer, envelope, taskId) === null) {
      return onOdd(calledBack, 'a task that the upstream does not know')
    }
    if (!await ledger.claim(reservation, taskId)) return onOdd(calledBack, 'not its task')
    onFound(calledBack, taskId)
    const state = finalState(answer, envelope, taskId)
    if (state !== null) await ledger.settle({ taskId, state, answer: answer.body })
    const task = await ledger.taskOf(taskId)
    const event = task && eventFrom(outcome, task, now())
    if (event !== null) events.publish(event)
  }
}
