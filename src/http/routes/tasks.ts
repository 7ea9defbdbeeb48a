import type { FastifyInstance } from 'fastify'
import { instant } from '../../domain/instant.ts'
import { creditsFrom } from '../../domain/ledger/balance.ts'
import type { TaskRecord, TaskRecords } from '../../domain/ledger/records.ts'
import { openCursor, sealCursor } from '../../domain/operator/cursor.ts'
import { badRequest } from '../../errors.ts'
import type { Authenticate } from '../authenticate.ts'
import { checkQuery, checkScope } from '../authorize.ts'
import { contextOf } from '../call.ts'
import type { Rates } from '../rates.ts'

export interface TaskRoutesOptions {
  readonly authenticate: Authenticate
  readonly records: TaskRecords
  readonly rates: Rates
}

const defaultLimit = 20
const maxLimit = 100

/** The caller's own tasks, the newest first. A page may be shorter than its limit; `next` alone says whether there is more. */
export function taskRoutes (app: FastifyInstance, { authenticate, records, rates: { polls } }: TaskRoutesOptions): void {
  app.get('/gateway/tasks', { config: { operation: 'listTasks' }, onRequest: authenticate }, async (request, reply) => {
    const context = contextOf(request, reply)
    const { call, call: { session } } = context
    call.stage = 'authorize'
    checkScope('tasks:read', session)
    checkQuery(['cursor', 'limit'], request)
    const { cursor, limit } = request.query as { cursor?: string, limit?: string }
    const page = { limit: limitFrom(limit), cursor: cursor === undefined ? null : openCursor(session.subject, cursor) }
    call.stage = 'admit'
    await polls(context)
    const { items, next } = await records.tasksOf(session.subject, page)
    return {
      tasks: items.filter(({ operation }) => operation === 'generateTask').map(shown),
      next: next === null ? null : sealCursor(session.subject, next)
    }
  })
}

function shown ({ taskId, model, stage, state, microcredits, refunded, createdAt, endedAt }: TaskRecord) {
  return {
    taskId,
    model,
    state: state ?? (stage === 'unknown' ? 'unknown' : 'running'),
    credits: creditsFrom(microcredits),
    refunded,
    createdAt: instant(createdAt),
    endedAt: endedAt === null ? null : instant(endedAt)
  }
}

function limitFrom (limit: string | undefined): number {
  if (limit === undefined) return defaultLimit
  if (/^[1-9]\d{0,2}$/.test(limit) && Number(limit) <= maxLimit) return Number(limit)
  throw badRequest(`limit must be a whole number from 1 to ${maxLimit}.`)
}
