import { LRUCache } from 'lru-cache'
import {
  type CreditAccounts, type ReserveRequest, type Earlier, type IdempotencyStore, type StoredResponse, type LedgerTerms,
  type ReservationId, type Reserved, type Stage, type Transition, type Task, type TaskLedger, tooMuchGranted,
  type UnfinishedTasks
} from '../../domain/ledger.ts'
import { recent } from '../../domain/recent.ts'
import { forgetSlackMs } from '../../domain/session.ts'
import type { ActivePlace, ActiveSubjects } from './active-subjects.ts'
import type { Commands, Reply } from './client.ts'
import { decoded, encoded, keepMs, keptFor, type KeyNames, type Place, placeOf, reservationName } from './keys.ts'
import type { RedisCallbackSecrets, RedisDeliveries } from './records.ts'
import type { Pulse, RedisRepeats } from './repeats.ts'

/**
 * Idempotency keys in Redis. They are written by the scripts of the ledger; what is no answer is read off the
 * reservation.
 * `countsSince`: keys that were made later than this count, Unix ms.
 */
export function redisIdempotency ({ ofSubject }: Commands, countsSince: () => number): IdempotencyStore {
  return {
    async earlier (subject, { key, fingerprint }) {
      return earlierFrom(await ofSubject(subject, 'earlier', encoded(key), fingerprint, countsSince()) as Reply[])
    }
  }
}

export function earlierFrom ([kind, status, contentType, body]: readonly Reply[]): Earlier | null {
  if (kind === undefined) return null
  const word = String(kind) as Earlier['kind']
  if (word === 'task') return { kind: word, taskId: decoded(String(status)) }
  if (word !== 'answered') return { kind: word }
  return { kind: word, answer: { status: Number(status), contentType: String(contentType), body: body as Buffer } }
}

