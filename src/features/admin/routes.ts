import type { FastifyInstance } from 'fastify'
import { Readable } from 'node:stream'
import Type, { type Static } from 'typebox'
import type { KeyStatus } from '../../domain/key-ring.ts'
import { readUsageQuery, usageCsv } from '../../domain/records.ts'
import { readTaskFilter } from '../../domain/task-list.ts'
import { instant } from '../../domain/time.ts'
import { badRequest, gatewayError } from '../../errors.ts'
import type { AuthenticateOperator } from '../../http/authenticate.ts'
import {
  formatOf, noBody, operatorRoute, pageOf, type PageRequest, pageSchema, sendCsv, strict, text
} from '../../http/guarded-routes.ts'
import type { Services } from '../../http/services.ts'
import { type Operator, operator as operatorOf } from './admin.ts'
import { creditExtras } from './extras.ts'
import { linesOf, type OperatorServices, stillRunning, subjects as subjectsOf } from './subjects.ts'

const usageSchema = Type.Object(
  { from: text, to: text, by: text, format: Type.Optional(Type.Enum(['json', 'csv'])) },
  strict
)
const tasksSchema = Type.Object(
  { ...pageSchema.properties, subject: text, state: text, model: text, from: text, to: text }, strict
)
const grantSchema = Type.Object({ subject: Type.String(), credits: Type.Number() }, strict)
const extraSchema = Type.Object({
  subject: text,
  pool: text,
  gateway: Type.Optional(Type.Boolean()),
  credits: Type.Number(),
  until: text
}, strict)
const endSchema = Type.Object({ subject: Type.Optional(Type.String()), session: Type.Optional(Type.String()) }, strict)
type UsageRequest = Static<typeof usageSchema>
const subjectSchema = Type.Object({ subject: Type.String() }, strict)
type SubjectRequest = Static<typeof subjectSchema>
type TasksRequest = Static<typeof tasksSchema>
type EndRequest = Static<typeof endSchema>

/** What the operator sees and does. A request that reaches a handler has the admin token. */
export function adminRoutes (
  app: FastifyInstance,
  services: Pick<
    Services,
    'accounts' | 'ledger' | 'records' | 'revocations' | 'issueTimes' | 'tokens' | 'audit' | 'keys' | 'clock'
  >,
  parts: OperatorServices,
  authenticate: AuthenticateOperator
): void {
  const { accounts, records, revocations, issueTimes: times, tokens, audit: trail, clock: { now, elapsed } } = services
  const { deliveries, extras } = parts
  const operator = operatorOf({ accounts, records, deliveries, revocations, times, tokens, trail, actor: 'admin', now })
  const giveExtra = creditExtras({ accounts: extras, trail, actor: 'admin', now })
  const guarded = operatorRoute(authenticate, elapsed)

  const usage = guarded('showUsage', { querystring: usageSchema })
  app.get<{ Querystring: UsageRequest }>('/gateway/admin/usage', usage, async (request, reply) => {
    const report = await operator.usage(readUsageQuery(request.query, now()))
    if (formatOf(request, request.query.format) === 'json') return report
    return sendCsv(reply, report, usageCsv(report))
  })

  const list = guarded('listAllTasks', { querystring: tasksSchema })
  app.get<{ Querystring: TasksRequest }>('/gateway/admin/tasks', list, async ({ query }) => {
    const { cursor, limit, subject, ...narrowed } = query
    return operator.tasks(pageOf({ cursor, limit }), { subject, ...readTaskFilter(narrowed) })
  })

  const show = guarded('showTask', {})
  app.get<{ Params: { id: string } }>('/gateway/admin/tasks/:id', show, async ({ params: { id } }) => {
    const task = await operator.task(id)
    if (task === null) throw gatewayError('GW_TASK_NOT_FOUND')
    return task
  })

  const grant = guarded('grantCredits', { body: grantSchema })
  app.post<{ Body: Static<typeof grantSchema> }>('/gateway/admin/credits', grant, async (request, reply) => {
    const { subject, credits } = request.body
    const granted = await operator.grant(subject, credits)
    reply.code(201)
    return { subject, granted }
  })

  const extra = guarded('giveExtra', { body: extraSchema })
  app.post<{ Body: Static<typeof extraSchema> }>('/gateway/admin/extras', extra, async ({ body }, reply) => {
    reply.code(201)
    return await giveExtra(body)
  })

  const unknown = guarded('listUnknown', { querystring: pageSchema })
  app.get<{ Querystring: PageRequest }>('/gateway/admin/unknown', unknown, async ({ query }) =>
    operator.unknowns(pageOf(query))
  )

  const release = guarded('releaseUnknown', { body: noBody })
  app.post<{ Params: { id: string } }>('/gateway/admin/unknown/:id/release', release, async (request, reply) => {
    if (!await operator.release(request.params.id)) throw gatewayError('GW_TASK_NOT_FOUND')
    return reply.code(204).send()
  })

  const end = guarded('endSessions', { body: endSchema })
  app.post<{ Body: EndRequest }>('/gateway/admin/revocations', end, async ({ body }, reply) => {
    const ended = await endSessions(operator, body)
    reply.code(201)
    return ended
  })

  const audit = guarded('listAudit', { querystring: pageSchema })
  app.get<{ Querystring: PageRequest }>('/gateway/admin/audit', audit, async ({ query }) =>
    operator.audit(pageOf(query))
  )

  keyRoutes(app, services, authenticate)
  subjectRoutes(app, services, parts, authenticate)
}

