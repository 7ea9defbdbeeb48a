import type { FastifyInstance } from 'fastify'
import type { DestinationStream, Logger } from 'pino'
import { nodeTimers } from './adapters/node-timers.ts'
import { jwtSessions } from './adapters/jwt-sessions/jwt-sessions.ts'
import { signedSessions } from './adapters/signed-sessions.ts'
import { caps } from './domain/caps.ts'
import { type Housekeeping, housekeeping } from './domain/housekeeping.ts'
import { invitations } from './domain/invitations.ts'
import type { Live } from './domain/live.ts'
import { priceList } from './domain/models.ts'
import { operator } from './domain/operator.ts'
import { plans as compilePlans } from './domain/plan.ts'
import { pricing } from './domain/pricing.ts'
import { reconciler } from './domain/reconciler.ts'
import { type Refusals, refusals } from './domain/refusals.ts'
import type { Secret } from './domain/secret.ts'
import { settingsRecord } from './domain/settings-record.ts'
import type { Store } from './domain/store.ts'
import { subjectFeed } from './domain/subject-feed.ts'
import { taskEnding } from './domain/task-ending.ts'
import type { Timers } from './domain/timers.ts'
import { tokenDesk } from './domain/token-desk.ts'
import { operatorAuthenticator } from './http/admin.ts'
import { announcement } from './http/announcement.ts'
import { authenticator } from './http/authenticate.ts'
import { readBodies } from './http/bodies.ts'
import { type EventStreams, eventStreams } from './http/event-stream.ts'
import { listener, type ListenerOptions } from './http/listener.ts'
import { accessLine, logger } from './http/logging.ts'
import { withMethods } from './http/methods.ts'
import { type Metrics, metrics } from './http/metrics.ts'
import { ownOrigins } from './http/origins.ts'
import { subjectRates } from './http/rates.ts'
import { resultLinks } from './http/result-links.ts'
import { adminRoutes } from './http/routes/admin.ts'
import { adminKeyRoutes } from './http/routes/admin-keys.ts'
import { batchRoutes } from './http/routes/batches.ts'
import { callbackRoutes } from './http/routes/callbacks.ts'
import { cookieSessionRoutes } from './http/routes/cookie-sessions.ts'
import { deliveryRoutes } from './http/routes/deliveries.ts'
import { eventRoutes } from './http/routes/events.ts'
import { guestRoutes } from './http/routes/guests.ts'
import { healthRoutes } from './http/routes/health.ts'
import { invitationRoutes } from './http/routes/invitations.ts'
import { metricsRoutes } from './http/routes/metrics.ts'
import { mirrorRoutes } from './http/routes/mirror.ts'
import { modelRoutes } from './http/routes/models.ts'
import { resultRoutes } from './http/routes/results.ts'
import { sessionRoutes } from './http/routes/sessions.ts'
import { taskRoutes } from './http/routes/tasks.ts'
import { tokenRoutes } from './http/routes/tokens.ts'
import { sessionCookie } from './http/session-cookie.ts'
import { type Uploads, uploads as boundedUploads } from './http/uploads.ts'
import { readPage } from './pages/page.ts'
import { followSecrets, openParts, type Parts, tidyMs, type WebhookTest } from './parts.ts'
import { type Settings, shownSettings } from './settings.ts'

/** What a test puts in the place of the real thing. */
export interface GatewayOptions {
  readonly now?: () => number
  readonly timers?: Timers
  /** Closed with the gateway. */
  readonly store?: Store
  /** How often the housekeeping runs, ms. */
  readonly tidyEveryMs?: number
  readonly logTo?: DestinationStream
  /** Servers of callers that are on this machine. */
  readonly webhooks?: WebhookTest
  /** Where Turnstile's tokens are verified. */
  readonly siteverifyUrl?: string
}

/** A gateway that is ready to listen. */
export interface Gateway {
  readonly app: FastifyInstance
  /** What listens on the admin port, when there is one. */
  readonly adminApp: FastifyInstance | undefined
  readonly log: Logger
  /** Resolves to the origin it listens on. */
  listen (): Promise<string>
  /** One round of the housekeeping that otherwise runs every few seconds. */
  tidy (): Promise<void>
  /** Refuses new requests, lets running ones finish within `upstream.drainMs`, closes the store. */
  close (): Promise<void>
}

const verifierMs = 5000
/** Subjects and codes whose refusals are counted apart between two rounds of the housekeeping. */
const maxRefusals = 1000

