import { Cluster, type Redis } from 'ioredis'
import type { AlarmBook } from '../../domain/alarms.ts'
import { type AuditEntry, auditPartOf, auditParts, auditRetentionMs, type AuditTrail } from '../../domain/audit.ts'
import type { LedgerTerms, ReservationId, Stage } from '../../domain/ledger.ts'
import { recent } from '../../domain/recent.ts'
import type { PageRequest, TaskDetail, TaskRecord, TaskRecords, UsageRow, UsageSpan } from '../../domain/records.ts'
import { forgetSlackMs } from '../../domain/session.ts'
import type { CallbackSecrets } from '../../domain/store.ts'
import { filteredPage, type TaskFilter } from '../../domain/task-list.ts'
import type { FinalState } from '../../domain/upstream.ts'
import type { Deliveries, Delivery, DeliveryAttempt, DueDelivery } from '../../domain/webhooks.ts'
import { type ActivePlace, type ActiveSubjects, firstActive } from './active-subjects.ts'
import type { Commands } from './client.ts'
import {
  decoded, encoded, keepMs, type KeyNames, type Place, placeOf, reservationName, subjectOfList, usageKey
} from './keys.ts'
import type { Tasks } from './ledger.ts'
import type { TaskOwners } from './task-owners.ts'

/** A row of a list: `null` for one that is past its retention. */
interface Row { readonly number: string, readonly record: TaskRecord | null }

/** A reservation's number is at least the time it was made at (ms), so numbers order it, also between subjects. */
export function redisRecords (
  commands: Commands, active: ActiveSubjects, owners: TaskOwners, keys: KeyNames
): Omit<TaskRecords, 'usage'> {
  const { ofSubject } = commands
  return {
    async tasksOf (subject, page, filter = {}) {
      if (page.cursor !== null && !/^\d{1,16}$/.test(page.cursor)) return { items: [], next: null }
      return await filteredPage(page, filter, {
        async read (cursor, limit) {
          const from = cursor === null ? startOf(filter) : `(${cursor}`
          return rowsFrom(subject, await ofSubject(subject, 'listTasks', { from, above: '-inf', limit }) as Buffer[][])
        },
        recordOf: ({ record }) => record,
        cursorOf: ({ number }) => number
      })
    },
    tasks: async (page, filter) => tasksOfAll(commands, active, keys, page, filter),
    async taskAt (id) {
      const place = placeOf(await owners.of(id) ?? id)
      if (place === null) return null
      const values = await ofSubject(place.subject, 'readTask', { number: place.number }) as Array<Buffer | null>
      return values.length === 0 ? null : detailFrom(place, values.map(value => value && String(value)))
    },
    async endsOf (subject, { endedAt, taskId }, limit) {
      const reply = await ofSubject(subject, 'listEnded', { endedAt, task: encoded(taskId), limit }) as Buffer[]
      const rows = reply.map(String)
      return rows.flatMap((task, index) =>
        index % 2 === 0 ? [{ taskId: decoded(task), endedAt: Number(rows[index + 1]) }] : []
      )
    },
    unknowns: page => unknowns({ ofSubject }, active, page),
    async release (id) {
      const place = placeOf(id)
      return place !== null && await ofSubject(place.subject, 'releaseUnknown', { number: place.number }) === 1
    }
  }
}

/** The highest number that a task which was made before an instant can have, as Redis writes the end of a range. */
function startOf ({ before }: TaskFilter): string {
  return before === undefined ? '+inf' : String(before + forgetSlackMs)
}

/** A row of all subjects; `id` orders them. */
interface NamedRow extends Row { readonly id: string }

/**
 * Of every subject that has any its newest, and of those the newest of all: a script for each subject, a few at a time,
 * and after the first ones most find nothing that is newer than what is there. Those with something unfinished are
 * known; all others are found by walking over all keys.
 */
async function tasksOfAll (
  { ask, ofSubject }: Commands, active: ActiveSubjects, keys: KeyNames, page: PageRequest, filter: TaskFilter
): ReturnType<TaskRecords['tasks']> {
  const after = page.cursor === null ? null : placeOf(page.cursor)
  if (page.cursor !== null && after === null) return { items: [], next: null }
  const isRunning = filter.state === 'running'
  const subjects = isRunning
    ? await subjectsOf(active)
    : (await ask(client => namesLike(client, keys.listsOfTasks))).map(subjectOfList)
  return await filteredPage(page, filter, {
    async read (cursor, most) {
      const from = cursor === null ? startOf(filter) : placeOf(cursor)!.number
      const newest: NamedRow[] = []
      for (let start = 0; start < subjects.length; start += readAtOnce) {
        const above = newest.length < most ? '-inf' : placeOf(newest.at(-1)!.id)!.number
        const found = await Promise.all(subjects.slice(start, start + readAtOnce).map(async subject => {
          // One more, for that of the cursor itself.
          const request = { from, above, limit: most + 1 }
          const rows = await ofSubject(subject, isRunning ? 'listOpen' : 'listTasks', request) as Buffer[][]
          return rowsFrom(subject, rows).map(row => ({ ...row, id: reservationName({ subject, number: row.number }) }))
        }))
        newest.push(...found.flat().filter(({ id }) => cursor === null || isLater(cursor, id)))
        newest.sort((one, other) => (isLater(one.id, other.id) ? -1 : 1)).splice(most)
      }
      return newest
    },
    recordOf: ({ record }) => record,
    cursorOf: ({ id }) => id
  })
}