/** All that is held of one subject: to hand over, and to take away. The name is in the body, and in no log of URLs. */
function subjectRoutes (
  app: FastifyInstance,
  services: Parameters<typeof adminRoutes>[1],
  { deliveries, subjects: data, forgetCopies }: OperatorServices,
  authenticate: AuthenticateOperator
): void {
  const { ledger, records, revocations, issueTimes: times, tokens, audit: trail, clock: { now, elapsed } } = services
  const subjects = subjectsOf({
    taskOf: ledger.taskOf, records, deliveries, revocations, times, tokens, trail, data, forgetCopies, actor: 'admin', now
  })
  const guarded = operatorRoute(authenticate, elapsed)

  const exporting = guarded('exportSubject', { body: subjectSchema })
  app.post<{ Body: SubjectRequest }>('/gateway/admin/exports', exporting, async ({ body: { subject } }, reply) => {
    const parts = await subjects.export(subject)
    return reply.type('application/x-ndjson; charset=utf-8').send(Readable.from(linesOf(parts)))
  })

  const erasing = guarded('eraseSubject', { body: subjectSchema })
  app.post<{ Body: SubjectRequest }>('/gateway/admin/erasures', erasing, async ({ body: { subject } }, reply) => {
    const { unfinished, erased } = await subjects.erase(subject)
    if (erased === null) throw badRequest(stillRunning(subject, unfinished))
    reply.code(201)
    return { subject, ...erased, unfinished }
  })
}

async function endSessions (operator: Operator, { subject, session }: EndRequest) {
  if (subject !== undefined && session === undefined) return { subject, before: await operator.endSessions(subject) }
  if (session === undefined || subject !== undefined) {
    throw badRequest('Send one of the two: subject, or session (its id).')
  }
  await operator.endSession(session)
  return { session }
}

const querystring = Type.Object(
  { balance: Type.Optional(Type.Enum(['true', 'false'])) },
  { additionalProperties: false }
)

/** The upstream keys by fingerprint: which of them serve, and what money they have, when that is asked for. */
function keyRoutes (
  app: FastifyInstance,
  { keys }: Pick<Services, 'keys'>,
  authenticate: AuthenticateOperator
): void {
  /** By way of a doubt: it shares the probe of others, and asks about each key once in ten seconds at the most. */
  const askForBalances = async (): Promise<void> => {
    await Promise.all(keys.states().map(({ keyId }) => keys.verify(keys.byId(keyId)!)))
  }

  app.get<{ Querystring: Static<typeof querystring> }>('/gateway/admin/keys', {
    config: { operation: 'listKeys', opensWith: 'admin token' }, onRequest: authenticate, schema: { querystring }
  }, async request => {
    const withBalance = request.query.balance === 'true'
    if (withBalance) await askForBalances()
    return keys.states().map(status => shown(status, withBalance))
  })
}

function shown ({ keyId, state, since, restingUntil, balance }: KeyStatus, withBalance: boolean) {
  const isBenched = state === 'refused' || state === 'empty'
  return {
    keyId,
    state: isBenched ? 'benched' : state,
    ...(isBenched ? { reason: state } : {}),
    since: instant(since),
    ...(restingUntil === null ? {} : { restingUntil: instant(restingUntil) }),
    ...(withBalance ? { balance } : {})
  }
}
