import type { DatabaseSync } from 'node:sqlite'
import { LRUCache } from 'lru-cache'
import type { Demand, LedgerTerms, ReservationId, Step, Task, TaskLedger } from '../../domain/ledger.ts'
import type { GroupCommit } from './group-commit.ts'
import { tallies } from './tallies.ts'
import { read, taskColumns, taskFrom, type TaskRow } from './tasks.ts'

export interface LedgerOptions { readonly terms: LedgerTerms, readonly now: () => number }

/** Memory for tasks that have ended, bytes. */
const endedBytes = 8 * 1024 * 1024

/**
 * The task ledger in SQLite: a row per task, and a row of used credits per subject and period.
 *
 * What is only reserved stands in memory. One server owns the file, so nobody else needs to know of it, and a crash
 * gives it back by itself: nothing was sent. Its row is written with the step `sent`, together with the credits.
 */
export function sqliteLedger (db: DatabaseSync, group: GroupCommit, { terms, now }: LedgerOptions): TaskLedger {
  const sql = statements(db)
  const reserved = new Map<ReservationId, { readonly demand: Demand, readonly leaseUntil: number }>()
  const tally = tallies(() => sql.unfinished.all() as unknown as Array<{ subject: string, count: number }>)
  // A task that has ended does not change any more, and is what most polls ask for.
  const ended = new LRUCache<string, Task>({ maxSize: endedBytes, sizeCalculation: ({ finalAnswer }) => finalAnswer!.length + 500 })
  let lastId = (sql.lastId.get() as { id: number }).id
  group.onUndo(() => {
    tally.reload([...reserved.values()].map(({ demand }) => demand))
    ended.clear()
  })

  const drop = (id: ReservationId): boolean => {
    const entry = reserved.get(id)
    if (entry === undefined) return false
    reserved.delete(id)
    tally.unreserve(entry.demand)
    return true
  }

  const send = (id: ReservationId, keyId: string): boolean => {
    const demand = reserved.get(id)?.demand
    if (demand === undefined) return sql.resend.run(keyId, now() + terms.sentMs, id).changes === 1
    const { subject, operation, model, microcredits, refundable, periodStart } = demand
    sql.spend.run(subject, periodStart, microcredits)
    sql.insert.run(id, subject, operation, model, keyId, microcredits, refundable ? 1 : 0, periodStart, now(), now() + terms.sentMs)
    reserved.delete(id)
    tally.sent(demand)
    return true
  }

  const claim = (id: ReservationId, taskId: string): boolean => {
    const leaseUntil = now() + terms.giveUpMs
    if (sql.claim.run(taskId, leaseUntil, id, 'sent').changes === 1) return true
    if (sql.claim.run(taskId, leaseUntil, id, 'unknown').changes === 1) {
      tally.count((sql.subjectOf.get(id) as { subject: string }).subject, 1)
      return true
    }
    return (sql.holder.get(taskId) as { id: number } | undefined)?.id === id
  }

  const release = (id: ReservationId): boolean => {
    const row = sql.release.get(id) as Row | undefined
    if (row === undefined) return false
    sql.giveBack.run(row.microcredits, row.subject, row.period_start)
    tally.count(row.subject, -1)
    return true
  }

  /** From `sent` when its outcome is unknown; also from `claimed` when the task has overstayed. */
  const lose = (id: ReservationId, from: 'sent' | 'claimed' = 'sent'): boolean => {
    const row = sql.lose.get(now(), id, from) as { subject: string } | undefined
    if (row !== undefined) tally.count(row.subject, -1)
    return row !== undefined
  }

  const take = (id: ReservationId, step: Step): boolean => {
    switch (step.to) {
      case 'sent': return send(id, step.keyId)
      case 'claimed': return claim(id, step.taskId)
      case 'released': return release(id)
      case 'unknown': return lose(id)
    }
  }

  const settle = (taskId: string, state: string, answer: Buffer): boolean => {
    const wasUnfinished = sql.isUnfinished.get(taskId) !== undefined
    const row = sql.settle.get(now(), state, taskId) as Row & { id: number } | undefined
    if (row === undefined) return false
    sql.keepAnswer.run(row.id, answer)
    if (wasUnfinished) tally.count(row.subject, -1)
    if (row.refundable === 1 && state === 'failed' &&
      sql.refund.run(row.microcredits, row.subject, row.period_start, terms.refundsPerPeriod).changes === 1) {
      sql.markRefunded.run(row.id)
    }
    return true
  }

  return {
    async reserve (demand) {
      const { subject, periodStart, microcredits, creditLimit, taskLimit } = demand
      if (tally.unfinished(subject) >= taskLimit) return { granted: false, lacks: 'slot' }
      if (creditLimit !== null) {
        const used = read(() => (sql.used.get(subject, periodStart) as { used: number } | undefined)?.used ?? 0)
        if (used + tally.reservedCredits(subject, periodStart) + microcredits > creditLimit) return { granted: false, lacks: 'credits' }
      }
      const id = ++lastId
      reserved.set(id, { demand, leaseUntil: now() + terms.reservedMs })
      tally.reserve(demand)
      return { granted: true, id }
    },
    async advance (id, step) {
      if (step.to === 'released' && drop(id)) return true
      const taken = group.run(() => take(id, step))
      await group.committed()
      return taken
    },
    async settle ({ taskId, state, answer }) {
      const ended = group.run(() => settle(taskId, state, answer))
      await group.committed()
      return ended
    },
    async taskOf (taskId) {
      const known = ended.get(taskId)
      if (known !== undefined) return known
      const row = read(() => sql.taskOf.get(taskId) as TaskRow | undefined)
      if (row === undefined) return null
      const task = taskFrom(row)
      if (task.finalAnswer !== null) ended.set(taskId, task)
      return task
    },
    async sweep () {
      const lapsed = [...reserved].filter(([, { leaseUntil }]) => leaseUntil <= now())
      const released = lapsed.filter(([id]) => drop(id)).length
      const overstayed = read(() => sql.overstayed.all(now()) as unknown as Array<{ id: number, stage: 'sent' | 'claimed' }>)
      if (overstayed.length === 0) return { released, unknown: 0 }
      const unknown = group.run(() => overstayed.filter(({ id, stage }) => lose(id, stage)).length)
      await group.committed()
      return { released, unknown }
    }
  }
}

