import type { FastifyInstance } from 'fastify'
import type { Logger } from 'pino'
import { jwtSessions } from './adapters/jwt-sessions/jwt-sessions.ts'
import { signedSessions } from './adapters/signed-sessions.ts'
import { operator } from './domain/admin.ts'
import { caps, freeModels, officialModels, plans as compilePlans, priceList, pricing } from './domain/policy.ts'
import type { SecretRef, Secret } from './domain/secret.ts'
import { mintedInTime } from './domain/session.ts'
import { subjectEvents } from './domain/task-watcher.ts'
import { personalTokens } from './domain/token-admin.ts'
import { invitations } from './domain/tokens.ts'
import { authenticator, operatorAuthenticator, ownOrigins, sessionGate } from './http/authenticate.ts'
import type { BodyBudget } from './http/body-budget.ts'
import { healthRoutes, type Metrics, metricsRoutes } from './http/observe.ts'
import { subjectRates } from './http/rates.ts'
import { readRoutes } from './http/read-route.ts'
import { earliest } from './http/repeats.ts'
import { adminKeyRoutes, adminRoutes, tokenRoutes } from './http/routes/admin.ts'
import { callbackRoutes, deliveryRoutes } from './http/routes/callbacks.ts'
import { eventRoutes } from './http/routes/events.ts'
import { guestRoutes } from './http/routes/guests.ts'
import { pageRoutes, readPage, staticFileRoutes } from './http/routes/pages.ts'
import { batchRoutes, mirrorRoutes } from './http/routes/proxy.ts'
import { resultLinks, resultRoutes } from './http/routes/results.ts'
import { cookieSessionRoutes, invitationRoutes, sessionRoutes } from './http/routes/sessions.ts'
import { modelRoutes, taskRoutes } from './http/routes/tasks.ts'
import { readBodies, withMethods } from './http/server.ts'
import { sessionCookie } from './http/session-cookie.ts'
import type { EventStreams } from './http/sse.ts'
import type { Services } from './services.ts'
import type { Settings } from './settings.ts'

/** A verifier that has not answered by then vouches for nobody, ms. */
const verifierMs = 5000

/** What the routes share with the rest of the gateway. */
export interface Doors {
  readonly log: Logger
  readonly uploads: BodyBudget
  readonly numbers: Metrics
  readonly streams: EventStreams
}

/** All that the main port answers. */
export async function registerRoutes (
  app: FastifyInstance, settings: Settings, parts: Services, { log, uploads, numbers, streams }: Doors
): Promise<void> {
  const { file, publicUrl, adminPort, staticDir } = settings
  const { store, tickets } = parts
  const who = await openSessions(app, settings, parts, { log, streams })
  const rates = await subjectRates(
    app,
    store.counter === undefined ? undefined : { redis: store.counter, onStoreError: file.limits.onStoreError }
  )
  const rules = {
    ...parts,
    extraFields: new Set(file.submit.fields),
    mayBeOfficial: officialModels(settings.models),
    isFree: freeModels(file.prices),
    priceOf: pricing(file.prices, file.caps),
    enforceCaps: caps(file.caps)
  }
  const readRoute = readRoutes({ authenticate: who.authenticate, ledger: store.ledger, rates })
  const resultsOf = resultLinks(tickets, publicUrl)
  const common = { ...parts, ...store, ...who, rates, readRoute }

  await withMethods(app, async () => {
    healthRoutes(app, store.ping)
    await app.register(async scope => {
      readBodies(scope, 'bytes')
      const entrance = { ...who, uploads, elapsed: parts.elapsed }
      const mirrored = {
        ...parts,
        store,
        entrance,
        readRoute,
        rates,
        rules,
        earliest: earliest({ ...store, timers: parts.timers })
      }
      mirrorRoutes(scope, mirrored)
      if (file.batches.enabled) batchRoutes(scope, mirrored)
    })
    if (file.callbacks.inbound) await app.register(async scope => callbackRoutes(scope, parts.callbacks))
    await app.register(async scope => {
      readBodies(scope, 'object')
      sessionRoutes(scope, { ...common, ...file.sessions, issuerToken: parts.secrets.issuerToken })
      cookieSessionRoutes(scope, common)
      if (parts.guests !== undefined) {
        guestRoutes(scope, { ...common, ...settings, ...file.sessions, ...file.guests, guests: parts.guests })
      }
      invitationRoutes(scope, {
        page: readPage('invitation.html'),
        accept: invitations({ ...common, trail: store.audit })
      })
      const playground = readPage('playground/playground.html', ["img-src 'self' data:", "media-src 'self'"])
      pageRoutes(scope, { playground, hasFrontEnd: staticDir !== undefined })
      taskRoutes(scope, { readRoute, records: store.records, ledger: store.ledger, resultsOf })
      deliveryRoutes(scope, { readRoute, deliveries: store.deliveries })
      modelRoutes(scope, { readRoute, models: settings.models, priceOf: priceList(file.prices) })
      eventRoutes(scope, {
        readRoute,
        watching: parts.watching,
        streams,
        resultsOf,
        feed: subjectEvents(common),
        now: parts.now
      })
      resultRoutes(scope, {
        readRoute, results: parts.results, tickets, hasForeignPages: settings.allowedOrigins.length > 0, now: parts.now
      })
    })
    if (adminPort === undefined) await registerOperatorRoutes(app, settings, parts, numbers)
  })
  // Not under `withMethods`: a POST to what is no route of ours stays a 404, and does not become a 405.
  if (staticDir !== undefined) staticFileRoutes(app, staticDir)
}

