import { createHash, timingSafeEqual } from 'node:crypto'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import Type, { type Static } from 'typebox'
import type { Plan } from '../../domain/plan.ts'
import type { Secret } from '../../domain/secret.ts'
import { type Revocations, scopes, type SessionIssuer, type SessionVerifier } from '../../domain/session.ts'
import { gatewayError } from '../../errors.ts'
import type { Authenticate } from '../authenticate.ts'
import type { SessionCall } from '../call.ts'
import { credentialOf } from '../credential.ts'

export interface SessionRoutesOptions {
  readonly authenticate: Authenticate
  readonly sessions: SessionIssuer & SessionVerifier
  /** What the app's backend mints sessions with; `undefined`: minting is off. */
  readonly issuerToken: Secret | undefined
  readonly revocations: Revocations
  readonly plans: ReadonlyMap<string, Plan>
  readonly defaultTtlSeconds: number
  readonly maxTtlSeconds: number
}

/** Sessions are minted by the app's backend, looked at and ended by whoever holds one. */
export function sessionRoutes (app: FastifyInstance, options: SessionRoutesOptions): void {
  const { authenticate, sessions, plans, revocations } = options
  const body = sessionRequest(options)

  app.post<{ Body: Static<typeof body> }>('/gateway/sessions', {
    config: { operation: 'mintSession' },
    schema: { body },
    onRequest: authenticateIssuer(options)
  }, async (request, reply) => {
    const { subject, plan = 'default', models = ['*'], ttlSeconds = options.defaultTtlSeconds } = request.body
    if (!plans.has(plan)) throw gatewayError('GW_BAD_REQUEST', { about: `There is no plan ${JSON.stringify(plan)}.` })
    const { token, session } = await sessions.mint({ subject, plan, models, ttlSeconds, scopes: request.body.scopes ?? scopes })
    reply.code(201)
    return { token, subject: session.subject, expiresAt: new Date(session.expiresAt).toISOString() }
  })

  app.get('/gateway/session', { config: { operation: 'showSession' }, onRequest: authenticate }, async request => {
    const { session, plan } = request.call as SessionCall
    return {
      subject: session.subject,
      plan: plan.name,
      models: session.models,
      scopes: session.scopes,
      issuedAt: new Date(session.issuedAt).toISOString(),
      expiresAt: new Date(session.expiresAt).toISOString()
    }
  })

  app.delete('/gateway/session', { config: { operation: 'endSession' }, onRequest: authenticate }, async (request, reply) => {
    const { session } = request.call as SessionCall
    await revocations.revoke(session.id, session.expiresAt)
    return reply.code(204).send()
  })
}

function sessionRequest ({ maxTtlSeconds }: SessionRoutesOptions) {
  return Type.Object({
    // No control characters, and no half of a surrogate pair: a store writes every such half down as the same sign, and
    // two subjects would be one.
    subject: Type.String({ minLength: 1, maxLength: 128, pattern: '^[^\\p{Cc}\\p{Cs}]+$' }),
    ttlSeconds: Type.Optional(Type.Integer({ minimum: 1, maximum: maxTtlSeconds })),
    models: Type.Optional(Type.Array(Type.String({ pattern: '^[A-Za-z0-9._*-]{1,64}$' }), { maxItems: 100 })),
    scopes: Type.Optional(Type.Array(Type.Enum([...scopes]), { maxItems: scopes.length })),
    plan: Type.Optional(Type.String({ maxLength: 64 }))
  }, { additionalProperties: false })
}

/**
 * Only the app's backend mints. A browser gives itself away by `Origin` or `Sec-Fetch-Site` (no script can forge or
 * drop them: https://fetch.spec.whatwg.org/#forbidden-request-header), and a session can't beget another.
 */
function authenticateIssuer ({ issuerToken, sessions }: SessionRoutesOptions) {
  return async (request: FastifyRequest): Promise<void> => {
    if (issuerToken === undefined) throw gatewayError('GW_NOT_FOUND')
    request.call.stage = 'authenticate'
    if (request.headers.origin !== undefined || request.headers['sec-fetch-site'] !== undefined) {
      throw gatewayError('GW_ORIGIN_DENIED', { about: 'Sessions are minted by a backend, never from a page.' })
    }
    const credential = credentialOf(request.raw.rawHeaders)
    if (credential === null) throw gatewayError('GW_NO_SESSION')
    if (isSame(credential, issuerToken)) return
    if (await sessions.verify(credential) !== null) {
      throw gatewayError('GW_SCOPE_DENIED', { about: 'A session can not mint sessions: use the issuer token.' })
    }
    throw gatewayError('GW_BAD_SESSION')
  }
}

/** Equal or not, in a time that says nothing about how much of it is right: both are hashed to one length first. */
function isSame (credential: string, secret: Secret): boolean {
  const digest = (value: string) => createHash('sha256').update(value).digest()
  return timingSafeEqual(digest(credential), digest(secret.reveal()))
}
