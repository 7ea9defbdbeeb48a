import type { FastifyInstance, FastifyRequest } from 'fastify'
import Type, { type Static } from 'typebox'
import type { AuditEntry, AuditKind } from '../../domain/audit.ts'
import { printable } from '../../domain/json.ts'
import {
  type CreditBalance, creditsFrom, creditsLeft, leastLeft, nothingSpent, type SessionSpent
} from '../../domain/ledger.ts'
import { microcredits, type Microcredits, periodAt, type Plan } from '../../domain/policy.ts'
import {
  budgetOf, endedEverywhereMs, isAppOrigin, isTrustworthy, isWebOrigin, maxModels, maxNameLength, modelGlob,
  readAddressRange, scopes, type Session, type SessionRequest
} from '../../domain/session.ts'
import { instant } from '../../domain/time.ts'
import { isTokenId } from '../../domain/tokens.ts'
import { badRequest, gatewayError } from '../../errors.ts'
import { isForeignPage, isSame, serverTokenOf, wrongToken } from '../authenticate.ts'
import { checkQuery } from '../authorize.ts'
import { asHook, contextOf } from '../context.ts'
import { readRoute, type ReadServices } from '../guarded-routes.ts'
import { leftAbove, shownAbove } from '../left.ts'
import { reauthenticateAfterSlowBody } from '../pipeline.ts'
import { holdAddress } from '../receive.ts'
import type { Services } from '../services.ts'

const maxOrigins = 20

/**
 * The body of a minting. Lists of models and scopes may be empty, which means none; one of origins is not left empty.
 */
function sessionRequestSchema (maxTtlSeconds: number) {
  return Type.Object(
    {
      subject: Type.String({ minLength: 1, maxLength: maxNameLength, pattern: printable }),
      ttlSeconds: Type.Optional(Type.Integer({ minimum: 1, maximum: maxTtlSeconds })),
      models: Type.Optional(Type.Array(Type.String({ pattern: modelGlob }), { maxItems: maxModels })),
      scopes: Type.Optional(Type.Array(Type.Enum([...scopes]), { maxItems: scopes.length })),
      origins: Type.Optional(Type.Array(Type.String({ maxLength: 256 }), { minItems: 1, maxItems: maxOrigins })),
      uses: Type.Optional(Type.Integer({ minimum: 1, maximum: 1_000_000_000 })),
      plan: Type.Optional(Type.String({ maxLength: 64 })),
      pool: Type.Optional(Type.String({ maxLength: 64 })),
      addressPrefix: Type.Optional(Type.String({ maxLength: 64 })),
      // Less than a microcredit is nothing that can be counted.
      credits: Type.Optional(Type.Number({ minimum: 0.000_001, maximum: 100_000_000 }))
    },
    { additionalProperties: false }
  )
}

/** What the app's backend sends. */
export type SessionRequestBody = Static<ReturnType<typeof sessionRequestSchema>>

/** What is minted for a body that its schema has let through. Throws `GW_BAD_REQUEST`. */
function readSessionRequest (body: SessionRequestBody, defaultTtlSeconds: number): SessionRequest {
  const {
    subject,
    plan = 'default',
    pool,
    models = ['*'],
    ttlSeconds = defaultTtlSeconds,
    origins,
    uses,
    addressPrefix,
    credits
  } = body
  for (const origin of origins ?? []) {
    if (!isWebOrigin(origin) && !isAppOrigin(origin)) {
      throw badRequest('origins must be exact and https (http on this machine alone): https://app.example')
    }
  }
  const addressRange = addressPrefix === undefined ? undefined : readAddressRange(addressPrefix)
  if (addressRange === null) throw badRequest('addressPrefix must be a network: 203.0.113.0/24 or 2001:db8::/48')
  return {
    subject,
    plan,
    pool,
    models,
    ttlSeconds,
    scopes: body.scopes ?? scopes,
    origins,
    addressRange,
    uses,
    credits: credits === undefined ? undefined : microcredits(credits)
  }
}

type MintServices = Pick<
  Services, 'issuer' | 'verifiers' | 'issuerToken' | 'plans' | 'pools' | 'lifetimes' | 'rates' | 'audit' | 'clock'
>
type ShowServices = ReadServices & Pick<Services, 'accounts' | 'ceilings' | 'clock'>
type EndServices = Pick<
  Services, 'authenticate' | 'revocations' | 'issueTimes' | 'cookie' | 'lifetimes' | 'audit' | 'clock'
>

