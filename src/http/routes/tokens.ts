import type { FastifyInstance } from 'fastify'
import Type, { type Static } from 'typebox'
import type { TokenDesk } from '../../domain/operator/token-desk.ts'
import { badRequest, gatewayError } from '../../errors.ts'
import type { AuthenticateOperator } from '../sessions/operator.ts'
import { withSlowBodies } from '../slow-bodies.ts'

export interface TokenRoutesOptions {
  /** Monotonic ms. */
  readonly elapsed: () => number
  readonly authenticate: AuthenticateOperator
  readonly desk: TokenDesk
}

const strict = { additionalProperties: false } as const
/** Their values are held to the rules of the domain, which the command line shares. */
const wishFields = {
  subject: Type.String(),
  plan: Type.Optional(Type.String()),
  ttlSeconds: Type.Optional(Type.Number()),
  models: Type.Optional(Type.Array(Type.String())),
  scopes: Type.Optional(Type.Array(Type.String()))
}
const wishSchema = Type.Object(wishFields, strict)
const invitationSchema = Type.Object({ ...wishFields, validSeconds: Type.Optional(Type.Number()) }, strict)
/** No body at all is shown to a schema as `null`. */
const rotationSchema = Type.Object({ graceSeconds: Type.Optional(Type.Number()) }, { ...strict, nullable: true })
const text = Type.Optional(Type.String({ maxLength: 1024 }))
const pageSchema = Type.Object({ cursor: text, limit: Type.Optional(Type.String({ pattern: '^[1-9][0-9]{0,2}$' })) }, strict)
const noQuery = Type.Object({}, strict)
const noBody = { type: 'object', nullable: true, additionalProperties: false } as const

interface Rotation { Params: { readonly id: string }, Body: Static<typeof rotationSchema> | undefined }

const defaultLimit = 100
const maxLimit = 500

/** Tokens of a team, and invitations to have one. Who reaches a handler holds the admin token. */
export function tokenRoutes (app: FastifyInstance, { authenticate, desk, elapsed }: TokenRoutesOptions): void {
  const guarded = (name: string, schema: object) =>
    ({ config: { operation: name, opensWith: 'admin token' as const }, ...withSlowBodies(authenticate, elapsed), schema: { querystring: noQuery, ...schema } })

  const create = guarded('createToken', { body: wishSchema })
  app.post<{ Body: Static<typeof wishSchema> }>('/gateway/admin/tokens', create, async ({ body }, reply) => {
    reply.code(201)
    return await desk.create(body)
  })

  const list = guarded('listTokens', { querystring: pageSchema })
  app.get<{ Querystring: Static<typeof pageSchema> }>('/gateway/admin/tokens', list, async ({ query }) => {
    const { cursor, limit = String(defaultLimit) } = query
    if (Number(limit) > maxLimit) throw badRequest(`limit must be at most ${maxLimit}.`)
    return await desk.list({ cursor, limit: Number(limit) })
  })

  const revoke = guarded('revokeToken', { body: noBody })
  app.delete<{ Params: { id: string } }>('/gateway/admin/tokens/:id', revoke, async ({ params: { id } }, reply) => {
    if (!await desk.revoke(id)) throw gatewayError('GW_NOT_FOUND')
    return reply.code(204).send()
  })

  const rotate = guarded('rotateToken', { body: rotationSchema })
  app.post<Rotation>('/gateway/admin/tokens/:id/rotate', rotate, async ({ params: { id }, body }) => {
    const rotated = await desk.rotate(id, body?.graceSeconds)
    if (rotated === null) throw gatewayError('GW_NOT_FOUND')
    return rotated
  })

  const invite = guarded('inviteToToken', { body: invitationSchema })
  app.post<{ Body: Static<typeof invitationSchema> }>('/gateway/admin/invitations', invite, async ({ body }, reply) => {
    const { validSeconds, ...wish } = body
    reply.code(201)
    return await desk.invite(wish, validSeconds)
  })
}
