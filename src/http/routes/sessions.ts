import type { FastifyInstance, FastifyRequest } from 'fastify'
import { instant } from '../../domain/instant.ts'
import type { AuditTrail } from '../../domain/ledger/audit.ts'
import { creditsFrom, creditsLeft } from '../../domain/ledger/balance.ts'
import { type CreditAccounts, type CreditBalance, nothingSpent, type SessionSpent } from '../../domain/ledger/credits.ts'
import type { Live } from '../../domain/live.ts'
import { periodAt, type Plan } from '../../domain/policy/plan.ts'
import type { Microcredits } from '../../domain/policy/pricing.ts'
import type { Secret } from '../../domain/secret.ts'
import type { IssueTimes } from '../../domain/sessions/issue-times.ts'
import {
  budgetOf, endedEverywhereMs, type Revocations, type Session, type SessionIssuer, type SessionVerifier
} from '../../domain/sessions/session.ts'
import type { Clock } from '../../domain/time.ts'
import { badRequest, gatewayError } from '../../errors.ts'
import type { Authenticate } from '../authenticate.ts'
import { checkQuery } from '../authorize.ts'
import { contextOf } from '../call.ts'
import type { ReadRoute } from '../read-route.ts'
import type { Rates } from '../rates.ts'
import { holdAddress } from '../receive.ts'
import { isSame } from '../sessions/comparison.ts'
import { serverTokenOf, wrongToken } from '../sessions/credential.ts'
import type { SessionCookie } from '../sessions/session-cookie.ts'
import { sessionNotes } from '../sessions/session-notes.ts'
import { readSessionRequest, type SessionRequestBody, sessionRequestSchema } from '../sessions/session-request.ts'
import { withSlowBodies } from '../slow-bodies.ts'

export interface SessionRoutesOptions extends Clock {
  readonly authenticate: Authenticate
  readonly readRoute: ReadRoute
  readonly sessions: SessionIssuer
  /** All who vouch for sessions. */
  readonly verifiers: readonly SessionVerifier[]
  /** What the app's backend mints sessions with; `undefined`: minting is off. */
  readonly issuerToken: Live<Secret | undefined>
  readonly revocations: Revocations
  readonly times: Pick<IssueTimes, 'end'>
  readonly accounts: CreditAccounts
  readonly audit: AuditTrail
  readonly cookie: SessionCookie
  readonly rates: Pick<Rates, 'sessions'>
  readonly plans: ReadonlyMap<string, Plan>
  readonly defaultTtlSeconds: number
  readonly maxTtlSeconds: number
}

/** Sessions are minted by the app's backend, looked at and ended by whoever holds one. */
export function sessionRoutes (app: FastifyInstance, options: SessionRoutesOptions): void {
  const { authenticate, sessions, plans, revocations, times, accounts, cookie, rates, maxTtlSeconds, now, elapsed } = options
  const body = sessionRequestSchema(maxTtlSeconds)
  const note = sessionNotes(options)

  app.post<{ Body: SessionRequestBody }>('/gateway/sessions', {
    config: { operation: 'mintSession', opensWith: 'issuer token' },
    schema: { body },
    ...withSlowBodies(authenticateIssuer(options), elapsed)
  }, async (request, reply) => {
    const asked = readSessionRequest(request.body, options.defaultTtlSeconds)
    if (!plans.has(asked.plan)) throw badRequest(`There is no plan ${JSON.stringify(asked.plan)}.`)
    const { token, session } = await sessions.mint(asked)
    request.call.stage = 'admit'
    await rates.sessions(request, session.subject)
    await note('mint', 'issuer', session, { plan: asked.plan, ttlSeconds: asked.ttlSeconds, ...limitsOf(session) })
    reply.code(201)
    return { token, ...named(session) }
  })

  options.readRoute(app, { url: '/gateway/session', operation: 'showSession', scope: null, query: null, task: null }, async ({ context }) => {
    const { session, plan } = context.call
    const { start, end } = periodAt(plan.period, now())
    // A store that is down is a 503 here, and not a session without numbers: a page that shows them has one shape to know,
    // and one that could neither submit nor poll has nothing else to offer.
    const [balance, spent] = await Promise.all([
      accounts.balanceOf(session.subject, start),
      budgetOf(session) && accounts.spentIn(session.subject, session.rootId)
    ])
    return {
      ...named(session),
      plan: plan.name,
      models: session.models,
      scopes: session.scopes,
      origins: session.origins,
      addressPrefix: session.addressRange,
      issuedAt: instant(session.issuedAt),
      ...whatIsLeft(session, plan, balance, spent, end)
    }
  })

  app.delete('/gateway/session', { config: { operation: 'endSession' }, onRequest: authenticate }, async (request, reply) => {
    const { session } = contextOf(request, reply).call
    const isEverywhere = readEverywhere(request)
    await note('revoke', session.subject, session, isEverywhere ? { everywhere: true } : {})
    await revocations.revoke(session.id, session.endsAt)
    if (isEverywhere) {
      const until = now() + Math.max(maxTtlSeconds * 1000, endedEverywhereMs)
      await revocations.revokeSubject(session.subject, await times.end(), Math.max(session.endsAt, until))
    }
    if (session.isCookie) cookie.clear(reply)
    return reply.code(204).send()
  })
}

