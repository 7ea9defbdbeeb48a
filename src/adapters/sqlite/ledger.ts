import { LRUCache } from 'lru-cache'
import type { DatabaseSync } from 'node:sqlite'
import type {
  ReserveRequest,
  Earlier,
  Completion,
  IdempotencyKey,
  StoredResponse,
  LedgerTerms,
  SessionSpent,
  Stage,
  Transition,
  Task,
  TaskLedger,
  UnfinishedTasks
} from '../../domain/ledger.ts'
import type { Microcredits } from '../../domain/policy.ts'
import { type Charge, chargeColumns, chargeFrom, type ChargeRow, type SqliteAccounts } from './credits.ts'
import { type GroupCommit, pageOf, read, rowAt } from './database.ts'
import type { SqliteDeliveries } from './records.ts'
import type { SqliteIdempotency, SqliteRepeats } from './repeats.ts'

/** What the ledger writes together with its own rows. */
export interface LedgerParts {
  readonly reservations: Reservations
  readonly taskCounts: TaskCounts
  readonly accounts: SqliteAccounts
  readonly idempotency: SqliteIdempotency
  readonly repeats: SqliteRepeats
  readonly deliveries: SqliteDeliveries
  readonly tasks: Tasks
  readonly terms: LedgerTerms
  readonly now: () => number
}

/**
 * The steps of the ledger as they are written, each for use within a transaction. `false`: it is not open to that row.
 */
export interface LedgerSteps {
  send (id: number, step: Extract<Transition, { to: 'sent' }>): boolean
  claim (id: number, taskId: string, answer?: StoredResponse): boolean
  release (id: number, answer?: StoredResponse): boolean
  /** From `sent` when its outcome is unknown; also from `claimed` when the task has overstayed. */
  lose (id: number, from?: 'sent' | 'claimed'): boolean
  settle (ending: Completion): boolean
}

export function ledgerSteps (db: DatabaseSync, parts: LedgerParts): LedgerSteps {
  const { reservations, taskCounts: slots, accounts, idempotency, repeats, deliveries, terms, now } = parts
  const sql = statements(db)

  /** Also late, when its outcome was unknown, and once more. */
  const hasClaimed = (id: number, taskId: string): boolean => {
    const leaseUntil = now() + terms.giveUpMs
    if (sql.claim.run(taskId, leaseUntil, id, 'sent').changes === 1) return true
    if (sql.claim.run(taskId, leaseUntil, id, 'unknown').changes === 1) {
      slots.count((sql.subjectOf.get(id) as { subject: string }).subject, 1)
      return true
    }
    return (sql.holder.get(taskId) as { id: number } | undefined)?.id === id
  }

  /** Says whose reservation or row has gone, its credits back where they were. */
  const takeAway = (id: number): string | undefined => {
    const reservation = reservations.get(id)
    if (reservation !== undefined) {
      idempotency.begin(id, reservation)
      return reservations.remove(id)!.demand.subject
    }
    const row = sql.release.get(id) as ChargeRow | undefined
    if (row !== undefined) accounts.giveBack(chargeFrom(row))
    return row?.subject
  }

  return {
    send (id, { keyId, callbackHash = null }) {
      const reservation = reservations.get(id)
      const leaseUntil = now() + terms.sentMs
      if (reservation === undefined) return sql.resend.run(keyId, callbackHash, leaseUntil, id).changes === 1
      const {
        charge,
        createdAt,
        demand: { subject, operation, model, microcredits, refundable, periodStart, deliverTo, session, repeat }
      } = reservation
      accounts.spend(charge, session)
      sql.insert.run(
        id,
        subject,
        operation,
        model,
        keyId,
        microcredits,
        charge.fromGrants,
        charge.sessionId,
        refundable ? 1 : 0,
        periodStart,
        createdAt,
        leaseUntil,
        callbackHash,
        repeat?.fingerprint ?? null
      )
      idempotency.begin(id, reservation)
      if (deliverTo !== undefined) deliveries.begin(id, deliverTo)
      reservations.remove(id)
      return true
    },
    claim (id, taskId, answer) {
      const claimed = hasClaimed(id, taskId)
      if (!claimed) return false
      if (answer !== undefined) idempotency.answer(id, answer)
      repeats.claimed(id, answer)
      return true
    },
    release (id, answer) {
      const subject = takeAway(id)
      if (subject === undefined) return false
      slots.count(subject, -1)
      repeats.drop(id)
      if (answer === undefined) idempotency.free(id)
      else idempotency.answer(id, answer)
      return true
    },
    lose (id, from = 'sent') {
      const row = sql.lose.get(now(), id, from) as { subject: string } | undefined
      if (row === undefined) return false
      slots.count(row.subject, -1)
      if (from === 'sent') repeats.lost(id)
      else repeats.drop(id)
      return true
    },
    settle ({ taskId, state, answer }) {
      const end = (from: 'claimed' | 'unknown') => sql.settle.get(now(), state, taskId, from) as EndedRow | undefined
      const claimed = end('claimed')
      const row = claimed ?? end('unknown')
      if (row === undefined) return false
      if (claimed !== undefined) slots.count(row.subject, -1)
      sql.keepAnswer.run(row.id, answer)
      deliveries.makeDue(row.id)
      const mayRefund = state === 'failed' && row.refundable === 1 && row.refunded === 0
      if (mayRefund && accounts.refund(chargeFrom(row), terms.refundsPerPeriod)) sql.markRefunded.run(row.id)
      return true
    }
  }
}

