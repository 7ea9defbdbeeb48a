import type { FastifyInstance } from 'fastify'
import { creditsFrom, type Task } from '../../domain/ledger.ts'
import { ownUsage, ownUsageCsv, readOwnUsageQuery } from '../../domain/own-usage.ts'
import type { Quote } from '../../domain/prices.ts'
import { openCursor, sealCursor, type TaskRecord } from '../../domain/records.ts'
import type { ResultsOf } from '../../domain/results.ts'
import { readSubmitBody } from '../../domain/submit.ts'
import { readTaskFilter, taskFilterNames, taskStateOf } from '../../domain/task-list.ts'
import { instant } from '../../domain/time.ts'
import { balancePath } from '../../domain/upstream.ts'
import { badRequest, gatewayError } from '../../errors.ts'
import { checkOperation, keyOfReferences } from '../authorize.ts'
import { contextOf, type RequestContext, type SessionRequestState } from '../context.ts'
import { formatOf, readRoute, type ReadServices, sendCsv } from '../guarded-routes.ts'
import { creditsLeftIn } from '../left.ts'
import { reauthenticateAfterSlowBody } from '../pipeline.ts'
import { ownBodyBytes } from '../server.ts'
import type { Services } from '../services.ts'

/** The models that this session may use: those the operator has written down, its plan and the session permit. */
export function modelRoutes (
  app: FastifyInstance,
  services: ReadServices & Pick<Services, 'models' | 'listedPrice'>
): void {
  const { models, listedPrice } = services
  const rows = models.map(
    model =>
      ({
        scope: model.category === 'text' ? 'llm' : 'tasks:write',
        shown: { ...model, price: listedPrice(model) }
      }) as const
  )

  readRoute(
    app,
    services,
    { url: '/gateway/models', operation: 'listModels', scope: null, query: [], task: null },
    ({ context }) => {
      const { session, plan } = context.call
      const mayUse = rows.filter(
        ({ scope, shown: { id } }) => session.scopes.includes(scope) && session.permits(id) && plan.permits(id)
      )
      return { models: mayUse.map(({ shown }) => shown) }
    }
  )
}

type QuoteServices = ReadServices & Pick<Services, 'submitRules' | 'accounts' | 'ceilings' | 'clock'>

/**
 * What a submit with this body would cost, and whether there is enough left for it. It is held to all that the submit
 * would be held to, and costs a poll: nothing is set aside, sent or remembered. By the time of the submit, less may be
 * left.
 */
export function quoteRoute (app: FastifyInstance, services: QuoteServices): void {
  const { authenticate, rates, clock: { elapsed } } = services
  app.post('/gateway/quote/:model', {
    config: { operation: 'quote' },
    bodyLimit: ownBodyBytes,
    ...reauthenticateAfterSlowBody(authenticate, elapsed)
  }, async (request, reply) => {
    const context = contextOf(request, reply)
    const { call } = context
    call.enter('authorize')
    const { price, rule } = await authorizeQuote(context, services)
    call.enter('admit')
    await rates.polls(context)
    call.grant()
    const left = await creditsLeftIn(services, context.call)
    return {
      model: call.model,
      credits: creditsFrom(price.microcredits),
      refundable: price.refundable,
      rule,
      left: left === null ? null : creditsFrom(left),
      enough: left === null || price.microcredits <= left
    }
  })
}

