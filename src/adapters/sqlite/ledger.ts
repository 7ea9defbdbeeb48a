import { LRUCache } from 'lru-cache'
import type { DatabaseSync } from 'node:sqlite'
import type {
  Abandoned, AbandonRequest, Completion, Earlier, LedgerTerms, NoRoom, Reserved, ReserveRequest, Stage, StoredResponse,
  Task, TaskLedger, Transition, UnfinishedTasks
} from '../../domain/ledger.ts'
import { hourMs } from '../../domain/time.ts'
import { type SubjectAccounts, unfinishedColumns, type UnfinishedRow } from './accounts.ts'
import { type GroupCommit, pageOf, read, rowAt } from './database.ts'
import type { SqliteDeliveries } from './records.ts'
import type { SqliteIdempotency, SqliteRepeats } from './repeats.ts'

/** What the ledger writes together with its own rows. */
interface LedgerParts {
  readonly accounts: SubjectAccounts
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
class LedgerSteps {
  readonly #parts: LedgerParts
  readonly #sql: ReturnType<typeof statements>

  constructor (db: DatabaseSync, parts: LedgerParts) {
    this.#parts = parts
    this.#sql = statements(db)
  }

  apply (id: number, step: Transition): boolean {
    switch (step.to) {
      case 'sent': return this.#send(id, step)
      case 'claimed': return this.#claim(id, step.taskId, step.answer)
      case 'released': return this.#release(id, step.answer)
      case 'unknown': return this.markUnknown(id, 'sent')
      case 'used': return this.#use(id, step)
    }
  }

  /** From `sent` when its outcome is unknown; from `claimed` when the task has overstayed. */
  markUnknown (id: number, from: 'sent' | 'claimed'): boolean {
    const { accounts, repeats, now } = this.#parts
    const mark = from === 'sent' ? this.#sql.markSentUnknown : this.#sql.markClaimedUnknown
    const row = mark.get(now(), id) as UnfinishedRow | undefined
    if (row === undefined) return false
    accounts.ended(row)
    if (from === 'sent') repeats.lost(id)
    else repeats.drop(id)
    return true
  }

  abandon ({ taskId, mostPerHour }: AbandonRequest): Abandoned {
    const at = this.#parts.now()
    const row = this.#sql.running.get(taskId) as UnfinishedRow | undefined
    if (row === undefined) return { result: 'ended' }
    if (row.abandoned_at !== null) return { result: 'abandoned', at: row.abandoned_at }
    const nth = this.#sql.abandons.get(row.subject, at - hourMs, mostPerHour - 1) as { at: number } | undefined
    if (nth !== undefined) return { result: 'limited', retryAt: nth.at + hourMs }
    this.#sql.abandon.run(at, row.id)
    this.#parts.accounts.abandoned(row)
    return { result: 'abandoned', at }
  }

  settle ({ taskId, state, answer }: Completion): boolean {
    const { accounts, deliveries, now } = this.#parts
    const row = this.#sql.unsettled.get(taskId) as UnsettledRow | undefined
    if (row === undefined) return false
    if (row.stage === 'claimed') accounts.ended(row)
    const mayRefund = state === 'failed' && row.refundable === 1 && row.refunded === 0
    const refunded = mayRefund && accounts.refund(row) ? 1 : row.refunded
    this.#sql.settle.run(now(), state, refunded, row.id)
    this.#sql.keepAnswer.run(row.id, answer)
    deliveries.makeDue(row.id)
    return true
  }

