import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import Type, { type Static } from 'typebox'
import type { Task } from '../domain/ledger.ts'
import type { PageQuery, UsageSpan } from '../domain/records.ts'
import type { Scope } from '../domain/session.ts'
import { batchRow } from '../domain/upstream.ts'
import { badRequest, gatewayError, isGatewayError } from '../errors.ts'
import type { AuthenticateOperator } from './authenticate.ts'
import { checkQuery, checkScope, findOwnTask } from './authorize.ts'
import { contextOf, type RequestContext } from './context.ts'
import { reauthenticateAfterSlowBody } from './pipeline.ts'
import type { Services } from './services.ts'

/** What each route that reads works with. */
export type ReadServices = Pick<Services, 'authenticate' | 'ledger' | 'rates'>

/** What a route wants of its caller before it answers. */
interface ReadRules<Named extends 'own' | null> {
  readonly url: string
  /** As in logs and metrics. */
  readonly operation: string
  /** `null`: any session may. */
  readonly scope: Scope | null
  /** Names that its query may have; `null`: the handler looks at the query itself. */
  readonly query: readonly string[] | null
  /** `own`: the path names a task as `:taskId`, which must be the caller's, and no batch. */
  readonly task: Named
}

/** A call that may be answered. */
interface Read<Named extends 'own' | null> {
  readonly context: RequestContext
  readonly request: FastifyRequest
  readonly reply: FastifyReply
  readonly query: Readonly<Record<string, string | undefined>>
  readonly task: Named extends 'own' ? Task : null
}

type ReadHandler<Named extends 'own' | null> = (read: Read<Named>) => unknown

/**
 * Adds a GET route for callers with a session. Whatever reads goes through the same stages in one order: scope, query,
 * the task is the caller's, its model is permitted, one poll counted. What fails after that is no refusal, unless the
 * handler itself still refuses the caller in *admit*.
 */
export function readRoute<Named extends 'own' | null> (
  app: FastifyInstance,
  services: ReadServices,
  { url, operation, scope, query: names, task: named }: ReadRules<Named>,
  handler: ReadHandler<Named>
): void {
  const { authenticate, rates } = services

  const config = { operation, ...names !== null && { query: names } }
  app.get(url, { config, onRequest: authenticate }, async (request, reply) => {
    const context = contextOf(request, reply)
    const { call } = context
    call.enter('authorize')
    if (scope !== null) checkScope(scope, call.session)
    if (names !== null) checkQuery(names, request)
    const task = named === 'own' ? await findNamedTask(services, context) : null
    call.enter('admit')
    await rates.polls(context)
    call.grant()
    try {
      const query = request.query as Record<string, string>
      return await handler({ context, request, reply, query, task: task as never })
    } catch (error) {
      if (call.stage === 'admit' && isGatewayError(error) && error.statusCode < 500) call.refuse()
      throw error
    }
  })
}

/**
 * The task that the path names as `:taskId`: the caller's, of a model that its session may use, and no batch. A
 * stranger's task and one that does not exist are the same `GW_TASK_NOT_FOUND`.
 */
export async function findNamedTask (
  services: Pick<Services, 'ledger' | 'rates'>, context: RequestContext
): Promise<Task> {
  const { call, call: { session, plan }, request } = context
  const { taskId } = request.params as { taskId: string }
  const task = await findOwnTask(services, context, taskId, null)
  const { model, operation } = task
  // A batch is no task to ask about.
  if (operation === batchRow) return await findOwnTask(services, context, taskId, { model, operation: 'generateTask' })
  if (!session.permits(model) || !plan.permits(model)) throw gatewayError('GW_MODEL_DENIED', { about: model })
  call.taskId = taskId
  call.model = model
  return task
}

export const strict = { additionalProperties: false } as const
/** A query is text: numbers and days are read from it here and in the domain. */
export const text = Type.Optional(Type.String({ maxLength: 1024 }))
export const pageSchema = Type.Object(
  { cursor: text, limit: Type.Optional(Type.String({ pattern: '^[1-9][0-9]{0,2}$' })) },
  strict
)
const noQuery = Type.Object({}, strict)
/** `null` is how the framework shows a schema that there is no body. */
export const noBody = { type: 'object', nullable: true, additionalProperties: false } as const

/** As `pageSchema` has it. */
export interface PageRequest extends Partial<Record<keyof Static<typeof pageSchema>, string | undefined>> {}

/** Makes the options of a route for the operator alone. A request that reaches its handler has the admin token. */
export function operatorRoute (authenticate: AuthenticateOperator, elapsed: () => number) {
  return (operation: string, schema: { readonly querystring?: object, readonly body?: object }) => ({
    config: { operation, opensWith: 'admin token' as const },
    ...reauthenticateAfterSlowBody(authenticate, elapsed),
    schema: { querystring: noQuery, ...schema }
  })
}

/** The query decides; else a person's browser asks for everything, and a spreadsheet's import for CSV. */
export function formatOf (
  { headers: { accept = '' } }: FastifyRequest, format: 'json' | 'csv' | undefined
): 'json' | 'csv' {
  const prefersCsv = /\btext\/csv\b/i.test(accept) && !/\bapplication\/json\b/i.test(accept)
  return format ?? (prefersCsv ? 'csv' : 'json')
}

/** Sums of some days, as a file for a spreadsheet. */
export function sendCsv (reply: FastifyReply, { from, to }: UsageSpan, csv: string): FastifyReply {
  reply.header('content-disposition', `attachment; filename="usage-${from}-${to}.csv"`)
  return reply.type('text/csv; charset=utf-8').send(csv)
}

const defaultLimit = 100
const maxLimit = 500

/** Throws `GW_BAD_REQUEST` for a limit that is too high. */
export function pageOf ({ cursor, limit = String(defaultLimit) }: PageRequest): PageQuery {
  if (Number(limit) > maxLimit) throw badRequest(`limit must be at most ${maxLimit}.`)
  return { cursor, limit: Number(limit) }
}
