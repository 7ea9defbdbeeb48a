import { LRUCache } from 'lru-cache'
import {
  type Abandoned, type CreditAccounts, type ReserveRequest, type Earlier, type IdempotencyStore, type LedgerTerms,
  type NearEnd, type ReservationId, type ReservedAll, type Stage, type Transition, type Task, type TaskLedger,
  tooMuchGranted, type UnfinishedTasks
} from '../../domain/ledger.ts'
import { forgetSlackMs } from '../../domain/session.ts'
import type { Awaitable } from '../../domain/time.ts'
import { gatewayError } from '../../errors.ts'
import type { ActivePlace, ActiveSubjects } from './active-subjects.ts'
import type { Commands, Reply } from './client.ts'
import { drawsAbove, type Holds } from './holds.ts'
import { decoded, encoded, keptFor, type KeyNames, type Place, placeOf, reservationName } from './keys.ts'
import type { RedisCallbackSecrets, RedisDeliveries } from './records.ts'
import type { Pulse, RedisRepeats } from './repeats.ts'
import { headOf, type RepeatRequest, type ReserveFields } from './scripts.ts'
import type { TaskOwners } from './task-owners.ts'

/**
 * Idempotency keys in Redis. They are written by the scripts of the ledger; what is no answer is read off the
 * reservation. `countsSince`: keys that were made later than this count, Unix ms.
 */