/** The composition root: settings → seams → Fastify. It reads like a contents page; what happens is told elsewhere. */
export async function createGateway (settings: Settings, {
  now = Date.now, timers = nodeTimers(), store, tidyEveryMs = tidyMs, logTo, webhooks, siteverifyUrl
}: GatewayOptions = {}): Promise<Gateway> {
  const { host, port, adminPort, file: { upstream: { drainMs } } } = settings
  const log = logger({ level: settings.logLevel, buffered: !process.stdout.isTTY, ...(logTo === undefined ? {} : { destination: logTo }) })
  const numbers = metrics()
  const parts = await openParts(settings, log, { now, timers, store, webhooks, siteverifyUrl }, numbers)
  const audit = openAudit(settings, parts)
  const streams = eventStreams({ ...parts, ...settings.file.limits, revocations: parts.store.revocations })
  const { main, admin } = await openListeners(settings, parts, { log, numbers, streams, refused: audit.refused })

  const { round: tidy } = openHousekeeping(parts, log, [audit.keep, parts.tidyResults, deliveries(parts)])
  const failed = (when: string) => (error: unknown) => log.error({ err: error, owed: parts.patient.owed }, when)
  const timer = setInterval(() => { tidy().catch(failed('housekeeping failed; it is tried again')) }, tidyEveryMs).unref()
  const secretFiles = followSecrets(settings, parts, log, streams.renew)
  await audit.keep().catch(failed('the audit trail does not have the settings yet; it is tried again'))

  return {
    app: main.app,
    adminApp: admin?.app,
    log,
    tidy,
    async listen () {
      await admin?.app.listen({ host, port: adminPort!, listenTextResolver: address => `admin and metrics on ${address}` })
      return await main.app.listen({ host, port, listenTextResolver: address => `listening on ${address}` })
    },
    async close () {
      clearInterval(timer)
      secretFiles.close()
      streams.close()
      await Promise.all([main.drain(drainMs), admin?.drain(drainMs)])
      parts.watching.close()
      await parts.upstream.close()
      await parts.callbacks.close()
      await parts.deliverer.close()
      await parts.results.close()
      await tidy().catch(failed('the last housekeeping failed'))
      await parts.store.close()
      log.flush()
    }
  }
}

/** On one of all replicas. */
function deliveries ({ store, deliverer }: Parts): () => Promise<void> {
  return async () => { if (await store.leads()) await deliverer.round() }
}

/** What goes into the audit trail by itself, and not with a request. */
function openAudit (settings: Settings, { store: { audit: trail }, now }: Parts) {
  const refused = refusals({ trail, now, maxRows: maxRefusals })
  const record = settingsRecord(trail, shownSettings(settings), now)
  return {
    refused,
    async keep (): Promise<void> {
      await record.write()
      await refused.flush()
    }
  }
}

interface Observers { readonly log: Logger, readonly numbers: Metrics, readonly refused: Refusals, readonly streams: EventStreams }

/** The main port, and the admin port when there is one: what is for the operator is on one of the two only. */
async function openListeners (settings: Settings, parts: Parts, { log, numbers, refused, streams }: Observers) {
  const { adminPort, trustProxy, allowedOrigins, file: { limits } } = settings
  const uploads = boundedUploads(limits)
  const endings: ListenerOptions['endings'] = [
    accessLine(log),
    numbers.ended,
    ({ call }) => { if (call.code !== 'OK' && !call.granted) refused.count(call.code, call.stage, call.session?.subject ?? null) },
    ({ call }) => uploads.release(call),
    announcement(parts)
  ]
  const common = { ...limits, log, trustProxy, endings }
  numbers.watch({ keys: parts.keys, ping: parts.store.ping, eventStreams: () => streams.count })
  const main = await listener({ ...common, allowedOrigins })
  await registerRoutes(main.app, settings, parts, { log, uploads, numbers, streams })
  if (adminPort === undefined) return { main }
  const admin = await listener({ ...common, allowedOrigins: [] })
  await withMethods(admin.app, async () => {
    healthRoutes(admin.app, parts.store.ping)
    await registerOperatorRoutes(admin.app, settings, parts, numbers)
  })
  return { main, admin }
}

function openHousekeeping ({ store, patient, ...parts }: Parts, log: Logger, chores: ReadonlyArray<() => Promise<void>>): Housekeeping {
  return housekeeping({
    patient,
    store,
    chores,
    reconciler: reconciler({ ...parts, ...store, end: taskEnding({ ...parts, ...store }) }),
    onUnknown: count => log.error({ alarm: 'unknown-outcome', count }, 'tasks without a known end')
  })
}

