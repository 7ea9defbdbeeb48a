import type { FastifyInstance } from 'fastify'
import { setTimeout as wait } from 'node:timers/promises'
import type { DestinationStream, Logger } from 'pino'
import { localEvents } from './adapters/local.ts'
import { type WatchedFiles, watchedFiles } from './adapters/watched-files.ts'
import { openAlarms } from './alarms.ts'
import { alarmBoard, type Alarms, benchWatch, storeWatch } from './domain/alarms.ts'
import { type AuditTrail, rejectionCounter, rotations, type SecretRotation, settingsRecord } from './domain/audit.ts'
import { faultText } from './domain/books.ts'
import type { KeyRing } from './domain/key-ring.ts'
import { type Maintenance, maintenance, reconciler, tasksOfGoneKeys } from './domain/maintenance.ts'
import { refreshTask } from './domain/status-poller.ts'
import type { Store } from './domain/store.ts'
import { type Clock, systemClock, systemTimers, type Timers } from './domain/time.ts'
import { hasTokenPrices } from './domain/token-prices.ts'
import { type Verification, verification } from './domain/verification.ts'
import { ownOrigins } from './http/authenticate.ts'
import { type BodyBudget, bodyBudget as createBodyBudget } from './http/body-budget.ts'
import type { OnRequestEnd } from './http/context.ts'
import { accessLine, type Metrics, metrics as openMetrics, programLog, rejections } from './http/observe.ts'
import { type Drain, type Listener, listener } from './http/server.ts'
import type { Services } from './http/services.ts'
import { announcement } from './http/stages.ts'
import { registerAdminRoutes, registerRoutes } from './routes.ts'
import type { Features } from './features.ts'
import { createServices, type Elsewhere, upstreamKey } from './services.ts'
import { type LiveSecrets, liveSecrets, type SecretNews, type Settings, shownSettings } from './settings.ts'
import { openStore, patienceMs, tidyMs } from './stores.ts'

interface SecretHolders {
  readonly secrets: LiveSecrets
  readonly keys: KeyRing
  readonly timers: Timers
}

interface SecretFollowers {
  readonly alarms: Alarms
  /** A secret under which sessions were signed is gone, and they with it. */
  readonly onSessionsEnded: () => void
  /** Writes it into the audit trail, or keeps it until it can; a rejection is logged. */
  readonly writeRotation: (rotation: SecretRotation) => Promise<void>
}

/** Secrets that came from files follow their files. */
export function followSecrets (
  { secretFiles }: Settings,
  { secrets, keys, timers }: SecretHolders,
  log: Logger,
  { alarms, onSessionsEnded, writeRotation }: SecretFollowers
): WatchedFiles {
  const take = (news: SecretNews): void => {
    if ('problem' in news) {
      alarms.raise({
        kind: 'secret-file',
        about: news.setting,
        fields: { ...news },
        text: 'a file with a secret can not be used; what was read before stays in use'
      })
      return
    }
    log.info(news, 'a file with a secret was read again')
    alarms.clear('secret-file', news.setting)
    if (!news.rotated) return
    if (news.setting === 'APIXO_API_KEY') keys.replace(secrets.apiKeys.current.map(upstreamKey))
    if (signsSessions(news.setting) && news.gone.length > 0) onSessionsEnded()
    const { setting } = news
    writeRotation(news).catch(err =>
      log.error({ err, setting }, 'the audit trail does not have this rotation yet; it is tried again')
    )
  }
  return watchedFiles({ paths: [...secretFiles.values()], onChange: () => secrets.refresh().forEach(take), timers })
}

function signsSessions (setting: string): boolean {
  return setting === 'GATEWAY_SESSION_SECRET' || setting.startsWith('issuers[')
}

/** What a test puts in the place of the real thing. */
export interface GatewayOptions extends Elsewhere {
  readonly now?: Clock['now'] | undefined
  readonly elapsed?: Clock['elapsed'] | undefined
  readonly timers?: Timers | undefined
  /** Closed with the gateway. */
  readonly store?: Store | undefined
  /** How often the housekeeping runs, ms. */
  readonly tidyEveryMs?: number | undefined
  readonly logTo?: DestinationStream | undefined
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
  /**
   * Refuses new requests, lets running ones finish within `upstream.drainMs`, cuts off and answers the rest, closes the
   * store.
   */
  close (): Promise<void>
  /** Ends the time that a `close` gives to what runs. */
  hurry (): void
}