async function subjectsOf (active: ActiveSubjects): Promise<string[]> {
  const all: string[] = []
  for (let place: ActivePlace | null = firstActive; place !== null;) {
    const { subjects, next } = await active.from(place)
    all.push(...subjects)
    place = next
  }
  return all
}

/**
 * Of every active subject its oldest, and of those the oldest of all. That is a script for each subject, but short
 * ones, a few at a time: only an operator asks, and seldom.
 */
async function unknowns (
  { ofSubject }: Pick<Commands, 'ofSubject'>, active: ActiveSubjects, { cursor, limit }: PageRequest
): Promise<{ readonly items: TaskRecord[], readonly next: string | null }> {
  const after = cursor === null ? null : placeOf(cursor)
  if (cursor !== null && after === null) return { items: [], next: null }
  let oldest: Row[] = []
  const look = async (subject: string): Promise<Row[]> => {
    const request = { from: after?.number ?? '-inf', limit: limit + 2 }
    const rows = await ofSubject(subject, 'listUnknown', request) as Buffer[][]
    return rowsFrom(subject, rows).filter(
      ({ record }) => record !== null && (cursor === null || isLater(record.id, cursor))
    )
  }
  for (let place: ActivePlace | null = firstActive; place !== null;) {
    const { subjects, next } = await active.from(place)
    const found = (await Promise.all(subjects.map(look))).flat()
    oldest = [...oldest, ...found]
      .sort((one, other) => (isLater(one.record!.id, other.record!.id) ? 1 : -1))
      .slice(0, limit + 1)
    place = next
  }
  const items = oldest.slice(0, limit).map(({ record }) => record!)
  return { items, next: oldest.length > limit ? items.at(-1)!.id : null }
}

/** By their numbers, and those that are equal by their subjects, so that no two are equal. */
function isLater (one: string, other: string): boolean {
  const [first, second] = [placeOf(one)!, placeOf(other)!]
  return first.number === second.number ? first.subject > second.subject : Number(first.number) > Number(second.number)
}

function rowsFrom (subject: string, rows: ReadonlyArray<ReadonlyArray<Buffer | null>>): Row[] {
  return rows.map(([number, ...values]) => ({
    number: String(number),
    record:
      values.length === 0
        ? null
        : recordFrom(
          subject,
          String(number),
          values.map(value => value && String(value))
        )
  }))
}

function recordFrom (subject: string, number: string, values: ReadonlyArray<string | null>): TaskRecord {
  const [stage, operation, model, cost, created, task, state, refunded, ended, abandoned] = values
  return {
    id: reservationName({ subject, number }),
    subject,
    taskId: task ? decoded(task) : null,
    operation: operation!,
    model: model!,
    stage: stage as Stage,
    state: (state ?? null) as FinalState | null,
    microcredits: Number(cost),
    refunded: refunded === '1',
    createdAt: Number(created),
    endedAt: ended ? Number(ended) : null,
    abandonedAt: abandoned ? Number(abandoned) : null
  }
}

function detailFrom ({ subject, number }: Place, values: ReadonlyArray<string | null>): TaskDetail {
  const [key, refundable, period, fromGrants, session, lease, bytes, ...row] = values
  const record = recordFrom(subject, number, row)
  return {
    ...record,
    keyId: key!,
    refundable: refundable === '1',
    periodStart: Number(period),
    fromGrants: Number(fromGrants),
    sessionId: session ? decoded(session) : null,
    leaseUntil: lease ? Number(lease) : null,
    answerBytes: record.stage === 'settled' ? Number(bytes) : null
  }
}

type Sums = Omit<UsageRow, 'day' | 'subject' | 'model'>

const keysPerScan = 1000
const readAtOnce = 100

/**
 * Walks over all keys (`SCAN` holds nobody up, but is not quick) and adds up nothing: the sums are kept with each task.
 */
