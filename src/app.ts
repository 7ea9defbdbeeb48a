import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import Fastify, { type FastifyInstance, LogController } from 'fastify'
import type { DestinationStream, Logger } from 'pino'
import { signedSessions } from './adapters/signed-sessions.ts'
import { sqliteStore } from './adapters/sqlite/store.ts'
import { undiciUpstream } from './adapters/undici-upstream.ts'
import { caps } from './domain/caps.ts'
import { balancePath } from './domain/catalog.ts'
import { housekeeping } from './domain/housekeeping.ts'
import { type KeyRing, keyRing, readProbe } from './domain/keys.ts'
import { type PatientLedger, patientLedger } from './domain/patient-ledger.ts'
import { plans as compilePlans } from './domain/plan.ts'
import { pricing } from './domain/pricing.ts'
import { reconciler } from './domain/reconciler.ts'
import type { Store } from './domain/store.ts'
import type { Upstream } from './domain/upstream.ts'
import { authenticator } from './http/authenticate.ts'
import { beginCalls } from './http/beginning.ts'
import { readBodies } from './http/bodies.ts'
import { answerBrokenHttp, answerBrokenUrl, renderErrors } from './http/error-handler.ts'
import { lifecycle } from './http/lifecycle.ts'
import { accessLine, logger } from './http/logging.ts'
import { withMethods } from './http/methods.ts'
import { receive } from './http/receive.ts'
import { requestIds } from './http/request-ids.ts'
import { healthRoutes } from './http/routes/health.ts'
import { mirrorRoutes } from './http/routes/mirror.ts'
import { sessionRoutes } from './http/routes/sessions.ts'
import { limitSockets } from './http/sockets.ts'
import { type Uploads, uploads as boundedUploads } from './http/uploads.ts'
import { type Settings, SettingsError } from './settings.ts'

/** What a test puts in the place of the real thing. */
export interface GatewayOptions {
  readonly now?: () => number
  /** How often the housekeeping runs, ms. */
  readonly tidyEveryMs?: number
  readonly logTo?: DestinationStream
}

/** A gateway that is ready to listen. */
export interface Gateway {
  readonly app: FastifyInstance
  readonly log: Logger
  /** Resolves to the origin it listens on. */
  listen (): Promise<string>
  /** One round of the housekeeping that otherwise runs every few seconds. */
  tidy (): Promise<void>
  /** Refuses new requests, lets running ones finish within `upstream.drainMs`, closes the store. */
  close (): Promise<void>
}

const { version } = JSON.parse(readFileSync(join(import.meta.dirname, '../package.json'), 'utf8')) as { readonly version: string }
/** How often what has overstayed is let go, ms. */
const tidyMs = 5000
/** How long a reply waits for a store that has gone away between the upstream's answer and our note of it, ms. */
const patienceMs = 10_000
/** A reservation that is not sent by then never will be, ms. */
const reservedMs = 30_000
/** Node's own limits on a slow caller, ms: https://nodejs.org/api/http.html#serverrequesttimeout */
const requestMs = 120_000
const requestHeadersMs = 20_000
const verifierMs = 5000

