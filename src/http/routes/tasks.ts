import type { FastifyInstance } from 'fastify'
import { creditsFrom, type Task } from '../../domain/ledger.ts'
import { openCursor, sealCursor, type TaskRecord } from '../../domain/records.ts'
import type { ResultsOf } from '../../domain/results.ts'
import { instant } from '../../domain/time.ts'
import { balancePath } from '../../domain/upstream.ts'
import { badRequest } from '../../errors.ts'
import type { SessionRequestState } from '../context.ts'
import { readRoute, type ReadServices } from '../read-route.ts'
import type { Services } from '../services.ts'
import { creditsLeftIn } from './models.ts'

const defaultLimit = 20
const maxLimit = 100

/**
 * The caller's own tasks, the newest first, and where their results are. A page may be shorter than its limit; `next`
 * alone says whether there is more.
 */
export function taskRoutes (
  app: FastifyInstance,
  services: ReadServices & Pick<Services, 'records' | 'resultsOf'>
): void {
  const { records, ledger, resultsOf } = services
  /** Of models that this session may use, as for the results themselves. */
  const linksOf = async (record: TaskRecord, { session, plan }: SessionRequestState): Promise<readonly string[]> => {
    const { taskId, model, state } = record
    if (taskId === null || state !== 'success' || !session.permits(model) || !plan.permits(model)) return []
    return linksIn(await ledger.taskOf(taskId), resultsOf)
  }

  readRoute(app, services, {
    url: '/gateway/tasks', operation: 'listTasks', scope: 'tasks:read', query: ['cursor', 'limit'], task: null
  }, async ({ context: { call }, query: { cursor, limit } }) => {
    const { subject } = call.session
    const page = { limit: limitFrom(limit), cursor: cursor === undefined ? null : openCursor(subject, cursor) }
    const { items, next } = await records.tasksOf(subject, page)
    const tasks = items.filter(({ operation }) => operation === 'generateTask')
    return {
      tasks: await Promise.all(tasks.map(async task => ({ ...shownTask(task), results: await linksOf(task, call) }))),
      next: next === null ? null : sealCursor(subject, next)
    }
  })

  // For a page that waits for one task, by polling its status for one.
  readRoute(app, services, {
    url: '/gateway/tasks/:taskId/results', operation: 'listResults', scope: 'tasks:read', query: [], task: 'own'
  }, ({ task }) => ({ taskId: task.taskId, results: linksIn(task, resultsOf) }))
}

function linksIn (task: Task | null, resultsOf: ResultsOf): readonly string[] {
  return task === null || task.finalAnswer === null ? [] : resultsOf({ ...task, body: task.finalAnswer })
}

function shownTask ({ taskId, model, stage, state, microcredits, refunded, createdAt, endedAt }: TaskRecord) {
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

/**
 * Clients ask here for the balance of their key. A session stands in its place: the answer is what it may still spend.
 */
export function balanceRoute (app: FastifyInstance, services: ReadServices & Pick<Services, 'accounts' | 'clock'>): void {
  readRoute(
    app,
    services,
    { url: balancePath, operation: 'currentBalance', scope: null, query: [], task: null },
    async ({ context }) => {
      const left = await creditsLeftIn(context, services)
      return { code: 200, message: 'success', data: left === null ? null : creditsFrom(left) }
    }
  )
}
