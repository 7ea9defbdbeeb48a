import type { DatabaseSync } from 'node:sqlite'
import type { Earlier } from '../../domain/ledger/idempotency.ts'
import type { Demand, Step, TaskLedger } from '../../domain/ledger/ledger.ts'
import type { GroupCommit } from './group-commit.ts'
import { type LedgerParts, ledgerSteps } from './ledger-steps.ts'
import { rowAt } from './pages.ts'
import { read } from './store-down.ts'

/**
 * The task ledger in SQLite: a row per task. What is only reserved is in memory; its row is written with the step
 * `sent`, together with its credits and its idempotency key.
 */
export function sqliteLedger (db: DatabaseSync, group: GroupCommit, parts: LedgerParts): TaskLedger {
  const { reservations, slots, accounts, idempotency, repeats, tasks, terms, now } = parts
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

  const earlierOf = ({ subject, idempotency: key, repeat }: Demand): Earlier | null => {
    if (key !== undefined) return idempotency.find(subject, key)
    return repeat === undefined ? null : repeats.find(subject, repeat)
  }

  const take = (id: number, step: Step): boolean => {
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
        return { granted: false, lacks: 'novelty', earlier }
      }
      if (slots.of(subject) >= taskLimit) return { granted: false, lacks: 'slot' }
      const charge = read(() => accounts.chargeFor(demand))
      if (typeof charge === 'string') return { granted: false, lacks: charge }
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