function named ({ subject, expiresAt }: Session) {
  return { subject, expiresAt: instant(expiresAt) }
}

/** Of a new session, for the audit trail. */
function limitsOf ({ models, scopes, origins, addressRange, uses, credits }: Session) {
  return {
    models: models.length,
    scopes: scopes.join(' '),
    ...(origins === null ? {} : { origins: origins.length }),
    ...(addressRange === null ? {} : { addressPrefix: addressRange }),
    ...(uses === null ? {} : { uses }),
    ...(credits === null ? {} : { credits: creditsFrom(credits) })
  }
}

/** `?everywhere=true` ends all sessions of the subject. */
function readEverywhere (request: FastifyRequest): boolean {
  checkQuery(['everywhere'], request)
  const { everywhere = 'false' } = request.query as { everywhere?: string }
  if (everywhere !== 'true' && everywhere !== 'false') throw badRequest('everywhere must be true or false.')
  return everywhere === 'true'
}

/** `null` is unlimited. `spent`: of a session with limits of its own. */
function whatIsLeft (
  { uses, credits }: Session, plan: Plan, balance: CreditBalance, { uses: used, microcredits }: SessionSpent = nothingSpent, periodEnd: number
) {
  const shown = (microcredits: Microcredits | null) => microcredits === null ? null : creditsFrom(microcredits)
  return {
    credits: {
      limit: shown(plan.credits),
      used: shown(balance.used),
      granted: shown(balance.granted),
      left: shown(creditsLeft(plan, balance)),
      resetsAt: instant(periodEnd),
      session: credits === null ? null : { limit: shown(credits), used: shown(microcredits), left: shown(Math.max(0, credits - microcredits)) }
    },
    uses: uses === null ? null : { limit: uses, left: Math.max(0, uses - used) },
    tasks: { unfinished: balance.unfinished, limit: plan.concurrentTasks },
    requests: { perMinute: plan.requestsPerMinute },
    polls: { perMinute: plan.pollsPerMinute }
  }
}

/**
 * Only the app's backend mints. A browser gives itself away by `Origin` or `Sec-Fetch-Site` (no script can forge or
 * drop them: https://fetch.spec.whatwg.org/#forbidden-request-header), and a session can't beget another.
 */
function authenticateIssuer ({ issuerToken, verifiers }: SessionRoutesOptions) {
  return async (request: FastifyRequest): Promise<void> => {
    const token = issuerToken.current
    if (token === undefined) throw gatewayError('GW_NOT_FOUND')
    request.call.stage = 'authenticate'
    if (request.headers.origin !== undefined || request.headers['sec-fetch-site'] !== undefined) {
      throw gatewayError('GW_ORIGIN_DENIED', { about: 'Sessions are minted by a backend, never from a page.' })
    }
    const credential = serverTokenOf(request.raw.rawHeaders, 'issuer')
    if (isSame(credential, token)) return
    holdAddress(request)
    for (const verifier of verifiers) {
      if (await verifier.verify(credential) !== null) {
        throw gatewayError('GW_SCOPE_DENIED', { about: 'A session can not mint sessions: use the issuer token.' })
      }
    }
    throw wrongToken('issuer')
  }
}
