import type { FastifyInstance, FastifyRequest } from 'fastify'
import { hash, randomBytes } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import type { KeyChoice } from '../../domain/key-ring.ts'
import type { LedgerClient } from '../../domain/ledger-client.ts'
import type { Task } from '../../domain/ledger.ts'
import { recent } from '../../domain/recent.ts'
import type { StatusPoller } from '../../domain/status-poller.ts'
import type { CallbackSecrets, CallbackTarget } from '../../domain/store.ts'
import type { CallbackAddress } from '../../domain/submit.ts'
import { askUpstream, eventFrom, type TaskEvents, type UpstreamStatus } from '../../domain/task-status.ts'
import type { Clock, Timers } from '../../domain/time.ts'
import { isFinal, operationOf, readEnvelope, type Upstream } from '../../domain/upstream.ts'
import { gatewayError } from '../../errors.ts'

/** The route on which callbacks come in. */
const callbackPath = '/gateway/callbacks/'

/** Makes addresses that nobody can guess, 256 random bits each. `publicUrl`: our own origin as the upstream sees it. */
function callbackAddresses (publicUrl: string): () => CallbackAddress {
  return () => {
    const secret = randomBytes(32).toString('base64url')
    return { url: `${publicUrl}${callbackPath}${secret}`, secretHash: secretHashOf(secret) }
  }
}

/**
 * What a secret is looked up by. How long a look-up takes depends on the hash, of which a guess says nothing: there is
 * nothing to compare in constant time.
 */
function secretHashOf (secret: string): string {
  return hash('sha256', secret, 'base64url')
}

/** Whether it could be a secret of ours. */
function isSecretForm (text: string): boolean {
  return /^[\w-]{43}$/.test(text)
}

/** What the upstream announces by itself. */
export interface Callbacks {
  /** What the secret was made for; `null`: it is none of ours. Throws `GW_STORE_DOWN`. */
  find (secret: string): Promise<CallbackTarget | null>
  /**
   * Handles a callback in the background, after its answer. The body is a hint and no more: the upstream is asked, at
   * most once per interval and task however many callbacks come, and its answer decides. `null`: the body could not be
   * read.
   */
  handle (target: CallbackTarget, body: Buffer | null): void
  /** Makes the address that the upstream is to call for a submit. */
  readonly newAddress: () => CallbackAddress
  /** Resolves when what is under way is done. */
  close (): Promise<void>
}

/** What a callback said that can not be so. */
type Anomaly = 'not its task' | 'a task that has not ended' | 'a task that the upstream does not know'

interface CallbacksOptions extends Clock {
  readonly publicUrl: string
  readonly secrets: CallbackSecrets
  readonly ledger: Pick<LedgerClient, 'claim' | 'settle' | 'taskOf'>
  readonly upstream: Upstream
  readonly keys: KeyChoice
  readonly poller: StatusPoller
  readonly events: TaskEvents
  /** Least time between two upstream calls for a task of this model, ms. */
  readonly intervalOf: (model: string) => number
  readonly timers: Timers
  readonly onAnomaly: (target: CallbackTarget, anomaly: Anomaly) => void
  /** A reservation whose answer was lost has its task. */
  readonly onFound: (target: CallbackTarget, taskId: string) => void
  readonly onTrouble: (target: CallbackTarget, error: unknown) => void
}

/** Reservations whose last check is remembered, and tasks that are polled later. */
const maxRemembered = 10_000
/** Ids are opaque, but go into a URL; all that were seen are of letters, digits and `_`. */
const taskIdForm = /^[\x21-\x7e]{1,256}$/

export function callbacks (options: CallbacksOptions): Callbacks {
  const { secrets, onAnomaly, onTrouble } = options
  const running = new Set<Promise<void>>()
  const announced = new AnnouncedTasks(options)
  const lost = new LostSubmits(options)

  const handle = async (target: CallbackTarget, body: Buffer | null): Promise<void> => {
    const { task } = target
    const said = body === null ? null : readEnvelope(body)
    if (said?.state !== undefined && !isFinal(said.state)) return onAnomaly(target, 'a task that has not ended')
    if (task === null) return await lost.adopt(target, said?.taskId ?? '')
    if (said?.taskId !== undefined && said.taskId !== task.taskId) return onAnomaly(target, 'not its task')
    if (task.finalAnswer === null) await announced.poll(target, task)
  }

  return {
    find: async secret => isSecretForm(secret) ? await secrets.reservationOf(secretHashOf(secret)) : null,
    handle (target, body) {
      const work = handle(target, body)
        .catch(error => onTrouble(target, error))
        .finally(() => running.delete(work))
      running.add(work)
    },
    newAddress: callbackAddresses(options.publicUrl),
    async close () { await Promise.all(running) }
  }
}

/** Tasks whose end was announced. */
class AnnouncedTasks {
  readonly #options: CallbacksOptions
  readonly #polledAt = recent<number>(maxRemembered)
  /** They are polled once more, when their interval is over. */
  readonly #later = new Set<string>()

  constructor (options: CallbacksOptions) {
    this.#options = options
  }