interface EndedRow extends ChargeRow { readonly id: number, readonly refundable: 0 | 1, readonly refunded: 0 | 1 }

function statements (db: DatabaseSync) {
  return {
    insert: db.prepare(`INSERT INTO tasks
      (id, subject, operation, model, key_id, stage, microcredits, granted, session_id, refundable, period_start, created_at,
        lease_until, callback_hash, repeat, listed)
      VALUES (?, ?, ?, ?, ?, 'sent', ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)`),
    resend: db.prepare(
      "UPDATE tasks SET key_id = ?, callback_hash = coalesce(callback_hash, ?), lease_until = ? WHERE id = ? AND stage = 'sent'"
    ),
    claim:
      db.prepare(`UPDATE OR IGNORE tasks SET stage = 'claimed', task_id = ?, lease_until = ?, ended_at = NULL, listed = 1
      WHERE id = ? AND task_id IS NULL AND stage = ?`),
    subjectOf: db.prepare('SELECT subject FROM tasks WHERE id = ?'),
    holder: db.prepare('SELECT id FROM tasks WHERE task_id = ?'),
    release: db.prepare(`DELETE FROM tasks WHERE id = ? AND stage = 'sent' RETURNING ${chargeColumns}`),
    lose: db.prepare(`UPDATE tasks SET stage = 'unknown', ended_at = ?, listed = 1
      WHERE id = ? AND stage = ? RETURNING subject`),
    settle: db.prepare(`UPDATE tasks SET stage = 'settled', ended_at = ?, state = ?
      WHERE task_id = ? AND stage = ? RETURNING id, refundable, refunded, ${chargeColumns}`),
    keepAnswer: db.prepare('INSERT INTO answers (id, body) VALUES (?, ?)'),
    markRefunded: db.prepare('UPDATE tasks SET refunded = 1 WHERE id = ?')
  }
}

/**
 * The task ledger in SQLite: a row per task. What is only reserved is in memory; its row is written with the step
 * `sent`, together with its credits and its idempotency key.
 */
export function sqliteLedger (db: DatabaseSync, group: GroupCommit, parts: LedgerParts): TaskLedger {
  const { reservations, taskCounts: slots, accounts, idempotency, repeats, tasks, terms, now } = parts
  const steps = ledgerSteps(db, parts)
  const claimed = db.prepare("SELECT id FROM tasks WHERE task_id = ? AND stage = 'claimed'")
  const overstayed = db.prepare('SELECT id, stage FROM tasks WHERE ended_at IS NULL AND lease_until <= ?')
  let lastId = lastIdIn(db)
  group.onUndo(() => {
    slots.reload(reservations.subjects())
    tasks.forget()
  })

  const drop = (id: number): boolean => {
    const reservation = reservations.remove(id)
    if (reservation !== undefined) slots.count(reservation.demand.subject, -1)
    if (reservation?.demand.repeat !== undefined) repeats.drop(id)
    return reservation !== undefined
  }

  const earlierOf = ({ subject, idempotency: key, repeat }: ReserveRequest): Earlier | null => {
    if (key !== undefined) return idempotency.find(subject, key)
    return repeat === undefined ? null : repeats.find(subject, repeat)
  }

  const take = (id: number, step: Transition): boolean => {
    switch (step.to) {
      case 'sent': return steps.send(id, step)
      case 'claimed': return steps.claim(id, step.taskId, step.answer)
      case 'released': return steps.release(id, step.answer)
      case 'unknown': return steps.lose(id)
    }
  }

  return {
    async reserve (demand) {
      const { subject, taskLimit, repeat } = demand
      const earlier = earlierOf(demand)
      if (earlier !== null) {
        await (repeat === undefined ? group.committed() : repeats.found(subject, repeat))
        return { granted: false, reason: 'duplicate', earlier }
      }
      if (slots.of(subject) >= taskLimit) return { granted: false, reason: 'slot' }
      const charge = read(() => accounts.chargeFor(demand))
      if (typeof charge === 'string') return { granted: false, reason: charge }
      const id = ++lastId
      const createdAt = now()
      repeats.begin(id, demand)
      reservations.add(id, { demand, charge, createdAt, leaseUntil: createdAt + terms.reservedMs })
      slots.count(subject, 1)
      return { granted: true, id: String(id) }
    },
    async advance (name, step) {
      const id = rowAt(name)
      if (step.to === 'released' && step.answer === undefined && drop(id)) return true
      const taken = group.run(() => take(id, step))
      await group.committed()
      return taken
    },
    async settle (ending) {
      const ended = group.run(() => steps.settle(ending))
      await group.committed()
      return ended
    },
    taskOf: async taskId => tasks.of(taskId),
    async giveUp (taskId) {
      const row = read(() => claimed.get(taskId) as { id: number } | undefined)
      const isLost = row !== undefined && group.run(() => steps.lose(row.id, 'claimed'))
      await group.committed()
      return isLost
    },
    async sweep () {
      const released = reservations.lapsed(now()).filter(drop).length
      const late = read(() => overstayed.all(now()) as unknown as Array<{ id: number, stage: 'sent' | 'claimed' }>)
      if (late.length === 0) return { released, unknown: 0 }
      const unknown = group.run(() => late.filter(({ id, stage }) => steps.lose(id, stage)).length)
      await group.committed()
      return { released, unknown }
    }
  }
}

