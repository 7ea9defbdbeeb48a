import type { FastifyRequest } from 'fastify'
import type { Live } from '../../domain/live.ts'
import type { Secret } from '../../domain/secret.ts'
import { gatewayError } from '../../errors.ts'
import { isSame } from './comparison.ts'
import { credentialOf } from './credential.ts'

/** Route hook: lets only the operator pass, before a byte of body is read. */
export type AuthenticateOperator = (request: FastifyRequest) => Promise<void>

/**
 * The operator is who sends the admin token as `Authorization: Bearer`, and nobody else: no session, no issuer, and no
 * header that a stock SDK fills with whatever key it was given.
 */
export function operatorAuthenticator (adminToken: Live<Secret>): AuthenticateOperator {
  return async request => {
    request.call.stage = 'authenticate'
    const credential = credentialOf(request.raw.rawHeaders)
    if (credential === null || request.headers.authorization === undefined) throw gatewayError('GW_NO_SESSION')
    if (!isSame(credential, adminToken.current)) throw gatewayError('GW_BAD_SESSION')
    request.call.stage = 'authorize'
  }
}