export function redisIdempotency ({ ofSubject }: Commands, countsSince: () => number): IdempotencyStore {
  return {
    async earlier (subject, { key, fingerprint }) {
      const request = { key: encoded(key), fingerprint, since: countsSince() }
      return earlierFrom(await ofSubject(subject, 'findEarlier', request) as Reply[])
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

interface LedgerOptions {
  readonly commands: Commands
  readonly active: ActiveSubjects
  readonly owners: TaskOwners
  readonly callbacks: RedisCallbackSecrets
  readonly deliveries: RedisDeliveries
  readonly repeats: RedisRepeats
  readonly pulse: Pulse
  readonly holds: Holds
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
  const { commands: { ofSubject }, owners, tasks } = options
  const take = steps(options)
  const reserveAll = reserving(options)

  return {
    async reserve (demand) {
      const reserved = await reserveAll([demand])
      if (!reserved.granted) return reserved
      const { ids: [id], near } = reserved
      return near === undefined ? { granted: true, id: id! } : { granted: true, id: id!, near }
    },
    reserveAll,
    advance: async (id, step) => await take(id, step),
    async settle ({ taskId, state, answer }) {
      const id = await owners.of(taskId)
      if (id === null) return false
      const { subject, number } = placeOf(id)!
      return await ofSubject(subject, 'settle', { number, task: encoded(taskId), state }, answer) === 1
    },
    taskOf: tasks.of,
    async giveUp (taskId) {
      const id = await owners.of(taskId)
      if (id === null) return false
      const { subject, number } = placeOf(id)!
      return await ofSubject(subject, 'giveUp', { number, task: encoded(taskId) }) === 1
    },
    async abandon ({ taskId, mostPerHour }) {
      const id = await owners.of(taskId)
      if (id === null) return { result: 'ended' }
      const { subject, number } = placeOf(id)!
      const overstaysAt = options.now() + options.terms.giveUpMs
      const request = { number, task: encoded(taskId), overstaysAt, mostPerHour }
      const [word, at] = await ofSubject(subject, 'abandon', request) as Reply[]
      const result = String(word) as Abandoned['result']
      if (result === 'ended') return { result }
      return result === 'abandoned' ? { result, at: Number(at) } : { result, retryAt: Number(at) }
    },
    sweep: () => sweep(options)
  }
}

function reserving (options: LedgerOptions): TaskLedger['reserveAll'] {
  const { commands: { ofSubject }, active, deliveries, repeats, pulse, holds, terms, now, countsSince } = options

  /** Of demands that have no room above their subject: one that was made before is told so all the same. */
  const orEarlier = async (subject: string, lack: Refused, submits: readonly ReserveFields[]): Promise<ReservedAll> => {
    for (const { idempotency, submit } of submits) {
      if (idempotency === undefined && submit === undefined) continue
      const reply = idempotency === undefined
        ? await ofSubject(subject, 'takeRepeat', submit!) as Reply[]
        : await ofSubject(subject, 'findEarlier', idempotency) as Reply[]
      await repeats.lookAfter(reply)
      const earlier = earlierFrom(reply)
      if (earlier !== null) return { granted: false, reason: 'duplicate', earlier }
    }
    return lack
  }
  const attempt = async (demands: readonly ReserveRequest[]): Promise<ReservedAll> => {
    const { subject } = demands[0]!
    const at = { at: now(), since: countsSince(), terms }
    const fields = demands.map(demand => reserveFields(demand, repeats.requestOf(demand.repeat), at))
    const taken = demands.some(drawsAbove) ? await holds.take(demands) : null
    if (taken?.granted === false) return await orEarlier(subject, taken, fields)
    const submits = taken === null ? fields : fields.map((one, index) => ({ ...one, hold: taken.holds[index] }))
    const reply = await ofSubject(subject, 'reserve', { submits }) as Reply[]
    const reserved = reservedFrom(subject, reply, taken?.near ?? [])
    if (taken !== null && !reserved.granted) await holds.giveBack(taken)
    if (String(reply[0]) === 'novelty') await repeats.lookAfter(reply.slice(1))
    return reserved
  }

  return async demands => {
    const { subject } = demands[0]!
    const repeated = demands.filter(({ repeat }) => repeat !== undefined)
    await active.touch(subject)
    if (demands.some(({ deliverTo }) => deliverTo !== undefined)) await deliveries.touch(subject)
    const begun = repeated.length === 0 ? null : pulse.begin()
    if (begun !== null) await begun
    const flushed = repeated.length === 0 ? null : repeats.flushSubject(subject)
    if (flushed !== null) await flushed
    return await attempt(demands).catch((error: unknown) => {
      for (const demand of repeated) repeats.giveBack(demand)
      throw error
    })
  }
}

type Refused = Extract<ReservedAll, { readonly granted: false }>

interface ReservedAt { readonly at: number, readonly since: number, readonly terms: LedgerTerms }

function reserveFields (
  demand: ReserveRequest, submit: RepeatRequest | undefined, { at, since, terms }: ReservedAt
): ReserveFields {
  const { idempotency, session } = demand
  return {
    operation: demand.operation,
    model: demand.model,
    keyId: demand.keyId,
    cost: demand.microcredits,
    refundable: demand.refundable,
    day: new Date(at).toISOString().slice(0, 10),
    periodStart: demand.periodStart,
    creditLimit: demand.creditLimit ?? undefined,
    taskLimit: demand.taskLimit,
    overstaysAt: at + terms.reservedMs,
    deliverTo: demand.deliverTo,
    idempotency: idempotency && { key: encoded(idempotency.key), fingerprint: idempotency.fingerprint, since },
    submit,
    session: session && {
      id: encoded(session.id),
      uses: session.uses ?? undefined,
      creditLimit: session.creditLimit ?? undefined,
      keptMs: keptFor(session.expiresAt + forgetSlackMs - at)
    }
  }
}

/** `ofPool`: what of its pool is nearly used up. */
function reservedFrom (
  subject: string, [result, ...rest]: readonly Reply[], ofPool: readonly NearEnd[]
): ReservedAll {
  const word = String(result)
  if (word === 'granted') {
    const [left, ...numbers] = rest.map(String)
    const near = left === '' ? ofPool : [{ hold: null, left: Number(left) }, ...ofPool]
    const ids = numbers.map(number => reservationName({ subject, number }))
    return { granted: true, ids, near: near.length === 0 ? undefined : near }
  }
  if (word === 'novelty') return { granted: false, reason: 'duplicate', earlier: earlierFrom(rest)! }
  // Its holds had lapsed by then, and nothing was set aside.
  if (word === 'lapsed') throw gatewayError('GW_STORE_DOWN', { retryAfterSeconds: 1 })
  return { granted: false, reason: word as 'credits' | 'slot' | 'uses' }
}

function steps ({
  commands: { ofSubject },
  active,
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
    return await ofSubject(subject, 'markSent', { number, keyId, overstaysAt: now() + terms.sentMs, callbackHash }) === 1
  }
  const claim = async (
    id: ReservationId,
    { taskId, answer }: Transition & { readonly to: 'claimed' }
  ): Promise<boolean> => {
    const { subject, number } = placeOf(id)!
    // One that was unknown may have left the list; it is unfinished again now.
    await active.touch(subject)
    if (!await owners.set(taskId, id)) return false
    const request = { number, task: encoded(taskId), overstaysAt: now() + terms.giveUpMs, answer: headOf(answer) }
    const reply = await ofSubject(subject, 'claim', request, answer?.body)
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
      case 'released': {
        const request = { number, answer: headOf(step.answer) }
        return await ofSubject(subject, 'release', request, step.answer?.body) === 1
      }
      case 'unknown': {
        const reply = await ofSubject(subject, 'markUnknown', { number })
        repeats.note(subject, reply)
        return reply !== 0
      }
      case 'used': {
        const { microcredits, isEstimate } = step
        return await ofSubject(subject, 'use', { number, microcredits, isEstimate }) === 1
      }
    }
  }
}

/** All that is due, by scripts of bounded length, so that nobody else has to wait for long. */
async function sweep ({ commands: { ofSubject }, active, holds, now }: LedgerOptions) {
  let [released, unknown] = [0, 0]
  await active.visitDue(async subject => {
    for (;;) {
      const reply = await ofSubject(subject, 'sweep', { limit: sweptAtOnce }) as Reply[]
      const [releasedCount, unknownCount, nextAt] = reply.map(String)
      released += Number(releasedCount)
      unknown += Number(unknownCount)
      if (nextAt === '') return null
      if (Number(nextAt) > now()) return Number(nextAt)
    }
  })
  await holds.sweep()
  return { released, unknown }
}

export function redisAccounts ({ ofSubject }: Commands): CreditAccounts {
  return {
    async balanceOf (subject, periodStart) {
      const [used, granted, unfinished, extra] = (
        await ofSubject(subject, 'readBalance', { periodStart }) as Array<Buffer | number>
      ).map(Number)
      const balance = { used: used!, granted: granted!, unfinished: unfinished! }
      return extra === 0 ? balance : { ...balance, extra }
    },
    async spentIn (subject, budgetId) {
      const reply = await ofSubject(subject, 'readSpent', { sessionId: encoded(budgetId) }) as Buffer[]
      const [uses, microcredits] = reply.map(Number)
      return { uses: uses!, microcredits: microcredits! }
    },
    async grant ({ subject, microcredits }) {
      const left = await ofSubject(subject, 'grantCredits', { microcredits, limit: Number.MAX_SAFE_INTEGER })
      if (left === null) throw tooMuchGranted()
      return Number(left)
    }
  }
}

/** Finds tasks. */
export interface Tasks {
  of (taskId: string): Awaitable<Task | null>
  /** It is gone, and not to be remembered. */
  forget (taskId: string): void
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

  const find = async (taskId: string): Promise<Task | null> => {
    const id = await owners.of(taskId)
    const found = id === null ? null : await at(placeOf(id)!)
    if (found === null) return null
    if (found.task === null) {
      // A reservation that owns the id and has not claimed it yet is its owner all the same: it was sent, and an answer
      // with this id came back.
      return found.stage === 'reserved' ? null : taskFrom(taskId, found)
    }
    if (found.task.taskId !== taskId) return null
    owners.confirm(taskId, id!)
    if (found.endedAt !== null && found.stage === 'settled') {
      ended.set(taskId, { task: found.task, endedAt: found.endedAt })
    }
    return found.task
  }

  return {
    at,
    forget (taskId) { ended.delete(taskId) },
    of (taskId) {
      const known = ended.get(taskId)
      if (known === undefined) return find(taskId)
      return isKept(known.endedAt) ? known.task : null
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

/** Steps over the list of active subjects that one page takes at the most; then it is a short one. */
const stepsPerPage = 16

/** In the order of the active subjects; a cursor names the last task, and the subject with it. */
export function redisUnfinishedTasks ({ ofSubject }: Commands, active: ActiveSubjects): UnfinishedTasks {
  const claimedOf = async (
    subject: string,
    after: string,
    before: number,
    limit: number
  ): Promise<readonly Claimed[]> => {
    const rows = await ofSubject(subject, 'listUnfinished', { after, createdBy: before, limit }) as Buffer[][]
    return rows.map(row => claimedFrom(subject, row.map(String)))
  }

  return {
    async page (cursor, before, limit) {
      const begin = placeFrom(cursor)
      const items: Task[] = []
      let place: ActivePlace | null = begin
      for (let step = 0; step < stepsPerPage && place !== null; step++) {
        const { subjects, next } = await active.from(place)
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
