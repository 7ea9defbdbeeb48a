import type { KeptAnswer } from '../../domain/ledger/idempotency.ts'
import type { Demand, LedgerTerms, ReservationId, Reserved, Step, TaskLedger } from '../../domain/ledger/ledger.ts'
import { forgetSlackMs } from '../../domain/sessions/session.ts'
import type { BusySubjects } from './busy-subjects.ts'
import type { RedisCallbackSecrets } from './callback-secrets.ts'
import type { Commands, Reply } from './commands.ts'
import type { RedisDeliveries } from './deliveries.ts'
import { earlierFrom } from './idempotency.ts'
import { keptFor } from './key-lifetimes.ts'
import { encoded, placeOf, reservationName } from './key-names.ts'
import type { Pulse } from './pulse.ts'
import type { RedisRepeats } from './repeats.ts'
import type { TaskOwners } from './task-owners.ts'
import type { Tasks } from './tasks.ts'

export interface LedgerOptions {
  readonly commands: Commands
  readonly busy: BusySubjects
  readonly owners: TaskOwners
  readonly callbacks: RedisCallbackSecrets
  readonly deliveries: RedisDeliveries
  readonly repeats: RedisRepeats
  readonly pulse: Pulse
  readonly tasks: Tasks
  readonly terms: LedgerTerms
  readonly now: () => number
  /** Idempotency keys that were made later than this count, Unix ms. */
  readonly countsSince: () => number
}

/** Overstayed reservations of a subject that one script lets go. */
const sweptAtOnce = 100

/**
 * The task ledger in Redis. Each step is one script in the slot of its subject; a claim and an ending first ask another
 * slot whose the task id is, which is written once and for all.
 */
export function redisLedger (options: LedgerOptions): TaskLedger {
  const { commands: { ofSubject }, busy, owners, deliveries, repeats, pulse, tasks, terms, now, countsSince } = options
  const take = steps(options)

  return {
    async reserve (demand) {
      await busy.note(demand.subject)
      if (demand.deliverTo !== undefined) await deliveries.note(demand.subject)
      const isSeen = demand.repeat === undefined ? null : pulse.begin()
      if (isSeen !== null) await isSeen
      const isPaid = demand.repeat === undefined ? null : repeats.pay(demand.subject)
      if (isPaid !== null) await isPaid
      const args = reserveArguments(demand, repeats.argumentsOf(demand), { at: now(), since: countsSince(), terms })
      const reply = await ofSubject(demand.subject, 'reserve', ...args).catch((error: unknown) => {
        repeats.giveBack(demand)
        throw error
      }) as Reply[]
      if (String(reply[0]) === 'novelty') await repeats.lookAfter(reply.slice(1))
      return reservedFrom(demand, reply)
    },
    advance: async (id, step) => await take(id, step),
    async settle ({ taskId, state, answer }) {
      const id = await owners.of(taskId)
      if (id === null) return false
      const { subject, number } = placeOf(id)!
      return await ofSubject(subject, 'settle', number, encoded(taskId), state, answer, terms.refundsPerPeriod) === 1
    },
    taskOf: tasks.of,
    async giveUp (taskId) {
      const id = await owners.of(taskId)
      if (id === null) return false
      const { subject, number } = placeOf(id)!
      return await ofSubject(subject, 'giveUp', number, encoded(taskId)) === 1
    },
    sweep: () => sweep(options)
  }
}

interface ReservedAt { readonly at: number, readonly since: number, readonly terms: LedgerTerms }

function reserveArguments (demand: Demand, repeat: readonly string[], { at, since, terms }: ReservedAt) {
  const { periodStart, microcredits, creditLimit, taskLimit, operation, model, keyId, refundable, idempotency, session, deliverTo = '' } = demand
  return [
    periodStart, microcredits, creditLimit ?? '', taskLimit, at + terms.reservedMs,
    operation, model, keyId, refundable ? 1 : 0, new Date(at).toISOString().slice(0, 10), deliverTo,
    ...(idempotency === undefined ? ['', ''] : [encoded(idempotency.key), idempotency.fingerprint]),
    since,
    ...repeat,
    ...(session === undefined ? [] : [encoded(session.id), session.uses ?? '', session.creditLimit ?? '', keptFor(session.expiresAt + forgetSlackMs - at)])
  ]
}

function reservedFrom ({ subject }: Demand, [result, ...rest]: readonly Reply[]): Reserved {
  const word = String(result)
  if (word === 'granted') return { granted: true, id: reservationName({ subject, number: String(rest[0]) }) }
  if (word === 'novelty') return { granted: false, lacks: 'novelty', earlier: earlierFrom(rest)! }
  return { granted: false, lacks: word as 'credits' | 'slot' | 'uses' }
}

function steps ({ commands: { ofSubject }, busy, owners, callbacks, repeats, terms, now }: LedgerOptions): TaskLedger['advance'] {
  const send = async (id: ReservationId, { keyId, callbackHash }: Step & { readonly to: 'sent' }): Promise<boolean> => {
    const { subject, number } = placeOf(id)!
    if (callbackHash !== undefined) await callbacks.set(callbackHash, id)
    return await ofSubject(subject, 'send', number, keyId, now() + terms.sentMs, callbackHash ?? '') === 1
  }
  const claim = async (id: ReservationId, { taskId, answer }: Step & { readonly to: 'claimed' }): Promise<boolean> => {
    const { subject, number } = placeOf(id)!
    // One that was unknown may have left the list; it is unfinished again now.
    await busy.note(subject)
    if (!await owners.set(taskId, id)) return false
    const reply = await ofSubject(subject, 'claim', number, encoded(taskId), now() + terms.giveUpMs, ...kept(answer))
    repeats.note(subject, reply)
    const taken = reply !== 0
    if (taken) owners.confirm(taskId, id)
    else await owners.remove(taskId, id)
    return taken
  }

  return async (id, step) => {
    const place = placeOf(id)
    if (place === null) return false
    const { subject, number } = place
    switch (step.to) {
      case 'sent': return await send(id, step)
      case 'claimed': return await claim(id, step)
      case 'released': return await ofSubject(subject, 'release', number, ...kept(step.answer)) === 1
      case 'unknown': {
        const reply = await ofSubject(subject, 'lose', number)
        repeats.note(subject, reply)
        return reply !== 0
      }
    }
  }
}

function kept (answer: KeptAnswer | undefined): ReadonlyArray<string | number | Buffer> {
  return answer === undefined ? ['', '', ''] : [answer.status, answer.contentType, answer.body]
}

/** All that is due, by scripts of bounded length, so that nobody else has to wait for long. */
async function sweep ({ commands: { ofSubject }, busy, now }: LedgerOptions) {
  let [released, unknown] = [0, 0]
  await busy.whatIsDue(async (subject) => {
    for (;;) {
      const [free, lost, next] = (await ofSubject(subject, 'sweep', sweptAtOnce) as Reply[]).map(count => String(count))
      released += Number(free)
      unknown += Number(lost)
      if (next === '') return null
      if (Number(next) > now()) return Number(next)
    }
  })
  return { released, unknown }
}