/** Sessions are minted by the app's backend, and shown to and ended by their holders. */
export function sessionRoutes (app: FastifyInstance, services: MintServices & ShowServices & EndServices): void {
  mintRoute(app, services)
  showRoute(app, services)
  endRoute(app, services)
}

function mintRoute (app: FastifyInstance, services: MintServices): void {
  const { issuer, plans, pools, rates, lifetimes: { defaultTtlSeconds, maxTtlSeconds }, clock: { elapsed } } = services
  const body = sessionRequestSchema(maxTtlSeconds)
  const note = sessionNotes(services)

  app.post<{ Body: SessionRequestBody }>(
    '/gateway/sessions',
    {
      config: { operation: 'mintSession', opensWith: 'issuer token' },
      schema: { body },
      ...reauthenticateAfterSlowBody(authenticateIssuer(services), elapsed)
    },
    async (request, reply) => {
      const asked = readSessionRequest(request.body, defaultTtlSeconds)
      if (!plans.has(asked.plan)) throw badRequest(`There is no plan ${JSON.stringify(asked.plan)}.`)
      if (asked.pool !== undefined && !pools.has(asked.pool)) {
        throw badRequest(`There is no pool ${JSON.stringify(asked.pool)}.`)
      }
      const { token, session } = await issuer.mint(asked)
      request.call.enter('admit')
      await rates.sessions(request, session.subject)
      await note('mint', 'issuer', session, { plan: asked.plan, ttlSeconds: asked.ttlSeconds, ...limitsOf(session) })
      reply.code(201)
      return { token, ...named(session) }
    }
  )
}

function showRoute (app: FastifyInstance, services: ShowServices): void {
  const { accounts, ceilings, clock: { now } } = services

  readRoute(
    app,
    services,
    { url: '/gateway/session', operation: 'showSession', scope: null, query: null, task: null },
    async ({ context }) => {
      const { session, plan } = context.call
      const { start, end } = periodAt(plan.period, now())
      // A store that is down is a 503 here, and not a session without numbers: a page that shows them has one shape to
      // know, and one that could neither submit nor poll has nothing else to offer.
      const [balance, spent, above] = await Promise.all([
        accounts.balanceOf(session.subject, start),
        budgetOf(session) && accounts.spentIn(session.subject, session.rootId),
        leftAbove(services, context.call)
      ])
      const own = leastLeft(creditsLeft(plan, balance), session.credits, spent?.microcredits ?? 0)
      return {
        ...named(session),
        plan: plan.name,
        models: session.models,
        scopes: session.scopes,
        origins: session.origins,
        addressPrefix: session.addressRange,
        issuedAt: instant(session.issuedAt),
        ...whatIsLeft(session, plan, balance, spent, end),
        ...(ceilings !== null && { above: shownAbove(above, own) })
      }
    }
  )
}

function endRoute (app: FastifyInstance, services: EndServices): void {
  const { authenticate, revocations, issueTimes, cookie, lifetimes: { maxTtlSeconds }, clock: { now } } = services
  const note = sessionNotes(services)

  app.delete(
    '/gateway/session',
    { config: { operation: 'endSession' }, onRequest: authenticate },
    async (request, reply) => {
      const { session } = contextOf(request, reply).call
      const isEverywhere = readEverywhere(request)
      await note('revoke', session.subject, session, isEverywhere ? { everywhere: true } : {})
      await revocations.revoke(session.id, session.endsAt)
      if (isEverywhere) {
        const until = now() + Math.max(maxTtlSeconds * 1000, endedEverywhereMs)
        await revocations.revokeSubject(session.subject, await issueTimes.end(), Math.max(session.endsAt, until))
      }
      if (session.isCookie) cookie.clear(reply)
      return reply.code(204).send()
    }
  )
}

function named ({ subject, expiresAt }: Session) {
  return { subject, expiresAt: instant(expiresAt) }
}