interface Row {
  readonly subject: string
  readonly period_start: number
  readonly microcredits: number
  readonly refundable: 0 | 1
}

function statements (db: DatabaseSync) {
  const charged = 'id, subject, period_start, microcredits, refundable'
  return {
    lastId: db.prepare('SELECT coalesce(max(id), 0) AS id FROM tasks'),
    unfinished: db.prepare('SELECT subject, count(*) AS count FROM tasks WHERE ended_at IS NULL GROUP BY subject'),
    used: db.prepare('SELECT used FROM credits WHERE subject = ? AND period_start = ?'),
    spend: db.prepare(`INSERT INTO credits (subject, period_start, used) VALUES (?, ?, ?)
      ON CONFLICT DO UPDATE SET used = used + excluded.used`),
    insert: db.prepare(`INSERT INTO tasks
      (id, subject, operation, model, key_id, stage, microcredits, refundable, period_start, created_at, lease_until)
      VALUES (?, ?, ?, ?, ?, 'sent', ?, ?, ?, ?, ?)`),
    resend: db.prepare("UPDATE tasks SET key_id = ?, lease_until = ? WHERE id = ? AND stage = 'sent'"),
    subjectOf: db.prepare('SELECT subject FROM tasks WHERE id = ?'),
    claim: db.prepare(`UPDATE OR IGNORE tasks SET stage = 'claimed', task_id = ?, lease_until = ?, ended_at = NULL
      WHERE id = ? AND task_id IS NULL AND stage = ?`),
    holder: db.prepare('SELECT id FROM tasks WHERE task_id = ?'),
    release: db.prepare(`DELETE FROM tasks WHERE id = ? AND stage = 'sent' RETURNING ${charged}`),
    giveBack: db.prepare('UPDATE credits SET used = used - ? WHERE subject = ? AND period_start = ?'),
    lose: db.prepare(`UPDATE tasks SET stage = 'unknown', ended_at = ?
      WHERE id = ? AND stage = ? RETURNING subject`),
    isUnfinished: db.prepare('SELECT 1 FROM tasks WHERE task_id = ? AND ended_at IS NULL'),
    settle: db.prepare(`UPDATE tasks SET stage = 'settled', ended_at = ?, state = ?
      WHERE task_id = ? AND stage IN ('claimed', 'unknown') RETURNING ${charged}`),
    keepAnswer: db.prepare('INSERT INTO answers (id, body) VALUES (?, ?)'),
    refund: db.prepare(`UPDATE credits SET used = used - ?, refunds = refunds + 1
      WHERE subject = ? AND period_start = ? AND refunds < ?`),
    markRefunded: db.prepare('UPDATE tasks SET refunded = 1 WHERE id = ?'),
    taskOf: db.prepare(`SELECT ${taskColumns} FROM tasks LEFT JOIN answers USING (id) WHERE task_id = ?`),
    overstayed: db.prepare('SELECT id, stage FROM tasks WHERE ended_at IS NULL AND lease_until <= ?')
  }
}