  #send (id: number, { keyId, callbackHash }: Extract<Transition, { to: 'sent' }>): boolean {
    const { accounts, idempotency, deliveries, terms, now } = this.#parts
    const leaseUntil = now() + terms.sentMs
    const reservation = accounts.reservation(id)
    if (reservation === undefined) {
      return this.#sql.resend.run(keyId, callbackHash ?? null, leaseUntil, id).changes === 1
    }
    const { request, charge, createdAt } = reservation
    accounts.take(reservation)
    this.#sql.insert.run(
      id,
      request.subject,
      request.operation,
      request.model,
      keyId,
      request.microcredits,
      charge.fromGrants,
      charge.sessionId,
      request.refundable ? 1 : 0,
      request.periodStart,
      createdAt,
      leaseUntil,
      callbackHash ?? null,
      request.repeat?.fingerprint ?? null,
      charge.held && JSON.stringify(charge.held)
    )
    idempotency.begin(id, reservation)
    if (request.deliverTo !== undefined) deliveries.begin(id, request.deliverTo)
    accounts.stored(id)
    return true
  }

  #claim (id: number, taskId: string, answer?: StoredResponse): boolean {
    const { idempotency, repeats } = this.#parts
    if (!this.#hasClaimed(id, taskId)) return false
    if (!repeats.claimed(id, answer) && answer !== undefined) idempotency.answer(id, answer)
    return true
  }

  /** Also late, when its outcome was unknown, and once more. */
  #hasClaimed (id: number, taskId: string): boolean {
    const { accounts, terms, now } = this.#parts
    const leaseUntil = now() + terms.giveUpMs
    if (this.#sql.claim.run(taskId, leaseUntil, id).changes === 1) return true
    const reopened = this.#sql.claimLate.get(taskId, leaseUntil, id) as UnfinishedRow | undefined
    if (reopened !== undefined) {
      accounts.reopened(reopened)
      return true
    }
    return (this.#sql.holder.get(taskId) as { id: number } | undefined)?.id === id
  }

  /** Also late, when its outcome was unknown. Once more it is as it is. */
  #use (id: number, { microcredits, isEstimate }: Extract<Transition, { to: 'used' }>): boolean {
    const { accounts, repeats, now } = this.#parts
    const row = this.#sql.usable.get(id) as UsableRow | undefined
    if (row === undefined || row.stage === 'settled') return row !== undefined
    if (row.stage === 'unknown') accounts.reopened(row)
    const granted = accounts.settled(row, microcredits)
    this.#sql.use.run(now(), microcredits, granted, isEstimate ? 1 : 0, id)
    repeats.drop(id)
    return true
  }

  #release (id: number, answer?: StoredResponse): boolean {
    const { idempotency, repeats } = this.#parts
    if (!this.#takeBack(id)) return false
    repeats.drop(id)
    if (answer === undefined) idempotency.free(id)
    else idempotency.answer(id, answer)
    return true
  }

  /** The reservation or its row goes, its credits are back where they were. */
  #takeBack (id: number): boolean {
    const { accounts, idempotency } = this.#parts
    const reservation = accounts.reservation(id)
    if (reservation !== undefined) {
      idempotency.begin(id, reservation)
      accounts.cancel(id)
      return true
    }
    const row = this.#sql.release.get(id) as UnfinishedRow | undefined
    if (row === undefined) return false
    accounts.dropped(row)
    return true
  }
}

interface UnsettledRow extends UnfinishedRow { readonly refundable: 0 | 1, readonly stage: 'claimed' | 'unknown' }

interface UsableRow extends UnfinishedRow { readonly stage: 'sent' | 'unknown' | 'settled' }

/** Stages are written out and never bound: SQLite would compile a statement anew for each value, to choose an index. */
function statements (db: DatabaseSync) {
  const markUnknown = (from: 'sent' | 'claimed') =>
    db.prepare(`UPDATE tasks SET stage = 'unknown', ended_at = ?
      WHERE id = ? AND stage = '${from}' RETURNING ${unfinishedColumns}`)
  return {
    insert: db.prepare(`INSERT INTO tasks
      (id, subject, operation, model, key_id, stage, microcredits, granted, session_id, refundable, period_start, created_at,
        lease_until, callback_hash, repeat, holds)
      VALUES (?, ?, ?, ?, ?, 'sent', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`),
    resend: db.prepare(
      "UPDATE tasks SET key_id = ?, callback_hash = coalesce(callback_hash, ?), lease_until = ? WHERE id = ? AND stage = 'sent'"
    ),
    // Nothing that an index other than that of the task ids has an eye on, or its pages would be written as well.
    claim: db.prepare(`UPDATE OR IGNORE tasks SET stage = 'claimed', task_id = ?, lease_until = ?
      WHERE id = ? AND task_id IS NULL AND stage = 'sent'`),
    claimLate: db.prepare(`UPDATE OR IGNORE tasks SET stage = 'claimed', task_id = ?, lease_until = ?, ended_at = NULL
      WHERE id = ? AND task_id IS NULL AND stage = 'unknown' RETURNING ${unfinishedColumns}`),
    holder: db.prepare('SELECT id FROM tasks WHERE task_id = ?'),
    release: db.prepare(`DELETE FROM tasks WHERE id = ? AND stage = 'sent' RETURNING ${unfinishedColumns}`),
    markSentUnknown: markUnknown('sent'),
    markClaimedUnknown: markUnknown('claimed'),
    unsettled: db.prepare(
      `SELECT stage, refundable, ${unfinishedColumns} FROM tasks WHERE task_id = ? AND stage IN ('claimed', 'unknown')`
    ),
    running: db.prepare(`SELECT ${unfinishedColumns} FROM tasks WHERE task_id = ? AND stage = 'claimed'`),
    // The one before which there is room for another: so many were given up after it.
    abandons: db.prepare(`SELECT abandoned_at AS at FROM tasks WHERE subject = ? AND abandoned_at > ?
      ORDER BY abandoned_at DESC LIMIT 1 OFFSET ?`),
    abandon: db.prepare('UPDATE tasks SET abandoned_at = ? WHERE id = ?'),
    settle: db.prepare("UPDATE tasks SET stage = 'settled', ended_at = ?, state = ?, refunded = ? WHERE id = ?"),
    usable: db.prepare(`SELECT stage, ${unfinishedColumns} FROM tasks
      WHERE id = ? AND task_id IS NULL AND refunded = 0 AND (stage = 'sent' OR stage = 'unknown' OR stage = 'settled')`),
    use: db.prepare(`UPDATE tasks
      SET stage = 'settled', ended_at = ?, state = 'success', microcredits = ?, granted = ?, is_estimate = ?
      WHERE id = ?`),
    keepAnswer: db.prepare('INSERT INTO answers (id, body) VALUES (?, ?)')
  }
}