/** Who may call, and how that is found out. */
async function openSessions (
  app: FastifyInstance,
  settings: Settings,
  { store, secrets, tokenSessions, times, now, elapsed }: Services,
  { log, streams }: Pick<Doors, 'log' | 'streams'>
) {
  const { file, publicUrl } = settings
  const plans = compilePlans(file.plans)
  const sessions = mintedInTime(signedSessions({ secrets: secrets.sessionSecrets, now }), times)
  const issued = jwtSessions({
    issuers: file.issuers,
    secrets: secrets.issuerSecrets,
    now,
    elapsed,
    onKeysFailed: (issuer, err) =>
      log.warn(
        { alarm: 'issuer-keys', issuer, err },
        'the keys of an issuer can not be read; those known before stay in use'
      ),
    // Who comes back with a token under a key that is gone is refused.
    onKeysChanged: streams.renew
  })
  const ownOrigin = ownOrigins(publicUrl)
  const cookie = await sessionCookie(app, { ...file.sessions, issuer: sessions, ownOrigin, now })
  const { revocations } = store
  const verifiers = [tokenSessions, sessions, issued]
  const { passes, onVouched } = sessionGate(app, { verifiers, own: sessions, cookie, timeoutMs: verifierMs })
  app.letPass(passes)
  const authenticate = authenticator({
    verifiers,
    revocations,
    plans,
    cookie,
    ownOrigin,
    timeoutMs: verifierMs,
    onVouched
  })
  return { authenticate, verifiers, sessions, cookie, ownOrigin, plans }
}

/** Without an admin token there is no admin API, and `/metrics` only where the network decides who gets there. */
export async function registerOperatorRoutes (
  app: FastifyInstance,
  { adminToken, adminPort, publicUrl, file }: Settings,
  { store, secrets, times, keys, now, elapsed }: Services,
  numbers: Metrics
): Promise<void> {
  // Whoever has one at the start has one for good: a file that was emptied changes nothing.
  const authenticate = adminToken && operatorAuthenticator(secrets.adminToken as SecretRef<Secret>)
  if (adminPort !== undefined) metricsRoutes(app, numbers)
  else if (authenticate !== undefined) metricsRoutes(app, numbers, authenticate)
  if (authenticate === undefined) return
  await app.register(async scope => {
    readBodies(scope, 'object')
    const office = { ...store, trail: store.audit, actor: 'admin', times, now } as const
    adminRoutes(scope, { authenticate, now, elapsed, operator: operator(office) })
    tokenRoutes(scope, {
      authenticate,
      elapsed,
      desk: personalTokens({ ...office, ...file.sessions, publicUrl, plans: file.plans })
    })
    adminKeyRoutes(scope, { authenticate, keys })
  })
}
