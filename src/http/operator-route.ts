import Type, { type Static } from 'typebox'
import type { PageQuery } from '../domain/records.ts'
import { badRequest } from '../errors.ts'
import type { AuthenticateOperator } from './authenticate.ts'
import { reauthenticateAfterSlowBody } from './pipeline.ts'

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

export type PageRequest = Static<typeof pageSchema>

/** Makes the options of a route for the operator alone. A request that reaches its handler has the admin token. */
export function operatorRoute (authenticate: AuthenticateOperator, elapsed: () => number) {
  return (operation: string, schema: { readonly querystring?: object, readonly body?: object }) => ({
    config: { operation, opensWith: 'admin token' as const },
    ...reauthenticateAfterSlowBody(authenticate, elapsed),
    schema: { querystring: noQuery, ...schema }
  })
}

const defaultLimit = 100
const maxLimit = 500

/** Throws `GW_BAD_REQUEST` for a limit that is too high. */
export function pageOf ({ cursor, limit = String(defaultLimit) }: PageRequest): PageQuery {
  if (Number(limit) > maxLimit) throw badRequest(`limit must be at most ${maxLimit}.`)
  return { cursor, limit: Number(limit) }
}