/** Subjects and codes whose refusals are counted apart in an hour. */
const maxRefusals = 200
/** Faults of the ledger that stand in one line of the log. */
const maxLoggedFaults = 10

/**
 * The composition root: store → listeners → services → routes. Each part is named once, and where it is opened it is
 * said how it is closed. When a later one fails to start, and when the gateway stops, those before it are closed, the
 * latest first.
 */
export async function createGateway (settings: Settings, test: GatewayOptions = {}): Promise<Gateway> {
  const { now = systemClock.now, elapsed = systemClock.elapsed, timers = systemTimers, tidyEveryMs = tidyMs } = test
  const clock: Clock = { now, elapsed }
  const programs = programLog({ level: settings.logLevel, buffered: !process.stdout.isTTY, destination: test.logTo })
  const { log } = programs
  const metrics = openMetrics(longestOf(settings))
  const alarms = alarmBoard({ log, now, elapsed })

  await using closing = new AsyncDisposableStack()
  closing.defer(() => log.flush())
  const store = closing.adopt(test.store ?? await openWatchedStore(settings, clock, log, alarms), it => it.close())
  reportCutOffSubmits(store, metrics, alarms)
  // The last round of the housekeeping: when all that could give it work has closed, and before the store does.
  let lastRound = async (): Promise<void> => {}
  closing.defer(() => lastRound())

  const audit = openAudit(settings, store.audit, clock)
  const events = store.events ?? localEvents()
  const bodyBudget = openBodyBudget(settings, timers)
  const ports = await openPorts(settings, log, elapsed, [
    accessLine(programs),
    metrics.ended,
    rejections(audit.refused),
    bodyBudget.release,
    announcement({ events, clock })
  ])
  const secrets = liveSecrets(settings)
  const { services, features } = await createServices(settings, {
    app: ports.main.app, store, secrets, clock, timers, log, metrics, alarms, events, bodyBudget, closing, test
  })
  const { keys, ledger } = services
  const { streams } = features.events
  metrics.watch({ keys, ping: services.probeStore, eventStreams: () => streams.count, alarms })
  await registerRoutes(ports.main.app, settings, services, features)
  if (ports.admin !== null) await registerAdminRoutes(ports.admin.app, services, features)

  const failed: Failed = when => err => log.error({ err, owed: ledger.pending }, when)
  const holdKeys = keyHolding(store, keys)
  const verifier = closing.adopt(openVerification(store, metrics, alarms, log, clock), it => it.close())
  const { runOnce: tidy } = housekeeping(store, services, [
    audit.keep,
    services.issueTimes.note,
    storeWatch(services.probeStore, alarms),
    benchWatch(keys, alarms),
    holdKeys,
    ...features.jobs,
    verifier.runDue,
    ...await openAlarms(settings, { alarms, store, services, secrets, clock, log, closing, test }),
    crowding(store, alarms)
  ])
  lastRound = async () => {
    await tidy().catch(failed('the last housekeeping failed'))
    await audit.refused.flush(true).catch(failed('the last refusals are not in the audit trail'))
  }
  const hurry = deferDrain(closing, settings, ports, services, features, failed)
  const round = (): void => { tidy().catch(failed('housekeeping failed; it is tried again')) }
  closing.adopt(setInterval(round, tidyEveryMs).unref(), clearInterval)
  closing.adopt(followSecrets(settings, { secrets, keys, timers }, log, {
    alarms, onSessionsEnded: streams.renew, writeRotation: audit.writeRotation
  }), it => it.close())

  await audit.keep().catch(failed('the audit trail does not have the settings yet; it is tried again'))
  await holdKeys().catch(failed('the other replicas do not know our keys yet; it is tried again'))
  warnOfGoneKeys(store, keys, clock, alarms).catch(failed('tasks whose key is gone could not be counted'))

  const close = once(closing.move())
  const { main, admin } = ports
  return { app: main.app, adminApp: admin?.app, log, tidy, listen: () => listen(settings, ports, close), close, hurry }
}