export interface LedgerOptions {
  readonly commands: Commands
  readonly busy: ActiveSubjects
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
      await busy.touch(demand.subject)
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

function reserveArguments (demand: ReserveRequest, repeat: readonly string[], { at, since, terms }: ReservedAt) {
  const {
    periodStart,
    microcredits,
    creditLimit,
    taskLimit,
    operation,
    model,
    keyId,
    refundable,
    idempotency,
    session,
    deliverTo = ''
  } = demand
  return [
    periodStart, microcredits, creditLimit ?? '', taskLimit, at + terms.reservedMs,
    operation, model, keyId, refundable ? 1 : 0, new Date(at).toISOString().slice(0, 10), deliverTo,
    ...(idempotency === undefined ? ['', ''] : [encoded(idempotency.key), idempotency.fingerprint]),
    since,
    ...repeat,
    ...(session === undefined
      ? []
      : [
          encoded(session.id),
          session.uses ?? '',
          session.creditLimit ?? '',
          keptFor(session.expiresAt + forgetSlackMs - at)
        ])
  ]
}

function reservedFrom ({ subject }: ReserveRequest, [result, ...rest]: readonly Reply[]): Reserved {
  const word = String(result)
  if (word === 'granted') return { granted: true, id: reservationName({ subject, number: String(rest[0]) }) }
  if (word === 'novelty') return { granted: false, reason: 'duplicate', earlier: earlierFrom(rest)! }
  return { granted: false, reason: word as 'credits' | 'slot' | 'uses' }
}

function steps ({
  commands: { ofSubject },
  busy,
  owners,
  callbacks,
  repeats,
  terms,
  now
}: LedgerOptions): TaskLedger['advance'] {
  const send = async (
    id: ReservationId,
    { keyId, callbackHash }: Transition & { readonly to: 'sent' }
  ): Promise<boolean> => {
    const { subject, number } = placeOf(id)!
    if (callbackHash !== undefined) await callbacks.set(callbackHash, id)
    return await ofSubject(subject, 'send', number, keyId, now() + terms.sentMs, callbackHash ?? '') === 1
  }
  const claim = async (
    id: ReservationId,
    { taskId, answer }: Transition & { readonly to: 'claimed' }
  ): Promise<boolean> => {
    const { subject, number } = placeOf(id)!
    // One that was unknown may have left the list; it is unfinished again now.
    await busy.touch(subject)
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

function kept (answer: StoredResponse | undefined): ReadonlyArray<string | number | Buffer> {
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

export function redisAccounts ({ ofSubject }: Commands): CreditAccounts {
  return {
    async balanceOf (subject, periodStart) {
      const [used, granted, unfinished] = (
        (await ofSubject(subject, 'balance', periodStart)) as Array<Buffer | number>
      ).map(Number)
      return { used: used!, granted: granted!, unfinished: unfinished! }
    },
    async spentIn (subject, budgetId) {
      const [uses, microcredits] = (await ofSubject(subject, 'spent', encoded(budgetId)) as Buffer[]).map(Number)
      return { uses: uses!, microcredits: microcredits! }
    },
    async grant ({ subject, microcredits }) {
      const left = await ofSubject(subject, 'grant', microcredits)
      if (left === null) throw tooMuchGranted()
      return Number(left)
    }
  }
}

/** Finds tasks. */
export interface Tasks {
  of (taskId: string): Promise<Task | null>
  /** The reservation that stands there, with its task when it has one. */
  at (place: Place): Promise<Found | null>
}

/** A row that is not past its retention. */
interface Found extends Omit<Task, 'taskId'> {
  readonly callbackHash: string | null
  readonly endedAt: number | null
  readonly task: Task | null
}

interface Ended { readonly task: Task, readonly endedAt: number }

/** Memory for tasks that have ended, bytes. */
const endedBytes = 8 * 1024 * 1024
const bytesAround = 500
const fields = ['stage', 'operation', 'model', 'key', 'cost', 'created', 'task', 'ended', 'answer', 'callback'] as const

interface TasksOptions { readonly terms: LedgerTerms, readonly now: () => number }

/** A task that has ended does not change any more, and is what most polls ask for: it is remembered. */
export function redisTasks (
  { ask }: Commands, owners: TaskOwners, keys: KeyNames, { terms, now }: TasksOptions
): Tasks {
  const ended = new LRUCache<string, Ended>({
    maxSize: endedBytes,
    sizeCalculation: ({ task }) => task.finalAnswer!.length + bytesAround
  })
  const isKept = (endedAt: number | null): boolean => endedAt === null || endedAt + terms.retentionMs > now()
  const at = async (place: Place): Promise<Found | null> => {
    const found = foundFrom(place.subject, await ask(client => client.hmgetBuffer(keys.reservation(place), ...fields)))
    return found !== null && isKept(found.endedAt) ? found : null
  }

  return {
    at,
    async of (taskId) {
      const known = ended.get(taskId)
      if (known !== undefined) return isKept(known.endedAt) ? known.task : null
      const id = await owners.of(taskId)
      const found = id === null ? null : await at(placeOf(id)!)
      if (found === null) return null
      if (found.task === null) {
        // Who owns the id and has not claimed it yet is its owner all the same: it has the answer with the id in its
        // hands.
        return found.stage === 'reserved' ? null : taskFrom(taskId, found)
      }
      if (found.task.taskId !== taskId) return null
      owners.confirm(taskId, id!)
      if (found.endedAt !== null && found.stage === 'settled') {
        ended.set(taskId, { task: found.task, endedAt: found.endedAt })
      }
      return found.task
    }
  }
}

function foundFrom (subject: string, values: ReadonlyArray<Buffer | null>): Found | null {
  const [stage, operation, model, keyId, cost, created, taskId, endedAt, finalAnswer, callbackHash] = values
  if (!stage) return null
  const row = {
    subject,
    operation: String(operation),
    model: String(model),
    keyId: String(keyId),
    stage: String(stage) as Stage,
    microcredits: Number(cost),
    createdAt: Number(created),
    finalAnswer: finalAnswer ?? null
  }
  return {
    ...row,
    callbackHash: callbackHash ? String(callbackHash) : null,
    endedAt: endedAt ? Number(endedAt) : null,
    task: taskId ? taskFrom(decoded(String(taskId)), row) : null
  }
}

function taskFrom (
  taskId: string,
  { subject, operation, model, keyId, stage, microcredits, createdAt, finalAnswer }: Omit<Task, 'taskId'>
): Task {
  return { taskId, subject, operation, model, keyId, stage, microcredits, createdAt, finalAnswer }
}

/** Steps over the list of busy subjects that one page takes at the most; then it is a short one. */
const stepsPerPage = 16

/** In the order of the busy subjects; a cursor names the last task, and the subject with it. */
export function redisUnfinishedTasks ({ ofSubject }: Commands, busy: ActiveSubjects): UnfinishedTasks {
  const claimedOf = async (
    subject: string,
    after: string,
    before: number,
    limit: number
  ): Promise<readonly Claimed[]> => {
    const rows = (await ofSubject(subject, 'unfinished', after, before, limit)) as Buffer[][]
    return rows.map(row => claimedFrom(subject, row.map(String)))
  }

  return {
    async page (cursor, before, limit) {
      const begin = placeFrom(cursor)
      const items: Task[] = []
      let place: ActivePlace | null = begin
      for (let step = 0; step < stepsPerPage && place !== null; step++) {
        const { subjects, next } = await busy.from(place)
        for (const subject of subjects) {
          const after = step === 0 && subject === begin.subject ? begin.after : '0'
          const found = await claimedOf(subject, after, before, limit - items.length + 1)
          const room = limit - items.length
          items.push(...found.slice(0, room).map(({ task }) => task))
          if (found.length > room) {
            const last = room > 0 ? found[room - 1]!.number : after
            return { items, next: cursorFrom({ ...placeOfSubject(place, subject), after: last }) }
          }
        }
        place = next
      }
      return { items, next: place && cursorFrom({ ...place, after: '0' }) }
    }
  }
}

interface Claimed { readonly number: string, readonly task: Task }
interface PageStart extends ActivePlace { readonly after: string }

const placeOfSubject = ({ shard }: ActivePlace, subject: string): ActivePlace => ({ shard, subject })

function cursorFrom ({ shard, subject, after }: PageStart): string {
  return `${shard} ${after} ${subject === null ? '' : `/${encoded(subject)}`}`
}

function placeFrom (cursor: string | null): PageStart {
  const [shard, after, subject] = (cursor ?? '0 0 ').split(' ')
  return { shard: Number(shard), after: after!, subject: subject === '' ? null : decoded(subject!.slice(1)) }
}

function claimedFrom (
  subject: string,
  [number, stage, created, operation, model, keyId, cost, taskId]: readonly string[]
): Claimed {
  return {
    number: number!,
    task: {
      taskId: decoded(taskId!),
      subject,
      operation: operation!,
      model: model!,
      keyId: keyId!,
      stage: stage as Stage,
      microcredits: Number(cost),
      createdAt: Number(created),
      finalAnswer: null
    }
  }
}

/**
 * Which reservation a task id belongs to. It stands in the slot of the task id, so it is written before the claim: who
 * dies in between leaves a task that has an owner, and that whoever comes next claims.
 */
export interface TaskOwners {
  /** `false`: it is another reservation's. */
  set (taskId: string, id: ReservationId): Promise<boolean>
  of (taskId: string): Promise<ReservationId | null>
  /** The claim was not open to it after all. */
  remove (taskId: string, id: ReservationId): Promise<void>
  /** The claim was made: this does not change any more. */
  confirm (taskId: string, id: ReservationId): void
}

const confirmedOwners = 20_000

export function taskOwners ({ on, ask, ofSubject }: Commands, keys: KeyNames, terms: LedgerTerms): TaskOwners {
  const confirmed = recent<ReservationId>(confirmedOwners)
  const own = async (
    taskId: string,
    id: ReservationId,
    instead: ReservationId | '' = ''
  ): Promise<ReservationId | null> => {
    const other = (await on(keys.owner(taskId), 'own', id, keepMs(terms), instead)) as Buffer | null
    return other && String(other)
  }
  /** Who wrote itself down, and was refused or forgotten, may have died before it took that back. */
  const mayClaim = async (taskId: string, id: ReservationId): Promise<boolean> => {
    const { subject, number } = placeOf(id)!
    return await ofSubject(subject, 'mayClaim', number, encoded(taskId)) === 1
  }

  return {
    async set (taskId, id) {
      const other = await own(taskId, id)
      return other === null || (!await mayClaim(taskId, other) && await own(taskId, id, other) === null)
    },
    async of (taskId) {
      return confirmed.get(taskId) ?? await ask(client => client.get(keys.owner(taskId)))
    },
    async remove (taskId, id) { await on(keys.owner(taskId), 'disown', id) },
    confirm (taskId, id) { confirmed.set(taskId, id) }
  }
}