  /**
   * Polls a task at once; later, and once for all callbacks that come until then, if an earlier callback caused a poll
   * within the interval.
   */
  async poll (target: CallbackTarget, task: Task): Promise<void> {
    const { elapsed, intervalOf, timers, onTrouble } = this.#options
    const { taskId, model } = task
    const isFirst = elapsed() - (this.#polledAt.get(taskId) ?? -Infinity) >= intervalOf(model)
    if (isFirst && await this.#pollNow(task)) return
    if (this.#later.has(taskId) || this.#later.size >= maxRemembered) return
    this.#later.add(taskId)
    timers.after(intervalOf(model), () => { this.#pollAgain(taskId).catch(error => onTrouble(target, error)) })
  }

  /** `false`: the upstream was not asked, for it had been within the interval. */
  async #pollNow (task: Task): Promise<boolean> {
    const { poller, elapsed } = this.#options
    this.#polledAt.set(task.taskId, elapsed())
    return (await poller.poll(task, { hasNews: true }).report).source !== 'cached'
  }

  async #pollAgain (taskId: string): Promise<void> {
    this.#later.delete(taskId)
    const task = await this.#options.ledger.taskOf(taskId)
    if (task !== null) await this.#pollNow(task)
  }
}

/** Submits whose answer was lost, or is still on its way: the callback names the task that came of them. */
class LostSubmits {
  readonly #options: CallbacksOptions
  readonly #checkedAt = recent<number>(maxRemembered)

  constructor (options: CallbacksOptions) {
    this.#options = options
  }

  /**
   * Claims the task for the reservation, when the upstream says to the key of the submit that it knows this task, and
   * when no other reservation has it.
   */
  async adopt (target: CallbackTarget, taskId: string): Promise<void> {
    const { ledger, elapsed, intervalOf, onAnomaly, onFound } = this.#options
    const { reservation, model } = target
    if (!taskIdForm.test(taskId)) return onAnomaly(target, 'not its task')
    if (elapsed() - (this.#checkedAt.get(reservation) ?? -Infinity) < intervalOf(model)) return
    if (await ledger.taskOf(taskId) !== null) return onAnomaly(target, 'not its task')
    this.#checkedAt.set(reservation, elapsed())
    const outcome = await askUpstream(this.#options, operationOf('statusTask'), { ...target, taskId })
    if (outcome.source === 'none') return
    if (outcome.envelope.taskId !== taskId || outcome.state === null) {
      return onAnomaly(target, 'a task that the upstream does not know')
    }
    if (!await ledger.claim(reservation, taskId)) return onAnomaly(target, 'not its task')
    onFound(target, taskId)
    await this.#publish(outcome, taskId)
  }

  /** Settles the task if it has ended, and lets its subject hear of it. */
  async #publish (outcome: UpstreamStatus, taskId: string): Promise<void> {
    const { ledger, events, now } = this.#options
    const { state, answer: { body } } = outcome
    if (isFinal(state)) await ledger.settle({ taskId, state, answer: body })
    const task = await ledger.taskOf(taskId)
    const event = task && eventFrom(outcome, task, now())
    if (event !== null) events.publish(event)
  }
}

/** Far more than an envelope has. What is longer is not read as one. */
const maxBodyBytes = 1024 * 1024

/**
 * The upstream announces the end of a task. Its callbacks are not signed (APIXO docs, "Webhooks"), so nothing of one is
 * believed: the secret in the path says which task to ask about. An unknown one is an address that does not exist, said
 * before the body is read; a known one gets its 200 whatever the body says, or it would be sent again and again.
 */
export function callbackRoutes (app: FastifyInstance, { find, handle }: Callbacks): void {
  const found = new WeakMap<FastifyRequest, CallbackTarget>()
  app.removeAllContentTypeParsers()
  app.addContentTypeParser(
    '*',
    (request: FastifyRequest, payload: IncomingMessage, done: (error: Error | null, body?: Buffer | null) => void) => {
      // Compressed it is not read either: a bomb needs a decoder.
      const isPlain = (request.headers['content-encoding'] ?? 'identity') === 'identity'
      const chunks: Buffer[] = []
      let length = 0
      const read = (chunk: Buffer): void => {
        length += chunk.length
        if (length > maxBodyBytes) finish() // what else comes makes no difference
        else if (isPlain) chunks.push(chunk)
      }
      const finish = (): void => {
        payload.off('data', read).off('end', finish).off('error', done)
        done(null, isPlain && length <= maxBodyBytes ? Buffer.concat(chunks) : null)
      }
      payload.on('data', read).once('end', finish).once('error', done)
    }
  )

  // An address that many callbacks come from is not one that guesses: its 404s are not counted against it.
  app.post<{ Params: { secret: string } }>(
    `${callbackPath}:secret`,
    {
      config: { operation: 'callback', uncounted: true, opensWith: 'callback' },
      async onRequest (request) {
        request.call.enter('authorize')
        const target = await find((request.params as { secret: string }).secret)
        if (target === null) throw gatewayError('GW_NOT_FOUND')
        request.raw.headers['content-type'] = 'application/octet-stream' // whatever it says, or the framework would answer 415
        found.set(request, target)
      }
    },
    async (request, reply) => {
      const target = found.get(request)!
      handle(target, (request.body as Buffer | null) ?? null)
      const { call } = request
      call.grant()
      call.model = target.model
      call.taskId = target.task?.taskId ?? null
      return reply.type('application/json; charset=utf-8').send('{}')
    }
  )
}