/** Of a new session, for the audit trail. */
function limitsOf ({ models, scopes, origins, addressRange, uses, credits, pool }: Session) {
  return {
    models: models.length,
    scopes: scopes.join(' '),
    ...(origins === null ? {} : { origins: origins.length }),
    ...(addressRange === null ? {} : { addressPrefix: addressRange }),
    ...(uses === null ? {} : { uses }),
    ...(credits === null ? {} : { credits: creditsFrom(credits) }),
    ...(pool === null ? {} : { pool })
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
  { uses, credits }: Session,
  plan: Plan,
  balance: CreditBalance,
  { uses: used, microcredits }: SessionSpent = nothingSpent,
  periodEnd: number
) {
  const shown = (microcredits: Microcredits | null) => (microcredits === null ? null : creditsFrom(microcredits))
  return {
    credits: {
      limit: shown(plan.credits === null ? null : plan.credits + (balance.extra ?? 0)),
      used: shown(balance.used),
      granted: shown(balance.granted),
      left: shown(creditsLeft(plan, balance)),
      resetsAt: instant(periodEnd),
      session:
        credits === null
          ? null
          : { limit: shown(credits), used: shown(microcredits), left: shown(Math.max(0, credits - microcredits)) }
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
function authenticateIssuer ({ issuerToken, verifiers }: Pick<Services, 'issuerToken' | 'verifiers'>) {
  return asHook(async request => {
    const token = issuerToken.current
    if (token === undefined) throw gatewayError('GW_NOT_FOUND')
    request.call.enter('authenticate')
    if (request.headers.origin !== undefined || request.headers['sec-fetch-site'] !== undefined) {
      throw gatewayError('GW_ORIGIN_DENIED', { about: 'Sessions are minted by a backend, never from a page.' })
    }
    const credential = serverTokenOf(request.raw.rawHeaders, 'issuer')
    if (isSame(credential, token)) return
    holdAddress(request)
    for (const verifier of verifiers) {
      const verdict = await verifier.verify(credential)
      if (verdict === 'bad') throw gatewayError('GW_BAD_SESSION')
      if (verdict !== null) {
        throw gatewayError('GW_SCOPE_DENIED', { about: 'A session can not mint sessions: use the issuer token.' })
      }
    }
    throw wrongToken('issuer')
  })
}

/** `null` is how the framework shows a schema that there is no body. */
const noBody = { type: 'object', nullable: true, additionalProperties: false } as const

/** A page swaps a token, which any script in it can read, for a cookie, which none can. */
export function cookieSessionRoutes (
  app: FastifyInstance,
  services: Pick<Services, 'authenticate' | 'revocations' | 'audit' | 'cookie' | 'ownOrigin' | 'rates' | 'clock'>
): void {
  const { authenticate, revocations, cookie, ownOrigin, rates, clock: { elapsed } } = services
  const note = sessionNotes(services)

  app.post(
    '/gateway/sessions/cookie',
    {
      config: { operation: 'swapSession' },
      schema: { body: noBody },
      ...reauthenticateAfterSlowBody(authenticate, elapsed)
    },
    async (request, reply) => {
      const {
        call,
        call: { session }
      } = contextOf(request, reply)
      assertSwap(session, request, ownOrigin(request))
      call.enter('admit')
      await rates.sessions(request, session.subject)
      const printed = await cookie.print(session)
      await note('mint', session.subject, printed.session, { insteadOf: session.id })
      // What scripts could read is worth nothing from here on, and of several swaps at once one gets the cookie. A
      // person's own token stays good, for it may be in use elsewhere.
      if (!isTokenId(session.id) && !(await revocations.revoke(session.id, session.endsAt))) {
        throw gatewayError('GW_BAD_SESSION')
      }
      cookie.write(printed, reply)
      reply.code(201)
      return { subject: session.subject, expiresAt: instant(printed.session.expiresAt) }
    }
  )
}

/**
 * A page that has a cookie set for its own session would have its visitors work in that. And a browser that is not on
 * https drops the cookie without a word: the page is told, and keeps its token.
 */
function assertSwap ({ isCookie }: Session, request: FastifyRequest, own: string | null): void {
  if (isCookie) throw badRequest('Send the session token to swap as Authorization: Bearer.')
  if (isForeignPage(request, own)) {
    throw gatewayError('GW_ORIGIN_DENIED', { about: "A cookie is for pages of the gateway's own origin." })
  }
  if (own === null || !isTrustworthy(new URL(own))) {
    throw badRequest(
      'A session cookie needs https, and this request came without: behind a proxy set GATEWAY_TRUST_PROXY or ' +
        'GATEWAY_PUBLIC_URL. Else keep the token and send it as Authorization: Bearer.'
    )
  }
}

/**
 * Writes down that a session begins or ends: before the answer, and before what it tells of is done, so that none does
 * without its entry.
 */
export function sessionNotes ({ audit, clock: { now } }: Pick<Services, 'audit' | 'clock'>) {
  return (kind: AuditKind, actor: string, { id, subject }: Session, more: AuditEntry['detail'] = {}): Promise<void> =>
    audit.append([{ at: now(), kind, actor, subject, detail: { session: id, ...more } }])
}
