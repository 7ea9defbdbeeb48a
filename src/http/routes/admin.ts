import type { FastifyInstance, FastifyRequest } from 'fastify'
import Type, { type Static } from 'typebox'
import { type Operator, operator as operatorOf, type PageQuery } from '../../domain/admin.ts'
import type { KeyStatus } from '../../domain/key-ring.ts'
import { readUsageQuery, usageCsv } from '../../domain/records.ts'
import { instant } from '../../domain/time.ts'
import { personalTokens } from '../../domain/token-admin.ts'
import { badRequest, gatewayError } from '../../errors.ts'
import type { AuthenticateOperator } from '../authenticate.ts'
import { reauthenticateAfterSlowBody } from '../pipeline.ts'
import type { Services } from '../services.ts'

const strict = { additionalProperties: false } as const
/** A query is text: numbers and days are read from it here and in the domain. */
const text = Type.Optional(Type.String({ maxLength: 1024 }))
const pageSchema = Type.Object(
  { cursor: text, limit: Type.Optional(Type.String({ pattern: '^[1-9][0-9]{0,2}$' })) },
  strict
)
const usageSchema = Type.Object(
  { from: text, to: text, by: text, format: Type.Optional(Type.Enum(['json', 'csv'])) },
  strict
)
const grantSchema = Type.Object({ subject: Type.String(), credits: Type.Number() }, strict)
const endSchema = Type.Object({ subject: Type.Optional(Type.String()), session: Type.Optional(Type.String()) }, strict)
const noQuery = Type.Object({}, strict)
/** `null` is how the framework shows a schema that there is no body. */
const noBody = { type: 'object', nullable: true, additionalProperties: false } as const

type PageRequest = Static<typeof pageSchema>
type UsageRequest = Static<typeof usageSchema>
type EndRequest = Static<typeof endSchema>

const defaultLimit = 100
const maxLimit = 500

/** What the operator sees and does. A request that reaches a handler has the admin token. */
export function adminRoutes (
  app: FastifyInstance,
  services: Pick<Services, 'accounts' | 'records' | 'revocations' | 'issueTimes' | 'tokens' | 'audit' | 'clock'>,
  authenticate: AuthenticateOperator
): void {
  const { accounts, records, revocations, issueTimes: times, tokens, audit: trail, clock: { now, elapsed } } = services
  const operator = operatorOf({ accounts, records, revocations, times, tokens, trail, actor: 'admin', now })
  const guarded = (name: string, schema: object) => ({
    config: { operation: name, opensWith: 'admin token' as const },
    ...reauthenticateAfterSlowBody(authenticate, elapsed),
    schema
  })

  const usage = guarded('showUsage', { querystring: usageSchema })
  app.get<{ Querystring: UsageRequest }>('/gateway/admin/usage', usage, async (request, reply) => {
    const report = await operator.usage(readUsageQuery(request.query, now()))
    if (formatOf(request) === 'json') return report
    reply.header('content-disposition', `attachment; filename="usage-${report.from}-${report.to}.csv"`)
    return reply.type('text/csv; charset=utf-8').send(usageCsv(report))
  })

  const grant = guarded('grantCredits', { body: grantSchema, querystring: noQuery })
  app.post<{ Body: Static<typeof grantSchema> }>('/gateway/admin/credits', grant, async (request, reply) => {
    const { subject, credits } = request.body
    const granted = await operator.grant(subject, credits)
    reply.code(201)
    return { subject, granted }
  })

  const unknown = guarded('listUnknown', { querystring: pageSchema })
  app.get<{ Querystring: PageRequest }>('/gateway/admin/unknown', unknown, async ({ query }) =>
    operator.unknowns(pageOf(query))
  )

  const release = guarded('releaseUnknown', { body: noBody, querystring: noQuery })
  app.post<{ Params: { id: string } }>('/gateway/admin/unknown/:id/release', release, async (request, reply) => {
    if (!await operator.release(request.params.id)) throw gatewayError('GW_TASK_NOT_FOUND')
    return reply.code(204).send()
  })

  const end = guarded('endSessions', { body: endSchema, querystring: noQuery })
  app.post<{ Body: EndRequest }>('/gateway/admin/revocations', end, async ({ body }, reply) => {
    const ended = await endSessions(operator, body)
    reply.code(201)
    return ended
  })

  const audit = guarded('listAudit', { querystring: pageSchema })
  app.get<{ Querystring: PageRequest }>('/gateway/admin/audit', audit, async ({ query }) =>
    operator.audit(pageOf(query))
  )
}