/** The composition root: settings → seams → Fastify. It reads like a contents page; what happens is told elsewhere. */
export async function createGateway (settings: Settings, { now = Date.now, tidyEveryMs = tidyMs, logTo }: GatewayOptions = {}): Promise<Gateway> {
  const { file } = settings
  const log = logger({ level: settings.logLevel, buffered: !process.stdout.isTTY, ...(logTo === undefined ? {} : { destination: logTo }) })
  const store = openStore(settings, now)
  if (store.lost > 0) log.error({ alarm: 'unknown-outcome', count: store.lost }, 'submits that a crash cut off may have been accepted')
  const upstream = undiciUpstream({ ...file.upstream, baseUrl: settings.tasksBaseUrl, userAgent: `apixo-gateway/${version}` })
  const keys = openKeys(settings, upstream, log, now)
  const patient = patientLedger({
    ledger: store.ledger,
    now,
    wait,
    patienceMs,
    onOwed: (reservation, step) => log.error({ alarm: 'store-down', reservation, ...step }, 'the store did not take this step; it is kept and tried again')
  })
  const uploads = boundedUploads(file.limits)
  const life = lifecycle()
  const begin = beginCalls({ begun: life.begun, endings: [accessLine(log), ({ call }) => uploads.release(call), life.ended] })

  const app = Fastify({
    loggerInstance: log,
    logController: new LogController({ disableRequestLogging: true }), // one access line of our own instead
    childLoggerFactory: parent => parent, // a child logger a request costs more than it says: each line carries the id
    genReqId: requestIds(),
    trustProxy: settings.trustProxy.length === 0 ? false : [...settings.trustProxy],
    bodyLimit: file.limits.bodyBytes,
    requestTimeout: requestMs,
    http: { headersTimeout: requestHeadersMs, connectionsCheckingInterval: 5000 },
    forceCloseConnections: 'idle',
    return503OnClosing: false, // `receive` says it in our own words
    exposeHeadRoutes: false,
    clientErrorHandler: answerBrokenHttp,
    frameworkErrors: answerBrokenUrl(begin),
    ajv: { customOptions: { coerceTypes: false, removeAdditional: false } }
  }) as unknown as FastifyInstance
  limitSockets(app.server, file.limits.socketsPerAddress)
  renderErrors(app)
  await receive(app, { ...file.limits, begin, allowedOrigins: settings.allowedOrigins, isStopping: life.isStopping })
  await registerRoutes(app, settings, { store, upstream, keys, patient, uploads, now })

  const { round: tidy } = housekeeping({
    patient,
    ledger: store.ledger,
    reconciler: reconciler({ unfinished: store.unfinished, ledger: store.ledger, upstream, keys, now }),
    onUnknown: count => log.error({ alarm: 'unknown-outcome', count }, 'tasks without a known end')
  })
  const timer = setInterval(() => {
    tidy().catch((error: unknown) => log.warn({ err: error }, 'housekeeping failed; it is tried again'))
  }, tidyEveryMs).unref()

  return {
    app,
    log,
    tidy,
    listen: () => app.listen({ host: settings.host, port: settings.port, listenTextResolver: address => `listening on ${address}` }),
    async close () {
      clearInterval(timer)
      await life.drain(app, file.upstream.drainMs)
      await upstream.close()
      await tidy().catch((error: unknown) => log.error({ err: error, owed: patient.owed }, 'the last housekeeping failed'))
      await store.close()
      log.flush()
    }
  }
}

function openStore ({ store, file, origins }: Settings, now: () => number): Store {
  if (store.kind !== 'sqlite') {
    const source = String(origins.get('GATEWAY_STORE'))
    throw new SettingsError([{ setting: 'GATEWAY_STORE', source, problem: 'this version has no Redis store yet', expected: 'sqlite:<path>' }])
  }
  const { upstream, tasks, limits, ledger } = file
  return sqliteStore({
    path: store.path,
    synchronous: ledger.synchronous,
    now,
    terms: {
      reservedMs,
      // A submit that has had all its time upstream and all our patience is not coming back.
      sentMs: upstream.connectMs + upstream.headersMs + upstream.bodyIdleMs + patienceMs + tidyMs,
      giveUpMs: tasks.giveUpMs,
      refundsPerPeriod: limits.refundsPerPeriod
    }
  })
}

function openKeys ({ apiKeys }: Settings, upstream: Upstream, log: Logger, now: () => number): KeyRing {
  return keyRing({
    keys: apiKeys.map(secret => ({ id: secret.fingerprint, secret })),
    probe: key => upstream.send({ method: 'GET', path: balancePath, key }).answer.then(readProbe, () => 'unclear'),
    now,
    onChange: (keyId, state) => state === 'ready'
      ? log.info({ keyId }, 'the key is back in use')
      : log.error({ alarm: 'key-benched', keyId, state }, 'the upstream does not serve this key; it is benched')
  })
}

interface Parts {
  readonly store: Store
  readonly upstream: Upstream
  readonly keys: KeyRing
  readonly patient: PatientLedger
  readonly uploads: Uploads
  readonly now: () => number
}

async function registerRoutes (app: FastifyInstance, settings: Settings, { store, uploads, ...parts }: Parts): Promise<void> {
  const { file } = settings
  const plans = compilePlans(file.plans)
  const sessions = signedSessions({ secrets: settings.sessionSecrets, now: parts.now })
  const authenticate = authenticator({ verifiers: [sessions], revocations: store.revocations, plans, timeoutMs: verifierMs })
  const rules = { extraFields: new Set(file.submit.fields), priceOf: pricing(file.prices), holdCaps: caps(file.caps) }

  await withMethods(app, async () => {
    healthRoutes(app, store.ping)
    await app.register(async scope => {
      readBodies(scope, 'bytes')
      mirrorRoutes(scope, { ...parts, entrance: { authenticate, uploads }, ledger: store.ledger, rules })
    })
    await app.register(async scope => {
      readBodies(scope, 'object')
      sessionRoutes(scope, { ...file.sessions, authenticate, sessions, issuerToken: settings.issuerToken, revocations: store.revocations, plans })
    })
  })
}
