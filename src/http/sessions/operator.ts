import type { FastifyRequest } from 'fastify'
import type { Live } from '../../domain/live.ts'
import type { Secret } from '../../domain/secret.ts'
import { isSame } from './comparison.ts'
import { noToken, serverTokenOf, wrongToken } from './credential.ts'

/** Route hook: lets only the operator pass, before a byte of body is read. */
export type AuthenticateOperator = (request: FastifyRequest) => Promise<void>

/**
 * The operator is who sends the admin token as `Authorization: Bearer`, and nobody else: no session, no issuer, and no
 * header that a stock SDK fills with whatever key it was given.
 */
export function operatorAuthenticator (adminToken: Live<Secret>): AuthenticateOperator {
  return async request => {
    request.call.stage = 'authenticate'
    const credential = serverTokenOf(request.raw.rawHeaders, 'admin')
    if (request.headers.authorization === undefined) throw noToken('admin')
    if (!isSame(credential, adminToken.current)) throw wrongToken('admin')
    request.call.stage = 'authorize'
  }
}