/** The highest number that stands in the file: of a task, or of a refused submit whose idempotency key is kept. */
function lastIdIn (db: DatabaseSync): number {
  const last = db.prepare(`SELECT coalesce(max(id), 0) AS id
    FROM (SELECT max(id) AS id FROM tasks UNION ALL SELECT max(id) FROM idempotency)`)
  return (last.get() as { id: number }).id
}

/** Finds tasks by their id. */
export interface Tasks {
  of (taskId: string): Task | null
  /** What is in the file has changed: of this task, or of who knows which. */
  forget (taskId?: string): void
}

/** Memory for tasks that have ended, bytes. */
const endedBytes = 8 * 1024 * 1024
const bytesAround = 500

/** The columns a task is made of, from `tasks LEFT JOIN answers USING (id)`. */
const columns = 'id, task_id, subject, operation, model, key_id, stage, microcredits, created_at, body'

interface TaskRow {
  readonly id: number
  readonly task_id: string
  readonly subject: string
  readonly operation: string
  readonly model: string
  readonly key_id: string
  readonly stage: Stage
  readonly microcredits: number
  readonly created_at: number
  readonly body: Uint8Array | null
}

/** A task that has ended does not change any more, and is what most polls ask for: it is remembered. */
export function sqliteTasks (db: DatabaseSync): Tasks {
  const find = db.prepare(`SELECT ${columns} FROM tasks LEFT JOIN answers USING (id) WHERE task_id = ?`)
  const ended = new LRUCache<string, Task>({
    maxSize: endedBytes,
    sizeCalculation: ({ finalAnswer }) => finalAnswer!.length + bytesAround
  })
  return {
    of (taskId) {
      const known = ended.get(taskId)
      if (known !== undefined) return known
      const row = read(() => find.get(taskId) as TaskRow | undefined)
      if (row === undefined) return null
      const task = taskFrom(row)
      if (task.finalAnswer !== null) ended.set(taskId, task)
      return task
    },
    forget (taskId) {
      if (taskId === undefined) ended.clear()
      else ended.delete(taskId)
    }
  }
}

/**
 * The index of unfinished rows is in the order of their reservations, the oldest first: the first young one ends the
 * list.
 */
export function sqliteUnfinishedTasks (db: DatabaseSync): UnfinishedTasks {
  const page = db.prepare(`SELECT ${columns} FROM tasks LEFT JOIN answers USING (id)
    WHERE ended_at IS NULL AND stage = 'claimed' AND id > ? ORDER BY id LIMIT ?`)
  return {
    async page (cursor, before, limit) {
      const rows = read(() => page.all(rowAt(cursor) ?? 0, limit + 1) as unknown as TaskRow[])
      const young = rows.findIndex(row => row.created_at > before)
      return pageOf(young === -1 ? rows : rows.slice(0, young), limit, taskFrom)
    }
  }
}

function taskFrom (row: TaskRow): Task {
  const { body } = row
  return {
    taskId: row.task_id,
    subject: row.subject,
    operation: row.operation,
    model: row.model,
    keyId: row.key_id,
    stage: row.stage,
    microcredits: row.microcredits,
    createdAt: row.created_at,
    finalAnswer: body && Buffer.from(body.buffer, body.byteOffset, body.byteLength)
  }
}