export async function redisUsage (
  { ask }: Commands,
  keys: KeyNames,
  { from, to }: UsageSpan
): Promise<readonly UsageRow[]> {
  const names = await ask(client => namesLike(client, keys.usageOf(sharedStart(from, to))))
  const inSpan = names.filter(name => usageKey(name).day >= from && usageKey(name).day <= to)
  const rows: UsageRow[] = []
  for (let start = 0; start < inSpan.length; start += readAtOnce) {
    const found = await Promise.all(inSpan.slice(start, start + readAtOnce).map(async name =>
      rowsOf(name, await ask(client => client.hgetall(name)))))
    rows.push(...found.flat())
  }
  return rows.sort((one, other) =>
    inOrder(one.day, other.day) || inOrder(one.subject, other.subject) || inOrder(one.model, other.model))
}

export async function namesLike (client: Redis | Cluster, pattern: string): Promise<string[]> {
  const found = new Set<string>() // a key may come twice
  for (const node of client instanceof Cluster ? client.nodes('master') : [client]) {
    let cursor = '0'
    do {
      const [next, names] = await node.scan(cursor, 'MATCH', pattern, 'COUNT', keysPerScan)
      for (const name of names) found.add(name)
      cursor = next
    } while (cursor !== '0')
  }
  return [...found]
}

function rowsOf (name: string, sums: Readonly<Record<string, string>>): UsageRow[] {
  const models = new Map<string, Partial<Record<keyof Sums, number>>>()
  for (const [field, sum] of Object.entries(sums)) {
    const [, what, model] = /^(\w+):(.*)$/s.exec(field)!
    models.set(model!, { ...models.get(model!), [what!]: Number(sum) })
  }
  return [...models].map(([model, sums]) =>
    ({ ...usageKey(name), model, tasks: 0, succeeded: 0, failed: 0, unknown: 0, microcredits: 0, ...sums }))
}

function sharedStart (one: string, other: string): string {
  const end = [...one].findIndex((character, index) => character !== other[index])
  return end === -1 ? one : one.slice(0, end)
}

function inOrder (one: string, other: string): number {
  return Number(one > other) - Number(one < other)
}

/**
 * Entries of the audit trail that are kept of what callers do, and as many refusals, about: Redis drops whole nodes.
 */
const auditEntries = 100_000

/**
 * The audit trail as a stream for each of its parts: of what callers do, and of refusals, the newest hundred thousand
 * entries are kept, and what the operator has done for its time. What an operator did under an earlier version stands
 * among what callers do.
 */
export function redisAudit ({ on, ask }: Commands, { audit, auditPart }: KeyNames): AuditTrail {
  return {
    async append (entries) {
      const packed = entries.map(entry => ({ part: auditPartOf(entry), entry: JSON.stringify(entry) }))
      await on(audit, 'appendAudit', { entries: packed, limit: auditEntries, operatorKeptMs: auditRetentionMs })
    },
    async read ({ cursor, limit }) {
      if (cursor !== null && !/^\d{1,20}-\d{1,20}$/.test(cursor)) return { items: [], next: null }
      const found = await ask(client =>
        Promise.all(
          auditParts.map(part =>
            client.xrevrange(auditPart(part), cursor === null ? '+' : `(${cursor}`, '-', 'COUNT', limit + 1)
          )
        )
      )
      const newest = found
        .flat()
        .map(([id, [, entry]]) => ({ id, entry: entry! }))
        .sort((one, other) => (isLaterEntry(one.id, other.id) ? -1 : 1))
      const shown = newest.slice(0, limit)
      return {
        items: shown.map(({ entry }) => JSON.parse(entry) as AuditEntry),
        next: newest.length > limit ? shown.at(-1)!.id : null
      }
    }
  }
}

/** Milliseconds and a number. */
function isLaterEntry (one: string, other: string): boolean {
  const [ms, number] = one.split('-').map(Number) as [number, number]
  const [otherMs, otherNumber] = other.split('-').map(Number) as [number, number]
  return ms === otherMs ? number > otherNumber : ms > otherMs
}

/** Deliveries in Redis, and what the ledger says to them. */
export interface RedisDeliveries extends Deliveries {
  /** A reservation with a delivery is about to be made: so no crash leaves its subject out. */
  touch (subject: string): Promise<void>
}

/** A replica touches a subject not more often, ms. */
const touchEveryMs = 60_000
/**
 * Must be well above `touchEveryMs`: a subject touched within this time is not touched again when a delivery is added,
 * ms.
 */
const recentMs = 600_000
const rememberedTouches = 50_000
const perStep = 50

/**
 * Each subject has a list of its deliveries, in its slot, by when they are due; and there is one list of the subjects
 * that have any, by when they were touched. A replica that looks for what is due asks all of them, a few at a time.
 */