/** *authorize* for quotes: as for the submit. Throws what that would throw. */
async function authorizeQuote (context: RequestContext, services: QuoteServices): Promise<Quote> {
  const { extraFields, mayBeOfficial, checkCallbackUrl, enforceCaps, quoteOf } = services.submitRules
  const model = checkOperation({ scope: 'tasks:write', query: [] }, context)
  const bytes = context.request.body
  if (!Buffer.isBuffer(bytes)) throw badRequest('Send a JSON body with an input object.')
  const body = readSubmitBody(bytes, {
    extraFields, mayBeOfficial: mayBeOfficial(model), checkCallbackUrl, upstreamTo: null
  })
  enforceCaps(model, body)
  const quote = quoteOf(model, body)
  await keyOfReferences(services, context, body)
  return quote
}

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
    url: '/gateway/tasks',
    operation: 'listTasks',
    scope: 'tasks:read',
    query: ['cursor', 'limit', ...taskFilterNames],
    task: null
  }, async ({ context: { call }, query: { cursor, limit, ...narrowed } }) => {
    const { subject } = call.session
    const page = { limit: limitFrom(limit), cursor: cursor === undefined ? null : openCursor(subject, cursor) }
    const { items, next } = await records.tasksOf(subject, page, readTaskFilter(narrowed))
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

function shownTask (record: TaskRecord) {
  const { taskId, model, microcredits, refunded, createdAt, endedAt, abandonedAt } = record
  return {
    taskId,
    model,
    state: taskStateOf(record),
    credits: creditsFrom(microcredits),
    refunded,
    createdAt: instant(createdAt),
    endedAt: endedAt === null ? null : instant(endedAt),
    abandonedAt: abandonedAt === null ? null : instant(abandonedAt)
  }
}

function limitFrom (limit: string | undefined): number {
  if (limit === undefined) return defaultLimit
  if (/^[1-9]\d{0,2}$/.test(limit) && Number(limit) <= maxLimit) return Number(limit)
  throw badRequest(`limit must be a whole number from 1 to ${maxLimit}.`)
}

/** Reports of one subject that may wait while one is made. */
const maxWaiting = 2

/**
 * What the caller has used, by day, model and state. It counts as a poll, but one of many tasks is the work of seconds:
 * each subject has one made at a time, and its tasks are read in slices, so that nobody else waits for it.
 */
export function usageRoute (
  app: FastifyInstance,
  services: ReadServices & Pick<Services, 'records' | 'clock'>,
  { retentionDays }: { readonly retentionDays: number }
): void {
  const { records, clock: { now } } = services
  const inTurn = oneAtATime(maxWaiting)
  readRoute(app, services, {
    url: '/gateway/usage', operation: 'ownUsage', scope: 'tasks:read', query: ['from', 'to', 'by', 'format'], task: null
  }, async ({ context: { call: { session: { subject } } }, request, reply, query }) => {
    const { format, ...asked } = query
    if (format !== undefined && format !== 'json' && format !== 'csv') throw badRequest('format must be json or csv.')
    const wanted = readOwnUsageQuery(asked, now(), retentionDays)
    const report = await inTurn(subject, () => ownUsage(records, subject, wanted))
    if (formatOf(request, format) === 'json') return report
    return sendCsv(reply, report, ownUsageCsv(report))
  })
}

/** Does what has one name one after the other. Throws `GW_RATE_LIMITED` when too many of a name wait already. */
export function oneAtATime (maxWaiting: number): <T>(name: string, work: () => Promise<T>) => Promise<T> {
  const queues = new Map<string, { last: Promise<unknown>, count: number }>()
  return async (name, work) => {
    const queue = queues.get(name) ?? { last: Promise.resolve(), count: 0 }
    if (queue.count > maxWaiting) throw gatewayError('GW_RATE_LIMITED', { retryAfterSeconds: 1 })
    queues.set(name, queue)
    queue.count++
    const result = queue.last.then(work)
    queue.last = result.catch(() => {})
    try {
      return await result
    } finally {
      if (--queue.count === 0) queues.delete(name)
    }
  }
}

/**
 * Clients ask here for the balance of their key. A session stands in its place: the answer is what it may still spend.
 */
export function balanceRoute (
  app: FastifyInstance, services: ReadServices & Pick<Services, 'accounts' | 'ceilings' | 'clock'>
): void {
  readRoute(
    app,
    services,
    { url: balancePath, operation: 'currentBalance', scope: null, query: [], task: null },
    async ({ context }) => {
      const left = await creditsLeftIn(services, context.call)
      return { code: 200, message: 'success', data: left === null ? null : creditsFrom(left) }
    }
  )
}