/** Says in the log what went wrong. */
type Failed = (when: string) => (error: unknown) => void

/** What is for the operator is on one of the two only. */
interface Ports {
  readonly main: Listener
  readonly admin: Listener | null
}

/**
 * The ports are registered last, so that they close first: no new requests, and those that run are answered. Returns
 * what cuts short the time that they have for that.
 */
function deferDrain (
  closing: AsyncDisposableStack,
  { file: { upstream: { drainMs } } }: Settings,
  { main, admin }: Ports,
  { ledger, upstream }: Services,
  { events: { streams }, llm }: Features,
  failed: Failed
): () => void {
  const hurry = Promise.withResolvers<void>()
  const cutOff = (): void => {
    ledger.hurry()
    upstream.close().catch(failed('the calls to the upstream could not be ended'))
    llm?.upstream.close().catch(failed('the LLM calls could not be ended'))
  }
  closing.defer(async () => {
    streams.close() // their requests run for as long as somebody listens
    const drain: Drain = { drainMs, hurried: hurry.promise, cutOff }
    await Promise.all([main.drain(drain), admin?.drain(drain)])
    await upstream.close() // nobody waits for a caller any more, and callbacks are not to wait for the upstream
  })
  return hurry.resolve
}

/** Resolves to the main port's origin. When one of the two can not be had, all is closed before that is told. */
async function listen (
  { host, port, adminPort }: Settings,
  { main, admin }: Ports,
  close: () => Promise<void>
): Promise<string> {
  try {
    await admin?.app.listen({ host, port: adminPort!, listenTextResolver: at => `admin and metrics on ${at}` })
    return await main.app.listen({ host, port, listenTextResolver: at => `listening on ${at}` })
  } catch (error) {
    await close()
    throw error
  }
}

/** Closes all, once: a second call waits for the first. */
function once (open: AsyncDisposableStack): () => Promise<void> {
  let closed: Promise<void> | null = null
  return () => {
    closed ??= open.disposeAsync()
    return closed
  }
}

/** Says in the log when the connection to the store is lost, and when what was in it is. */
async function openWatchedStore (
  settings: Settings, clock: Clock, log: Logger, alarms: Alarms
): Promise<Store> {
  return await openStore(settings, clock, 'server', {
    onLost: err => log.warn({ err }, 'the connection to the store was lost; it is made again'),
    onGone: problem => alarms.raise({
      kind: 'store-gone',
      about: '',
      fields: { problem },
      text: 'the store is not the one it was; nothing is served from it'
    }),
    onUpgrade: upgrade => log.warn(upgrade, 'the ledger is brought up to date; as it was it stays in the copy')
  })
}

function reportCutOffSubmits ({ lost }: Store, metrics: Metrics, alarms: Alarms): void {
  metrics.unknown(lost)
  if (lost > 0) tellUnknown(alarms, lost, 'submits that a crash cut off may have been accepted')
}

function tellUnknown (alarms: Alarms, count: number, text: string): void {
  alarms.raise({ kind: 'unknown-outcome', about: '', fields: { count }, text })
}

/** Tells the other replicas which keys this one has. */
function keyHolding ({ heldKeys }: Store, keys: KeyRing): () => Promise<void> {
  return async () => { await heldKeys?.hold(keys.states().map(({ keyId }) => keyId)) }
}

/** After a key was replaced while nothing ran: how many tasks have to be asked about with another key. */
async function warnOfGoneKeys ({ unfinished }: Store, keys: KeyRing, { now }: Clock, alarms: Alarms): Promise<void> {
  for (const [keyId, count] of await tasksOfGoneKeys({ unfinished, keys, now })) {
    alarms.raise({
      kind: 'key-gone',
      about: keyId,
      fields: { keyId, count },
      text: 'unfinished tasks belong to a key that is not in the ring: the other keys are asked about them'
    }, 'warn')
  }
}

