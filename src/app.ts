import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import type { FastifyInstance } from 'fastify'
import type { DestinationStream, Logger } from 'pino'
import { signedSessions } from './adapters/signed-sessions.ts'
import { sqliteStore } from './adapters/sqlite/store.ts'
import { undiciUpstream } from './adapters/undici-upstream.ts'
import { caps } from './domain/caps.ts'
import { balancePath } from './domain/catalog.ts'
import { type Housekeeping, housekeeping } from './domain/housekeeping.ts'
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
import { lifecycle } from './http/lifecycle.ts'
import { accessLine, logger } from './http/logging.ts'
import { withMethods } from './http/methods.ts'
import { receive } from './http/receive.ts'
import { healthRoutes } from './http/routes/health.ts'
import { mirrorRoutes } from './http/routes/mirror.ts'
import { sessionRoutes } from './http/routes/sessions.ts'
import { server } from './http/server.ts'
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
const verifierMs = 5000

/** The composition root: settings → seams → Fastify. It reads like a contents page; what happens is told elsewhere. */
export async function createGateway (settings: Settings, { now = Date.now, tidyEveryMs = tidyMs, logTo }: GatewayOptions = {}): Promise<Gateway> {
  const { limits, upstream: { drainMs } } = settings.file
  const log = logger({ level: settings.logLevel, buffered: !process.stdout.isTTY, ...(logTo === undefined ? {} : { destination: logTo }) })
  const parts = openParts(settings, log, now)
  const { store, upstream, uploads } = parts

  const life = lifecycle()
  const begin = beginCalls({ begun: life.begun, endings: [accessLine(log), ({ call }) => uploads.release(call), life.ended] })
  const app = server({ ...limits, log, begin, trustProxy: settings.trustProxy })
  await receive(app, { ...limits, begin, allowedOrigins: settings.allowedOrigins, isStopping: life.isStopping })
  await registerRoutes(app, settings, parts)

  const { round: tidy } = openHousekeeping(parts, log)
  const failed = (when: string) => (error: unknown) => log.error({ err: error, owed: parts.patient.owed }, when)
  const timer = setInterval(() => { tidy().catch(failed('housekeeping failed; it is tried again')) }, tidyEveryMs).unref()

  return {
    app,
    log,
    tidy,
    listen: () => app.listen({ host: settings.host, port: settings.port, listenTextResolver: address => `listening on ${address}` }),
    async close () {
      clearInterval(timer)
      await life.drain(app, drainMs)
      await upstream.close()
      await tidy().catch(failed('the last housekeeping failed'))
      await store.close()
      log.flush()
    }
  }
}

/** What stands behind the seams. */
interface Parts {
  readonly store: Store
  readonly upstream: Upstream
  readonly keys: KeyRing
  readonly patient: PatientLedger
  readonly uploads: Uploads
  readonly now: () => number
}

function openParts (settings: Settings, log: Logger, now: () => number): Parts {
  const { upstream: waits, limits } = settings.file
  const store = openStore(settings, now)
  if (store.lost > 0) log.error({ alarm: 'unknown-outcome', count: store.lost }, 'submits that a crash cut off may have been accepted')
  const upstream = undiciUpstream({ ...waits, baseUrl: settings.tasksBaseUrl, userAgent: `apixo-gateway/${version}` })
  const patient = patientLedger({
    ledger: store.ledger,
    now,
    wait,
    patienceMs,
    onOwed: (reservation, step) => log.error({ alarm: 'store-down', reservation, ...step }, 'the store did not take this step; it is kept and tried again')
  })
  return { store, upstream, patient, now, keys: openKeys(settings, upstream, log, now), uploads: boundedUploads(limits) }
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

function openHousekeeping ({ store: { ledger, unfinished }, patient, ...parts }: Parts, log: Logger): Housekeeping {
  return housekeeping({
    patient,
    ledger,
    reconciler: reconciler({ ...parts, ledger, unfinished }),
    onUnknown: count => log.error({ alarm: 'unknown-outcome', count }, 'tasks without a known end')
  })
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