interface Doors { readonly log: Logger, readonly uploads: Uploads, readonly numbers: Metrics, readonly streams: EventStreams }

async function registerRoutes (app: FastifyInstance, settings: Settings, parts: Parts, { log, uploads, numbers, streams }: Doors): Promise<void> {
  const { file } = settings
  const { store } = parts
  const plans = compilePlans(file.plans)
  const sessions = signedSessions({ secrets: parts.secrets.sessionSecrets, now: parts.now })
  const issued = jwtSessions({
    issuers: file.issuers,
    secrets: settings.issuerSecrets,
    now: parts.now,
    onKeysFailed: (issuer, err) => log.warn({ alarm: 'issuer-keys', issuer, err }, 'the keys of an issuer can not be read; those known before stay in use')
  })
  const ownOrigin = ownOrigins(settings.publicUrl)
  const cookie = await sessionCookie(app, { ...file.sessions, issuer: sessions, now: parts.now })
  const authenticate = authenticator({ verifiers: [parts.tokenSessions, sessions, issued], revocations: store.revocations, plans, cookie, ownOrigin, timeoutMs: verifierMs })
  const rates = await subjectRates(app, store.counter === undefined ? undefined : { redis: store.counter, onStoreError: file.limits.onStoreError })
  const rules = { ...parts, extraFields: new Set(file.submit.fields), priceOf: pricing(file.prices), holdCaps: caps(file.caps) }

  await withMethods(app, async () => {
    healthRoutes(app, store.ping)
    await app.register(async scope => {
      readBodies(scope, 'bytes')
      const mirrored = { ...parts, store, entrance: { authenticate, uploads }, rates, rules }
      mirrorRoutes(scope, mirrored)
      if (file.batches.enabled) batchRoutes(scope, mirrored)
    })
    if (file.callbacks.inbound) await app.register(async scope => callbackRoutes(scope, parts.callbacks))
    await app.register(async scope => {
      readBodies(scope, 'object')
      sessionRoutes(scope, { ...parts, ...store, ...file.sessions, authenticate, sessions, cookie, issuerToken: parts.secrets.issuerToken, plans })
      cookieSessionRoutes(scope, { ...parts, ...store, authenticate, cookie, ownOrigin })
      if (parts.guests !== undefined) {
        const { guests, challenges, now } = parts
        const { allowedOrigins } = settings
        guestRoutes(scope, { ...file.sessions, ...file.guests, ...store, guests, challenges, now, authenticate, sessions, rates, allowedOrigins, ownOrigin })
      }
      invitationRoutes(scope, { page: readPage('invitation'), accept: invitations({ ...store, trail: store.audit, now: parts.now }) })
      taskRoutes(scope, { ...store, authenticate, rates })
      deliveryRoutes(scope, { ...store, authenticate, rates })
      modelRoutes(scope, { authenticate, models: settings.models, priceOf: priceList(file.prices) })
      const resultsOf = resultLinks(parts.tickets, settings.publicUrl)
      eventRoutes(scope, { ...parts, ...store, authenticate, rates, streams, resultsOf, feed: subjectFeed({ ...parts, ...store }) })
      resultRoutes(scope, { ...parts, ...store, authenticate, rates, stallMs: file.upstream.bodyIdleMs })
    })
    if (settings.adminPort === undefined) await registerOperatorRoutes(app, settings, parts, numbers)
  })
}

/** Without an admin token there is no admin API, and `/metrics` only where the network decides who gets there. */
async function registerOperatorRoutes (
  app: FastifyInstance, { adminToken, adminPort, publicUrl, file }: Settings, { store, secrets, keys, now }: Parts, numbers: Metrics
): Promise<void> {
  // Whoever has one at the start has one for good: a file that was emptied changes nothing.
  const authenticate = adminToken && operatorAuthenticator(secrets.adminToken as Live<Secret>)
  if (adminPort !== undefined) metricsRoutes(app, numbers)
  else if (authenticate !== undefined) metricsRoutes(app, numbers, authenticate)
  if (authenticate === undefined) return
  await app.register(async scope => {
    readBodies(scope, 'object')
    const office = { ...store, trail: store.audit, actor: 'admin', now } as const
    adminRoutes(scope, { authenticate, now, operator: operator(office) })
    tokenRoutes(scope, { authenticate, desk: tokenDesk({ ...office, ...file.sessions, publicUrl, plans: file.plans }) })
    adminKeyRoutes(scope, { authenticate, keys })
  })
}