/** How long a request may last, ms: one that waits for its body, the upstream, and a store that has gone away. */
function longestOf ({ file: { upstream: { connectMs, headersMs, bodyIdleMs }, llm, prices } }: Settings): number {
  const answerMs = bodyIdleMs + connectMs + headersMs
  return bodyIdleMs + patienceMs + (hasTokenPrices(prices) ? Math.max(answerMs, llm.totalMs) : answerMs)
}

/** A subject that repeats more lost submits than are remembered may pay for some of them again. */
function crowding ({ repeats }: Store, alarms: Alarms): () => Promise<void> {
  return async () => {
    for (const subject of repeats.takeCrowded()) {
      alarms.raise({
        kind: 'repeats',
        about: '',
        fields: { subject },
        text: 'more lost submits than are remembered: the oldest may be made again'
      })
    }
  }
}

/** What goes into the audit trail by itself, and not with a request. */
function openAudit (settings: Settings, trail: AuditTrail, { now, elapsed }: Clock) {
  const refused = rejectionCounter({ trail, now, elapsed, maxRows: maxRefusals })
  const record = settingsRecord(trail, shownSettings(settings), now)
  const rotated = rotations(trail, now)
  return {
    refused,
    writeRotation: rotated.write,
    async keep (): Promise<void> {
      await record.write()
      await refused.flush()
      await rotated.flush()
    }
  }
}

/** Looks through the books of the ledger, on one of all replicas. */
function openVerification (
  { books, leads }: Store, metrics: Metrics, alarms: Alarms, log: Logger, { now, elapsed }: Clock
): Verification {
  return verification({
    books,
    leads,
    elapsed,
    wait,
    onVerified ({ subjects, tasks, skipped, count, faults }, seconds) {
      metrics.verified(count, seconds, now())
      const looked = { subjects, tasks, skipped, seconds }
      if (count === 0) {
        alarms.clear('ledger-check', '')
        log.info(looked, 'the books of the ledger agree')
        return
      }
      const fields = { count, faults: faults.slice(0, maxLoggedFaults).map(faultText), ...looked }
      const text = 'the books of the ledger do not agree: apixo-gateway verify tells all of it'
      alarms.raise({ kind: 'ledger-check', about: '', fields, text })
    },
    onFailed: err => log.warn({ err }, 'the books of the ledger could not be looked through; it is tried again')
  })
}

function openBodyBudget (
  { file: { limits: { bodyBytes, bodyBytesInFlight } } }: Settings,
  timers: Timers
): BodyBudget {
  return createBodyBudget({ bodyBytes, bodyBytesInFlight, timers })
}

/** The main port, and the admin port when there is one. */
async function openPorts (
  { adminPort, trustProxy, allowedOrigins, publicUrl, file: { limits, upstream } }: Settings,
  log: Logger,
  elapsed: Clock['elapsed'],
  onRequestEnd: readonly OnRequestEnd[]
): Promise<Ports> {
  const common = {
    bodyBytes: limits.bodyBytes,
    socketsPerAddress: limits.socketsPerAddress,
    addressRequestsPerMinute: limits.addressRequestsPerMinute,
    addressFailuresPerMinute: limits.addressFailuresPerMinute,
    stallMs: upstream.bodyIdleMs,
    trustProxy,
    log,
    elapsed,
    onRequestEnd
  }
  const main = await listener({
    ...common,
    allowedOrigins,
    originsSetting: 'GATEWAY_ALLOWED_ORIGINS',
    ownOrigin: ownOrigins(publicUrl)
  })
  if (adminPort === undefined) return { main, admin: null }
  const admin = await listener({
    ...common,
    allowedOrigins: [],
    originsSetting: null,
    ownOrigin: ownOrigins(undefined)
  })
  return { main, admin }
}

function housekeeping (
  store: Store,
  { ledger, poller, keys, clock: { now }, alarms }: Services,
  jobs: ReadonlyArray<() => Promise<void>>
): Maintenance {
  const { unfinished, records } = store
  return maintenance({
    ledger,
    store,
    jobs,
    reconciler: reconciler({
      unfinished, records, ledger, keys, refreshTask: refreshTask({ ledger, poller }), now
    }),
    onUnknown: count => tellUnknown(alarms, count, 'tasks without a known end')
  })
}
