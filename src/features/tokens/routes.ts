import type { FastifyInstance } from 'fastify'
import Type, { type Static } from 'typebox'
import { gatewayError } from '../../errors.ts'
import type { AuthenticateOperator } from '../../http/authenticate.ts'
import { noBody, operatorRoute, pageOf, pageSchema, strict } from '../../http/guarded-routes.ts'
import type { Services } from '../../http/services.ts'
import { personalTokens } from './token-admin.ts'

/** Their values are held to the rules of the domain, which the command line shares. */
const tokenFields = {
  subject: Type.String(),
  plan: Type.Optional(Type.String()),
  pool: Type.Optional(Type.String()),
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
    'tokens' | 'records' | 'revocations' | 'issueTimes' | 'audit' | 'plans' | 'pools' | 'lifetimes' | 'publicUrl' |
    'clock'
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
    pools: [...services.pools],
    maxTtlSeconds,
    publicUrl: services.publicUrl ?? undefined,
    now
  })
  const guarded = operatorRoute(authenticate, elapsed)

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