/**
 * The task ledger in SQLite: a row per task. What is only reserved is in memory; its row is written with the step
 * `sent`, together with its credits and its idempotency key.
 */
export function sqliteLedger (db: DatabaseSync, group: GroupCommit, parts: LedgerParts): TaskLedger {
  const { accounts, repeats, tasks, now } = parts
  const steps = new LedgerSteps(db, parts)
  const claimed = db.prepare("SELECT id FROM tasks WHERE task_id = ? AND stage = 'claimed'")
  const overstayed = db.prepare('SELECT id, stage FROM tasks WHERE ended_at IS NULL AND lease_until <= ?')
  group.onUndo(() => tasks.forget())

  /** Of what is only reserved: nothing needs to be written. */
  const drop = (id: number): boolean => {
    const reservation = accounts.cancel(id)
    if (reservation?.request.repeat !== undefined) repeats.drop(id)
    return reservation !== undefined
  }
  const { reserve, reserveAll } = reserving(db, group, parts, drop)

  return {
    reserve,
    reserveAll,
    async advance (name, step) {
      const id = rowAt(name)
      if (step.to === 'released' && step.answer === undefined && drop(id)) return true
      const taken = group.run(() => steps.apply(id, step))
      await group.committed()
      return taken
    },
    async settle (ending) {
      const ended = group.run(() => steps.settle(ending))
      await group.committed()
      return ended
    },
    taskOf: tasks.of,
    async giveUp (taskId) {
      const row = read(() => claimed.get(taskId) as { id: number } | undefined)
      const isLost = row !== undefined && group.run(() => steps.markUnknown(row.id, 'claimed'))
      await group.committed()
      return isLost
    },
    async abandon (request) {
      const abandoned = group.run(() => steps.abandon(request))
      await group.committed()
      return abandoned
    },
    async sweep () {
      const released = accounts.lapsed().filter(drop).length
      const late = read(() => overstayed.all(now()) as unknown as Array<{ id: number, stage: 'sent' | 'claimed' }>)
      if (late.length === 0) return { released, unknown: 0 }
      const unknown = group.run(() => late.filter(({ id, stage }) => steps.markUnknown(id, stage)).length)
      await group.committed()
      return { released, unknown }
    }
  }
}

/** `drop`: gives back what is only reserved. */
function reserving (
  db: DatabaseSync,
  group: GroupCommit,
  { accounts, idempotency, repeats }: LedgerParts,
  drop: (id: number) => void
): Pick<TaskLedger, 'reserve' | 'reserveAll'> {
  let lastId = lastIdIn(db)

  const earlierOf = ({ subject, idempotency: key, repeat }: ReserveRequest): Earlier | null => {
    if (key !== undefined) return idempotency.find(subject, key)
    return repeat === undefined ? null : repeats.find(subject, repeat)
  }
  const duplicate = async ({ subject, repeat }: ReserveRequest, earlier: Earlier): Promise<Refused> => {
    await (repeat === undefined ? group.committed() : repeats.found(subject, repeat))
    return { granted: false, reason: 'duplicate', earlier }
  }
  const setAside = (request: ReserveRequest): Granted | NoRoom => {
    const found = accounts.reserve(lastId + 1, request)
    if (!found.granted) return found
    repeats.begin(++lastId, request)
    const id = String(lastId)
    return found.near === undefined ? { granted: true, id } : { granted: true, id, near: found.near }
  }

  return {
    reserve (request) {
      const earlier = earlierOf(request)
      return earlier === null ? setAside(request) : duplicate(request, earlier)
    },
    async reserveAll (requests) {
      for (const request of requests) {
        const earlier = earlierOf(request)
        if (earlier !== null) return await duplicate(request, earlier)
      }
      const ids: string[] = []
      let near: Granted['near']
      try {
        for (const request of requests) {
          const set = setAside(request)
          if (!set.granted) return set
          ids.push(set.id)
          near = set.near ?? near
        }
        return { granted: true, ids, near }
      } finally {
        if (ids.length < requests.length) ids.forEach(id => drop(rowAt(id)))
      }
    }
  }
}

type Granted = Extract<Reserved, { readonly granted: true }>
type Refused = Extract<Reserved, { readonly granted: false }>

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