export function redisDeliveries (
  { on, ask, ofSubject }: Commands,
  owners: TaskOwners,
  keys: KeyNames,
  { terms, now }: { readonly terms: LedgerTerms, readonly now: () => number }
): RedisDeliveries {
  const touchedAt = recent<number>(rememberedTouches)
  const dueOf = async ({ subject, at }: Touched, limit: number): Promise<readonly DueDelivery[]> => {
    const [count, rows] = await ofSubject(subject, 'dueDeliveries', { limit }) as [number, Buffer[][]]
    if (count === 0 && at < now() - recentMs) {
      await on(keys.deliveries, 'forgetDeliveries', { name: encoded(subject), touchedAt: at })
    }
    return rows.map(([taskId, body, ...row]) => ({ ...deliveryFrom(decoded(String(taskId)), row), body: body! }))
  }
  return {
    async touch (subject) {
      const at = now()
      if (at - (touchedAt.get(subject) ?? -Infinity) < touchEveryMs) return
      await on(keys.deliveries, 'touchDeliveries', { name: encoded(subject), now: at, keptMs: keepMs(terms) })
      touchedAt.set(subject, at)
    },
    async due (limit) {
      const touched = touchedFrom(await ask(client => client.zrange(keys.deliveries, '0', '-1', 'WITHSCORES')))
      let found: DueDelivery[] = []
      for (let start = 0; start < touched.length; start += perStep) {
        const more = await Promise.all(touched.slice(start, start + perStep).map(one => dueOf(one, limit)))
        found = [...found, ...more.flat()].sort((one, other) => one.nextAt! - other.nextAt!).slice(0, limit)
      }
      return found
    },
    async attempted (taskId, attempt, nextAt) {
      const id = await owners.of(taskId)
      if (id === null) return
      const { subject, number } = placeOf(id)!
      const request = { number, task: encoded(taskId), attempt: JSON.stringify(attempt), nextAt: nextAt ?? undefined }
      await ofSubject(subject, 'recordAttempt', request)
    },
    async of (taskId) {
      const id = await owners.of(taskId)
      if (id === null) return null
      const { subject, number } = placeOf(id)!
      const row = await ofSubject(subject, 'readDelivery', { number, task: encoded(taskId) }) as Array<Buffer | null>
      return row.length === 0 ? null : deliveryFrom(taskId, row)
    }
  }
}

interface Touched { readonly subject: string, readonly at: number }

function touchedFrom (found: readonly string[]): Touched[] {
  return found.flatMap((name, index) =>
    index % 2 === 0 ? [{ subject: decoded(name), at: Number(found[index + 1]) }] : []
  )
}

function deliveryFrom (taskId: string, [url, attempts, nextAt]: ReadonlyArray<Buffer | null>): Delivery {
  const lines = String(attempts ?? '').split('\n').filter(line => line !== '')
  // Those of a task that still runs are due at no time.
  const isDue = nextAt && String(nextAt) !== 'inf'
  return {
    taskId,
    url: String(url),
    attempts: lines.map(line => JSON.parse(line) as DeliveryAttempt),
    nextAt: isDue ? Number(nextAt) : null
  }
}

/** As owners of task ids: a key in a slot of its own, written before the reservation knows of it. */
export interface RedisCallbackSecrets extends CallbackSecrets {
  set (secretHash: string, id: ReservationId): Promise<void>
}

export function redisCallbackSecrets (
  { ask }: Commands,
  tasks: Tasks,
  keys: KeyNames,
  terms: LedgerTerms
): RedisCallbackSecrets {
  return {
    async set (secretHash, id) { await ask(client => client.set(keys.callback(secretHash), id, 'PX', keepMs(terms))) },
    async reservationOf (secretHash) {
      const id = await ask(client => client.get(keys.callback(secretHash)))
      const place = id === null ? null : placeOf(id)
      if (place === null) return null
      const found = await tasks.at(place)
      if (found === null || found.callbackHash !== secretHash) return null
      const { subject, model, keyId, task } = found
      return { reservation: id!, subject, model, keyId, task }
    }
  }
}

/** A hash with two fields for each alarm: what was seen of it, and what was told. */
export function redisAlarmBook ({ ask }: Commands, { alarms }: KeyNames): AlarmBook {
  const set = async (field: string, value: object): Promise<void> => {
    await ask(client => client.hset(alarms, field, JSON.stringify(value)))
  }
  return {
    async all () {
      const fields = await ask(client => client.hgetall(alarms))
      const names = Object.keys(fields).filter(field => field.startsWith('seen ')).map(field => field.slice(5)).sort()
      return names.map(name => {
        const told = fields[`told ${name}`]
        return { name, seen: JSON.parse(fields[`seen ${name}`]!), told: told === undefined ? null : JSON.parse(told) }
      })
    },
    see: (name, seen) => set(`seen ${name}`, seen),
    tell: (name, told) => set(`told ${name}`, told),
    async forget (name) { await ask(client => client.hdel(alarms, `seen ${name}`, `told ${name}`)) }
  }
}