/**
 * How many unfinished tasks each subject has. Counting rows at every submit would need an index that costs as much as
 * all the rest of the ledger (measured: 22 of 46 µs); one server owns the file, so it counts in memory, from the file
 * at start and whenever a transaction is undone.
 */
export interface TaskCounts {
  of (subject: string): number
  count (subject: string, change: 1 | -1): void
  /** Counts anew what the file has, and on top these, which it does not have yet. */
  reload (reserved: Iterable<string>): void
}

export function slots (db: DatabaseSync): TaskCounts {
  const unfinished = db.prepare('SELECT subject, count(*) AS count FROM tasks WHERE ended_at IS NULL GROUP BY subject')
  const counts = new Map<string, number>()
  const it: TaskCounts = {
    of: subject => counts.get(subject) ?? 0,
    count (subject, change) {
      const sum = it.of(subject) + change
      if (sum === 0) counts.delete(subject)
      else counts.set(subject, sum)
    },
    reload (reserved) {
      counts.clear()
      for (const { subject, count } of unfinished.all() as unknown as Row[]) counts.set(subject, count)
      for (const subject of reserved) it.count(subject, 1)
    }
  }
  it.reload([])
  return it
}

interface Row { readonly subject: string, readonly count: number }

export interface Reservation {
  readonly demand: ReserveRequest
  readonly charge: Charge
  /** Unix ms. */
  readonly createdAt: number
  readonly leaseUntil: number
}

/**
 * What is only reserved stands in memory. One server owns the file, so nobody else needs to know of it, and a crash
 * gives it back by itself: nothing was sent.
 */
export interface Reservations {
  add (id: number, reservation: Reservation): void
  get (id: number): Reservation | undefined
  /** `undefined`: it was not there. */
  remove (id: number): Reservation | undefined
  /** The fingerprint that a reservation with this idempotency key has. */
  fingerprintOf (subject: string, key: string): string | undefined
  /** What all of them hold of a period, and of a subject's grants. */
  heldOfPeriod (subject: string, periodStart: number): Microcredits
  heldOfGrants (subject: string): Microcredits
  heldOfSession (subject: string, sessionId: string): SessionSpent
  lapsed (now: number): readonly number[]
  subjects (): Iterable<string>
}

export function reservations (): Reservations {
  const all = new Map<number, Reservation>()
  const keys = new Map<string, IdempotencyKey>()
  const ofPeriods = new Map<string, Microcredits>()
  const ofGrants = new Map<string, Microcredits>()
  const ofSessions = new Map<string, Microcredits>()
  const uses = new Map<string, number>()

  const hold = ({ subject, periodStart, fromPeriod, fromGrants, sessionId }: Charge, sign: 1 | -1): void => {
    add(ofPeriods, inScope(periodStart, subject), sign * fromPeriod)
    if (fromGrants > 0) add(ofGrants, subject, sign * fromGrants)
    if (sessionId === null) return
    add(uses, inScope(sessionId, subject), sign)
    add(ofSessions, inScope(sessionId, subject), sign * (fromPeriod + fromGrants))
  }

  return {
    add (id, reservation) {
      const { demand: { subject, idempotency }, charge } = reservation
      all.set(id, reservation)
      hold(charge, 1)
      if (idempotency !== undefined) keys.set(inScope(idempotency.key, subject), idempotency)
    },
    get: id => all.get(id),
    remove (id) {
      const reservation = all.get(id)
      if (reservation === undefined) return undefined
      const { demand: { subject, idempotency }, charge } = reservation
      all.delete(id)
      hold(charge, -1)
      if (idempotency !== undefined) keys.delete(inScope(idempotency.key, subject))
      return reservation
    },
    fingerprintOf: (subject, key) => keys.get(inScope(key, subject))?.fingerprint,
    heldOfPeriod: (subject, periodStart) => ofPeriods.get(inScope(periodStart, subject)) ?? 0,
    heldOfGrants: subject => ofGrants.get(subject) ?? 0,
    heldOfSession (subject, sessionId) {
      const name = inScope(sessionId, subject)
      return { uses: uses.get(name) ?? 0, microcredits: ofSessions.get(name) ?? 0 }
    },
    lapsed: now => [...all].filter(([, { leaseUntil }]) => leaseUntil <= now).map(([id]) => id),
    * subjects () {
      for (const { demand } of all.values()) yield demand.subject
    }
  }
}

/** A key is printable, so nothing that is in it or in a subject is taken for the end of it. */
function inScope (name: string | number, subject: string): string {
  return `${name}\n${subject}`
}

function add (sums: Map<string, Microcredits>, name: string, change: Microcredits): void {
  const sum = (sums.get(name) ?? 0) + change
  if (sum === 0) sums.delete(name)
  else sums.set(name, sum)
}