async function endSessions (operator: Operator, { subject, session }: EndRequest) {
  if (subject !== undefined && session === undefined) return { subject, before: await operator.endSessions(subject) }
  if (session === undefined || subject !== undefined) {
    throw badRequest('Send one of the two: subject, or session (its id).')
  }
  await operator.endSession(session)
  return { session }
}

/** The query decides; else a person's browser asks for everything, and a spreadsheet's import for CSV. */
function formatOf ({ query, headers: { accept = '' } }: FastifyRequest<{ Querystring: UsageRequest }>): 'json' | 'csv' {
  const prefersCsv = /\btext\/csv\b/i.test(accept) && !/\bapplication\/json\b/i.test(accept)
  return query.format ?? (prefersCsv ? 'csv' : 'json')
}

function pageOf ({ cursor, limit = String(defaultLimit) }: PageRequest): PageQuery {
  if (Number(limit) > maxLimit) throw badRequest(`limit must be at most ${maxLimit}.`)
  return { cursor, limit: Number(limit) }
}

/** Their values are held to the rules of the domain, which the command line shares. */
const tokenFields = {
  subject: Type.String(),
  plan: Type.Optional(Type.String()),
  ttlSeconds: Type.Optional(Type.Number()),
  models: Type.Optional(Type.Array(Type.String())),
  scopes: Type.Optional(Type.Array(Type.String()))
}
const tokenSchema = Type.Object(tokenFields, strict)
const invitationSchema = Type.Object({ ...tokenFields, validSeconds: Type.Optional(Type.Number()) }, strict)
/** No body at all is shown to a schema as `null`. */
const rotationSchema = Type.Object({ graceSeconds: Type.Optional(Type.Number()) }, { ...strict, nullable: true })

interface Rotation { Params: { readonly id: string }, Body: Static<typeof rotationSchema> | undefined }

/** Tokens of a team, and invitations to have one. A request that reaches a handler has the admin token. */
export function tokenRoutes (
  app: FastifyInstance,
  services: Pick<
    Services,
    'tokens' | 'records' | 'revocations' | 'issueTimes' | 'audit' | 'plans' | 'lifetimes' | 'publicUrl' | 'clock'
  >,
  authenticate: AuthenticateOperator
): void {
  const { tokens, records, revocations, issueTimes, audit, lifetimes: { maxTtlSeconds } } = services
  const { clock: { now, elapsed } } = services
  const personal = personalTokens({
    tokens,
    records,
    revocations,
    times: issueTimes,
    trail: audit,
    actor: 'admin',
    plans: Object.fromEntries(services.plans),
    maxTtlSeconds,
    publicUrl: services.publicUrl ?? undefined,
    now
  })
  const guarded = (name: string, schema: object) => ({
    config: { operation: name, opensWith: 'admin token' as const },
    ...reauthenticateAfterSlowBody(authenticate, elapsed),
    schema: { querystring: noQuery, ...schema }
  })

  const create = guarded('createToken', { body: tokenSchema })
  app.post<{ Body: Static<typeof tokenSchema> }>('/gateway/admin/tokens', create, async ({ body }, reply) => {
    reply.code(201)
    return await personal.create(body)
  })

  const list = guarded('listTokens', { querystring: pageSchema })
  app.get<{ Querystring: Static<typeof pageSchema> }>('/gateway/admin/tokens', list, async ({ query }) =>
    personal.list(pageOf(query))
  )

  const revoke = guarded('revokeToken', { body: noBody })
  app.delete<{ Params: { id: string } }>('/gateway/admin/tokens/:id', revoke, async ({ params: { id } }, reply) => {
    if (!await personal.revoke(id)) throw gatewayError('GW_NOT_FOUND')
    return reply.code(204).send()
  })

  const rotate = guarded('rotateToken', { body: rotationSchema })
  app.post<Rotation>('/gateway/admin/tokens/:id/rotate', rotate, async ({ params: { id }, body }) => {
    const rotated = await personal.rotate(id, body?.graceSeconds)
    if (rotated === null) throw gatewayError('GW_NOT_FOUND')
    return rotated
  })

  const invite = guarded('inviteToToken', { body: invitationSchema })
  app.post<{ Body: Static<typeof invitationSchema> }>('/gateway/admin/invitations', invite, async ({ body }, reply) => {
    const { validSeconds, ...token } = body
    reply.code(201)
    return await personal.invite(token, validSeconds)
  })
}

const querystring = Type.Object(
  { balance: Type.Optional(Type.Enum(['true', 'false'])) },
  { additionalProperties: false }
)

/** The upstream keys by fingerprint: which of them serve, and what money they have, when that is asked for. */
export function adminKeyRoutes (
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
